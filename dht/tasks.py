"""Tasks with an owner: an object that lives between `start` and `close` starts them here and awaits them in `close`.

A task ends when it is cancelled only if nothing that it awaits loses the cancellation. `asyncio.wait_for` did so before
Python 3.12, when the answer came in the same turn of the event loop, and hivemind waits for every answer with it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

AGAIN_SECONDS = 5.0
"""Who has not ended so long after it was cancelled is cancelled again."""

T = TypeVar("T")

log = logging.getLogger(__name__)


async def cancellable(call: Awaitable[T]) -> T:
    """The result of a call that may lose a cancellation of the current task, which is raised here after all."""
    result = await call
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return result


class OwnedTasks:
    """The running tasks of one owner; a task that fails is logged, and the others go on."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any] | None:
        """The new task; None, and nothing started, after `cancel` or `close`."""
        if self._closed:
            coroutine.close()
            return None
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def cancel(self) -> None:
        """Cancels all and starts no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Cancels all and waits until they have ended; called by a task of its own, it does not wait for that one."""
        self.cancel()
        others = self._tasks - {asyncio.current_task()}
        while others:
            _, others = await asyncio.wait(others, timeout=AGAIN_SECONDS)
            for task in others:
                log.warning("task %s goes on although it was cancelled; cancelling it again", task.get_name())
                task.cancel()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
