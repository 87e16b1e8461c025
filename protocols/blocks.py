"""Content addressing: any bytes (a model state, a data shard) as blocks that can be checked one by one.

The address of a content is the digest of its index (its size and the digest of every block), so one trusted digest of
32 bytes lets a peer fetch blocks from anybody, several at once, and refuse a wrong one before using it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from protocols.encoding import EncodingError, decode, digest, encode
from protocols.rejection import Reason, Rejected

BLOCK_BYTES = 1024 * 1024
MAX_INDEX_BYTES = 4 * 1024 * 1024
"""An index of 4 MiB names about 120 000 blocks: contents up to 115 GiB."""

_DOMAIN = b"peer/1/content\x00"


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """The size and the block digests of one content; every block has BLOCK_BYTES but the last."""

    size_bytes: int
    blocks: tuple[bytes, ...]

    @classmethod
    def of(cls, buffers: Iterable[bytes | memoryview]) -> Self:
        """The index of the concatenated buffers, which are read once and not copied."""
        digests: list[bytes] = []
        pieces: list[memoryview] = []
        filled = size = 0
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            size += len(view)
            while len(view):
                piece = view[: BLOCK_BYTES - filled]
                pieces.append(piece)
                filled += len(piece)
                view = view[len(piece) :]
                if filled == BLOCK_BYTES:
                    digests.append(digest(*pieces))
                    pieces, filled = [], 0
        if pieces:
            digests.append(digest(*pieces))
        return cls(size, tuple(digests))

    @property
    def digest(self) -> bytes:
        """The address of the content (32 bytes)."""
        return digest(_DOMAIN, self.to_bytes())

    def to_bytes(self) -> bytes:
        return encode([self.size_bytes, b"".join(self.blocks)])

    @classmethod
    def from_bytes(cls, data: bytes, address: bytes) -> Self:
        """The index whose digest is `address`. Raises Rejected (wrong_digest, oversized, malformed)."""
        if len(data) > MAX_INDEX_BYTES:
            raise Rejected(Reason.OVERSIZED, f"an index of {len(data)} bytes")
        if digest(_DOMAIN, data) != address:
            raise Rejected(Reason.WRONG_DIGEST, "the index is not that of the wanted content")
        try:
            size, digests = decode(data, MAX_INDEX_BYTES)
        except (EncodingError, TypeError, ValueError) as error:
            raise Rejected(Reason.MALFORMED, f"index: {error}") from error
        count = -(-size // BLOCK_BYTES) if type(size) is int and size >= 0 else -1
        if not isinstance(digests, bytes) or len(digests) != 32 * count:
            raise Rejected(Reason.MALFORMED, "index: size and number of blocks disagree")
        return cls(size, tuple(digests[i : i + 32] for i in range(0, len(digests), 32)))

    def block_size(self, number: int) -> int:
        """Bytes of block `number`."""
        return min(BLOCK_BYTES, self.size_bytes - number * BLOCK_BYTES)

    def check(self, number: int, data: bytes | memoryview) -> None:
        """Raises Rejected (wrong_digest) unless `data` is block `number`."""
        if len(data) != self.block_size(number) or digest(data) != self.blocks[number]:
            raise Rejected(Reason.WRONG_DIGEST, f"block {number} is not what its index says")


def cut(buffers: Sequence[bytes | memoryview], number: int) -> list[memoryview]:
    """The pieces of the concatenated `buffers` that make up block `number`, without a copy."""
    start, stop = number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES
    pieces: list[memoryview] = []
    offset = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        piece = view[max(0, start - offset) : max(0, stop - offset)]
        if len(piece):
            pieces.append(piece)
        offset += len(view)
    return pieces


def to_bitmap(numbers: Collection[int], count: int) -> bytes:
    """Which of the blocks 0 … count − 1 are in `numbers`, a bit for each, the lowest bit first."""
    bitmap = bytearray(-(-count // 8))
    for number in numbers:
        bitmap[number // 8] |= 1 << number % 8
    return bytes(bitmap)


def from_bitmap(bitmap: bytes, count: int) -> set[int]:
    """The numbers that `to_bitmap` was given. Raises Rejected (malformed)."""
    if len(bitmap) != -(-count // 8) or int.from_bytes(bitmap, "little") >> count:
        raise Rejected(Reason.MALFORMED, f"a bitmap of {len(bitmap)} bytes is not one of {count} blocks")
    return {number for number in range(count) if bitmap[number // 8] >> number % 8 & 1}
