"""The state that all members of a run share at an epoch, and its one byte form.

Byte form: a header of 256 bytes (canonical encoding of run, epoch, number of parameters and slot names, padded with
zeros), then the parameters and each slot in order, as little-endian float32. Its block index is what peers fetch a
state by, and the digest of that index is what they sign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Self

import numpy as np

from protocols.blocks import BlockIndex
from protocols.codecs import Payload
from protocols.encoding import encode
from protocols.optimizers import OuterOptimizer
from protocols.rejection import Reason, Rejected
from protocols.vectors import Vector, all_finite, read_only

HEADER_BYTES = 256
"""Fixed, so that the vectors behind it stay aligned and the size of a state is known before it is fetched."""

_EPOCH_LIMIT = 2**53


@dataclass(frozen=True, eq=False)
class ModelState:
    """Parameters and optimizer slots (finite, read-only) after `epoch` steps; compare states by `digest`."""

    run: str
    epoch: int
    parameters: Vector
    slots: Mapping[str, Vector]

    def __post_init__(self) -> None:
        vectors = {"parameters": self.parameters, **self.slots}
        for name, vector in vectors.items():
            if vector.dtype != np.float32 or vector.shape != (len(self.parameters),):
                raise ValueError(f"{name}: {vector.dtype} {vector.shape} is not {len(self.parameters)} float32")
        object.__setattr__(self, "parameters", read_only(self.parameters))
        slots = {name: read_only(vector) for name, vector in self.slots.items()}
        object.__setattr__(self, "slots", MappingProxyType(slots))

    @property
    def parameter_count(self) -> int:
        return len(self.parameters)

    def buffers(self) -> list[bytes | memoryview]:
        """The byte form in pieces: the header, the parameters, the slots in order; the vectors are not copied."""
        header = _header(self.run, self.epoch, self.parameter_count, tuple(self.slots))
        vectors = [self.parameters, *self.slots.values()]
        return [header, *(memoryview(vector.astype("<f4", copy=False).view(np.uint8).data) for vector in vectors)]

    @cached_property
    def index(self) -> BlockIndex:
        return BlockIndex.of(self.buffers())

    @cached_property
    def digest(self) -> bytes:
        """The address of the byte form (32 bytes); equal states have equal digests."""
        return self.index.digest

    @classmethod
    def from_buffer(cls, data: Payload, *, run: str, parameter_count: int, slot_names: Sequence[str]) -> Self:
        """The state whose byte form is `data`, as views of it: the caller must not change it any more.

        Raises Rejected: wrong_shape (another size, or a header of another model), malformed, non_finite.
        """
        view = memoryview(data).cast("B")
        expected_size = state_size(parameter_count, len(slot_names))
        if len(view) != expected_size:
            raise Rejected(Reason.WRONG_SHAPE, f"a state of {len(view)} bytes where {expected_size} were expected")
        header = bytes(view[:HEADER_BYTES])
        epoch = _epoch_of(header, run, parameter_count, tuple(slot_names))
        vectors = []
        for number in range(1 + len(slot_names)):
            offset = HEADER_BYTES + 4 * parameter_count * number
            vector = np.frombuffer(view, "<f4", parameter_count, offset).astype(np.float32, copy=False)
            if not all_finite(vector):
                raise Rejected(Reason.NON_FINITE, "the state holds NaN or infinity")
            vectors.append(vector)
        return cls(run, epoch, vectors[0], dict(zip(slot_names, vectors[1:], strict=True)))


def state_size(parameter_count: int, slot_count: int) -> int:
    """Bytes of the byte form."""
    return HEADER_BYTES + 4 * parameter_count * (1 + slot_count)


def advance(state: ModelState, aggregate: Vector, optimizer: OuterOptimizer) -> ModelState:
    """The state one epoch later.

    A step that would overflow changes nothing but the epoch, for every member alike: the state stays finite whatever
    was contributed.
    """
    parameters, slots = optimizer.step(state.parameters, aggregate, state.slots, state.epoch)
    if not all(all_finite(vector) for vector in (parameters, *slots.values())):
        parameters, slots = state.parameters, dict(state.slots)
    return ModelState(state.run, state.epoch + 1, parameters, slots)


def _header(run: str, epoch: int, parameter_count: int, slot_names: tuple[str, ...]) -> bytes:
    encoded = encode(["peer/1/state", run, parameter_count, slot_names])
    return encoded.ljust(HEADER_BYTES - 8, b"\x00") + epoch.to_bytes(8, "little")


def _epoch_of(header: bytes, run: str, parameter_count: int, slot_names: tuple[str, ...]) -> int:
    epoch = int.from_bytes(header[-8:], "little")
    if epoch >= _EPOCH_LIMIT:
        raise Rejected(Reason.MALFORMED, f"a state of epoch {epoch}")
    if header != _header(run, epoch, parameter_count, slot_names):
        raise Rejected(Reason.MALFORMED, "the state's header is not that of this run and model")
    return epoch
