"""What a daemon says of itself over its whole life, restarts included, read from its control API's event stream."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from statistics import median
from typing import Any

from peer.control_client import ControlClient
from peer.errors import NoDaemon, PeerError
from peer.home import Home
from peer.status import RoundStatus, Status
from tests.swarm.processes import CommandFailed, Daemon

LISTEN_SECONDS = 60.0
RETRY_SECONDS = 0.05
RESYNC = "taking the swarm's state anew"
"""What a daemon logs."""


class Watcher:
    """Follows one daemon; `close` ends it. `PEER_RUNTIME_DIR` must be that of the daemon's swarm."""

    def __init__(self, daemon: Daemon, run_id: str) -> None:
        self.daemon = daemon
        self.last: Status | None = None
        """None while the daemon does not answer."""
        self.digests: dict[int, set[str]] = {}
        """Epoch → the states that the daemon has shown there."""
        self.moments: dict[int, float] = {}
        """Epoch → when it was first shown, seconds (monotonic). The daemon shows itself four times a second."""
        self.rounds: dict[int, RoundStatus] = {}
        """By epoch."""
        self._client = ControlClient(Home(daemon.home), run_id)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, name=f"watch {daemon.name}", daemon=True)
        self._thread.start()

    @property
    def resyncs(self) -> int:
        """How often it has gone back from playing to taking the swarm's state, by its log: events may skip one."""
        return self.daemon.log.read_text(errors="replace").count(RESYNC)

    def wait(self, what: str, condition: Callable[[Status], Any], seconds: float) -> Status:
        """The first status from now on that satisfies `condition`. Fails with the daemon's log when none comes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.last is not None and condition(self.last), seconds):
                raise CommandFailed(
                    f"{self.daemon.name}: not {what} within {seconds:.0f} s; last {self.last}\n{self.daemon.tail()}"
                )
            assert self.last is not None
            return self.last

    def wait_gone(self, seconds: float = LISTEN_SECONDS) -> None:
        """Until it is known here that the daemon, which was killed, is gone: what it said last counts no more."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.last is None, seconds), f"{self.daemon.name} still answers"

    def ask(self) -> Status:
        """What it says just now: `last` is as old as the last change that was worth an event."""
        return self._client.status()

    def close(self) -> None:
        self._closing = True

    def _follow(self) -> None:
        while not self._closing:
            try:
                with closing(self._client.events(LISTEN_SECONDS)) as events:
                    for status in events:
                        self._note(status)
                        if self._closing:
                            return
            except (NoDaemon, PeerError):
                time.sleep(RETRY_SECONDS)
            self._note(None)

    def _note(self, status: Status | None) -> None:
        with self._changed:
            if status is not None and status.self_.state_digest is not None and status.self_.state != "syncing":
                self.digests.setdefault(status.self_.epoch, set()).add(status.self_.state_digest)
                self.moments.setdefault(status.self_.epoch, time.monotonic())
            if status is not None and status.last_round is not None:
                self.rounds[status.last_round.epoch] = status.last_round
            self.last = status
            self._changed.notify_all()


@contextmanager
def rounds_go_on(watcher: Watcher, epochs: int, longest_pause: float) -> Iterator[None]:
    """While the context lasts, the daemon comes to at least that many epochs, and does not take the state anew.

    No pause between two of them is longer than `longest_pause` times what was usual before, which is taken to be half
    a second at least.
    """
    before, resyncs, began = sorted(watcher.moments.values()), watcher.resyncs, time.monotonic()
    usual = max(0.5, median(later - earlier for earlier, later in pairwise(before)))
    yield
    ended = time.monotonic()
    since = [before[-1], *(moment for moment in sorted(watcher.moments.values()) if began < moment)]
    assert sum(moment < ended for moment in since[1:]) >= epochs
    pause = max(later - earlier for earlier, later in pairwise([*since, ended]))
    assert pause <= longest_pause * usual, f"{pause:.1f} s, where {usual:.1f} s were usual"
    assert watcher.resyncs == resyncs


def in_round_after(epoch: int, members: int) -> Callable[[Status], bool]:
    """Whether it has played a round of that many members after `epoch`."""
    return lambda status: (
        status.last_round is not None and status.last_round.epoch > epoch and status.last_round.group_size == members
    )
