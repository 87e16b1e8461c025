"""Watches the wall clock: others refuse records that expire at the wrong time, so its user should know of a jump."""

import structlog

from dht.interfaces import Clock

INTERVAL_SECONDS = 5.0
JUMP_SECONDS = 2.0
"""A clock that is being kept right is moved by less in one interval."""

log = structlog.get_logger()


async def watch_wall_clock(clock: Clock) -> None:
    """Warns, until cancelled, whenever the wall clock has jumped against the monotonic one; once for each jump."""
    last = clock.wall() - clock.monotonic()
    while True:
        await clock.sleep(INTERVAL_SECONDS)
        now = clock.wall() - clock.monotonic()
        if abs(now - last) > JUMP_SECONDS:
            log.warning(
                "the clock of this machine has jumped: it was set, or the machine slept; rounds go on, but while it is "
                "wrong newcomers do not find this member through the DHT (see `peer doctor`)",
                seconds=round(now - last, 1),
            )
        last = now
