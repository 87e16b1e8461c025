"""An event loop under a virtual clock: when nothing is ready, time jumps to the next timer.

A program that talks only through such a loop runs as fast as the machine computes, in the same order every time. When
nothing is ready and no timer is set, no event can ever come: that is a deadlock, and an error here.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import count
from typing import Any, NoReturn

from dht.interfaces import Clock

FIRST_WALL_SECONDS = 1_800_000_000.0
"""Unix seconds at virtual time 0."""
_MAX_NAMED_TASKS = 8
_MIN_CANCELLED = 100
"""With fewer cancelled timers the heap is left as it is."""


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is scheduled: all tasks wait for each other, or for something real."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Offers tasks, timers and callbacks; no sockets, threads, signals or processes.

    It has turns and handles of its own in place of the base class's, which waits for a selector, compares timers in
    Python and makes everything ready for debugging: a simulation is made of millions of them.
    """

    _check_closed: Callable[[], None]
    _ready: "deque[_Callback | _Timer]"
    _closed: bool
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._numbers = count()
        self._timers: list[tuple[float, int, _Timer]] = []
        """A heap. Timers of one moment fire in the order in which they were set."""
        self._cancelled = 0
        """How many of them are cancelled."""

    def time(self) -> float:
        return self._now

    def create_task(  # type: ignore[override]  # asyncio's has type variables
        self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        return _Task(next(self._numbers), coroutine, loop=self, name=name, context=context)

    def call_soon(  # type: ignore[override]  # asyncio's has type variables
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            self._check_closed()
        handle = _Callback(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # asyncio's has type variables
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # asyncio's has type variables
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        """Turns until it is stopped, each with everything that is ready, or else what comes next."""
        timers, ready = self._timers, self._ready
        while True:
            if self._cancelled > _MIN_CANCELLED and 2 * self._cancelled > len(timers):
                self._drop_cancelled()
            while timers and (timers[0][0] <= self._now or not ready):
                when, _, timer = heapq.heappop(timers)
                timer._scheduled = False
                if timer._cancelled:
                    self._cancelled -= 1
                    continue
                self._now = max(self._now, when)
                ready.append(timer)
            if not ready:
                self._raise_deadlock()
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    try:  # as `handle._run` does, without a call for each
                        handle._context.run(handle._callback, *handle._args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        what = {"message": f"{handle!r} failed", "exception": error, "handle": handle}
                        self.call_exception_handler(what)
            if self._stopping:
                return

    def _drop_cancelled(self) -> None:
        self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
        heapq.heapify(self._timers)
        self._cancelled = 0

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nobody sleeps in a selector

    def _raise_deadlock(self) -> NoReturn:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        raise DeadlockError(
            f"at {self._now:.3f} virtual seconds {len(names)} tasks wait and nothing is scheduled: "
            f"{', '.join(names[:_MAX_NAMED_TASKS])}; threads, sockets and processes do not exist in a simulation"
        )


class _Callback(asyncio.Handle):
    """Made without what only asyncio's debug mode needs."""

    __slots__ = ()
    _callback: Callable[..., object]
    _context: Context

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualTimeLoop, context: Context | None
    ) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._repr, self._source_traceback = False, None, None


class _Timer(asyncio.TimerHandle):
    """The same, at a time."""

    __slots__ = ()
    _callback: Callable[..., object]
    _context: Context

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualTimeLoop,
        context: Context | None,
    ) -> None:
        self._when, self._scheduled = when, True
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._repr, self._source_traceback = False, None, None

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # as asyncio's own does
            if self._scheduled:
                self._loop._cancelled += 1


class _Task(asyncio.Task[Any]):
    """Hashed by its number: in a set of tasks, of which asyncio has some, it comes in the same order every time."""

    def __init__(self, number: int, *rest: Any, **options: Any) -> None:
        self._number = number
        super().__init__(*rest, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualClock(Clock):
    """Of one loop, the first under which it is read. `wall_offset_seconds`: by how much its wall clock is wrong."""

    wall_offset_seconds = 0.0
    _loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def wall(self) -> float:
        return FIRST_WALL_SECONDS + self.monotonic() + self.wall_offset_seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
