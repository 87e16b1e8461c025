"""A disk that refuses snapshots is reported once, and saving goes on when it takes them again."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from structlog.testing import capture_logs

from dht.interfaces import Clock
from peer.saving import RETRY_SECONDS, Saver
from peer.snapshots import SnapshotStore
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


def state(epoch: int) -> ModelState:
    return ModelState(RUN, epoch, np.full(COUNT, epoch, np.float32), {})


def saved_epoch(store: SnapshotStore) -> int:
    latest = store.latest(run=RUN, parameter_count=COUNT, slot_names=())
    assert latest is not None
    return latest.epoch


async def test_a_full_disk_is_reported_once_and_saving_resumes(tmp_path: Path) -> None:
    store, clock = SnapshotStore(tmp_path), SetClock()
    saver = Saver(store, -1, clock)
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
        saver = Saver(store, -1, clock)
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
    saver = Saver(store, -1, SetClock())
    await saver.save(state(1))
    with full_disk():
        await saver.save(state(2))
    await saver.save(state(3))
    assert saved_epoch(store) == 1
    await saver.save(state(3), last=True)
    assert saved_epoch(store) == 3
