"""Ends a daemon whose event loop hangs for good, so that whoever supervises it can start it again.

What runs on the loop (`watchdog.py`) tells of a hang when it is over. Here a thread looks for the loop's heartbeat,
and tells where it hangs while it does. A thread that was not run itself has missed nothing: a process that is stopped,
or a machine that sleeps or gives us no processor, does not count as a hang.

It sees no hang in which native code keeps the interpreter's lock, for then no thread runs.
"""

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from protocols.awake import AwakeTime

LOOKS_UNTIL_REPORT = 5
LOG_SECONDS = 1.0
"""So long may the last words take: what the loop hangs in may be a terminal or a pipe that takes no more of them."""
EXIT_CODE = 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds without a heartbeat the hang is reported, and the process ended."""

    report_seconds: float = 5.0
    end_seconds: float = 120.0

    @property
    def look_seconds(self) -> float:
        return self.report_seconds / LOOKS_UNTIL_REPORT


class Verdict(Enum):
    WELL = auto()
    REPORT = auto()
    """Once for each hang."""
    END = auto()


class Pulse:
    """Judges a counter of heartbeats, read again and again; pure: time comes in as an argument."""

    def __init__(self, patience: Patience, now: float) -> None:
        self.silent_seconds = 0.0
        """Since the last heartbeat; only time in which we looked, too."""
        self._patience = patience
        self._awake = AwakeTime(now, 2 * patience.look_seconds)
        self._beats = -1
        self._beat_at = now
        self._reported = False

    def look(self, beats: int, now: float) -> Verdict:
        """`beats`: how many there have been so far; `now`: monotonic seconds."""
        now = self._awake.at(now)
        if beats != self._beats:
            self._beats, self._beat_at, self._reported = beats, now, False
        self.silent_seconds = now - self._beat_at
        if self.silent_seconds >= self._patience.end_seconds:
            return Verdict.END
        if self.silent_seconds >= self._patience.report_seconds and not self._reported:
            self._reported = True
            return Verdict.REPORT
        return Verdict.WELL


@contextmanager
def hang_watch(patience: Patience | None = None) -> Iterator[None]:
    """Watches the running event loop while the context lasts: a hang is logged, and a long one ends the process."""
    patience = patience or Patience()
    heart = _Heart(asyncio.get_running_loop(), patience.look_seconds / 2)
    left = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(heart, patience, threading.get_ident(), left), name="hang watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        heart.stop()
        left.set()
        thread.join()


class _Heart:
    """Beats on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_seconds: float) -> None:
        self.beats = 0
        self._loop, self._interval_seconds = loop, interval_seconds
        self._beat()

    def stop(self) -> None:
        self._next.cancel()

    def _beat(self) -> None:
        self.beats += 1
        self._next = self._loop.call_later(self._interval_seconds, self._beat)


def _watch(heart: _Heart, patience: Patience, loop_thread: int, left: threading.Event) -> None:
    pulse = Pulse(patience, time.monotonic())
    while not left.wait(patience.look_seconds):
        match pulse.look(heart.beats, time.monotonic()):
            case Verdict.REPORT:
                _say(lambda: _report(pulse.silent_seconds, patience, loop_thread))
            case Verdict.END:
                _say(lambda: log.error("the event loop hangs for good; ending", seconds=round(pulse.silent_seconds)))
                os._exit(EXIT_CODE)


def _report(silent_seconds: float, patience: Patience, loop_thread: int) -> None:
    frame = sys._current_frames().get(loop_thread)
    log.error(
        "the event loop hangs; unless it goes on, this process will end",
        seconds=round(silent_seconds, 1),
        ends_at_seconds=patience.end_seconds,
        stack="".join(traceback.format_stack(frame)) if frame is not None else "unknown",
    )


def _say(words: Callable[[], None]) -> None:
    """Logs, unless that hangs as well."""
    saying = threading.Thread(target=words, name="hang watch speaks", daemon=True)
    saying.start()
    saying.join(LOG_SECONDS)
