"""Every state comes to the disk in the end, and a disk that refuses one is reported once."""

import asyncio
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from structlog.testing import capture_logs

from dht.interfaces import Clock
from peer.saving import RETRY_SECONDS, Saver, keep_saving
from peer.signal import Signal
from peer.snapshots import SnapshotStore
from peer.tasks import beside
from protocols.state import ModelState
from tests.small_disk import FILLER, empty, fill, small_disk

RUN = "tests-" + "a" * 26
COUNT = 100_000


class SetClock(Clock):
    """Stands until it is set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses to let files grow, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state(epoch: int, value: float | None = None) -> ModelState:
    return ModelState(RUN, epoch, np.full(COUNT, epoch if value is None else value, np.float32), {})


def saved_epoch(store: SnapshotStore) -> int:
    latest = store.latest(run=RUN, parameter_count=COUNT, slot_names=())
    assert latest is not None
    return latest.epoch


async def test_a_full_disk_is_reported_once_and_saving_resumes(tmp_path: Path) -> None:
    store, clock = SnapshotStore(tmp_path), SetClock()
    saver = Saver(store, None, clock)
    await saver.save(state(1))
    with capture_logs() as lines:
        with full_disk():
            for epoch in range(2, 10):
                await saver.save(state(epoch))
                clock.now += RETRY_SECONDS / 2
        assert [line["log_level"] for line in lines] == ["error"]
        assert "free some space" in lines[0]["error"]
        assert lines[0]["saved_epoch"] == 1
        assert saved_epoch(store) == 1
        clock.now += RETRY_SECONDS
        await saver.save(state(10))
        assert [line["log_level"] for line in lines] == ["error", "info"]
    assert saved_epoch(store) == 10


async def test_a_disk_without_space_is_reported_once_and_saving_resumes(tmp_path: Path) -> None:
    """As above, on a disk that has filled up: other calls fail, in other ways, than where files may not grow."""
    with small_disk(tmp_path / "disk") as disk:
        store, clock = SnapshotStore(disk), SetClock()
        saver = Saver(store, None, clock)
        await saver.save(state(1))
        fill(disk)
        with capture_logs() as lines:
            for epoch in range(2, 10):
                await saver.save(state(epoch))
                clock.now += RETRY_SECONDS / 2
            assert [line["log_level"] for line in lines] == ["error"]
            assert "No space left on device" in lines[0]["error"]
            assert "free some space" in lines[0]["error"]
            assert saved_epoch(store) == 1
            assert sorted(path.name for path in disk.iterdir()) == ["epoch-000000000001.safetensors", FILLER]
            empty(disk)
            clock.now += RETRY_SECONDS
            await saver.save(state(10))
            assert [line["log_level"] for line in lines] == ["error", "info"]
        assert saved_epoch(store) == 10


async def test_the_last_state_is_tried_at_once(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    saver = Saver(store, None, SetClock())
    assert await saver.save(state(1))
    with full_disk():
        assert not await saver.save(state(2))
    assert not await saver.save(state(3))
    assert saved_epoch(store) == 1
    assert await saver.save(state(3), last=True)
    assert await saver.save(state(3))
    assert saved_epoch(store) == 3


async def test_another_state_of_the_saved_epoch_is_saved_too(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    saver = Saver(store, state(4), SetClock())
    await saver.save(state(4, value=7))
    latest = store.latest(run=RUN, parameter_count=COUNT, slot_names=())
    assert latest is not None
    assert latest.digest == state(4, value=7).digest


class SlowStore(SnapshotStore):
    """Takes each state when it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.asked, self.go_on, self.done = (threading.Semaphore(0) for _ in range(3))

    def save(self, state: ModelState) -> Path:
        self.asked.release()
        self.go_on.acquire()
        path = super().save(state)
        self.done.release()
        return path


async def test_a_state_that_comes_during_a_slow_save_is_saved_after_it(tmp_path: Path) -> None:
    store, changed, newest = SlowStore(tmp_path), Signal(), state(1)
    saver = Saver(store, None, SetClock())
    async with beside(keep_saving(saver.save, lambda: newest, changed)):
        await asyncio.to_thread(store.asked.acquire)
        newest = state(2)
        changed.notify()
        store.go_on.release()
        await asyncio.to_thread(store.done.acquire)
        assert await asyncio.to_thread(store.asked.acquire, timeout=10)
        store.go_on.release()
        await asyncio.to_thread(store.done.acquire)
    assert saved_epoch(store) == 2
