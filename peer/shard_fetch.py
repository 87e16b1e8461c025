"""Shards that are not on this machine: fetched from the members that hold them, verified, resumed after a break."""

import mmap
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from dht.interfaces import OnRejected, Transport
from peer.contents import ContentNotFound, ContentStore, fetch_content
from peer.errors import PeerError
from protocols.blocks import BlockIndex
from protocols.identity import PeerId
from protocols.manifest import Shard

RETRY_SECONDS = 2.0
ROUNDS_WITHOUT_GAIN = 15
"""After so many vain attempts in a row, RETRY_SECONDS apart, the shard is given up."""
_PARTIAL_SUFFIX = ".partial"
_STAT_BLOCK_BYTES = 512
"""In which `stat` counts."""

log = structlog.get_logger()


class ShardFetcher:
    """Keeps fetched shards as `<directory>/<digest>/<name>`, all of them together within `quota_bytes`."""

    def __init__(
        self,
        directory: Path,
        quota_bytes: int,
        transport: Transport,
        members: Callable[[], Awaitable[Sequence[PeerId]]],
        on_rejected: OnRejected,
    ) -> None:
        """`members`: who may hold shards, connected."""
        self._directory, self._quota_bytes = directory, quota_bytes
        self._transport, self._members, self._on_rejected = transport, members, on_rejected

    async def fetch(self, shards: Sequence[Shard], files: Sequence[Path | None]) -> list[Path]:
        """All the files: those that are None in `files` are fetched. Raises PeerError."""
        missing = [shard for shard, file in zip(shards, files, strict=True) if file is None]
        if missing:
            await self._transport.in_thread(self._make_room, missing)
        return [
            file if file is not None else await self._fetch_one(shard)
            for shard, file in zip(shards, files, strict=True)
        ]

    def _make_room(self, missing: Sequence[Shard]) -> None:
        size_bytes = sum(shard.size_bytes for shard in missing)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            held = [path for path in self._directory.glob("*/*") if not path.name.endswith(_PARTIAL_SUFFIX)]
            kept = sum(path.stat().st_size for path in held)
            free = shutil.disk_usage(self._directory).free
            begun = sum(_taken_bytes(_partial(self._file(shard))) for shard in missing)
        except OSError as error:
            raise PeerError(f"{self._directory} cannot hold the run's data: {error.strerror}") from error
        if kept + size_bytes > self._quota_bytes:
            raise PeerError(
                f"the run's data takes {_gigabytes(size_bytes)} and {_gigabytes(kept)} are kept already, "
                f"over the quota of {_gigabytes(self._quota_bytes)}; raise it with --data-quota GB"
            )
        if size_bytes - begun > free:
            raise PeerError(
                f"the run's data takes {_gigabytes(size_bytes)}, and {self._directory} has {_gigabytes(free)} free; "
                "free some space"
            )

    def _file(self, shard: Shard) -> Path:
        return self._directory / shard.digest.hex() / shard.name

    async def _fetch_one(self, shard: Shard) -> Path:
        file = self._file(shard)
        partial = _partial(file)
        await self._transport.in_thread(_allocate, partial, shard.size_bytes)
        log.info("fetching data", shard=shard.name, size_bytes=shard.size_bytes)
        for _ in range(ROUNDS_WITHOUT_GAIN):
            try:
                await fetch_content(
                    self._transport,
                    shard.digest,
                    await self._members(),
                    shard.size_bytes,
                    self._on_rejected,
                    lambda size: _map(partial, size),
                    resume=True,
                )
            except ContentNotFound as error:
                log.info("the data is not whole yet, trying again", shard=shard.name, why=str(error))
                await self._transport.clock.sleep(RETRY_SECONDS)
                continue
            await self._transport.in_thread(partial.replace, file)
            return file
        raise PeerError(
            f"no member that is up holds {shard.name} whole ({shard.size_bytes} bytes); get it from the organiser and "
            "join with --data PATH, or join again when the organiser is up"
        )


def pin_shards(contents: ContentStore, files: Sequence[Path]) -> None:
    """From now on others can fetch these files from us."""
    for file in files:
        view = _map_readonly(file)
        contents.pin(BlockIndex.of([view]), [view])


def _partial(file: Path) -> Path:
    return file.with_name(file.name + _PARTIAL_SUFFIX)


def _taken_bytes(file: Path) -> int:
    return file.stat().st_blocks * _STAT_BLOCK_BYTES if file.exists() else 0


def _allocate(file: Path, size_bytes: int) -> None:
    """Makes the file so long and takes its place on the disk, whatever it holds already. Raises PeerError.

    Were the disk to fill up while a file with holes is mapped, the next write to it would kill the process (SIGBUS).
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.truncate(size_bytes)
            if size_bytes and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened.fileno(), 0, size_bytes)
    except OSError as error:
        raise PeerError(
            f"{file.parent} cannot hold {_gigabytes(size_bytes)} of the run's data: {error.strerror}; "
            "free some space, or give another --home"
        ) from error


def _map(file: Path, size: int) -> memoryview:
    """The file's bytes, writable, `size` of them."""
    with file.open("r+b") as opened:
        opened.truncate(size)
        return memoryview(mmap.mmap(opened.fileno(), size)) if size else memoryview(bytearray())


def _map_readonly(file: Path) -> memoryview:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        return memoryview(mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
