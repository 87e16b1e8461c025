"""Forward passes whose graphs are kept until their backward pass comes, as far as memory allows.

A backward pass that finds its forward pass here need not compute it again, a quarter of a stage's work, nor be given
the inputs once more. Nobody relies on it: of what is not here the inputs are sent, and it is computed again, so any
peer of the stage can take the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peer.resources import available_memory_bytes
from protocols.activations import TensorHeader
from protocols.identity import PeerId

KEPT_SHARE = 1 / 8
"""Of the memory that is free when the daemon starts, unless the user says otherwise …"""
KEPT_BYTES = 256_000_000
"""… or so much where nobody knows how much is free."""
MOST_OVERTAKEN = 64
"""A pass that has seen so many others' backward passes since does not wait any more: its own went to another peer."""


def kept_bytes(megabytes: float | None) -> int:
    """What passes may take: as the user says, or by what is free."""
    if megabytes is not None:
        return int(megabytes * 1e6)
    available = available_memory_bytes()
    return KEPT_BYTES if available is None else int(KEPT_SHARE * available)


@dataclass(frozen=True, slots=True)
class Passage:
    """A microbatch on its way through a stage."""

    trainer: PeerId
    epoch: int
    microbatch: int
    header: TensorHeader
    """Of its inputs, …"""
    inputs: bytes
    """… and the digest of their bytes: a passage of other inputs is another one."""


@dataclass(slots=True)
class ForwardPass:
    inputs: Tensor
    """Which gather a gradient, except on the first stage."""
    outputs: Tensor
    """With their graph."""
    bytes: int
    overtaken: int = 0


@dataclass
class KeptPasses:
    """All of the same parameters; for one thread."""

    budget_bytes: int
    used_bytes: int = 0
    _passes: dict[Passage, ForwardPass] = field(default_factory=dict)
    _usual_bytes: int = 0
    """Of a pass, as of the last one."""

    @property
    def has_room(self) -> bool:
        """For one more. Those that are here are not given up for it: they come back first."""
        return self.used_bytes + self._usual_bytes <= self.budget_bytes and self.budget_bytes > 0

    def keep(self, passage: Passage, forward: ForwardPass) -> None:
        self._drop(passage)
        self._usual_bytes = forward.bytes
        if self.has_room:
            self._passes[passage] = forward
            self.used_bytes += forward.bytes

    def take(self, passage: Passage) -> ForwardPass | None:
        """That of the backward pass which is now computed; it is not here any more."""
        taken = self._drop(passage)
        for other, each in list(self._passes.items()):
            each.overtaken += 1
            if each.overtaken > MOST_OVERTAKEN:
                self._drop(other)
        return taken

    def __contains__(self, passage: Passage) -> bool:
        """Whether it is here; in any thread, and a moment later it may be no more."""
        return passage in self._passes

    def clear(self) -> None:
        self._passes.clear()
        self.used_bytes = 0

    def _drop(self, passage: Passage) -> ForwardPass | None:
        dropped = self._passes.pop(passage, None)
        if dropped is not None:
            self.used_bytes -= dropped.bytes
        return dropped


class SavedBytes:
    """How much memory a graph holds: what its operations have saved for the backward pass, each storage once."""

    def __init__(self, but: Tensor) -> None:
        """The storage of `but`, the parameters, is there anyway."""
        self._sizes: dict[int, int] = {}
        self._but = but.untyped_storage().data_ptr()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While a graph is made."""
        with torch.autograd.graph.saved_tensors_hooks(self._add, lambda saved: saved):
            yield

    @property
    def total(self) -> int:
        return sum(size for storage, size in self._sizes.items() if storage != self._but)

    def _add(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        self._sizes[storage.data_ptr()] = storage.nbytes()
        return saved
