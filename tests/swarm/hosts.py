"""Daemons on the hosts of a `NetLab`, one on each, and what is done to them there."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netlab import NetLab, reason_why_not
from tests.swarm.faulty import RECIPE, Members, process_of, started
from tests.swarm.processes import Daemon, Swarm
from tests.swarm.watcher import Watcher

PORT = 4001
BACK_SECONDS = 150.0
needs_networks = pytest.mark.skipif((why_not := reason_why_not()) is not None, reason=str(why_not))

SMALL_RECIPE = RECIPE.replace("width = 1024", "width = 128").replace("target_batch = 3000", "target_batch = 400")
"""For what is not about bandwidth: 40 thousand parameters, and little work between the rounds."""
SENDING_RECIPE = RECIPE.replace("width = 1024", "width = 768").replace("target_batch = 3000", "target_batch = 2000")
"""Half of the work, and still so much that an epoch takes longer than it takes to fetch a state."""

Options = Callable[[int], Sequence[str]]
"""Of a host: what else its daemon is started with."""


@contextmanager
def hosts(
    swarm: Swarm,
    lab: NetLab,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str = RECIPE,
    more: Options = lambda host: (),
    listen: str = "",
) -> Iterator[Members]:
    """One daemon on every host, in rounds of all; they know each other only from their initial peers, hosts 1 and 3.

    `listen`: an IP address instead of the host's own.
    """
    daemons = {host: swarm.daemon(f"host{host}") for host in lab.hosts}
    for host, daemon in daemons.items():
        daemon.inside = lab.inside(host)
    known = [
        f"/ip4/{lab.address(host)}/tcp/{PORT}/p2p/" + swarm.command("id", "--home", str(daemons[host].home)).strip()
        for host in (1, 3)
        if host in daemons
    ]
    names = {daemon.name: host for host, daemon in daemons.items()}

    def options(daemon: Daemon) -> Sequence[str]:
        host = names[daemon.name]
        initial_peers = [option for address in known for option in ("--initial-peers", address)]
        where = f"/ip4/{listen or lab.address(host)}/tcp/{PORT}"
        return ("--listen", where, *initial_peers, "--no-local-discovery", *more(host))

    with started(swarm, list(daemons.values()), monkeypatch, options, recipe) as run:
        try:
            run.wait_all(-1, BACK_SECONDS)
            yield run
        finally:
            swarm.stop()  # while their network still is


def wait(seconds: float) -> None:
    """For what is defined by its length."""
    threading.Event().wait(max(0.0, seconds))


def p2pd_of(daemon: Daemon) -> int:
    process = process_of(daemon)
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (found,) = [int(child) for child in children if "p2pd" in Path(f"/proc/{child}/cmdline").read_text()]
    return found


def kill_whole(daemon: Daemon) -> None:
    """kill -9 of the daemon and of its p2pd."""
    child = p2pd_of(daemon)
    os.kill(process_of(daemon), signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    assert daemon.process is not None
    daemon.process.wait()


def assert_one_history_from_now(run: Members, seconds: float) -> None:
    """All members, who have been in a round of all, go on in one history.

    Who was cut off may have gone on alone to epochs that the others have not seen: only those beyond them count.
    """
    shown = max(epoch for watcher in run.watchers for epoch in watcher.digests)
    run.wait_all(shown, seconds)
    assert_one_state_from(run, shown + 1)


def assert_one_state_from(run: Members, epoch: int) -> None:
    """All members showed one state at every epoch from this one on."""
    for later in {later for watcher in run.watchers for later in watcher.digests if later >= epoch}:
        digests = shown_at(run.watchers, later)
        assert len(digests) == 1, f"epoch {later}: {digests}"


def shown_at(watchers: Sequence[Watcher], epoch: int) -> set[str]:
    """The states that these members have shown at that epoch."""
    return set().union(*(watcher.digests.get(epoch, set()) for watcher in watchers))
