"""The log of a daemon in the background: a file in the run's directory, and the one of the daemon before it."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from peer.errors import PeerError

_POLL_SECONDS = 0.2


def open_new_log(path: Path) -> int:
    """A new log, for writing; the last one is kept under the same name with `.1`. Raises PeerError."""
    try:
        if path.exists():
            path.replace(path.with_name(f"{path.name}.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PeerError(f"the log {path} cannot be written: {error.strerror}; give another --home") from error


def read_log(path: Path, last: int | None, follow_while: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """The `last` lines (None: all), and what is written as long as `follow_while` holds; ends of lines included."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from deque(file, last)
        goes_on = True
        while goes_on:
            goes_on = follow_while()  # asked before reading: the last words must not be missed
            yield from file
            if goes_on:
                time.sleep(_POLL_SECONDS)
