"""What a volunteer does to their daemon and their machine does to it: signals, a full disk, damage, a wrong clock."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.swarm.faulty import BACK_SECONDS, Members, averaging, members, process_of
from tests.swarm.processes import LISTEN, Daemon, Swarm, wait_until
from tests.swarm.watcher import Watcher, in_round_after

STOP_SECONDS = 30.0
AT_ONCE_SECONDS = 8.0


def snapshots(run: Members, daemon: Daemon) -> list[str]:
    return sorted(path.stem for path in (daemon.home / "runs" / run.run_id / "snapshots").glob("epoch-*"))


def restart(run: Members, victim: Watcher) -> None:
    """Starts the daemon again; it is soon in rounds of all."""
    epoch = run.epoch()
    victim.daemon.start(run.run_id, *LISTEN)
    run.wait_all(epoch)


@contextmanager
def full_disk(daemon: Daemon) -> Iterator[None]:
    """The kernel refuses to let the daemon's files grow, as a full disk does."""
    soft, hard = resource.prlimit(process_of(daemon), resource.RLIMIT_FSIZE)
    resource.prlimit(process_of(daemon), resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.prlimit(process_of(daemon), resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.timeout(900)
def test_signals_a_full_disk_and_damage_cost_the_swarm_nothing(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    with members(swarm, 3, monkeypatch) as run:
        for number in (signal.SIGINT, signal.SIGTERM):
            leaves_in_mid_round(run, number)
        stops_at_once(run)
        trains_on_with_a_full_disk(run)
        repairs_a_snapshot_from_the_swarm(run)
        is_heard_after_its_clock_was_set_back(run)
        run.assert_one_history()


def leaves_in_mid_round(run: Members, number: signal.Signals) -> None:
    victim, *others = run.watchers
    at = victim.wait("averaging", averaging, BACK_SECONDS).self_.epoch
    victim.daemon.process.send_signal(number)
    assert victim.daemon.wait_exit(STOP_SECONDS) == 0
    assert "Traceback" not in victim.daemon.tail()
    name = victim.daemon.name
    for other in others:  # it said good-bye: nobody waits until it is missed
        other.wait("without it", lambda s: name not in [member.name for member in s.peers], 3)
        assert f"member left member={name}" in other.daemon.log.read_text()
    saved = int(snapshots(run, victim.daemon)[-1].removeprefix("epoch-"))
    assert saved > at, "it has not finished its round"
    assert saved == max(victim.digests)
    restart(run, victim)


def stops_at_once(run: Members) -> None:
    victim = run.watchers[1]
    victim.wait("averaging", averaging, BACK_SECONDS)
    said = victim.daemon.log.read_text().count("once more to stop at once")
    victim.daemon.process.send_signal(signal.SIGINT)
    wait_until(lambda: victim.daemon.log.read_text().count("once more to stop at once") > said)
    victim.daemon.process.send_signal(signal.SIGINT)
    assert victim.daemon.wait_exit(AT_ONCE_SECONDS) == 0
    restart(run, victim)


def trains_on_with_a_full_disk(run: Members) -> None:
    victim = run.watchers[0]
    with full_disk(victim.daemon):
        run.wait_all(run.epoch() + 3)
        log = victim.daemon.log.read_text()
        assert log.count("snapshots cannot be saved") == 1
        assert "free some space" in log
        before = snapshots(run, victim.daemon)
    wait_until(lambda: victim.daemon.log.read_text().count("snapshots are saved again") == 1)
    wait_until(lambda: snapshots(run, victim.daemon)[-1] > before[-1])


def repairs_a_snapshot_from_the_swarm(run: Members) -> None:
    victim = run.watchers[2]
    victim.daemon.process.kill()
    victim.daemon.process.wait()
    for path in (victim.daemon.home / "runs" / run.run_id / "snapshots").glob("epoch-*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    restart(run, victim)
    assert "is damaged and is not used" in victim.daemon.log.read_text()


def is_heard_after_its_clock_was_set_back(run: Members) -> None:
    """Its last start was an hour later by its clock: the others know its statements of then."""
    victim = run.watchers[0]
    sequence = victim.daemon.home / "runs" / run.run_id / "sequence"
    for ahead in (3600, 0):  # once with the clock an hour ahead; then it is set right
        victim.daemon.process.kill()
        victim.daemon.process.wait()
        if ahead:
            sequence.write_text(str(int(sequence.read_text()) + ahead * 1_000_000_000))
        epoch = run.epoch()
        restart(run, victim)
        for other in run.watchers[1:]:
            other.wait("with it", in_round_after(epoch, 3), BACK_SECONDS)
