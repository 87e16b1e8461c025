"""What a model is to the daemon, and where it comes from: built in, or the entry point group `peer.models`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peer.models.initialisation import Initialisation
from peer.plugins import PluginOptions, Plugins, parse_options
from protocols.activations import Shape, TensorBounds
from protocols.manifest import Model


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a model one stage holds: some of its layers; the first takes the inputs, the last gives the outputs."""

    layers: range
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Tensors:
    """What passes between the stages of a model, and into the first and last."""

    inputs: TensorBounds
    activations: TensorBounds
    targets: tuple[TensorBounds, ...]
    """Any of these, as the data set has them."""


@dataclass(frozen=True)
class Layers:
    """How an architecture is cut into the stages of a pipeline; each function gets the validated options first.

    `build` makes the module of one stage, whose parameters have the names that they have in the cut that holds
    everything, and come in the same order. `activation_shape` is what follows from the shape of the inputs, alike
    between any two stages; `tensors` what is accepted for a batch of so many samples at most.
    """

    count: Callable[[Any], int]
    build: Callable[[Any, Cut], nn.Module]
    activation_shape: Callable[[Any, Shape], Shape]
    tensors: Callable[[Any, int], Tensors]


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    `build` makes the module from validated `options`; its forward maps a batch of inputs to outputs, it has no buffers
    (so no batch normalisation: a state is parameters alone) and draws nothing at random (so no dropout).
    `initialise` says how each named parameter starts. Without `layers` it cannot be cut into stages.
    """

    options: type[PluginOptions]
    build: Callable[[Any], nn.Module]
    initialise: Callable[[Any], dict[str, Initialisation]]
    layers: Layers | None = None


_ARCHITECTURES = Plugins(
    "model",
    "model.architecture",
    "peer.models",
    Architecture,
    {
        "mlp": "peer.models.mlp:ARCHITECTURE",
        "cnn": "peer.models.cnn:ARCHITECTURE",
        "gpt": "peer.models.gpt:ARCHITECTURE",
    },
)


def find_architecture(name: str) -> Architecture:
    """Raises PluginError."""
    return _ARCHITECTURES.find(name)


def build_module(model: Model) -> nn.Module:
    """The module on torch's meta device: its shapes without any memory, for `FlatModel` to give it some.

    Raises PluginError, which names the wrong option.
    """
    architecture = find_architecture(model.architecture)
    options = parse_options(architecture.options, model.options, "model.options")
    with torch.device("meta"):
        return architecture.build(options)
