"""Initial parameters with the same bits on every machine.

They come from blake3's output stream, keyed by the manifest's seed and the parameter's name: 24-bit integers become
exact floats in (−1, 1), which one multiplication scales. torch's generator is not used: its sequence may change with
the version and the device.
"""

import math
from dataclasses import dataclass

import blake3
import numpy as np
from torch import nn

from protocols.encoding import encode
from protocols.vectors import Vector

_DOMAIN = b"peer/1/initial\x00"


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every element from the uniform distribution over (−bound, bound)."""

    bound: float

    @classmethod
    def with_deviation(cls, deviation: float) -> "Uniform":
        return cls(deviation * math.sqrt(3))


@dataclass(frozen=True, slots=True)
class Constant:
    value: float


Initialisation = Uniform | Constant


def kaiming_uniform(module: nn.Module) -> dict[str, Initialisation]:
    """For networks of ReLUs (He et al. 2015): weights within ±√(6 / fan-in), biases 0, gains of a normalisation 1."""
    initial: dict[str, Initialisation] = {}
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            initial[name] = Uniform(math.sqrt(6 / math.prod(parameter.shape[1:])))
        else:
            initial[name] = Constant(1.0 if name.endswith("norm.weight") else 0.0)
    return initial


def fill(destination: Vector, initial: Initialisation, seed: int, name: str) -> None:
    """Writes the initial elements of parameter `name` into `destination`."""
    if isinstance(initial, Constant):
        destination.fill(initial.value)
        return
    stream = blake3.blake3(_DOMAIN + encode([seed, name])).digest(length=4 * len(destination))
    integers = np.frombuffer(stream, "<u4") >> np.uint32(8)
    np.copyto(destination, integers, casting="unsafe")  # exact: below 2²⁴
    destination *= np.float32(2)
    destination -= np.float32(2**24 - 1)  # odd integers between −2²⁴ and 2²⁴, still exact
    destination *= np.float32(initial.bound / 2**24)
