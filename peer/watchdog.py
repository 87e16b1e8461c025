"""Measures the event loop's lag: whoever blocks it stalls everybody who waits for this peer's bytes.

It tells of a hang when that is over; of one that does not end, `hang_watch.py`.
"""

import asyncio
from collections.abc import Callable

import structlog

INTERVAL_SECONDS = 0.1
WARN_SECONDS = 0.25
QUIET_SECONDS = 10.0
"""The log has one warning in so long, with the worst lag since the last."""

log = structlog.get_logger()


async def watch_event_loop(add_lag: Callable[[float], None]) -> None:
    """Measures, until cancelled, by how many seconds the loop is late, and warns when that is much."""
    loop = asyncio.get_running_loop()
    worst, warned = 0.0, float("-inf")
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        lag = max(0.0, loop.time() - due)
        add_lag(lag)
        worst = max(worst, lag)
        if worst > WARN_SECONDS and loop.time() - warned > QUIET_SECONDS:
            log.warning("the event loop was blocked; is the machine overloaded?", seconds=round(worst, 3))
            worst, warned = 0.0, loop.time()
