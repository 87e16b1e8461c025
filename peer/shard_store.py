"""Where fetched shards lie in the home, within a quota: `data/<digest>/<name>`, and `<name>.partial` while it comes.

The directory is a cache of what the swarm holds: what is damaged is fetched again, and when the quota or the disk
demands it, what nobody needs goes, that which was used longest ago first.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from peer.block_file import BlockFile, occupied_bytes
from peer.errors import PeerError
from peer.files import move_into_place
from peer.locks import locked
from protocols.blocks import BlockIndex
from protocols.manifest import Shard

PARTIAL_SUFFIX = ".partial"
_DIGEST_NAME = re.compile(r"[0-9a-f]{64}")

log = structlog.get_logger()


class ShardStore:
    """Every method blocks, and raises PeerError when the directory cannot be used."""

    def __init__(self, directory: Path, quota_bytes: int, needed: Callable[[], Collection[bytes]] = frozenset) -> None:
        """`needed`: the digests of all shards of the runs that this home knows."""
        self._directory, self._quota_bytes, self._needed = directory, quota_bytes, needed

    def find(self, shard: Shard) -> BlockFile | None:
        """The shard, if it is here and right; what is damaged is said, and `open_partial` takes it up."""
        path = self._path(shard)
        with self._usable():
            try:
                file = BlockFile.whole(path)
            except FileNotFoundError:
                return None
            if file.index.digest != shard.digest:
                log.warning("the data is damaged; what is wrong in it is fetched again", file=str(path))
                return None
            os.utime(path.parent)
        return file

    def make_room(self, shards: Sequence[Shard], missing: Sequence[Shard]) -> None:
        """For the `missing` ones among the run's `shards`: removes what may go, if and only if that is enough."""
        ours = {shard.digest for shard in shards}
        with self._usable():
            self._directory.mkdir(parents=True, exist_ok=True)
            entries = self._entries()
            here = {entry.digest: entry.occupied for entry in entries}
            to_come = sum(max(0, shard.size_bytes - here.get(shard.digest, 0)) for shard in missing)
            kept = sum(here.values())
            free = shutil.disk_usage(self._directory).free
            excess = max(kept + to_come - self._quota_bytes, to_come - free)
            if excess <= 0:
                return
            removable = self._removable(entries, ours)
            if sum(entry.occupied for entry in removable) >= excess:
                for entry in removable:
                    if excess > 0:
                        entry.remove()
                        excess -= entry.occupied
                return
        size = sum(shard.size_bytes for shard in missing)
        if to_come > free:
            raise PeerError(
                f"the run's data takes {_gigabytes(size)}, of which {_gigabytes(to_come)} are to come, and "
                f"{self._directory} has {_gigabytes(free)} free; free some space"
            )
        others = kept - sum(here.get(shard.digest, 0) for shard in missing)
        raise PeerError(
            f"the run's data takes {_gigabytes(size)} and {_gigabytes(others)} are kept already, "
            f"over the quota of {_gigabytes(self._quota_bytes)}; raise it with --data-quota GB"
        )

    @contextmanager
    def claim(self, shard: Shard) -> Iterator[None]:
        """While it lasts no other daemon of this home fetches the shard. Raises BlockingIOError when one does."""
        directory = self._path(shard).parent
        with self._usable():
            directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, wait=False):
            yield

    def open_partial(self, shard: Shard, index: BlockIndex) -> BlockFile:
        """The claimed shard as far as it is here; a damaged one is taken up where it is right."""
        path, partial = self._path(shard), self._partial(shard)
        with self._usable():
            if path.exists():
                path.replace(partial)
            return BlockFile.partial(partial, index)

    def finish(self, shard: Shard, file: BlockFile) -> None:
        """All blocks are there: from now on the shard is found."""
        with self._usable():
            move_into_place(file.path, self._path(shard))
        file.path = self._path(shard)

    def _path(self, shard: Shard) -> Path:
        return self._directory / shard.digest.hex() / shard.name

    def _partial(self, shard: Shard) -> Path:
        return self._path(shard).with_name(shard.name + PARTIAL_SUFFIX)

    def _entries(self) -> list["_Entry"]:
        names = sorted(name for name in os.listdir(self._directory) if _DIGEST_NAME.fullmatch(name))
        return [_Entry.read(self._directory / name) for name in names]

    def _removable(self, entries: Sequence["_Entry"], ours: Collection[bytes]) -> list["_Entry"]:
        """First what no known run needs, then what another run has begun to fetch and no daemon fetches now."""
        needed = self._needed()
        others = [entry for entry in entries if entry.digest not in ours and entry.idle]
        unneeded = [entry for entry in others if entry.digest not in needed]
        stale = [entry for entry in others if entry.digest in needed and entry.unfinished]
        return [*sorted(unneeded, key=_last_used), *sorted(stale, key=_last_used)]

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PeerError(f"{self._directory} cannot hold the run's data: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """What lies in the directory of one digest."""

    directory: Path
    files: tuple[Path, ...]
    occupied: int
    last_used: float

    @classmethod
    def read(cls, directory: Path) -> "_Entry":
        files = tuple(directory.iterdir())
        last_used = max(os.stat(path).st_mtime for path in (directory, *files))
        return cls(directory, files, sum(map(occupied_bytes, files)), last_used)

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.directory.name)

    @property
    def idle(self) -> bool:
        """Whether no daemon is fetching it."""
        try:
            with locked(self.directory, wait=False):
                return True
        except BlockingIOError:
            return False

    @property
    def unfinished(self) -> bool:
        return all(file.name.endswith(PARTIAL_SUFFIX) for file in self.files)

    def remove(self) -> None:
        log.info("removing data that is not needed, to make room", directory=str(self.directory))
        shutil.rmtree(self.directory)


def _last_used(entry: _Entry) -> float:
    return entry.last_used


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
