"""How a vector travels: exact, in half precision, or in blockwise 8 bits.

Every codec is a pure function of its input and rounds each element by itself, so encoding and decoding give the same
bits on any CPU. Decoders trust nothing: the length must be exact, and no byte string decodes to NaN or infinity.
"""

import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.rejection import Reason, Rejected
from protocols.vectors import Vector, all_finite, slices

Payload = bytes | bytearray | memoryview


class Codec(ABC):
    """Encodes float32 vectors; `name` is the manifest's word for it."""

    name: str
    copies: ClassVar[bool] = True
    """Whether what it encodes to is never a view of the vector."""

    @abstractmethod
    def encoded_size(self, count: int) -> int:
        """Bytes of a vector of `count` elements."""

    @abstractmethod
    def encode(self, values: Vector) -> Payload:
        """The bytes of `values`; may be a view of them. Raises ValueError when an element is NaN or infinite."""

    def decode(self, payload: Payload, count: int) -> Vector:
        """The `count` elements in `payload`. Raises Rejected as `check` does."""
        self.check(payload, count)
        values = np.empty(count, dtype=np.float32)
        self.decode_into(values, payload, count)
        return values

    def check(self, payload: Payload, count: int) -> None:
        """Raises Rejected: wrong_shape (not exactly `encoded_size(count)` bytes), non_finite."""
        size = memoryview(payload).nbytes
        if size != self.encoded_size(count):
            raise Rejected(
                Reason.WRONG_SHAPE,
                f"{size} bytes of codec {self.name} where {count} elements take {self.encoded_size(count)}",
            )
        if not self._is_finite(payload, count):
            raise Rejected(
                Reason.NON_FINITE, "an element or the scale of a block is NaN, infinite, or makes elements so"
            )

    def decode_into(self, out: Vector, payload: Payload, count: int, start: int = 0) -> None:
        """Fills `out` with the elements from `start` (a multiple of 256) of a payload that `check` has passed."""
        for piece in slices(len(out)):  # several passes over what is in the cache
            self._decode_piece(out[piece], payload, count, start + piece.start)

    def kept(self, payload: Payload, values: Vector) -> Payload:
        """What to keep of a received payload beside the `values` that it decodes to: a copy, or an equal view of them.

        Not the payload itself: the memory that it was received into is wanted for the next one.
        """
        return bytes(payload)

    @abstractmethod
    def _is_finite(self, payload: Payload, count: int) -> bool: ...

    @abstractmethod
    def _decode_piece(self, out: Vector, payload: Payload, count: int, start: int) -> None: ...


class Exact(Codec):
    """Little-endian float32: 4 bytes an element, nothing lost and, on little-endian machines, nothing copied."""

    name = "none"
    copies = False

    def encoded_size(self, count: int) -> int:
        return 4 * count

    def encode(self, values: Vector) -> Payload:
        _require_finite(values)
        return _bytes_of(np.ascontiguousarray(values, dtype="<f4"))

    def kept(self, payload: Payload, values: Vector) -> Payload:
        return _bytes_of(np.ascontiguousarray(values, dtype="<f4"))

    def _is_finite(self, payload: Payload, count: int) -> bool:
        return all_finite(np.frombuffer(payload, "<f4", count))

    def _decode_piece(self, out: Vector, payload: Payload, count: int, start: int) -> None:
        np.copyto(out, np.frombuffer(payload, "<f4", len(out), offset=4 * start))


class Float16(Codec):
    """IEEE half precision, little-endian: 2 bytes an element, rounded to nearest even.

    Elements beyond ±65504 become ±65504: one outlier must not turn into infinity.
    """

    name = "float16"
    LARGEST = np.float32(65504)

    def encoded_size(self, count: int) -> int:
        return 2 * count

    def encode(self, values: Vector) -> Payload:
        _require_finite(values)
        halves = np.empty(len(values), "<f2")
        for piece in slices(len(values)):
            _convert(halves[piece], np.clip(values[piece], -self.LARGEST, self.LARGEST))
        return _bytes_of(halves)

    def _is_finite(self, payload: Payload, count: int) -> bool:
        exponents = np.frombuffer(payload, "<u2", count) & np.uint16(0x7C00)  # numpy's isfinite converts each half
        return not bool((exponents == 0x7C00).any())

    def _decode_piece(self, out: Vector, payload: Payload, count: int, start: int) -> None:
        _convert(out, np.array(np.frombuffer(payload, "<f2", len(out), offset=2 * start)))


class Int8(Codec):
    """Blockwise 8 bits (Dettmers et al. 2022, linear): 1 byte an element and 4 for each block of 256.

    All scales (float32, little-endian, largest magnitude of the block / 127) come first, then all codes (−127 … 127);
    an element is code × scale, at most half a scale away from what it was. Blocks count from the start of the vector,
    so a vector cut at multiples of 256 gives the same values as the whole.
    """

    name = "int8"
    BLOCK = 256
    LARGEST_SCALE = np.float32(np.finfo(np.float32).max / 128)
    """Beyond it a code could decode to infinity; the encoder saturates there."""

    def encoded_size(self, count: int) -> int:
        return count + 4 * self._blocks(count)

    def encode(self, values: Vector) -> Payload:
        payload = bytearray(self.encoded_size(len(values)))
        scales, codes = self._open(payload, len(values))
        split = len(values) - len(values) % self.BLOCK
        for piece in slices(split):
            shape = (-1, self.BLOCK)
            blocks = slice(piece.start // self.BLOCK, piece.stop // self.BLOCK)
            self._encode_blocks(values[piece].reshape(shape), scales[blocks], codes[piece].reshape(shape))
        if split < len(values):
            self._encode_blocks(values[None, split:], scales[split // self.BLOCK :], codes[None, split:])
        return payload

    def _is_finite(self, payload: Payload, count: int) -> bool:
        scales, _ = self._open(payload, count)
        return bool((np.abs(scales) <= self.LARGEST_SCALE).all())  # NaN fails the comparison too

    def _decode_piece(self, out: Vector, payload: Payload, count: int, start: int) -> None:
        scales, codes = self._open(payload, count)
        scales, codes = scales[start // self.BLOCK :], codes[start : start + len(out)]
        np.copyto(out, codes)
        whole = len(out) // self.BLOCK
        split = whole * self.BLOCK
        blocks = out[:split].reshape(whole, self.BLOCK)
        np.multiply(blocks, scales[:whole, None], out=blocks)
        out[split:] *= scales[whole : whole + 1]

    def _encode_blocks(self, blocks: NDArray[Any], scales: NDArray[Any], codes: NDArray[Any]) -> None:
        """Quantises the rows of `blocks` (float32) into `codes` (int8) with one of the `scales` each."""
        magnitudes = np.abs(blocks).view(np.int32)  # as integers they have the same order, and `max` is far faster
        largest = magnitudes.max(axis=1).view(np.float32)
        if not bool(np.isfinite(largest).all()):  # NaN and infinity both come through
            raise ValueError("cannot encode a vector with NaN or infinity")
        scale = np.minimum(largest / np.float32(127), self.LARGEST_SCALE)
        scales[:] = scale
        coarse = bool(((scale < _SMALLEST_NORMAL) | (scale == self.LARGEST_SCALE)).any())
        scale[scale == 0] = 1  # a block of zeros, or of numbers too small for a scale: all its codes are made 0
        quantised = blocks / scale[:, None]
        np.rint(quantised, out=quantised)
        if coarse:  # a subnormal scale has few digits, the largest is cut off
            np.clip(quantised, -127, 127, out=quantised)
        np.copyto(codes, quantised, casting="unsafe")

    def _open(self, payload: Payload, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Views of the scales and of the codes in `payload`."""
        blocks = self._blocks(count)
        scales = np.frombuffer(payload, dtype="<f4", count=blocks)
        codes = np.frombuffer(payload, dtype=np.int8, count=count, offset=4 * blocks)
        return scales, codes

    def _blocks(self, count: int) -> int:
        return -(-count // self.BLOCK)


_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Exact(), Float16(), Int8())}


def codec(name: str) -> Codec:
    """The codec that a manifest names. Raises ValueError."""
    if name not in CODECS:
        raise ValueError(f"there is no codec {name!r}; choose one of {', '.join(CODECS)}")
    return CODECS[name]


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return memoryview(values.view(np.uint8).data)


def _convert(out: NDArray[Any], values: NDArray[Any]) -> None:
    """Fills `out` with `values` (writeable) from or to half precision, rounded to nearest even.

    NumPy does it element by element, and torch a hundred times as fast, to the same bits.
    """
    if sys.byteorder == "big":
        np.copyto(out, values, casting="same_kind")
        return
    import torch  # noqa: PLC0415  (takes a second to load)

    for start in range(0, len(out), _ONE_THREAD):
        piece = slice(start, start + _ONE_THREAD)
        torch.from_numpy(out[piece]).copy_(torch.from_numpy(values[piece]))


_ONE_THREAD = 32_768
"""Elements that torch does not share out among threads of its own."""


def _require_finite(values: Vector) -> None:
    if not all_finite(values):
        raise ValueError("cannot encode a vector with NaN or infinity")
