import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from peer.models.flat import FlatModel, initial_parameters, initial_state, layout_of, named_parameters
from peer.models.initialisation import Uniform, fill
from peer.models.registry import build_module
from peer.plugins import PluginError
from protocols.encoding import digest
from protocols.manifest import AdamW, Data, DataParallel, Manifest, Model

INPUTS = {
    "mlp": torch.linspace(0, 1, 128).view(2, 1, 8, 8),
    "cnn": torch.linspace(0, 1, 128).view(2, 1, 8, 8),
    "gpt": torch.arange(60).view(2, 30),
}
every_architecture = pytest.mark.parametrize("architecture", INPUTS)


def manifest_of(architecture, seed=0, **options):
    training = DataParallel(target_batch=64, optimizer=AdamW(learning_rate=0.01))
    model = Model(architecture=architecture, options=options)
    return Manifest(name="tests", seed=seed, model=model, data=Data(dataset="digits"), training=training, epochs=5)


def initialised(architecture):
    manifest = manifest_of(architecture)
    model = FlatModel.of(manifest.model)
    model.load(initial_parameters(manifest))
    return model


@every_architecture
def test_the_module_computes_with_the_flat_vector(architecture):
    model = initialised(architecture)
    before = model(INPUTS[architecture])
    model.load(model.store() * np.float32(1.5))
    assert not torch.allclose(model(INPUTS[architecture]), before)


@every_architecture
def test_gradients_gather_in_the_flat_vector(architecture):
    model = initialised(architecture)
    model(INPUTS[architecture]).square().sum().backward()
    once = model.gradient.clone()
    assert once.abs().sum() > 0
    for entry, parameter in zip(model.layout, model.module.parameters(), strict=True):
        assert torch.equal(parameter.grad.flatten(), once[entry.elements])
    model(INPUTS[architecture]).square().sum().backward()
    assert torch.allclose(model.gradient, 2 * once)
    model.clear_gradient()
    assert model.gradient.abs().sum() == 0
    assert all(parameter.grad.abs().sum() == 0 for parameter in model.module.parameters())


@every_architecture
def test_a_step_on_the_flat_vector_is_a_step_on_every_parameter(architecture):
    model = initialised(architecture)
    before = model.store()
    optimizer = torch.optim.SGD([model.parameters], lr=0.1)
    model(INPUTS[architecture]).square().mean().backward()
    optimizer.step()
    assert np.allclose(model.store(), before - np.float32(0.1) * model.gradient.numpy())
    exported = dict(named_parameters(model.store(), model.layout))
    for name, parameter in model.module.state_dict().items():
        assert np.array_equal(exported[name], parameter.numpy())


@every_architecture
def test_a_model_learns_its_batch(architecture):
    model = initialised(architecture)
    targets = torch.tensor([3, 7]) if architecture != "gpt" else INPUTS["gpt"].roll(1, dims=1).flatten()
    optimizer = torch.optim.AdamW([model.parameters], lr=0.01)
    losses = []
    for _ in range(60):
        model.clear_gradient()
        loss = functional.cross_entropy(model(INPUTS[architecture]).flatten(0, -2), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_load_and_store_copy():
    model = initialised("mlp")
    parameters = model.store()
    model.load(parameters)
    parameters.fill(0)
    assert np.abs(model.store()).sum() > 0


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("mlp", "ba6bcb8a13069076"),
        ("cnn", "dae47ffe6a316b4b"),
        ("gpt", "d914207528d68a48"),
    ],
)
def test_initial_parameters_are_fixed_to_the_bit(architecture, expected):
    """Members of a run do not send each other the state of epoch 0: each must make the same."""
    parameters = initial_parameters(manifest_of(architecture))
    assert digest(parameters.astype("<f4").tobytes()).hex()[:16] == expected


def test_initial_parameters_follow_from_seed_and_model_alone():
    base = initial_parameters(manifest_of("mlp"))
    again = initial_parameters(manifest_of("mlp").model_copy(update={"epochs": 9, "name": "other"}))
    assert again.tobytes() == base.tobytes()
    assert (initial_parameters(manifest_of("mlp", seed=1)) != base).mean() > 0.9


def test_initial_parameters_do_not_touch_torchs_generator():
    before = torch.get_rng_state()
    FlatModel.of(manifest_of("gpt").model)
    initial_parameters(manifest_of("gpt"))
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_values_are_uniform():
    values = np.empty(100_000, np.float32)
    fill(values, Uniform(2.0), seed=0, name="weight")
    assert np.abs(values).max() < 2
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(2 / math.sqrt(3), rel=0.01)
    histogram, _ = np.histogram(values, bins=20, range=(-2, 2))
    assert histogram == pytest.approx(np.full(20, 5000), rel=0.06)


def test_layers_start_as_their_paper_says():
    layers = dict(named_parameters(initial_parameters(manifest_of("gpt", layers=3)), layout_of(gpt_module(layers=3))))
    assert layers["tokens.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert layers["blocks.0.attention.residual.weight"].std() == pytest.approx(0.02 / math.sqrt(6), rel=0.03)
    assert (layers["blocks.0.attention_norm.weight"] == 1).all()
    assert (layers["blocks.0.expand.bias"] == 0).all()
    hidden = dict(
        named_parameters(initial_parameters(manifest_of("mlp")), layout_of(build_module(Model(architecture="mlp"))))
    )
    assert np.abs(hidden["hidden.0.weight"]).max() == pytest.approx(math.sqrt(6 / 64), rel=0.001)


def gpt_module(**options):
    return build_module(Model(architecture="gpt", options=options))


def test_gpt_does_not_see_the_future():
    model = initialised("gpt")
    tokens = torch.arange(30).view(1, 30)
    changed = tokens.clone()
    changed[0, 20] = 200
    difference = (model(tokens) - model(changed)).abs().amax(dim=2)[0]
    assert difference[:20].max() == 0
    assert difference[20:].min() > 0


def test_initial_state_has_the_outer_optimizers_slots():
    state = initial_state(manifest_of("cnn"))
    assert state.epoch == 0
    assert list(state.slots) == ["first_moment", "second_moment"]
    assert state.run == manifest_of("cnn").run_id


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("mlp", {"width": 0}, "model.options.width"),
        ("mlp", {"widht": 5}, "model.options.widht"),
        ("cnn", {"width": 6}, "model.options.width.*multiple of 4"),
        ("cnn", {"image_size": 7}, "image_size 7 cannot be halved"),
        ("gpt", {"heads": 5}, "width 64 cannot be divided among 5 heads"),
        ("gpt", {"layers": "two"}, "model.options.layers"),
        ("gpt", {"layers": 200, "width": 65_536, "heads": 1}, "parameters cannot be trained"),
        ("resnet", {}, "no model 'resnet'.*cnn, gpt, mlp.*peer.models"),
    ],
)
def test_a_wrong_model_is_named_in_the_error(architecture, options, message):
    with pytest.raises(PluginError, match=message):
        FlatModel.of(Model(architecture=architecture, options=options))


def test_a_module_with_buffers_is_refused():
    with pytest.raises(PluginError, match="'running_mean'"):
        FlatModel(nn.BatchNorm1d(3))


def test_a_module_with_tied_names_is_refused():
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    with pytest.raises(PluginError, match="two names"):
        FlatModel(tied)
