"""How a tensor travels between the stages of a pipeline: a header with its shape, then its elements.

Activations and their gradients are float32, sent by one of the codecs for vectors; tokens and labels are whole numbers,
sent as the narrowest of four types that holds them. A receiver says beforehand which tensors it takes (`TensorBounds`):
the header is held against that before anything is allocated, and what is decoded takes at most eight times the bytes
that came.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from protocols.codecs import CODECS, Payload
from protocols.message import Item, Many
from protocols.rejection import Reason, Rejected

MAX_DIMENSIONS = 8
Shape = tuple[int, ...]

CodecName = Literal["none", "float16", "int8"]
WholeName = Literal["uint8", "uint16", "int32", "int64"]

_NARROWEST_FIRST: tuple[WholeName, ...] = ("uint8", "uint16", "int32", "int64")
_WHOLE: dict[str, np.dtype[Any]] = {name: np.dtype(name).newbyteorder("<") for name in _NARROWEST_FIRST}


class TensorHeader(Item):
    """What stands before the elements."""

    encoding: CodecName | WholeName
    """A codec, of a float32 tensor, or the type of whole numbers."""
    shape: Annotated[Many[Annotated[int, Field(ge=1, le=2**31)]], Field(max_length=MAX_DIMENSIONS)]

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def whole(self) -> bool:
        """Whether they are whole numbers."""
        return self.encoding in _WHOLE

    @property
    def payload_bytes(self) -> int:
        """Of the elements that follow."""
        if self.whole:
            return self.count * _WHOLE[self.encoding].itemsize
        return CODECS[self.encoding].encoded_size(self.count)


@dataclass(frozen=True, slots=True)
class TensorBounds:
    """Tensors that a receiver takes: how many dimensions they have, and which sizes each may have."""

    sizes: tuple[range, ...]
    below: int | None = None
    """Elements are whole numbers 0 … `below` − 1; None: they are float32."""
    flat: bool = False
    """How the elements of one sample are arranged does not matter: `sizes` are of samples and of their elements."""

    @classmethod
    def exactly(cls, shape: Shape) -> Self:
        """float32 tensors of this shape."""
        return cls(tuple(range(size, size + 1) for size in shape))

    @property
    def most_bytes(self) -> int:
        """Of a payload."""
        return math.prod(sizes[-1] for sizes in self.sizes) * (4 if self.below is None else 8)

    def allow(self, shape: Shape) -> bool:
        if self.flat and shape:
            shape = (shape[0], math.prod(shape[1:]))
        return len(shape) == len(self.sizes) and all(
            size in sizes for size, sizes in zip(shape, self.sizes, strict=True)
        )


def encode_tensor(values: NDArray[Any], codec: CodecName = "none") -> tuple[TensorHeader, Payload]:
    """A float32 tensor by the codec of that name, or an int64 one as narrow as it can be.

    Raises ValueError: another type, no elements, NaN or infinity.
    """
    if values.dtype == np.float32:
        header = TensorHeader(encoding=codec, shape=values.shape)
        return header, CODECS[codec].encode(np.ascontiguousarray(values).reshape(-1))
    if values.dtype != np.int64:
        raise ValueError(f"a tensor of {values.dtype} does not travel; float32 and int64 do")
    if not values.size:
        raise ValueError("a tensor without elements does not travel")
    least, most = values.min(), values.max()
    name = next(name for name in _NARROWEST_FIRST if np.iinfo(name).min <= least and most <= np.iinfo(name).max)
    return TensorHeader(encoding=name, shape=values.shape), values.astype(_WHOLE[name]).tobytes()


def bounds_of(header: TensorHeader, accepted: Sequence[TensorBounds]) -> TensorBounds:
    """Those that a tensor with this header is within. Raises Rejected (wrong_shape) when none are."""
    for bounds in accepted:
        if header.whole == (bounds.below is not None) and bounds.allow(header.shape):
            return bounds
    raise Rejected(Reason.WRONG_SHAPE, f"a tensor {header.shape} in {header.encoding} is not wanted here")


def decode_tensor(header: TensorHeader, payload: Payload, accepted: Sequence[TensorBounds]) -> NDArray[Any]:
    """The float32 or int64 tensor, one of those `accepted`; its memory is its own.

    Raises Rejected: wrong_shape (a shape or type that is not accepted, or a payload of another size), non_finite,
    malformed (a whole number out of bounds).
    """
    bounds = bounds_of(header, accepted)
    if bounds.below is None:
        return CODECS[header.encoding].decode(payload, header.count).reshape(header.shape)
    kind, size = _WHOLE[header.encoding], memoryview(payload).nbytes
    if size != header.payload_bytes:
        raise Rejected(Reason.WRONG_SHAPE, f"{size} bytes where {header.count} {header.encoding} were announced")
    values = np.frombuffer(payload, kind)
    if values.min() < 0 or values.max() >= bounds.below:
        raise Rejected(Reason.MALFORMED, f"whole numbers that are not all in 0 … {bounds.below - 1}")
    return values.astype(np.int64).reshape(header.shape)


def relative_error(original: NDArray[Any], decoded: NDArray[Any]) -> float:
    """How far `decoded` is from `original`: the length of the difference to that of the original (Euclidean)."""
    length = float(np.linalg.norm(original.astype(np.float64).ravel()))
    difference = float(np.linalg.norm(decoded.astype(np.float64).ravel() - original.ravel()))
    if not difference:
        return 0.0
    return difference / length if length else math.inf
