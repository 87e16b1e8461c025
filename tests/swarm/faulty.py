"""Swarms that tests do harm to: what they train, and what all members must agree on afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from peer.status import Status
from protocols.round.order import order
from tests.swarm.processes import LISTEN, Daemon, Swarm
from tests.swarm.watcher import Watcher, in_round_after

BACK_SECONDS = 90.0
RECIPE = """
name = "faults"
epochs = 100000

[model]
architecture = "mlp"
options = { width = 1024, layers = 3 }

[data]
dataset = "digits"

[training]
mode = "data_parallel"
batch_size = 16
target_batch = 3000
optimizer = { algorithm = "adamw", learning_rate = 0.0003 }

[evaluation]
every_epochs = 1000
"""
"""2 million parameters: rounds last long enough to be hit."""


@dataclass(frozen=True)
class Members:
    """The daemons of one run, in rounds of all of them."""

    run_id: str
    watchers: list[Watcher]

    def epoch(self) -> int:
        """The newest that anybody has reached."""
        return max(watcher.last.self_.epoch for watcher in self.watchers if watcher.last is not None)

    def leader(self, epoch: int | None = None) -> Watcher:
        """Whoever is first in the order of that epoch; of the one that is being played, when none is given."""
        by_peer = {watcher.last.self_.peer_id: watcher for watcher in self.watchers if watcher.last is not None}
        return by_peer[order(self.run_id, self.epoch() if epoch is None else epoch, by_peer)[0]]

    def wait_all(self, after: int, seconds: float = BACK_SECONDS) -> None:
        """Until everybody has played a round of all members after that epoch."""
        for watcher in self.watchers:
            watcher.wait("in a round of all", in_round_after(after, len(self.watchers)), seconds)

    def assert_one_history(self) -> None:
        """No two members, nor one at two times, were ever in different states at one epoch."""
        for epoch in {epoch for watcher in self.watchers for epoch in watcher.digests}:
            digests = set().union(*(watcher.digests.get(epoch, set()) for watcher in self.watchers))
            assert len(digests) == 1, f"epoch {epoch}: {digests}"


@contextmanager
def members(swarm: Swarm, count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Members]:
    """That many daemons on loopback, in rounds of all."""
    with started(swarm, [swarm.daemon(f"peer{number}") for number in range(count)], monkeypatch) as run:
        run.wait_all(-1)
        yield run


@contextmanager
def started(
    swarm: Swarm,
    daemons: Sequence[Daemon],
    monkeypatch: pytest.MonkeyPatch,
    options: Callable[[Daemon], Sequence[str]] = lambda daemon: LISTEN,
    recipe: str = RECIPE,
    run_id: str | None = None,
) -> Iterator[Members]:
    """The daemons in one run: that one, or a new one, of which the last of them is the organiser."""
    monkeypatch.setenv("PEER_RUNTIME_DIR", swarm.environment["PEER_RUNTIME_DIR"])
    if run_id is None:
        path = swarm.directory / "recipe.toml"
        path.write_text(recipe)
        run_id = swarm.command("run", "create", str(path), "--home", str(daemons[-1].home)).split()[0]
    with ExitStack() as stack:
        watchers = [Watcher(daemon.start(run_id, *options(daemon)), run_id) for daemon in daemons]
        for watcher in watchers:
            stack.callback(watcher.close)
        yield Members(run_id, watchers)


def process_of(daemon: Daemon) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def averaging(status: Status) -> bool:
    return status.self_.state == "averaging"
