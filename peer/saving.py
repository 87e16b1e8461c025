"""Keeps the newest state on disk for as long as the disk takes it, and trains on when it does not."""

import asyncio

import structlog

from dht.interfaces import Clock
from peer.snapshots import SnapshotError, SnapshotStore
from protocols.state import ModelState

RETRY_SECONDS = 5.0
"""How soon a disk that has refused a snapshot is tried again."""

log = structlog.get_logger()


class Saver:
    """Saves one state at a time. A disk that refuses is reported once, and once more when it takes snapshots again."""

    def __init__(self, store: SnapshotStore, saved_epoch: int, clock: Clock) -> None:
        """`saved_epoch`: of the newest snapshot that is there already; −1: none."""
        self._store = store
        self._saved_epoch = saved_epoch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._refused_at: float | None = None

    async def save(self, state: ModelState, *, last: bool = False) -> None:
        """Saves `state` unless it has been saved; soon after a failure only when it is the `last` one."""
        async with self._lock:
            now = self._clock.monotonic()
            too_soon = self._refused_at is not None and now - self._refused_at < RETRY_SECONDS
            if state.epoch == self._saved_epoch or (too_soon and not last):
                return
            try:
                await asyncio.to_thread(self._store.save, state)
            except SnapshotError as error:
                if self._refused_at is None or last:
                    log.error(
                        "snapshots cannot be saved; the last one is kept, and saving is tried again while we train on",
                        epoch=state.epoch,
                        saved_epoch=self._saved_epoch,
                        error=str(error),
                    )
                self._refused_at = now
                return
            if self._refused_at is not None:
                log.info("snapshots are saved again", epoch=state.epoch)
            self._saved_epoch, self._refused_at = state.epoch, None
