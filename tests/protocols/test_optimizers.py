import numpy as np
import pytest
import torch

from protocols.manifest import AdamW, Sgd
from protocols.optimizers import learning_rate, make_optimizer

SPECS = [
    Sgd(learning_rate=0.1),
    Sgd(learning_rate=0.1, weight_decay=0.01),
    Sgd(learning_rate=0.1, momentum=0.9),
    Sgd(learning_rate=0.7, momentum=0.9, nesterov=True, weight_decay=0.001),
    AdamW(learning_rate=0.01),
    AdamW(learning_rate=0.01, beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1),
]


def torch_optimizer(spec, parameters):
    if isinstance(spec, Sgd):
        return torch.optim.SGD(
            [parameters],
            lr=spec.learning_rate,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    return torch.optim.AdamW(
        [parameters],
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
    )


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_twenty_steps_agree_with_torch(spec):
    generator = np.random.default_rng(0)
    ours = generator.standard_normal(1000).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    reference = torch_optimizer(spec, theirs)
    optimizer = make_optimizer(spec, total_epochs=20)
    slots = optimizer.initial_slots(1000)
    for epoch in range(20):
        update = generator.standard_normal(1000).astype(np.float32)
        ours, slots = optimizer.step(ours, update, slots, epoch)
        theirs.grad = torch.from_numpy(update)
        reference.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_step_is_pure_and_each_element_goes_its_own_way(spec):
    """So that any piece of a step can be recomputed alone, with the same bits."""
    generator = np.random.default_rng(0)
    count = 70_001  # more than one slice, and no multiple of a vector register
    parameters, update = (generator.standard_normal(count).astype(np.float32) for _ in range(2))
    optimizer = make_optimizer(spec, 10)
    slots = {name: np.abs(generator.standard_normal(count)).astype(np.float32) for name in optimizer.slot_names}
    inputs = [vector.tobytes() for vector in (parameters, update, *slots.values())]
    new_parameters, new_slots = optimizer.step(parameters, update, slots, epoch=3)
    assert [vector.tobytes() for vector in (parameters, update, *slots.values())] == inputs
    for start, stop in ((0, 1), (65_535, 65_538), (69_990, count)):
        piece = slice(start, stop)
        alone, alone_slots = optimizer.step(
            parameters[piece], update[piece], {name: slot[piece] for name, slot in slots.items()}, epoch=3
        )
        assert alone.tobytes() == new_parameters[piece].tobytes()
        for name in optimizer.slot_names:
            assert alone_slots[name].tobytes() == new_slots[name][piece].tobytes()


def test_nesterov_sgd_equals_its_definition_to_the_bit():
    spec = Sgd(learning_rate=0.7, momentum=0.9, nesterov=True)
    parameters, update, momentum = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    after, slots = make_optimizer(spec, 10).step(parameters, update, {"momentum": momentum}, 0)
    rate, factor = np.float32(0.7), np.float32(0.9)
    for i in range(50):
        buffer = np.float32(np.float32(momentum[i] * factor) + update[i])
        direction = np.float32(np.float32(buffer * factor) + update[i])
        assert slots["momentum"][i] == buffer
        assert after[i] == np.float32(parameters[i] - np.float32(direction * rate))


def test_an_update_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="3 elements for 2"):
        make_optimizer(SPECS[0], 10).step(np.zeros(2, np.float32), np.zeros(3, np.float32), {}, 0)


def test_the_rate_warms_up_and_decays_linearly():
    spec = Sgd(learning_rate=1.0, warmup_epochs=4, final_learning_rate=0.2)
    rates = [learning_rate(spec, epoch, total_epochs=12) for epoch in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:13] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert rates[13] == 0.2


def test_without_a_final_rate_it_stays():
    spec = AdamW(learning_rate=0.5)
    assert {learning_rate(spec, epoch, 10) for epoch in range(10)} == {0.5}
