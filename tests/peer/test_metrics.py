import asyncio
import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from peer.metrics import Metrics
from peer.rounds.session import RoundOutcome
from peer.status import GossipStatus
from peer.tasks import beside
from peer.watchdog import WARN_SECONDS, watch_event_loop
from tests.peer.scripted_daemon import SELF, make_pipeline_status, make_status

RUN = "demo-" + "a" * 26
GOSSIP = GossipStatus(
    topology="ring",
    mixing="mean",
    consensus_distance=0.5,
    relative_consensus_distance=0.1,
    exchanges=3,
    failed_exchanges=1,
    busy=2,
    last_peer=None,
    bytes_sent=100,
    bytes_received=200,
)
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def metrics():
    return Metrics(lambda: make_status(RUN), lambda: 1)


def outcome(**changed):
    figures = {"duration_seconds": 0.3, "bytes_sent": 100, "bytes_received": 50, "recovered_parts": 1}
    figures |= {"missing_senders": 2, "weight": 64, "aggregate": None, "done": None}
    return RoundOutcome(**(figures | changed))


def samples(metrics):
    """Name and labels → value."""
    families = text_string_to_metric_families(metrics.to_text().decode())
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in found}


async def test_the_status_is_shown(metrics):
    shown = samples(metrics)
    assert shown[("peer_epoch",)] == 3
    assert shown[("peer_run_epochs",)] == 10
    assert shown[("peer_members",)] == 2
    assert shown[("peer_samples_total",)] == 12_345
    assert shown[("peer_loss",)] == 0.25
    assert shown[("peer_evaluation", ("metric", "accuracy"))] == 0.964
    assert shown[("peer_rejected_total", ("reason", "stale"))] == 2
    assert shown[("peer_state", ("state", "training"))] == 1
    info = next(key for key in shown if key[0] == "peer_info")
    assert ("run", RUN) in info
    assert ("peer_id", SELF) in info


async def test_rounds_are_added_up(metrics):
    metrics.add_round(outcome())
    metrics.add_round(outcome(duration_seconds=3.0, bytes_sent=11))
    shown = samples(metrics)
    assert shown[("peer_rounds_total",)] == 2
    assert shown[("peer_round_sent_bytes_total",)] == 111
    assert shown[("peer_round_received_bytes_total",)] == 100
    assert shown[("peer_recovered_parts_total",)] == 2
    assert shown[("peer_missing_senders_total",)] == 4
    assert shown[("peer_round_duration_seconds_sum",)] == 3.3
    assert shown[("peer_round_duration_seconds_bucket", ("le", "0.5"))] == 1


async def test_resources_are_those_of_the_processes(metrics):
    shown = samples(metrics)
    assert shown[("process_resident_memory_bytes",)] > 1e6
    assert shown[("process_open_fds",)] > 2
    assert shown[("peer_network_resident_memory_bytes",)] > 1e4
    assert shown[("peer_tasks",)] >= 1
    assert shown[("peer_threads",)] >= 1


async def test_a_network_process_that_is_gone_is_left_out():
    assert b"peer_network_resident" not in Metrics(lambda: make_status(RUN), lambda: 2**22 + 1).to_text()
    assert b"peer_network_resident" not in Metrics(lambda: make_status(RUN), lambda: None).to_text()


async def test_a_pipeline_has_its_own():
    shown = samples(Metrics(lambda: make_pipeline_status(RUN), lambda: 1))
    assert shown[("peer_stage",)] == 1
    assert shown[("peer_microbatches_total",)] == 4321
    assert shown[("peer_microbatch_replays_total",)] == 7
    assert shown[("peer_microbatches_dropped_total",)] == 2
    assert shown[("peer_microbatch_queue",)] == 3


async def test_every_metric_is_documented_and_nothing_else():
    exposed = set()
    for status in (make_pipeline_status(RUN), make_status(RUN).model_copy(update={"gossip": GOSSIP})):
        text = Metrics(lambda status=status: status, lambda: 1).to_text().decode()
        exposed |= {
            f"{family.name}_total" if family.type == "counter" else family.name
            for family in text_string_to_metric_families(text)
            if not family.name.endswith("_created")
        }
    documented = set(re.findall(r"^\| `(\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == exposed


async def test_a_blocked_event_loop_is_measured_and_warned_of_once():
    lags = []
    waiting = AddedLag(lags)
    with capture_logs() as lines:
        async with beside(watch_event_loop(waiting)):
            for _ in range(2):
                time.sleep(2 * WARN_SECONDS)  # noqa: ASYNC251  (it is what the watchdog watches for)
                await waiting.next()
    assert max(lags) > WARN_SECONDS
    assert [line["log_level"] for line in lines] == ["warning"]
    assert lines[0]["seconds"] > WARN_SECONDS


class AddedLag:
    """Takes lags, and wakes who waits for the next one."""

    def __init__(self, lags):
        self._lags, self._added = lags, asyncio.Event()

    def __call__(self, seconds):
        self._lags.append(seconds)
        self._added.set()

    async def next(self):
        self._added.clear()
        await self._added.wait()
