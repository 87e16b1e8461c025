"""Where the files of a run's shards are on this machine."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from peer.block_file import BlockFile
from peer.data.dataset import DatasetError
from peer.errors import PeerError, UsageError
from peer.files import write_atomically
from protocols.manifest import Shard
from protocols.message import first_error

_RECORD = "data.json"

log = structlog.get_logger()


def shard_of(file: Path) -> Shard:
    """How a manifest names `file`. Raises DatasetError."""
    try:
        index = BlockFile.whole(file).index
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error
    try:
        return Shard(name=file.name, size_bytes=index.size_bytes, digest=index.digest)
    except ValidationError as error:
        raise DatasetError(f"{ascii(file.name)[1:-1]}: {first_error(error)}; give the file another name") from error


def record_shard_files(run_directory: Path, files: Sequence[Path]) -> None:
    """Remembers the organiser's files (absolute), so that they need not be named again to join."""
    text = json.dumps([str(file) for file in files], indent=0)
    write_atomically(run_directory / _RECORD, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def locate_shards(shards: Sequence[Shard], places: Sequence[Path], run_directory: Path) -> list[BlockFile | None]:
    """The file of each shard, in order, from `places` (files and directories) and from those recorded; None: not here.

    A file is known by its name and size, and is the shard when its content is: a user's file that is another one, or
    has changed, is named in the log and not used.
    """
    if not shards:
        return []
    candidates: dict[str, list[Path]] = {shard.name: [] for shard in shards}
    for file in dict.fromkeys([*_recorded(run_directory), *_files(places)]):
        if file.name in candidates and file.is_file():
            candidates[file.name].append(file)
    for file in places:
        if file.is_file() and file.name not in candidates:
            log.warning("this file is none of the run's data, which goes by its name and content", file=str(file))
    located = [_choose(shard, candidates[shard.name]) for shard in shards]
    used = {file.path for file in located if file is not None}
    wanted = {shard.name for shard, file in zip(shards, located, strict=True) if file is None}
    for file in [file for name in sorted(wanted) for file in candidates[name] if file not in used]:
        log.warning("this file is not the run's: its content differs; the right one is fetched", file=str(file))
    return located


def _choose(shard: Shard, candidates: Sequence[Path]) -> BlockFile | None:
    for path in candidates:
        try:
            if path.stat().st_size == shard.size_bytes:
                file = BlockFile.whole(path)
                if file.index.digest == shard.digest:
                    return file
        except OSError as error:  # vanished or not readable: as good as not there
            log.debug("a file cannot be read", file=str(path), error=str(error))
    return None


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            for directory, _, names in os.walk(place):
                yield from (Path(directory, name) for name in names)
        elif place.is_file():
            yield place
        else:
            raise UsageError(f"--data {place}: there is no such file or directory")


def _recorded(run_directory: Path) -> list[Path]:
    try:
        text = (run_directory / _RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [Path(file) for file in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise PeerError(f"{run_directory / _RECORD} is damaged ({error}); remove it, and join with --data") from error
