"""What a model is to the daemon, and where it comes from: built in, or the entry point group `peer.models`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peer.models.initialisation import Initialisation
from peer.plugins import PluginOptions, Plugins, parse_options
from protocols.manifest import Model


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    `build` makes the module from validated `options`; its forward maps a batch of inputs to outputs, it has no buffers
    (so no batch normalisation: a state is parameters alone) and draws nothing at random (so no dropout).
    `initialise` says how each named parameter starts.
    """

    options: type[PluginOptions]
    build: Callable[[Any], nn.Module]
    initialise: Callable[[nn.Module], dict[str, Initialisation]]


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
