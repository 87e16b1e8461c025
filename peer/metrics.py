"""What a daemon counts and measures, for Prometheus; every metric is explained in docs/metrics.md.

Most figures are those of the daemon's status, read when they are asked for. Only what would be lost between two
questions is counted here: rounds, and the lag of the event loop.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from peer.rounds.session import RoundOutcome
from peer.status import GossipStatus, PipelineStatus, Status

_ROUND_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """The metrics of one daemon, in a registry of its own."""

    def __init__(self, status: Callable[[], Status], network_process: Callable[[], int | None]) -> None:
        """`network_process`: the process id of p2pd, None while it does not run."""
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(status))
        self._registry.register(_ResourceCollector(network_process))
        ProcessCollector(registry=self._registry)
        self._rounds = Counter("peer_rounds", "Rounds taken part in to their end", registry=self._registry)
        self._round_seconds = Histogram(
            "peer_round_duration_seconds",
            "From the end of an epoch's training to its result",
            buckets=_ROUND_SECONDS,
            registry=self._registry,
        )
        self._sent = Counter("peer_round_sent_bytes", "Payload sent in rounds", registry=self._registry)
        self._received = Counter("peer_round_received_bytes", "Payload received in rounds", registry=self._registry)
        self._recovered = Counter(
            "peer_recovered_parts", "Parts that another member took over from their owner", registry=self._registry
        )
        self._missing = Counter(
            "peer_missing_senders", "Members of a group whose update did not come", registry=self._registry
        )
        self._lag = Histogram(
            "peer_event_loop_lag_seconds",
            "How late the event loop runs what is due",
            buckets=_LAG_SECONDS,
            registry=self._registry,
        )

    def add_round(self, outcome: RoundOutcome) -> None:
        self._rounds.inc()
        self._round_seconds.observe(outcome.duration_seconds)
        self._sent.inc(outcome.bytes_sent)
        self._received.inc(outcome.bytes_received)
        self._recovered.inc(outcome.recovered_parts)
        self._missing.inc(outcome.missing_senders)

    def add_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def to_text(self) -> bytes:
        """All metrics in Prometheus's text format; call it in the event loop, whose tasks it counts."""
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    """The status, as metrics."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        return ()  # what it will collect is not known before there is a status

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        run, me = status.run, status.self_
        assert me is not None  # a daemon's own status
        info = {"run": run.id, "peer_id": me.peer_id, "name": me.name, "role": me.role}
        yield InfoMetricFamily("peer", "Who this is, and in which run", info)
        yield GaugeMetricFamily("peer_epoch", "The swarm's epoch as this peer sees it", run.epoch)
        yield GaugeMetricFamily("peer_run_epochs", "Epochs of the whole run", run.total_epochs)
        state = GaugeMetricFamily("peer_state", "1 for what the daemon does now", labels=["state"])
        state.add_metric([me.state], 1)
        yield state
        yield GaugeMetricFamily(
            "peer_members",
            "Live members of the run, this one included",
            status.member_count,
        )
        yield CounterMetricFamily("peer_samples", "Samples contributed to the run", me.samples_contributed)
        yield GaugeMetricFamily("peer_samples_per_second", "Samples trained on a second", me.samples_per_second)
        if run.loss is not None:
            yield GaugeMetricFamily("peer_loss", "Training loss here, smoothed", run.loss)
        evaluation = GaugeMetricFamily("peer_evaluation", "The last evaluation here", labels=["metric"])
        for name, value in run.evaluation.items():
            evaluation.add_metric([name], value)
        yield evaluation
        if status.last_round is not None:
            size = status.last_round.group_size
            yield GaugeMetricFamily("peer_last_group_size", "Members of the last round's group", size)
        if status.gossip is not None:
            yield from _gossip_metrics(status.gossip)
        if status.pipeline is not None:
            yield from _pipeline_metrics(status.pipeline, me.stage)
        rejected = CounterMetricFamily("peer_rejected", "Inputs refused", labels=["reason"])
        for reason, count in status.rejected.items():
            rejected.add_metric([reason], count)
        yield rejected


def _gossip_metrics(gossip: GossipStatus) -> Iterable[Metric]:
    exchanges = CounterMetricFamily("peer_gossip_exchanges", "Exchanges with neighbours", labels=["outcome"])
    exchanges.add_metric(["completed"], gossip.exchanges)
    exchanges.add_metric(["failed"], gossip.failed_exchanges)
    exchanges.add_metric(["busy"], gossip.busy)
    yield exchanges
    yield CounterMetricFamily("peer_gossip_sent_bytes", "Payload sent in exchanges", gossip.bytes_sent)
    yield CounterMetricFamily("peer_gossip_received_bytes", "Payload received in exchanges", gossip.bytes_received)
    if gossip.consensus_distance is not None:
        distance = gossip.consensus_distance
        yield GaugeMetricFamily("peer_consensus_distance", "Of the models from their mean, estimated", distance)


def _pipeline_metrics(pipeline: PipelineStatus, stage: int | None) -> Iterable[Metric]:
    if stage is not None:
        yield GaugeMetricFamily("peer_stage", "The stage that this peer serves", stage)
    done, replays, dropped = pipeline.microbatches_done, pipeline.replays, pipeline.dropped
    yield CounterMetricFamily("peer_microbatches", "Microbatches begun here that all stages have counted", done)
    yield CounterMetricFamily("peer_microbatch_replays", "Parts of them that were done again", replays)
    yield CounterMetricFamily("peer_microbatches_dropped", "Microbatches whose gradient was not finite", dropped)
    yield GaugeMetricFamily("peer_microbatch_queue", "Microbatches that wait here", pipeline.queue)


class _ResourceCollector(Collector):
    """What the two processes use, beyond what prometheus_client's ProcessCollector tells of this one."""

    def __init__(self, network_process: Callable[[], int | None]) -> None:
        self._network_process = network_process

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("peer_tasks", "Tasks of the event loop", len(asyncio.all_tasks()))
        yield GaugeMetricFamily("peer_threads", "Threads of Python", threading.active_count())
        process = self._network_process()
        if process is not None and (memory := _resident_bytes(process)) is not None:
            yield GaugeMetricFamily("peer_network_resident_memory_bytes", "Memory of p2pd", memory)


def _resident_bytes(process: int) -> int | None:
    """Of a process on Linux; None where that cannot be known."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
