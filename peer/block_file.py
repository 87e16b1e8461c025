"""A content in a file, whole or on its way: read and written block by block, and no block is used that is not right.

Plain reads and writes, no memory map: a disk that fills while a mapped hole is written, and a file that somebody cuts
off while it is mapped, would kill the process with SIGBUS; here they are an error that can be told.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import structlog

from peer.errors import PeerError
from protocols.blocks import BLOCK_BYTES, BlockIndex
from protocols.rejection import Rejected

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger()


class BlockFile:
    """Its methods block. The file is opened for each block: a run may have a thousand of them."""

    def __init__(self, path: Path, index: BlockIndex, held: Iterable[int]) -> None:
        """`held`: the numbers of the blocks that are there and right."""
        self.path, self.index = path, index
        self.held = set(held)

    @classmethod
    def whole(cls, path: Path) -> Self:
        """The file as it is. Raises OSError."""
        index = BlockIndex.of(_pieces(path))
        return cls(path, index, range(len(index.blocks)))

    @classmethod
    def partial(cls, path: Path, index: BlockIndex) -> Self:
        """The content of `index`, as far as `path` holds it; the file is made, or cut, to the content's size.

        What is missing takes no room on disk. Raises OSError.
        """
        with path.open("ab") as opened:
            opened.truncate(index.size_bytes)
        pieces = enumerate(_pieces(path))
        return cls(path, index, [number for number, block in pieces if _is_right(index, number, block)])

    def read(self, number: int) -> bytes | None:
        """The block; None when it is not here. One that has gone bad on the disk is said so, and not here any more."""
        if number not in self.held:
            return None
        try:
            with self.path.open("rb", buffering=0) as opened:
                opened.seek(number * BLOCK_BYTES)
                block = opened.read(self.index.block_size(number))
            self.index.check(number, block)
        except (OSError, Rejected) as error:
            self.held.discard(number)
            log.warning(
                "a file of the run's data has changed on the disk; join again to repair it",
                file=str(self.path),
                block=number,
                error=str(error),
            )
            return None
        return block

    def write(self, number: int, block: memoryview) -> None:
        """Puts a right block into its place, without adding it to `held`. Raises PeerError when the disk is full."""
        try:
            with self.path.open("r+b", buffering=0) as opened:
                opened.seek(number * BLOCK_BYTES)
                while len(block):
                    block = block[opened.write(block) :]
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise PeerError(
                    f"the disk of {self.path.parent.parent} is full; free some space and join again: "
                    f"what has come of {self.path.stem} is kept"
                ) from error
            raise PeerError(f"{self.path} cannot be written: {error.strerror}") from error


def occupied_bytes(path: Path) -> int:
    """What the file takes on the disk, its holes not counted. Raises OSError."""
    return os.stat(path, follow_symlinks=False).st_blocks * 512


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as opened:
        while piece := opened.read(BLOCK_BYTES):
            yield piece


def _is_right(index: BlockIndex, number: int, block: bytes) -> bool:
    try:
        index.check(number, block)
    except Rejected:
        return False
    return True
