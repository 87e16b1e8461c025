"""A multi-layer perceptron for classification."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from peer.models.initialisation import kaiming_uniform
from peer.models.registry import Architecture, Cut, Layers, Tensors
from peer.plugins import PluginOptions
from protocols.activations import TensorBounds

Size = Annotated[int, Field(ge=1, le=2**20)]


class Options(PluginOptions):
    inputs: Size = 64
    """Elements of a sample, which is flattened."""
    width: Size = 128
    layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Hidden layers."""
    classes: Size = 10


class Mlp(nn.Module):
    """Samples (batch, …) → logits (batch, classes), or the stage of it that `cut` names: activations (batch, width)."""

    def __init__(self, options: Options, cut: Cut | None = None) -> None:
        super().__init__()
        part = cut or Cut(range(options.layers), first=True, last=True)
        widths = [options.inputs] + [options.width] * options.layers
        self.hidden = nn.ModuleDict(
            {str(number): nn.Linear(widths[number], widths[number + 1]) for number in part.layers}
        )
        self.output = nn.Linear(options.width, options.classes) if part.last else None

    def forward(self, samples: Tensor) -> Tensor:
        activations = samples.flatten(1)
        for layer in self.hidden.values():
            activations = layer(activations).relu()
        return activations if self.output is None else self.output(activations)


def _tensors(options: Options, batch_size: int) -> Tensors:
    batch, outputs = range(1, batch_size + 1), range(options.classes, options.classes + 1)
    return Tensors(
        inputs=TensorBounds((batch, range(options.inputs, options.inputs + 1)), flat=True),
        activations=TensorBounds((batch, range(options.width, options.width + 1))),
        targets=(TensorBounds((batch,), below=options.classes), TensorBounds((batch, outputs), flat=True)),
    )


LAYERS = Layers(
    count=lambda options: options.layers,
    build=Mlp,
    activation_shape=lambda options, inputs: (inputs[0], options.width),
    tensors=_tensors,
)
ARCHITECTURE = Architecture(Options, Mlp, kaiming_uniform, LAYERS)
