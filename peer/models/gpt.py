"""A decoder-only transformer in the form of GPT-2 (Radford et al. 2019): normalisation first, learned positions."""

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from peer.models.initialisation import Constant, Initialisation, Uniform
from peer.models.registry import Architecture, Cut, Layers, Tensors
from peer.plugins import PluginOptions
from protocols.activations import TensorBounds


class Options(PluginOptions):
    vocabulary: Annotated[int, Field(ge=2, le=2**20)] = 256
    """256: bytes."""
    context: Annotated[int, Field(ge=1, le=2**17)] = 64
    """Longest sequence, in tokens."""
    width: Annotated[int, Field(ge=1, le=2**16)] = 64
    layers: Annotated[int, Field(ge=1, le=256)] = 2
    heads: Annotated[int, Field(ge=1, le=1024)] = 4

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        return self


class Gpt(nn.Module):
    """Tokens (batch, length ≤ context), int64 → logits (batch, length, vocabulary) of the token that follows each.

    With `cut`, the stage of it that holds these blocks; activations (batch, length, width) pass between stages. The
    whole model gives its outputs by the matrix of the tokens, as GPT-2 does. The first stage and the last cannot share
    one, so cut into stages, or held whole by one `cut`, the model has a matrix of its own for the outputs.
    """

    def __init__(self, options: Options, cut: Cut | None = None) -> None:
        super().__init__()
        part = cut or Cut(range(options.layers), first=True, last=True)
        self.depth = options.layers
        """Of the whole model."""
        self.tokens = nn.Embedding(options.vocabulary, options.width) if part.first else None
        self.positions = nn.Embedding(options.context, options.width) if part.first else None
        self.blocks = nn.ModuleDict({str(number): Block(options.width, options.heads) for number in part.layers})
        self.norm = nn.LayerNorm(options.width) if part.last else None
        self.output = nn.Linear(options.width, options.vocabulary, bias=False) if cut and part.last else None

    def forward(self, inputs: Tensor) -> Tensor:
        activations = inputs
        if self.tokens is not None and self.positions is not None:
            positions = torch.arange(inputs.shape[1], device=inputs.device)
            activations = self.tokens(inputs) + self.positions(positions)
        for block in self.blocks.values():
            activations = block(activations)
        if self.norm is None:
            return activations
        matrix = self.output or self.tokens
        assert matrix is not None
        return functional.linear(self.norm(activations), matrix.weight)


class Block(nn.Module):
    """Attention, then two layers on each position by itself; both add to the residual stream (…, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.expand_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.residual = nn.Linear(4 * width, width)

    def forward(self, activations: Tensor) -> Tensor:
        mixed: Tensor = activations + self.attention(self.attention_norm(activations))
        output: Tensor = mixed + self.residual(functional.gelu(self.expand(self.expand_norm(mixed))))
        return output


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.residual = nn.Linear(width, width)

    def forward(self, activations: Tensor) -> Tensor:
        batch, length, width = activations.shape
        projected = self.queries_keys_values(activations).view(batch, length, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # each: batch, heads, length, width / heads
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        output: Tensor = self.residual(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


def _initialise(gpt: Gpt) -> dict[str, Initialisation]:
    """Standard deviation 0.02, divided by √(2 · layers) where a layer adds to the residual stream, as in GPT-2."""
    initial: dict[str, Initialisation] = {}
    for name, parameter in gpt.named_parameters():
        if parameter.ndim > 1:
            residuals = 2 * gpt.depth if name.endswith("residual.weight") else 1
            initial[name] = Uniform.with_deviation(0.02 / math.sqrt(residuals))
        else:
            initial[name] = Constant(1.0 if name.endswith("norm.weight") else 0.0)
    return initial


def _tensors(options: Options, batch_size: int) -> Tensors:
    batch, length = range(1, batch_size + 1), range(1, options.context + 1)
    tokens = TensorBounds((batch, length), below=options.vocabulary)
    activations = TensorBounds((batch, length, range(options.width, options.width + 1)))
    return Tensors(tokens, activations, targets=(tokens,))


LAYERS = Layers(
    count=lambda options: options.layers,
    build=Gpt,
    activation_shape=lambda options, inputs: (*inputs, options.width),
    tensors=_tensors,
)
ARCHITECTURE = Architecture(Options, Gpt, _initialise, LAYERS)
