"""Tasks end when their owner closes, whatever they await, and nobody waits for them in vain."""

import asyncio
import logging

import pytest

import dht.tasks
from dht.tasks import OwnedTasks, cancellable


async def answer_and_cancel(*, turns: int) -> asyncio.Task[str]:
    """A task whose answer, awaited as hivemind does, comes so many turns of the event loop before its cancellation."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cancellable(asyncio.wait_for(answer, 60)))
    await asyncio.sleep(0)
    answer.set_result("an answer")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(turns: int) -> None:
    assert (await answer_and_cancel(turns=turns)).cancelled()


async def test_a_call_that_nobody_cancels_gives_its_result() -> None:
    assert await cancellable(asyncio.sleep(0, "a result")) == "a result"
    with pytest.raises(ConnectionError):
        await cancellable(asyncio.wait_for(fail(), 60))


async def fail() -> None:
    raise ConnectionError


async def test_who_loses_its_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dht.tasks, "AGAIN_SECONDS", 0.01)
    lost = 0

    async def lose(count: int) -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if lost == count:
                    raise
                lost += 1

    tasks = OwnedTasks()
    started = tasks.start(lose(2), "a task that will not end")
    assert started is not None
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING):
        await tasks.close()
    assert started.cancelled()
    assert "a task that will not end goes on although it was cancelled" in caplog.text


async def test_after_the_end_nothing_is_started() -> None:
    tasks = OwnedTasks()
    await tasks.close()
    assert tasks.start(asyncio.sleep(0), "too late") is None
