"""Something has changed: wakes everyone who waits."""

import asyncio


class Signal:
    """`wait` returns at the next `notify`; what has changed is for the waiter to look at."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()
