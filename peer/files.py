"""Writing a file so that a reader, or a machine that loses power, sees the old one or the new one, never a part."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

_TEMPORARY_SUFFIX = ".incomplete"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a temporary file beside `path`, then puts it in `path`'s place, on disk.

    When `write` raises, what stood at `path` is untouched and the temporary file is removed. Nobody who may write into
    the directory can have made that file, or a link in its place: it is new, under a name that cannot be guessed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        write(temporary)
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(finished: Path, path: Path) -> None:
    """Puts the finished file where `path` is, on disk before anybody sees it there."""
    _sync(finished)
    finished.replace(path)
    _sync(path.parent)


def remove_incomplete(directory: Path) -> None:
    """Removes what a writer that was killed left behind; nobody else may be writing there."""
    for leftover in directory.glob(f".*{_TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
