"""Where the files of a run's shards are on this machine."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from peer.data.dataset import DatasetError
from peer.data.text import shard_of
from peer.errors import PeerError, UsageError
from peer.files import write_atomically
from protocols.manifest import Shard

_RECORD = "data.json"


def record_shard_files(run_directory: Path, files: Sequence[Path]) -> None:
    """Remembers the organiser's files (absolute), so that they need not be named again to join."""
    text = json.dumps([str(file) for file in files], indent=0)
    write_atomically(run_directory / _RECORD, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def locate_shards(shards: Sequence[Shard], places: Sequence[Path], run_directory: Path) -> list[Path | None]:
    """The file of each shard, in order, from `places` (files and directories) and from those recorded; None: not here.

    A file is known by its name and size, and among several such by its content; whoever opens a file checks its
    content anyway.
    """
    if not shards:
        return []
    candidates: dict[tuple[str, int], list[Path]] = {(shard.name, shard.size_bytes): [] for shard in shards}
    for file in [*_recorded(run_directory), *_files(places)]:
        try:
            key = (file.name, file.stat().st_size)
        except OSError:
            continue  # vanished or not readable: as good as not there
        if key in candidates:
            candidates[key].append(file)
    return [_choose(shard, candidates[shard.name, shard.size_bytes]) for shard in shards]


def _choose(shard: Shard, candidates: Sequence[Path]) -> Path | None:
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    return next((file for file in candidates if _is(shard, file)), None)


def _is(shard: Shard, file: Path) -> bool:
    try:
        return shard_of(file) == shard
    except DatasetError:
        return False


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
