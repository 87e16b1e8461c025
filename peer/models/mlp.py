"""A multi-layer perceptron for classification."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from peer.models.initialisation import kaiming_uniform
from peer.models.registry import Architecture
from peer.plugins import PluginOptions

Size = Annotated[int, Field(ge=1, le=2**20)]


class Options(PluginOptions):
    inputs: Size = 64
    """Elements of a sample, which is flattened."""
    width: Size = 128
    layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Hidden layers."""
    classes: Size = 10


class Mlp(nn.Module):
    """Samples (batch, …) → logits (batch, classes)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        widths = [options.inputs] + [options.width] * options.layers
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.output = nn.Linear(options.width, options.classes)

    def forward(self, samples: Tensor) -> Tensor:
        activations = samples.flatten(1)
        for layer in self.hidden:
            activations = layer(activations).relu()
        logits: Tensor = self.output(activations)
        return logits


ARCHITECTURE = Architecture(Options, Mlp, kaiming_uniform)
