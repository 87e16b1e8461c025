"""A module whose parameters, and whose gradients, are views of one flat float32 vector each."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peer.models.initialisation import Initialisation, fill
from peer.models.registry import build_module, find_architecture
from peer.plugins import PluginError
from protocols.manifest import Manifest, Model
from protocols.optimizers import make_optimizer
from protocols.state import ModelState
from protocols.vectors import Vector

MAX_PARAMETERS = 2**32
"""What a round can cut into chunks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where parameter `name` (as in a state_dict) lies in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def elements(self) -> slice:
        return slice(self.offset, self.offset + self.count)


Layout = tuple[Entry, ...]


def layout_of(module: nn.Module) -> Layout:
    """The parameters of `module` in order, without gaps.

    Raises PluginError when the module keeps anything that the flat vector would not hold, or holds it twice.
    """
    buffer = next((name for name, _ in module.named_buffers()), None)
    if buffer is not None:
        raise PluginError(f"the model keeps {buffer!r} outside its parameters, which the swarm does not share")
    parameters = list(module.named_parameters(remove_duplicate=False))
    if len({id(parameter) for _, parameter in parameters}) != len(parameters):
        raise PluginError("the model has one parameter under two names; use the module that holds it twice instead")
    offsets = accumulate((parameter.numel() for _, parameter in parameters), initial=0)
    layout = tuple(
        Entry(name, tuple(parameter.shape), offset)
        for (name, parameter), offset in zip(parameters, offsets, strict=False)
    )
    count = sum(entry.count for entry in layout)
    if not 1 <= count <= MAX_PARAMETERS:
        raise PluginError(f"a model of {count} parameters cannot be trained here: 1 to {MAX_PARAMETERS} are allowed")
    return layout


def named_parameters(parameters: Vector, layout: Layout) -> Iterator[tuple[str, np.ndarray]]:
    """Each parameter's name and its array, a view of the flat vector."""
    for entry in layout:
        yield entry.name, parameters[entry.elements].reshape(entry.shape)


class FlatModel:
    """A module over one flat vector of parameters and one of gradients (both zero at first)."""

    def __init__(self, module: nn.Module) -> None:
        """Takes `module` over: its parameters are replaced by views, and what they held is lost."""
        self.layout = layout_of(module)
        self.module = module
        self.parameter_count = sum(entry.count for entry in self.layout)
        self.parameters = nn.Parameter(torch.zeros(self.parameter_count))
        """All parameters as one, for an inner optimizer."""
        self.gradient = torch.zeros(self.parameter_count)
        self.parameters.grad = self.gradient
        for entry in self.layout:
            view = nn.Parameter(self.parameters.detach()[entry.elements].view(entry.shape))
            view.grad = self.gradient[entry.elements].view(entry.shape)
            owner, _, attribute = entry.name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, view)

    @classmethod
    def of(cls, model: Model) -> "FlatModel":
        """The model that a manifest names. Raises PluginError."""
        return cls(build_module(model))

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.module(inputs)
        return outputs

    def load(self, parameters: Vector) -> None:
        """Takes on the given parameters (one copy)."""
        np.copyto(self._array(), parameters)

    def store(self) -> Vector:
        """A copy of the parameters."""
        return self._array().copy()

    def clear_gradient(self) -> None:
        self.gradient.zero_()

    def _array(self) -> Vector:
        return self.parameters.detach().numpy()


def initial_parameters(manifest: Manifest) -> Vector:
    """The parameters at epoch 0, equal to the bit on every machine. Raises PluginError."""
    initialise = find_architecture(manifest.model.architecture).initialise
    return initialised(build_module(manifest.model), initialise, manifest.seed)


def initialised(module: nn.Module, initialise: Callable[[Any], dict[str, Initialisation]], seed: int) -> Vector:
    """The flat vector that `module` begins with; each parameter follows from the seed and its name."""
    layout, initial = layout_of(module), initialise(module)
    parameters = np.empty(sum(entry.count for entry in layout), np.float32)
    for entry in layout:
        fill(parameters[entry.elements], initial[entry.name], seed, entry.name)
    return parameters


def initial_state(manifest: Manifest) -> ModelState:
    """The state at epoch 0. Raises PluginError."""
    parameters = initial_parameters(manifest)
    optimizer = make_optimizer(manifest.training.outer, manifest.epochs)
    return ModelState(manifest.run_id, 0, parameters, optimizer.initial_slots(len(parameters)))
