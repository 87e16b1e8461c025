"""Something has changed: wakes everyone who waits."""

import asyncio


class Signal:
    """`wait` returns at the next `notify`; what has changed is for the waiter to look at."""

    def __init__(self) -> None:
        self._awaited: asyncio.Event | None = None
        """Of those who wait; most news wake nobody."""

    def notify(self) -> None:
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    async def wait(self) -> None:
        if self._awaited is None:
            self._awaited = asyncio.Event()
        await self._awaited.wait()
