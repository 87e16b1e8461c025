"""The border of one exchange inside a task that lives as long as the daemon.

Errors that can be foreseen are caught where they are foreseen. What is left is a mistake of ours, and some peer may
know how to make us commit it: it costs that exchange, a line in the log and a count, never the task or the daemon.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dht.interfaces import Clock, OnRejected
from protocols.identity import PeerId

log = logging.getLogger(__name__)

TASK_FAILED = "task_failed"
"""Counted as a reason: a task of ours met what it should not have."""
PAUSE_SECONDS = 1.0
"""After a failure, so that one that repeats at every turn does not take the processor and fill the log."""


class Border:
    """Of the tasks of one owner."""

    def __init__(self, owner: PeerId, clock: Clock, on_failed: OnRejected) -> None:
        """`owner`: this peer, to whom a failure is charged: whose fault it was is not known."""
        self._owner, self._clock, self._on_failed = owner, clock, on_failed

    @asynccontextmanager
    async def around(self, exchange: str) -> AsyncIterator[None]:
        """Ends every exception of its body here, but cancellation."""
        try:
            yield
        except Exception as error:
            log.exception("failed here, and goes on: %s", exchange)
            self._on_failed(self._owner, TASK_FAILED, f"{exchange}: {type(error).__name__}: {error}")
            await self._clock.sleep(PAUSE_SECONDS)
