"""The evaluation of a model that has to be asked: the data set waits for it in a thread, the event loop does not."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from torch import Tensor

from peer.data.dataset import Dataset

Ask = Callable[[Tensor], Awaitable[Tensor]]
"""As `Predict`, but awaited."""
Evaluate = Callable[[Dataset, Ask, int], Awaitable[dict[str, float]]]
"""Metrics of the model over at most so many held-out samples."""


async def evaluate(dataset: Dataset, ask: Ask, limit: int) -> dict[str, float]:
    """As `Dataset.evaluate`, in a thread of its own; raises what `ask` raises."""
    loop = asyncio.get_running_loop()
    questions: asyncio.Queue[Tensor | None] = asyncio.Queue()
    answer: Future[Tensor] = Future()
    """That the thread waits for."""
    given_up = False

    def hand_over(inputs: Tensor, its_answer: "Future[Tensor]") -> None:
        nonlocal answer
        answer = its_answer
        if given_up:
            answer.cancel()
        questions.put_nowait(inputs)

    def predict(inputs: Tensor) -> Tensor:
        its_answer: Future[Tensor] = Future()
        loop.call_soon_threadsafe(hand_over, inputs, its_answer)
        return its_answer.result()

    def run() -> dict[str, float]:
        try:
            return dataset.evaluate(predict, limit)
        finally:
            with suppress(RuntimeError):  # the loop may have been closed
                loop.call_soon_threadsafe(questions.put_nowait, None)

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")
    evaluated = thread.submit(run)
    try:
        while (inputs := await questions.get()) is not None:
            answer.set_result(await ask(inputs))
        return await asyncio.wrap_future(evaluated)
    finally:
        given_up = True
        answer.cancel()
        thread.shutdown(wait=False)
