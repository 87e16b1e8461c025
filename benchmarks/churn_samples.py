"""What each daemon takes of the machine, every few seconds, read from its metrics and from the kernel."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from churn_fleet import Fleet, Member, network_process
from prometheus_client.parser import text_string_to_metric_families
from resources import open_files, resident_bytes, threads

from peer.errors import PeerError

_SHOWN_DIGITS = 16
"""Of a digest, in a record."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One daemon at one moment; `network_…`: its p2pd."""

    seconds: float
    daemon: str
    memory_bytes: int
    network_memory_bytes: int
    open_files: int
    network_open_files: int
    threads: int
    network_threads: int
    tasks: int
    lag_seconds: float
    """How late its event loop was since the last sample, on average."""
    members: int
    """How many it knows, itself included."""
    epoch: int
    digest: str
    load: float
    """Of the machine, over a minute."""


class Sampler:
    def __init__(self, elapsed: Callable[[], float]) -> None:
        self.samples: list[Sample] = []
        self.unanswered = 0
        """How often a daemon that was up and not stopped did not say how it is."""
        self._elapsed = elapsed
        self._lags: dict[int, tuple[float, float]] = {}
        """Process → sum and count of its lags so far."""

    def take(self, members: Sequence[Member]) -> None:
        for member in members:
            status = member.watcher.last
            if member.frozen or status is None or status.self_ is None or status.self_.state_digest is None:
                continue
            try:
                self.samples.append(self._sample(member, status.self_.epoch, status.self_.state_digest))
            except (PeerError, OSError):
                self.unanswered += member.wanted and not member.frozen  # else it has been harmed meanwhile

    def _sample(self, member: Member, epoch: int, digest: str) -> Sample:
        """Raises PeerError or OSError when it does not answer or is gone."""
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(member.client.metrics())
            for sample in family.samples
        }
        process, network = member.process_id, network_process(member.process_id)
        if network is None:
            raise ProcessLookupError("it has no p2pd at the moment")
        return Sample(
            seconds=round(self._elapsed(), 1),
            daemon=member.daemon.name,
            memory_bytes=resident_bytes(process),
            network_memory_bytes=resident_bytes(network),
            open_files=open_files(process),
            network_open_files=open_files(network),
            threads=threads(process),
            network_threads=threads(network),
            tasks=int(values["peer_tasks"]),
            lag_seconds=round(self._mean_lag(process, values), 5),
            members=int(values["peer_members"]),
            epoch=epoch,
            digest=digest[:_SHOWN_DIGITS],
            load=round(os.getloadavg()[0], 2),
        )

    def _mean_lag(self, process: int, values: dict[str, float]) -> float:
        lag, count = values["peer_event_loop_lag_seconds_sum"], values["peer_event_loop_lag_seconds_count"]
        lag_before, count_before = self._lags.get(process, (0.0, 0.0))
        self._lags[process] = lag, count
        return (lag - lag_before) / max(1.0, count - count_before)


@contextmanager
def sampling(fleet: Fleet, elapsed: Callable[[], float], every_seconds: float) -> Iterator[Sampler]:
    """Takes samples while the context lasts, in a thread: a slow answer must not hold up what is planned."""
    sampler, over = Sampler(elapsed), threading.Event()

    def keep_sampling() -> None:
        pause = every_seconds
        while not over.wait(pause):
            began = time.monotonic()
            sampler.take(fleet.present())
            pause = max(0.0, every_seconds - (time.monotonic() - began))

    with ThreadPoolExecutor(1, thread_name_prefix="samples") as executor:
        taking = executor.submit(keep_sampling)
        try:
            yield sampler
        finally:
            over.set()
            taking.result()
