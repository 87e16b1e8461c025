"""Starts the worker processes of one implementation and plays rounds with them."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from resources import cpu_seconds, family

HERE = Path(__file__).parent
STOP_SECONDS = 20.0
SILENCE_SECONDS = 150.0
"""Whoever reports nothing for so long in a round hangs, and is ended."""
Report = dict[str, Any]
Popen = Callable[..., subprocess.Popen]


def in_turn(names: Sequence[str], repeat: int, run: Callable[[str], Report]) -> dict[str, list[Report]]:
    """What so many runs of each give; one of each comes before the next of any, so that all see the same machine."""
    runs: dict[str, list[Report]] = {name: [] for name in names}
    for _ in range(repeat):
        for name, done in runs.items():
            done.append(run(name))
    return runs


def first_to_hold(done: Sequence[Report]) -> tuple[Report, float]:
    """Who held the goal first, and how many seconds after the last had begun."""
    first = min(done, key=lambda report: report["held"])
    return first, first["held"] - max(report["began"] for report in done)


class WorkerFailed(RuntimeError):
    """A worker process has ended early, or said something unexpected."""


class Worker:
    """One process; a command in, a report out."""

    def __init__(self, script: str, settings: Report, popen: Popen) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `stop`)
        self._name = script
        self.process = popen(
            [sys.executable, str(HERE / script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )

    def tell(self, command: str, **values: Any) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `expect` says why
            self.process.stdin.write(json.dumps({"command": command, **values}) + "\n")

    def expect(self, event: str, seconds: float = SILENCE_SECONDS) -> Report:
        assert self.process.stdout is not None
        watch = Timer(seconds, self._end)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
        report = json.loads(line) if line else {"event": "end"}
        if report["event"] != event:
            self._errors.seek(0)
            raise WorkerFailed(f"{self._name}: {report} where {event!r} was expected\n{self._errors.read()[-8000:]}")
        return report

    def stop(self) -> None:
        self.tell("stop")
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._end()
            self.process.wait()
        self._errors.close()

    def _end(self) -> None:
        """With its stack on stderr, for whoever reads why."""
        *started, worker = reversed(family(self.process.pid))
        for process, number in [(worker, signal.SIGABRT), *((process, signal.SIGKILL) for process in started)]:
            with suppress(ProcessLookupError):
                os.kill(process, number)


@dataclass(frozen=True)
class RoundFigures:
    """One round as seen from outside."""

    seconds: float
    """From the moment the last peer was told to go until the last peer holds the decoded result."""
    cpu_seconds: Counter[str]
    """Of all peers and all that they have started, by program."""
    reports: Sequence[Report]


class Swarm(AbstractContextManager):
    """The peers of one implementation; ready for rounds when entered."""

    def __init__(
        self, script: str, settings: Report, hosts: Sequence[str], popens: Sequence[Popen] | None = None
    ) -> None:
        """`hosts`: the address of each peer. `popens`: how to start each (in its network namespace)."""
        self._script, self._settings, self._hosts = script, settings, hosts
        self._popens = popens or [subprocess.Popen] * len(hosts)
        self.workers: list[Worker] = []
        self.baseline_bytes = 0.0
        self.ready: list[Report] = []
        self._settled = False

    def __enter__(self) -> "Swarm":
        try:
            members: dict[str, list[str]] = {}
            for number, (host, popen) in enumerate(zip(self._hosts, self._popens, strict=True)):
                first = next(iter(members.values()), [])
                settings = {**self._settings, "seed": number, "host": host, "initial_peers": first}
                self.workers.append(Worker(self._script, settings, popen))
                if number == 0 or number == len(self._hosts) - 1:  # the first alone, the others all at once
                    for worker in self.workers[1 if number else 0 :]:
                        up = worker.expect("up")
                        members[up["peer"]] = up["addresses"]
                        self.baseline_bytes = max(self.baseline_bytes, up["baseline_bytes"])
            self._tell("meet", members=members)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def expect(self, event: str, seconds: float = SILENCE_SECONDS) -> list[Report]:
        """The next report of each peer, which has that many seconds for it."""
        return [worker.expect(event, seconds) for worker in self.workers]

    def settle(self) -> None:
        """Waits until all peers are ready for the next round, and idle; what they did until then is not measured."""
        if not self._settled:
            self.ready = self.expect("ready")
            self._settled = True

    def play(self, check: bool = False) -> RoundFigures:
        """One round. With `check`, each peer's result is compared with the exact mean (`error`, `digest`)."""
        self.settle()
        self._settled = False
        processes = [process for worker in self.workers for process in family(worker.process.pid)]
        cpu_before = cpu_seconds(processes)
        self._tell("go")
        done = self.expect("done")
        cpu = cpu_seconds(processes) - cpu_before
        if check:
            self._tell("check")
            done = [report | worker.expect("checked") for report, worker in zip(done, self.workers, strict=True)]
        self._tell("next")
        seconds = max(report["held"] for report in done) - max(report["began"] for report in done)
        return RoundFigures(seconds, cpu, done)

    def _tell(self, command: str, **values: Any) -> None:
        for worker in self.workers:
            worker.tell(command, **values)

    def _stop(self) -> None:
        for worker in self.workers:
            worker.tell("stop")
        for worker in self.workers:
            worker.stop()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
