"""Structured concurrency for pairs: something that runs beside a body, and ends with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Runs `coroutine` as long as the body; an error of either ends both and is raised as it is, not in a group."""
    error: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(coroutine)
            yield task
            task.cancel()
    except BaseExceptionGroup as group:
        error = first_of(group)
        group.__traceback__ = None  # which leads to where asyncio keeps the group
    if error is not None:
        try:
            raise error  # not within `except`: the group would be its context, and they would keep each other alive
        finally:
            del error, task


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group that a single cause has brought down."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
