"""An event loop under a virtual clock: when nothing is ready, time jumps to the next timer.

A program that talks only through such a loop runs as fast as the machine computes, in the same order every time. When
nothing is ready and no timer is set, no event can ever come: that is a deadlock, and an error here.
"""

import asyncio
from typing import Any, NoReturn

from dht.interfaces import Clock

FIRST_WALL_SECONDS = 1_800_000_000.0
"""Unix seconds at virtual time 0."""
_MAX_NAMED_TASKS = 8


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is scheduled: all tasks wait for each other, or for something real."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Offers tasks, timers and callbacks; no sockets, threads, signals or processes."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self  # the base class asks its selector to wait: see `select`

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Waits without waiting."""
        if timeout is None:
            self._raise_deadlock()
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nobody sleeps in select

    def _raise_deadlock(self) -> NoReturn:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        raise DeadlockError(
            f"at {self._now:.3f} virtual seconds {len(names)} tasks wait and nothing is scheduled: "
            f"{', '.join(names[:_MAX_NAMED_TASKS])}; threads, sockets and processes do not exist in a simulation"
        )


class VirtualClock(Clock):
    """`wall_offset_seconds`: by how much its wall clock is wrong."""

    wall_offset_seconds = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return FIRST_WALL_SECONDS + self.monotonic() + self.wall_offset_seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
