"""A data set evaluates a model that answers in the event loop."""

import asyncio
import threading

import pytest
import torch
from torch import Tensor

from peer.data.asking import evaluate
from peer.data.digits import Digits


@pytest.fixture(scope="module")
def digits():
    return Digits()


def brightest(inputs: Tensor) -> Tensor:
    """Ten numbers of each image, which are good for nothing."""
    return inputs.flatten(1)[:, :10]


async def test_an_answer_in_the_loop_is_as_good_as_one_at_once(digits):
    async def ask(inputs):
        await asyncio.sleep(0)
        return brightest(inputs)

    assert await evaluate(digits, ask, 100) == digits.evaluate(brightest, 100)


async def test_the_loop_goes_on_while_the_data_set_waits(digits):
    asked, answered = asyncio.Event(), asyncio.Event()

    async def ask(inputs):
        asked.set()
        await answered.wait()
        return brightest(inputs)

    async with asyncio.TaskGroup() as tasks:
        evaluating = tasks.create_task(evaluate(digits, ask, 100))
        await asked.wait()
        answered.set()
    assert evaluating.result() == digits.evaluate(brightest, 100)


async def test_who_cannot_answer_ends_it_with_its_error(digits):
    async def ask(_inputs):
        raise LookupError("nobody answers")

    with pytest.raises(LookupError, match="nobody answers"):
        await evaluate(digits, ask, 100)


async def test_a_mistake_of_the_data_set_is_raised_as_it_is(digits):
    async def ask(_inputs):
        return torch.zeros(1)

    with pytest.raises(IndexError):
        await evaluate(digits, ask, 100)


async def test_no_thread_is_left_when_it_is_given_up(digits):
    asked = asyncio.Event()

    async def ask(_inputs):
        asked.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        evaluating = tasks.create_task(evaluate(digits, ask, 100))
        await asked.wait()
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("evaluation")]
        evaluating.cancel()
    assert threads
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
