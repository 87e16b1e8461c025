"""Keeps the newest state on disk for as long as the disk takes it, and trains on when it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from dht.interfaces import Clock
from peer.member import Member
from peer.signal import Signal
from peer.snapshots import SnapshotError, SnapshotStore
from protocols.state import ModelState

RETRY_SECONDS = 5.0
"""How soon a disk that has refused a snapshot is tried again."""

log = structlog.get_logger()


class Saver:
    """Saves one state at a time. A disk that refuses is reported once, and once more when it takes snapshots again."""

    def __init__(
        self,
        store: SnapshotStore,
        saved: ModelState | None,
        clock: Clock,
        in_thread: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        """`saved`: the newest snapshot that is there already."""
        self._in_thread = in_thread
        self._store = store
        self._saved_epoch = saved.epoch if saved else None
        self._saved_digest = saved.digest if saved else None
        self._clock = clock
        self._lock = asyncio.Lock()
        self._refused_at: float | None = None

    async def save(self, state: ModelState, *, last: bool = False) -> bool:
        """Saves `state` unless it has been saved; soon after a failure only when it is the `last` one.

        Whether it is on the disk now.
        """
        async with self._lock:
            if state.digest == self._saved_digest:
                return True
            now = self._clock.monotonic()
            if self._refused_at is not None and now - self._refused_at < RETRY_SECONDS and not last:
                return False
            try:
                await self._in_thread(self._store.save, state)
            except SnapshotError as error:
                if self._refused_at is None or last:
                    log.error(
                        "snapshots cannot be saved; the last one is kept, and saving is tried again while we train on",
                        epoch=state.epoch,
                        saved_epoch=self._saved_epoch,
                        error=str(error),
                    )
                self._refused_at = now
                return False
            if self._refused_at is not None:
                log.info("snapshots are saved again", epoch=state.epoch)
            self._saved_epoch, self._saved_digest, self._refused_at = state.epoch, state.digest, None
            return True


async def keep_saving(
    save: Callable[[ModelState], Awaitable[object]], newest: Callable[[], ModelState | None], changed: Signal
) -> None:
    """Saves `newest()` whenever the last save is done, until cancelled; `changed`: it may be another one."""
    while True:
        state = newest()
        if state is not None:
            await save(state)
        if newest() is state:  # else it has changed during a slow save, when nobody waited for the signal
            await changed.wait()


class Saving(Protocol):
    """Keeps a member's newest state on the disk, so that kill -9 costs an epoch or two at most."""

    async def keep_saving(self) -> None:
        """Until cancelled."""

    async def save(self, *, last: bool = False) -> None:
        """Now; the `last` one also soon after a failure."""


class SavesNewest:
    """`Saving` of a member that holds the whole model."""

    def __init__(self, saver: Saver, member: Member) -> None:
        self._saver, self._member = saver, member

    async def keep_saving(self) -> None:
        await keep_saving(self._saver.save, self._newest, self._member.changed)

    async def save(self, *, last: bool = False) -> None:
        if (state := self._newest()) is not None:
            await self._saver.save(state, last=last)

    def _newest(self) -> ModelState | None:
        """None before it is the swarm's."""
        return self._member.state if self._member.joined else None
