"""Real daemons of one pipeline: `peer join` in processes of their own, and what they say of their epochs."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from pipeline_task import FILES, PipelineTask

from peer.home import Home
from peer.swarm.counts import counts_path

sys.path.append(str(Path(__file__).parents[1]))
from tests.swarm.processes import LISTEN, CommandFailed, Daemon, Swarm
from tests.swarm.watcher import Watcher

LOOK_SECONDS = 0.02


class PipelineDaemons(AbstractContextManager["PipelineDaemons"]):
    """Gone, with their homes, when the context ends."""

    def __init__(self, task: PipelineTask) -> None:
        self._resources = ExitStack()
        directory = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
        self._directory = directory
        os.environ["PEER_RUNTIME_DIR"] = str(directory)  # sockets of daemons are found by it
        self._swarm = Swarm(directory, directory)
        self._resources.callback(self._swarm.stop)
        recipe = directory / "recipe.toml"
        recipe.write_text(task.recipe)
        created = self._swarm.command("run", "create", str(recipe), "--home", str(directory / "peer0"))
        self.run_id = created.split()[0]
        self.watchers: list[Watcher] = []
        """Of those who are watched."""

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *_error: object) -> None:
        for watcher in self.watchers:
            watcher.close()
        self._resources.close()

    def start(
        self, *options: str, inside: Sequence[str] = (), listen: Sequence[str] = LISTEN, watched: bool = True
    ) -> Daemon:
        """One more of them; the first has made the run. `watched`: it serves a stage; `epoch_moments` waits for it."""
        daemon = self._swarm.daemon(f"peer{len(self._swarm.daemons)}")
        daemon.inside = list(inside)
        daemon.start(self.run_id, *listen, *data_options(), *options)
        if watched:
            self.watchers.append(Watcher(daemon, self.run_id))
        return daemon

    def peer_id(self, number: int) -> str:
        """Of that daemon, which need not be there yet."""
        return self._swarm.command("id", "--home", str(self._directory / f"peer{number}")).strip()

    def epoch_moments(self, first: int, last: int, seconds: float) -> list[float]:
        """When all who serve were at epoch `first`, at the next, … at `last`.

        Fails when they are not within so many seconds.
        """
        for watcher in self.watchers:
            watcher.wait(f"at epoch {last}", lambda status: status.self_.epoch >= last, seconds)
        return [max(_reached(watcher, epoch) for watcher in self.watchers) for epoch in range(first, last + 1)]

    def counted_moments(self, first: int, last: int, seconds: float) -> list[float]:
        """When all that were started had counted so many epochs: `first`, one more, … `last`.

        By the files in which they write it down: nobody asks them, which would be work for them.

        Fails when they have not within so many seconds, or one has ended.
        """
        moments: dict[int, float] = {}
        began = time.monotonic()
        while last not in moments:
            for daemon in self._swarm.daemons:
                if not daemon.running:
                    raise CommandFailed(f"{daemon.name} has ended\n{daemon.tail()}")
            epoch = min(_lines(self.counts(daemon)) for daemon in self._swarm.daemons)
            now = time.monotonic()
            moments |= {each: now for each in range(first, epoch + 1) if each not in moments}
            if now > began + seconds:
                raise CommandFailed(f"at epoch {epoch} after {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)
        return [moments[epoch] for epoch in range(first, last + 1)]

    def counts(self, daemon: Daemon) -> Path:
        """Where it writes down what is counted in each epoch (`peer.swarm.counts`)."""
        return counts_path(Home(daemon.home).run_directory(self.run_id) / "snapshots")


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _leave(_number: int, _frame: object) -> None:
    """Ended from outside, the benchmark still ends its daemons."""
    sys.exit("ended before it was done")


def _reached(watcher: Watcher, epoch: int) -> float:
    """When it was first seen there, or beyond."""
    return min(moment for shown, moment in watcher.moments.items() if shown >= epoch)


def data_options() -> list[str]:
    return [option for file in FILES for option in ("--data", str(file))]
