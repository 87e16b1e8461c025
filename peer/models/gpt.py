"""A decoder-only transformer in the form of GPT-2 (Radford et al. 2019): normalisation first, learned positions."""

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from peer.models.initialisation import Constant, Initialisation, Uniform
from peer.models.registry import Architecture
from peer.plugins import PluginOptions


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
    """Tokens (batch, length ≤ context), int64 → logits (batch, length, vocabulary) of the token that follows each."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.tokens = nn.Embedding(options.vocabulary, options.width)
        self.positions = nn.Embedding(options.context, options.width)
        self.blocks = nn.ModuleList(Block(options.width, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        activations = self.tokens(tokens) + self.positions(positions)
        for block in self.blocks:
            activations = block(activations)
        logits: Tensor = functional.linear(self.norm(activations), self.tokens.weight)
        return logits


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


def _initialise(module: nn.Module) -> dict[str, Initialisation]:
    """Standard deviation 0.02, divided by √(2 · layers) where a layer adds to the residual stream, as in GPT-2."""
    residuals = sum(name.endswith("residual.weight") for name, _ in module.named_parameters())  # 2 · layers
    initial: dict[str, Initialisation] = {}
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            depth = residuals if name.endswith("residual.weight") else 1
            initial[name] = Uniform.with_deviation(0.02 / math.sqrt(depth))
        else:
            initial[name] = Constant(1.0 if name.endswith("norm.weight") else 0.0)
    return initial


ARCHITECTURE = Architecture(Options, Gpt, _initialise)
