"""A microbatch on its way through the stages, as its trainer follows it.

What each stage was given is kept until the epoch is stepped: should a peer die with what it has counted, another does
that stage's part again from there.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.activations import CodecName, TensorHeader, encode_tensor
from protocols.codecs import Payload
from protocols.identity import PeerId


@dataclass(frozen=True, slots=True)
class Tensor:
    """As it travels."""

    header: TensorHeader
    payload: Payload

    @classmethod
    def of(cls, values: NDArray[np.float32] | NDArray[np.int64], codec: CodecName) -> Self:
        """Raises ValueError as `encode_tensor` does."""
        return cls(*encode_tensor(np.ascontiguousarray(values), codec))


@dataclass(slots=True)
class Counted:
    """By whom a microbatch was counted on a stage, and when we heard it."""

    peer: PeerId
    at: float
    doubted_by: PeerId | None = None
    """The keeper of the board who says that it is not, against that peer's own word, …"""
    doubted_since: float = 0.0
    """… and since when."""
    passed_over: PeerId | None = None
    """A keeper that has said so for too long."""


@dataclass(slots=True)
class Microbatch:
    epoch: int
    number: int
    keeper: PeerId
    """Of the board, who has given it to us."""
    wanted: set[int]
    """The stages that lacked it then."""
    inputs: dict[int, Tensor] = field(default_factory=dict)
    """Stage → what it takes …"""
    others: dict[int, Tensor] = field(default_factory=dict)
    """… and the gradient of what it gives, or the targets."""
    kept_by: dict[int, PeerId] = field(default_factory=dict)
    """Stage → who has done the forward pass, and says to have kept it."""
    counted: dict[int, Counted] = field(default_factory=dict)
    loss: float | None = None

    @property
    def complete(self) -> bool:
        return self.wanted <= self.counted.keys()

    @property
    def lowest(self) -> int:
        """The first stage that lacked it: the gradients need not go further back."""
        return min(self.wanted)

    def hear(self, lacking: set[int]) -> None:
        """Of a keeper: what other stages have counted is not in doubt."""
        for stage, counted in self.counted.items():
            if stage not in lacking:
                counted.doubted_by = None

    def lost(self, stage: int, now: float, grace_seconds: float) -> bool:
        """Whether it is to be done again, now that the stage is said to lack it, though nobody is at work on it.

        What was counted a moment ago is not: the word may be older.
        """
        counted = self.counted.get(stage)
        return counted is None or now - counted.at > grace_seconds
