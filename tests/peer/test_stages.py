from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peer.data.dataset import DatasetError
from peer.data.registry import DatasetKind, loss_of, open_dataset
from peer.models.flat import FlatModel, initial_parameters, layout_of, named_parameters
from peer.models.registry import build_module
from peer.models.stages import (
    activation_shape,
    join,
    layers_of,
    parameter_count,
    stage_model,
    stage_state,
    stage_tensors,
    whole_layout,
    whole_model,
)
from peer.plugins import PluginError, PluginOptions
from peer.swarm.compute import Forgotten, StageCompute
from peer.swarm.kept_passes import Passage, SavedBytes
from protocols.activations import TensorHeader
from protocols.identity import PeerId
from protocols.manifest import Data, Manifest, Model, Pipeline, Sgd
from protocols.rejection import Reason
from tests.protocols.refusals import refusal

LAYERS = 5
OPTIONS = {
    "gpt": {"layers": LAYERS, "width": 32, "vocabulary": 50, "context": 20},
    "mlp": {"layers": LAYERS, "width": 24, "inputs": 64, "classes": 10},
}
DATA = {"gpt": Data(dataset="text", options={"context": 20}), "mlp": Data(dataset="digits")}
PASSAGE = Passage(PeerId("trainer"), 0, 3, TensorHeader(encoding="none", shape=(4, 64)), b"inputs")
every_architecture = pytest.mark.parametrize("architecture", OPTIONS)
every_cut = pytest.mark.parametrize("cut", [2, 3, 5, [1, 4], [3, 1, 1]], ids=str)


def pipeline(stages=2):
    return Pipeline.model_validate(
        {"stages": stages, "batch_size": 4, "target_batch": 8, "optimizer": Sgd(learning_rate=0.1, momentum=0.5)}
    )


def manifest_of(architecture, cut=2, seed=3, **options):
    model = Model(architecture=architecture, options=OPTIONS.get(architecture, {}) | options)
    data = DATA.get(architecture, DATA["mlp"])
    return Manifest(name="stages", seed=seed, model=model, data=data, training=pipeline(cut), epochs=5)


def batch_of(architecture):
    generator = torch.Generator().manual_seed(1)
    if architecture == "mlp":
        return torch.rand(4, 1, 8, 8, generator=generator), torch.randint(10, (4,), generator=generator)
    tokens = torch.randint(50, (4, 18), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def stages_of(manifest):
    return range(manifest.training.stages)


def computes_of(manifest):
    last = manifest.training.stages - 1
    loss = loss_of(manifest.data)
    return [
        StageCompute(stage_model(manifest, stage), first=stage == 0, last=stage == last, loss=loss)
        for stage in stages_of(manifest)
    ]


def parameters_of(manifest):
    return [stage_state(manifest, stage).parameters for stage in stages_of(manifest)]


def activations_of(manifest, architecture):
    """What each stage takes."""
    inputs, _ = batch_of(architecture)
    taken = [inputs]
    for compute, vector in zip(computes_of(manifest), parameters_of(manifest), strict=True):
        taken.append(compute.forward(vector, taken[-1]))
    return taken[:-1]


def gradients_of(result):
    """A copy."""
    return result.grad_inputs, result.gradient.copy()


def equal(one, other):
    """To the bit."""
    same_inputs = one[0] is other[0] is None or torch.equal(one[0], other[0])
    return same_inputs and np.array_equal(one[1], other[1])


def whole_with(manifest, parameters):
    whole = whole_model(manifest)
    whole.load(join(parameters))
    return whole


@every_architecture
@every_cut
def test_stages_one_after_the_other_compute_what_the_whole_model_does(architecture, cut):
    manifest = manifest_of(architecture, cut)
    inputs, targets = batch_of(architecture)
    computes, parameters = computes_of(manifest), parameters_of(manifest)
    whole = whole_with(manifest, parameters)
    outputs = whole(inputs)
    loss = loss_of(manifest.data)(outputs, targets)
    loss.backward()

    passed = [inputs]
    for compute, vector in zip(computes, parameters, strict=True):
        passed.append(compute.forward(vector, passed[-1]))
    assert torch.allclose(passed[-1], outputs, rtol=1e-5, atol=1e-6)

    result = computes[-1].backward_from_loss(parameters[-1], passed[-2], targets)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    gradients = [result.gradient]
    for stage in reversed(stages_of(manifest)[:-1]):
        result = computes[stage].backward(parameters[stage], passed[stage], result.grad_inputs)
        assert result.finite
        assert result.loss is None
        gradients.insert(0, result.gradient)
    assert result.grad_inputs is None
    joined, expected = join(gradients), whole.gradient.numpy()
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(joined, expected, rtol=1e-4, atol=1e-6)


@every_architecture
@every_cut
def test_stages_begin_with_the_bits_of_the_whole_model(architecture, cut):
    manifest = manifest_of(architecture, cut)
    whole = dict(named_parameters(join(parameters_of(manifest)), whole_layout(manifest)))
    uncut = dict(
        named_parameters(initial_parameters(manifest), layout_of(build_module(manifest.model)))
    )  # without a matrix of its own for the outputs
    assert set(whole) - set(uncut) == ({"output.weight"} if architecture == "gpt" else set())
    for name, values in uncut.items():
        assert whole[name].tobytes() == values.tobytes()
    assert "3" in {name.split(".")[1] for stage in stages_of(manifest) for name, _ in stage_names(manifest, stage)}


def stage_names(manifest, stage):
    return stage_model(manifest, stage).module.named_parameters()


@every_architecture
@every_cut
def test_the_whole_layout_is_that_of_the_whole_model(architecture, cut):
    manifest = manifest_of(architecture, cut)
    layout = whole_layout(manifest)
    assert layout == whole_model(manifest).layout
    assert sum(parameter_count(manifest, stage) for stage in stages_of(manifest)) == sum(e.count for e in layout)


@every_architecture
def test_a_stage_has_the_parameters_of_its_layers_alone(architecture):
    manifest = manifest_of(architecture, [1, 1, 2, 1])
    counts = [parameter_count(manifest, stage) for stage in stages_of(manifest)]
    assert counts == [stage_model(manifest, stage).parameter_count for stage in stages_of(manifest)]
    assert counts[2] == 2 * counts[1]
    assert counts[1] < min(counts[0], counts[3])


def test_a_stage_takes_no_more_memory_when_the_others_hold_more():
    small, huge = (manifest_of("mlp", [1, layers], layers=1 + layers, width=4096) for layers in (1, 60))
    assert parameter_count(small, 0) == parameter_count(huge, 0) == stage_model(huge, 0).parameter_count
    assert parameter_count(huge, 1) > 60 * 4096**2  # 4 GB that are never allocated


def test_states_of_stages_that_are_equal_in_all_else_differ():
    manifest = manifest_of("mlp", 5)
    states = [stage_state(manifest, stage) for stage in stages_of(manifest)]
    assert [state.run for state in states] == [f"{manifest.run_id}/{stage}" for stage in range(5)]
    assert states[1].parameter_count == states[2].parameter_count
    assert len({state.digest for state in states}) == 5
    assert all(state.epoch == 0 and list(state.slots) == ["momentum"] for state in states)
    assert stage_state(manifest, 3).digest == states[3].digest


@given(total=st.integers(2, 256), data=st.data())
def test_layers_are_shared_out_evenly_and_each_is_held_once(total, data):
    stages = data.draw(st.integers(2, min(total, 64)))
    ranges = layers_of(pipeline(stages), total)
    assert len(ranges) == stages
    assert [layer for each in ranges for layer in each] == list(range(total))
    assert all(0 <= len(before) - len(after) <= 1 for before, after in pairwise(ranges))


def test_a_list_says_how_many_layers_each_stage_holds():
    assert layers_of(pipeline([3, 1, 2]), 6) == (range(3), range(3, 4), range(4, 6))


@pytest.mark.parametrize(
    ("cut", "options", "message"),
    [
        (6, {}, r"training.stages: 5 layers \(model.options.layers\) are too few for 6"),
        ([1, 3], {}, r"training.stages: 1 \+ 3 are 4 layers, and the model has 5"),
        (2, {"width": 0}, "model.options.width"),
    ],
)
@every_architecture
def test_a_wrong_cut_is_named_in_the_error(architecture, cut, options, message):
    with pytest.raises(PluginError, match=message):
        parameter_count(manifest_of(architecture, cut, **options), 0)


def test_a_model_without_layers_cannot_be_cut():
    with pytest.raises(PluginError, match=r"model.architecture: 'cnn' cannot be cut into stages"):
        stage_model(manifest_of("cnn"), 0)


@every_architecture
def test_recomputing_gives_the_gradients_of_a_graph_that_was_kept(architecture):
    manifest = manifest_of(architecture, 2)
    inputs, targets = batch_of(architecture)
    computes, parameters = computes_of(manifest), parameters_of(manifest)
    between = computes[0].forward(parameters[0], inputs)
    result = computes[1].backward_from_loss(parameters[1], between, targets)

    kept = [FlatModel(stage_model(manifest, stage).module) for stage in range(2)]
    for model, vector in zip(kept, parameters, strict=True):
        model.load(vector)
    border = kept[0](inputs)
    border.retain_grad()
    loss_of(manifest.data)(kept[1](border), targets).backward()
    assert torch.equal(result.grad_inputs, border.grad)
    assert np.array_equal(result.gradient, kept[1].gradient.numpy())
    computes[0].backward(parameters[0], inputs, result.grad_inputs)
    again = computes[0].backward(parameters[0], inputs, result.grad_inputs)  # gradients do not add up
    assert np.array_equal(again.gradient, kept[0].gradient.numpy())


@every_architecture
@pytest.mark.parametrize("stage", [0, 1])
def test_a_forward_pass_that_was_kept_is_not_computed_again(architecture, stage):
    manifest = manifest_of(architecture, 3)
    inputs = activations_of(manifest, architecture)[stage]
    model, parameters = stage_model(manifest, stage), parameters_of(manifest)[stage]
    calls = []
    model.module.register_forward_pre_hook(lambda *_: calls.append(stage))
    compute = StageCompute(model, first=stage == 0, last=False, loss=loss_of(manifest.data))
    outputs = compute.forward(parameters, inputs)
    wanted = gradients_of(compute.backward(parameters, inputs, outputs.sin()))

    assert torch.equal(compute.forward(parameters, inputs, PASSAGE), outputs)
    compute.forward(parameters, inputs, replace(PASSAGE, microbatch=4))
    assert not compute.forward(parameters, inputs, replace(PASSAGE, epoch=1)).requires_grad
    calls.clear()
    assert compute.has_kept(PASSAGE)
    assert equal(gradients_of(compute.backward(parameters, None, outputs.sin(), PASSAGE)), wanted)
    assert not calls
    assert not compute.has_kept(PASSAGE)
    with pytest.raises(Forgotten):
        compute.backward(parameters, None, outputs.sin(), PASSAGE)
    assert equal(gradients_of(compute.backward(parameters, inputs, outputs.sin(), PASSAGE)), wanted)
    assert len(calls) == 1  # asked for once more, it is


def test_a_forward_pass_with_other_parameters_is_no_use():
    manifest = manifest_of("mlp")
    compute, parameters = computes_of(manifest)[0], parameters_of(manifest)[0]
    inputs, _ = batch_of("mlp")
    others = parameters * np.float32(2)
    wanted = gradients_of(compute.backward(others, inputs, torch.ones(4, 24)))
    compute.forward(parameters, inputs, PASSAGE)
    assert equal(gradients_of(compute.backward(others, inputs, torch.ones(4, 24), PASSAGE)), wanted)
    compute.forward(parameters, inputs, PASSAGE)
    with pytest.raises(Forgotten):
        compute.backward(others, None, torch.ones(4, 24), PASSAGE)


@pytest.mark.parametrize("kept_bytes", [0, 100, 5000])
def test_what_there_is_no_room_for_is_computed_again(kept_bytes):
    manifest = manifest_of("mlp")
    inputs, _ = batch_of("mlp")
    parameters = parameters_of(manifest)[0]
    compute = StageCompute(
        stage_model(manifest, 0), first=True, last=False, loss=loss_of(manifest.data), kept_bytes=kept_bytes
    )
    passages = [replace(PASSAGE, microbatch=number) for number in range(4)]
    for passage in passages:
        compute.forward(parameters, inputs, passage)
    assert not compute.keeps
    wanted = gradients_of(compute.backward(parameters, inputs, torch.ones(4, 24)))
    for passage in passages:
        assert equal(gradients_of(compute.backward(parameters, inputs, torch.ones(4, 24), passage)), wanted)


def test_a_graph_takes_what_it_has_saved_beside_the_parameters():
    manifest = manifest_of("mlp", LAYERS)
    model = stage_model(manifest, 1)
    saved = SavedBytes(model.parameters)
    activations = torch.rand(4, 24, requires_grad=True)
    with saved.counted():
        outputs = model(activations)
    assert saved.total == 4 * (activations.numel() + outputs.numel())


def test_each_call_computes_with_the_parameters_that_it_names():
    manifest = manifest_of("mlp")
    compute, old = computes_of(manifest)[0], parameters_of(manifest)[0]
    new = old * np.float32(2)
    inputs, _ = batch_of("mlp")
    first = compute.forward(old, inputs)
    assert not torch.equal(compute.forward(new, inputs), first)
    assert torch.equal(compute.forward(old, inputs), first)
    outputs_gradient = torch.ones_like(first)
    assert not np.array_equal(
        compute.backward(old, inputs, outputs_gradient).gradient.copy(),
        compute.backward(new, inputs, outputs_gradient).gradient,
    )


def test_the_inputs_given_stay_as_they_were():
    manifest = manifest_of("mlp")
    compute, parameters = computes_of(manifest)[1], parameters_of(manifest)[1]
    inputs, targets = torch.rand(4, 24), batch_of("mlp")[1]
    before = inputs.clone()
    compute.backward_from_loss(parameters, inputs, targets)
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert inputs.grad is None
    assert not compute.forward(parameters, inputs).requires_grad


@pytest.mark.parametrize("stage", [0, 1])
def test_what_is_not_finite_is_said(stage):
    manifest = manifest_of("mlp")
    compute, parameters = computes_of(manifest)[stage], parameters_of(manifest)[stage]
    inputs, targets = batch_of("mlp")
    if stage == 0:
        result = compute.backward(parameters, inputs, torch.full((4, 24), torch.inf))
    else:
        result = compute.backward_from_loss(parameters, torch.full((4, 24), 1e38), targets)
    assert not result.finite


def test_gradients_and_targets_of_another_shape_are_refused():
    manifest = manifest_of("gpt")
    (first, last), parameters = computes_of(manifest), parameters_of(manifest)
    inputs, targets = batch_of("gpt")
    wrong_gradients = torch.zeros(4, 16, 32)  # of a shorter sequence
    assert refusal(lambda: first.backward(parameters[0], inputs, wrong_gradients)) == Reason.WRONG_SHAPE
    activations = torch.zeros(4, 17, 32)
    assert refusal(lambda: last.backward_from_loss(parameters[1], activations, targets.T)) == Reason.WRONG_SHAPE
    assert last.backward_from_loss(parameters[1], activations, targets).finite


@every_architecture
def test_the_bounds_of_stages_are_those_of_their_tensors(architecture):
    manifest = manifest_of(architecture)
    tensors = stage_tensors(manifest)
    inputs, targets = batch_of(architecture)
    activations = computes_of(manifest)[0].forward(parameters_of(manifest)[0], inputs)
    assert activation_shape(manifest, tuple(inputs.shape)) == activations.shape
    assert tensors.inputs.allow(tuple(inputs.shape))
    assert tensors.activations.allow(tuple(activations.shape))
    assert tensors.targets[0].allow(tuple(targets.shape))
    assert not tensors.inputs.allow((5, *inputs.shape[1:]))  # more than a microbatch
    assert not tensors.activations.allow((5, *activations.shape[1:]))
    assert not tensors.activations.allow((*activations.shape[:-1], 1))


def test_tokens_and_labels_are_bounded_by_what_the_model_knows():
    gpt, mlp = stage_tensors(manifest_of("gpt")), stage_tensors(manifest_of("mlp"))
    assert gpt.inputs.below == gpt.targets[0].below == 50
    assert not gpt.inputs.allow((4, 21))  # more than its context
    assert gpt.activations.most_bytes == 4 * 4 * 20 * 32
    assert mlp.inputs.below is None
    assert [bounds.below for bounds in mlp.targets] == [10, None]  # labels, or values to meet


def test_the_last_stage_needs_no_data_for_the_loss_of_a_data_set():
    digits = open_dataset(Data(dataset="digits"))
    _, targets = digits.batch(np.arange(6))
    outputs = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loss_of(Data(dataset="digits"))(outputs, targets), digits.loss(outputs, targets))
    values = torch.arange(6.0)
    for name in ("npz", "safetensors"):
        loss = loss_of(Data(dataset=name))
        assert torch.equal(loss(outputs, targets), digits.loss(outputs, targets))
        assert loss(torch.zeros(6, 1), values) == values.square().mean()
        with pytest.raises(ValueError, match="not as many"):
            loss(torch.zeros(5, 1), values)
    with pytest.raises(ValueError, match="not logits for targets"):
        loss_of(Data(dataset="text"))(torch.zeros(2, 3, 256), torch.zeros(2, 4, dtype=torch.int64))


def test_a_data_set_that_keeps_its_loss_to_itself_serves_no_pipeline(monkeypatch):
    kind = DatasetKind(PluginOptions, lambda _options, _shards, _files: None)
    monkeypatch.setattr("peer.data.registry._KINDS.find", lambda _name: kind)
    with pytest.raises(DatasetError, match=r"data.dataset: the loss of 'theirs' .*choose another data set"):
        loss_of(Data(dataset="theirs"))
