"""The daemons of a churn: started, harmed and ended as planned, each with somebody who follows what it says of itself.

Whatever happens, nothing that was started is left: all of it has our own runtime directory in its environment, by which
it is found, also a `p2pd` whose daemon is gone.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from churn_plan import Deed, Event
from resources import family, program

from peer.control_client import ControlClient
from peer.errors import PeerError
from peer.home import Home

sys.path.append(str(Path(__file__).parents[1]))
from tests.swarm.processes import CommandFailed, Daemon
from tests.swarm.watcher import Watcher

OPTIONS = ("--listen", "/ip4/127.0.0.1/tcp/0", "--log-format", "json")
EXIT_SECONDS = 30.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that a daemon should have done and has not, or the other way round."""

    seconds: float
    daemon: str
    what: str


@dataclass
class Member:
    """One home, and the daemons that ran on it one after the other."""

    daemon: Daemon
    watcher: Watcher
    client: ControlClient
    wanted: bool = True
    """It should run."""
    frozen: list[int] = field(default_factory=list)
    """Its processes that are stopped."""

    @property
    def process_id(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.pid


class Fleet(AbstractContextManager):
    def __init__(self, run_id: str, directory: Path, runtime: Path, elapsed: Callable[[], float]) -> None:
        """`directory` of homes and logs, and `runtime`, as given to `prepare`; `elapsed`: seconds so far."""
        self.members: dict[str, Member] = {}
        """Everybody who ever came."""
        self.failures: list[Failure] = []
        self._run_id, self._directory, self._runtime, self._elapsed = run_id, directory, runtime, elapsed
        self._leavers = ThreadPoolExecutor(thread_name_prefix="leave")
        self._leaving: list[Future[None]] = []

    def __exit__(self, *_error: object) -> None:
        """Ends at once whatever is still there; `stop` is the way to end in order."""
        for member in self.members.values():
            member.watcher.close()
        while strays := self._strays():  # a daemon may have started its p2pd again meanwhile
            _signal(strays, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        self._leavers.shutdown()

    # -- what is done to them -----------------------------------------------------------------------------------------

    def carry_out(self, event: Event) -> None:
        match event.deed:
            case Deed.JOIN:
                self._join(event.daemon)
            case Deed.RESTART:
                self._start(self.members[event.daemon])
            case Deed.LEAVE:
                self._leaving.append(self._leavers.submit(self._leave, self._give_up(event.daemon)))
            case Deed.KILL:
                daemon = self._give_up(event.daemon).daemon
                assert daemon.process is not None
                daemon.process.kill()
                daemon.process.wait()
            case Deed.FREEZE:
                self._freeze(self.members[event.daemon], event.with_network)
            case Deed.THAW:
                self._thaw(self.members[event.daemon])

    def note_deaths(self) -> None:
        """Who has ended without having been asked to is a failure, once."""
        for name, member in self.members.items():
            if member.wanted and not member.daemon.running:
                assert member.daemon.process is not None
                self._fail(name, f"ended by itself, exit code {member.daemon.process.returncode}")
                member.wanted = False

    def stop(self) -> int:
        """Ends all in order; how many processes were still there when every daemon had ended."""
        for future in self._leaving:
            future.result()
        wanted = {name: member for name, member in self.members.items() if member.wanted}
        for member in self.members.values():
            self._thaw(member)
            member.watcher.close()
            member.wanted = False
        for member in wanted.values():
            if member.daemon.running:
                os.kill(member.process_id, signal.SIGTERM)
        for name, member in wanted.items():
            self._expect_exit(name, member)
        return len(self._strays())

    def _join(self, name: str) -> None:
        daemon = Daemon(self._directory, name, {})
        daemon.start(self._run_id, *OPTIONS)
        self.members[name] = Member(
            daemon, Watcher(daemon, self._run_id), ControlClient(Home(daemon.home), self._run_id)
        )

    def _start(self, member: Member) -> None:
        member.daemon.start(self._run_id, *OPTIONS)
        member.wanted = True

    def _give_up(self, name: str) -> Member:
        """From now on it need not run."""
        member = self.members[name]
        member.wanted = False
        return member

    def _leave(self, member: Member) -> None:
        """In a thread of its own."""
        try:
            member.client.leave()  # what `peer leave` does
        except PeerError as error:
            self._fail(member.daemon.name, f"peer leave: {error}")
        self._expect_exit(member.daemon.name, member)
        member.watcher.close()

    def _expect_exit(self, name: str, member: Member) -> None:
        """Waits for the end of a daemon that was asked for it; kills it when it takes too long."""
        try:
            if code := member.daemon.wait_exit(EXIT_SECONDS):
                self._fail(name, f"asked to stop, it ended with exit code {code}")
        except CommandFailed:
            self._fail(name, f"still there {EXIT_SECONDS:.0f} s after it was asked to stop")
            member.daemon.stop()

    def _freeze(self, member: Member, with_network: bool) -> None:
        if member.daemon.running:
            network = network_process(member.process_id) if with_network else None
            member.frozen = [member.process_id, *([network] if network else [])]
        _signal(member.frozen, signal.SIGSTOP)

    def _thaw(self, member: Member) -> None:
        _signal(member.frozen, signal.SIGCONT)
        member.frozen = []

    def _fail(self, daemon: str, what: str) -> None:
        self.failures.append(Failure(self._elapsed(), daemon, what))

    # -- what is seen of them -----------------------------------------------------------------------------------------

    def present(self) -> list[Member]:
        """Those who should run, the stopped ones too."""
        return [member for member in list(self.members.values()) if member.wanted]

    def epoch(self) -> int:
        """The newest that anybody who is present has shown; -1 before the first."""
        statuses = [member.watcher.last for member in self.present()]
        joined = [status.self_ for status in statuses if status is not None and status.self_ is not None]
        return max((me.epoch for me in joined if me.state_digest is not None), default=-1)

    def _strays(self) -> list[int]:
        """All processes of the fleet that still run."""
        mark = f"PEER_RUNTIME_DIR={self._runtime}".encode()
        return [process for process in _processes() if process != os.getpid() and mark in _environment(process)]


def network_process(daemon: int) -> int | None:
    """The p2pd of a daemon; None while it has none."""
    return next((process for process in family(daemon) if program(process) == "p2pd"), None)


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _environment(process: int) -> list[bytes]:
    """Empty for what is gone, or not ours."""
    with suppress(OSError):
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return []
