"""A small convolutional network for square images."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from peer.models.initialisation import kaiming_uniform
from peer.models.registry import Architecture
from peer.plugins import PluginOptions

Size = Annotated[int, Field(ge=1, le=4096)]


class Options(PluginOptions):
    channels: Size = 1
    """Of the images."""
    image_size: Size = 8
    """Pixels of one side."""
    width: Annotated[int, Field(ge=4, le=4096, multiple_of=4)] = 16
    """Channels of the first convolution; each halving of the image doubles them."""
    halvings: Annotated[int, Field(ge=0, le=8)] = 1
    classes: Size = 10

    @model_validator(mode="after")
    def _image_can_be_halved(self) -> Self:
        if self.image_size % 2**self.halvings:
            raise ValueError(f"image_size {self.image_size} cannot be halved {self.halvings} times")
        return self


class Cnn(nn.Module):
    """Images (batch, channels, height, width) → logits (batch, classes)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        widths = [options.width << level for level in range(options.halvings + 1)]
        self.stem = Block(options.channels, widths[0], stride=1)
        self.stages = nn.ModuleList(Block(before, after, 2) for before, after in pairwise(widths))
        features = widths[-1] * (options.image_size >> options.halvings) ** 2
        self.output = nn.Linear(features, options.classes)

    def forward(self, images: Tensor) -> Tensor:
        activations = self.stem(images)
        for stage in self.stages:
            activations = stage(activations)
        logits: Tensor = self.output(activations.flatten(1))
        return logits


class Block(nn.Module):
    """Two 3 × 3 convolutions, each normalised in groups (Wu & He 2018): unlike batches, they have no running state."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(4, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(4, channels_out)

    def forward(self, activations: Tensor) -> Tensor:
        between = self.first_norm(self.first(activations)).relu()
        outputs: Tensor = self.second_norm(self.second(between)).relu()
        return outputs


ARCHITECTURE = Architecture(Options, Cnn, kaiming_uniform)
