"""An event loop under a virtual clock: when nothing is ready, time jumps to the next timer.

A program that talks only through such a loop runs as fast as the machine computes, in the same order every time. When
nothing is ready and no timer is set, no event can ever come: that is a deadlock, and an error here.
"""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from itertools import count
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
        self._timers = count()
        self._tasks = count()
        self._selector = self  # the base class asks its selector to wait: see `select`
        self.set_task_factory(VirtualTimeLoop._numbered)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._now

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers of one moment fire in the order in which they were set; a heap alone does not promise that."""
        timer = _Timer(when, next(self._timers), callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]  (tells the loop of a cancellation)
        return timer

    def select(self, timeout: float | None) -> list[Any]:
        """Waits without waiting."""
        if timeout is None:
            self._raise_deadlock()
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        return []

    def _numbered(self, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        return _Task(next(self._tasks), coroutine, loop=self, **options)

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


class _Timer(asyncio.TimerHandle):
    def __init__(self, when: float, number: int, *rest: Any) -> None:
        super().__init__(when, *rest)
        self._number = number

    def __lt__(self, other: Any) -> bool:
        if self._when == other._when:  # type: ignore[attr-defined]
            return self._number < other._number  # type: ignore[no-any-return]
        return self._when < other._when  # type: ignore[attr-defined,no-any-return]


class _Task(asyncio.Task[Any]):
    """Hashed by its number: in a set of tasks, of which asyncio has some, it comes in the same order every time."""

    def __init__(self, number: int, *rest: Any, **options: Any) -> None:
        self._number = number
        super().__init__(*rest, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualClock(Clock):
    """`wall_offset_seconds`: by how much its wall clock is wrong."""

    wall_offset_seconds = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return FIRST_WALL_SECONDS + self.monotonic() + self.wall_offset_seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
