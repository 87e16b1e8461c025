"""One canonical binary encoding (msgpack, map keys sorted) for everything that is hashed or signed.

Only plain data passes: None, bool, int (64 bits), float, str, bytes, sequences and maps with string keys. A decoder
allocates no more than a few times the bytes it was given, whatever lengths they declare: it walks over the whole input
before it builds anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import blake3
import msgpack

DIGEST_BYTES = 32

MAX_CONTAINERS = 4096
"""Lists and maps in one value; many small ones cost far more time and memory than their bytes."""
MAX_MAP_KEYS = 64


class EncodingError(ValueError):
    """The bytes are not one well-formed value within the limit, or the value cannot be encoded."""


def encode(value: Any) -> bytes:
    """The one encoding of `value`: equal values have equal bytes on every machine."""
    try:
        packed: bytes = msgpack.packb(_canonical(value), use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodingError(f"cannot encode {type(value).__name__}: {error}") from error
    return packed


def decode(data: bytes | memoryview, limit_bytes: int) -> Any:
    """The value that `data` encodes; sequences come back as lists.

    Raises EncodingError when `data` is longer than `limit_bytes`, truncated, followed by more bytes, nested too
    deeply, or holds an extension type, a non-string key, a key twice, more than MAX_CONTAINERS lists and maps, or a map
    of more than MAX_MAP_KEYS.
    """
    if len(data) > limit_bytes:
        raise EncodingError(f"{len(data)} bytes exceed the limit of {limit_bytes}")
    builder = _Builder()
    try:
        _walk(data)
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            list_hook=builder.list_of,
            object_pairs_hook=builder.map_of,
            ext_hook=_refuse_extension,
            max_map_len=MAX_MAP_KEYS,
        )
        _refuse_timestamps([value])
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise EncodingError(f"not a well-formed message: {error or type(error).__name__}") from error
    return value


def decode_scalars(data: bytes | memoryview, count: int) -> list[Any]:
    """The list of exactly `count` scalars (no list or map but an empty one) that `data` encodes.

    For envelopes: costs the same whatever stands in `data`. Raises EncodingError.
    """
    unpacker = _unpacker(data)
    try:
        if unpacker.read_array_header() != count:
            raise ValueError(f"not a list of {count}")
        values = [unpacker.unpack() for _ in range(count)]
        _refuse_timestamps(values)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise EncodingError(f"not a well-formed message: {error or type(error).__name__}") from error
    if unpacker.tell() != len(data):
        raise EncodingError("not a well-formed message: more bytes follow it")
    return values


def digest(*pieces: bytes | memoryview) -> bytes:
    """blake3 of the concatenated pieces (32 bytes)."""
    hasher = blake3.blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


def _canonical(value: Any) -> Any:
    if type(value) in _SCALARS:  # most values by far; the checks below cost ten times as much
        return value
    if type(value) is list or type(value) is tuple:
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("map keys must be strings")
        return {key: _canonical(value[key]) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | memoryview):
        return value
    raise TypeError(f"{type(value).__name__} is not plain data")


def _walk(data: bytes | memoryview) -> None:
    """Passes over one value without building it: otherwise each list is allocated as long as it says it is."""
    unpacker = _unpacker(data)
    unpacker.skip()
    if unpacker.tell() != len(data):
        raise ValueError("more bytes follow it")


def _unpacker(data: bytes | memoryview) -> Any:
    """Of `data`, for scalars and for walking: builds no list and no map with anything in it."""
    unpacker = msgpack.Unpacker(
        raw=False, ext_hook=_refuse_extension, max_buffer_size=len(data) or 1, max_array_len=0, max_map_len=0
    )
    unpacker.feed(data)
    return unpacker


class _Builder:
    """Checks the lists and maps of one value as they are completed, and counts them."""

    def __init__(self) -> None:
        self._containers = 0

    def list_of(self, items: list[Any]) -> list[Any]:
        self._count()
        _refuse_timestamps(items)
        return items

    def map_of(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._count()
        if not all(isinstance(key, str) for key, _ in pairs):
            raise ValueError("map keys must be strings")
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a map has the same key twice")
        _refuse_timestamps(value.values())
        return value

    def _count(self) -> None:
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} lists and maps")


def _refuse_timestamps(values: Iterable[Any]) -> None:
    """msgpack makes this one extension type itself, without asking `ext_hook`."""
    if any(type(value) is msgpack.Timestamp for value in values):
        raise ValueError("extension type -1 is not allowed")


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not allowed")
