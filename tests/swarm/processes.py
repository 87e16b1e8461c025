"""Real daemons as processes: started as a user starts them, watched through their control API, always cleaned up."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peer.control_client import ControlClient
from peer.errors import PeerError
from peer.home import Home

PEER = str(Path(sys.executable).with_name("peer"))
LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0")
"""Options of a daemon that only this machine can reach."""
START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1


class CommandFailed(AssertionError):
    """A command that should have worked did not."""


def run_command(*arguments: str, environment: dict[str, str] | None = None, code: int = 0) -> str:
    """Runs `peer …` to its end; stdout. Fails unless it exits with `code`."""
    done = subprocess.run(
        [PEER, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | (environment or {}),
        check=False,
    )
    if done.returncode != code:
        raise CommandFailed(f"peer {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout if code == 0 else done.stderr


class Daemon:
    """One `peer join` process with a home of its own."""

    def __init__(self, directory: Path, name: str, environment: dict[str, str]) -> None:
        self.name = name
        self.home = directory / name
        self.log = directory / f"{name}.log"
        self._environment = os.environ | environment
        self.process: subprocess.Popen[bytes] | None = None
        self.inside: list[str] = []
        """What stands before its command: in which network namespace it runs."""
        self._options: tuple[str, ...] = ()

    def start(self, run_id: str = "demo", *options: str) -> "Daemon":
        self._options = (run_id, *options)
        command = [PEER, "join", "--run-id", run_id, "--home", str(self.home), "--name", self.name, "--threads", "1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, *command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def start_again(self) -> "Daemon":
        """As it was started last."""
        return self.start(*self._options)

    def status(self) -> dict[str, Any] | None:
        """What `peer status --json` says; None while no daemon answers."""
        done = subprocess.run(
            [PEER, "status", "--json", "--home", str(self.home)],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=60,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait(
        self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float = START_SECONDS
    ) -> dict[str, Any]:
        """Waits until the status satisfies `condition`; returns it. Fails with the log when it does not in time."""
        deadline = time.monotonic() + seconds
        status = None
        while time.monotonic() < deadline:
            status = self._shown()
            if status is not None and condition(status):
                return status
            if not self.running:
                break
            time.sleep(POLL_SECONDS)
        raise CommandFailed(f"{self.name}: not {what} within {seconds:.0f} s; last {status}\n{self.tail()}")

    def _shown(self) -> dict[str, Any] | None:
        """Like `status`, without a process that costs what it measures: straight from the control API."""
        if self._environment.get("PEER_RUNTIME_DIR") != os.environ.get("PEER_RUNTIME_DIR"):
            return self.status()  # sockets are found by the environment, and this daemon has one of its own
        home = Home(self.home)
        try:
            return json.loads(ControlClient(home, home.resolve_run(self._options[0])).status().to_json())
        except PeerError:
            return None

    def wait_exit(self, seconds: float) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self.name} has not stopped within {seconds:.0f} s\n{self.tail()}") from error

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:]) if self.log.exists() else ""

    def stop(self) -> None:
        """Ends the process, in order if it can; its p2pd ends with it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Swarm:
    """The daemons of one test: a runtime directory of their own, so that they find each other and nobody else."""

    def __init__(self, directory: Path, runtime: Path) -> None:
        self.directory = directory
        self.environment = {"PEER_RUNTIME_DIR": str(runtime)}
        self.daemons: list[Daemon] = []

    def daemon(self, name: str) -> Daemon:
        self.daemons.append(Daemon(self.directory, name, self.environment))
        return self.daemons[-1]

    def command(self, *arguments: str, code: int = 0) -> str:
        return run_command(*arguments, environment=self.environment, code=code)

    def stop(self) -> None:
        for daemon in self.daemons:
            if daemon.running and daemon.process is not None:
                daemon.process.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            daemon.stop()


def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Waits for what a process writes, of which there are no events."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.01)


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports of loopback that nobody listened at a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
    yield ports


def finished(status: dict[str, Any]) -> bool:
    return bool(status["run"]["state"] == "finished" and status["self"]["state"] == "idle")
