"""The model of a run that is cut into the stages of a pipeline. No more of it than one stage is ever in memory.

Each stage is a model of its own to the rest of the program: a flat vector, and a state with the optimizer's slots. The
vectors of all stages, one after the other, are that of the whole model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from peer.models.flat import Entry, FlatModel, Layout, initialised, layout_of
from peer.models.registry import Architecture, Cut, Layers, Tensors, find_architecture
from peer.plugins import PluginError, parse_options
from protocols.activations import Shape
from protocols.manifest import Manifest, Pipeline
from protocols.optimizers import make_optimizer
from protocols.state import ModelState
from protocols.vectors import Vector


def layers_of(pipeline: Pipeline, total: int) -> tuple[range, ...]:
    """Which of the model's `total` layers each stage holds: as the manifest says, or an even share.

    Where they cannot be even, the first stages have one layer more. Raises PluginError.
    """
    counts = pipeline.layers or [len(share) for share in np.array_split(range(total), pipeline.stages)]
    if pipeline.stages > total:
        raise PluginError(f"training.stages: {total} layers (model.options.layers) are too few for {pipeline.stages}")
    if sum(counts) != total:
        raise PluginError(
            f"training.stages: {' + '.join(map(str, counts))} are {sum(counts)} layers, and the model has {total} "
            "(model.options.layers)"
        )
    return tuple(range(start, stop) for start, stop in pairwise(accumulate(counts, initial=0)))


def build_stage(manifest: Manifest, stage: int) -> nn.Module:
    """The module of stage 0, 1, … on torch's meta device: its shapes without any memory. Raises PluginError."""
    plan = _plan(manifest)
    last = len(plan.ranges) - 1
    return plan.build(Cut(plan.ranges[stage], first=stage == 0, last=stage == last))


def stage_model(manifest: Manifest, stage: int) -> FlatModel:
    """Raises PluginError."""
    return FlatModel(build_stage(manifest, stage))


def parameter_count(manifest: Manifest, stage: int) -> int:
    """Without allocating any. Raises PluginError."""
    return sum(entry.count for entry in layout_of(build_stage(manifest, stage)))


def stage_run(manifest: Manifest, stage: int) -> str:
    """The run that the states of a stage belong to, so that two stages never have equal ones."""
    return f"{manifest.run_id}/{stage}"


def stage_state(manifest: Manifest, stage: int) -> ModelState:
    """The state of a stage at epoch 0, equal to the bit on every machine. Raises PluginError."""
    initialise = _plan(manifest).architecture.initialise
    parameters = initialised(build_stage(manifest, stage), initialise, manifest.seed)
    optimizer = make_optimizer(manifest.training.outer, manifest.epochs)
    return ModelState(stage_run(manifest, stage), 0, parameters, optimizer.initial_slots(len(parameters)))


def stage_shape(manifest: Manifest, stage: int) -> ModelState:
    """A state of the size and the slots that the stage's have, without memory. Raises PluginError."""
    nothing = np.broadcast_to(np.float32(0), (parameter_count(manifest, stage),))
    slots = dict.fromkeys(make_optimizer(manifest.training.outer, manifest.epochs).slot_names, nothing)
    return ModelState(stage_run(manifest, stage), 0, nothing, slots)


def output_shape(manifest: Manifest, inputs: Shape) -> Shape:
    """Of what the last stage gives when the model's inputs have the shape `inputs`. Raises PluginError."""
    plan = _plan(manifest)
    module = build_stage(manifest, len(plan.ranges) - 1)
    with torch.no_grad():
        return tuple(module(torch.empty(activation_shape(manifest, inputs), device="meta")).shape)


def stage_tensors(manifest: Manifest) -> Tensors:
    """What the stages accept from the network for a microbatch. Raises PluginError."""
    plan = _plan(manifest)
    return plan.layers.tensors(plan.options, manifest.training.batch_size)


def activation_shape(manifest: Manifest, inputs: Shape) -> Shape:
    """Of what passes between any two stages when the model's inputs have the shape `inputs`. Raises PluginError."""
    plan = _plan(manifest)
    return plan.layers.activation_shape(plan.options, inputs)


def whole_layout(manifest: Manifest) -> Layout:
    """Where each parameter lies in the joined vectors of all stages. Raises PluginError."""
    stages = range(len(_plan(manifest).ranges))
    entries = [entry for stage in stages for entry in layout_of(build_stage(manifest, stage))]
    offsets = accumulate((entry.count for entry in entries), initial=0)
    return tuple(Entry(entry.name, entry.shape, offset) for entry, offset in zip(entries, offsets, strict=False))


def join(stages: Sequence[Vector]) -> Vector:
    """The vector of the whole model (`whole_layout`) from those of all stages, in order."""
    return np.concatenate(stages)


def whole_model(manifest: Manifest) -> FlatModel:
    """All stages in one, for evaluation and comparison: the only thing here that takes the memory of all.

    Raises PluginError.
    """
    plan = _plan(manifest)
    model = FlatModel(plan.build(Cut(range(plan.ranges[-1].stop), first=True, last=True)))
    if model.layout != whole_layout(manifest):
        raise PluginError(
            f"model.architecture: the stages of {manifest.model.architecture!r}, one after the other, are not the whole"
        )
    return model


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a manifest's model is cut."""

    architecture: Architecture
    layers: Layers
    options: Any
    ranges: tuple[range, ...]

    def build(self, cut: Cut) -> nn.Module:
        with torch.device("meta"):
            return self.layers.build(self.options, cut)


def _plan(manifest: Manifest) -> _Plan:
    name = manifest.model.architecture
    architecture = find_architecture(name)
    if architecture.layers is None:
        raise PluginError(f"model.architecture: {name!r} cannot be cut into stages")
    if not isinstance(manifest.training, Pipeline):
        raise PluginError(f"training.mode: {manifest.training.mode!r} does not cut the model into stages")
    options = parse_options(architecture.options, manifest.model.options, "model.options")
    ranges = layers_of(manifest.training, architecture.layers.count(options))
    return _Plan(architecture, architecture.layers, options, ranges)
