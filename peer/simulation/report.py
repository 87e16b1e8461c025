"""What came of a simulation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peer.simulation.invariants import Violation


@dataclass(frozen=True, slots=True)
class TrafficReport:
    frames: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GossipReport:
    """Of a run without rounds, and its honest peers."""

    consensus_distance: float
    """Root mean square distance of the models from their mean, the last time that it was looked at before the end."""
    largest_consensus_distance: float
    exchanges: int
    """As both ends count them."""
    failed_exchanges: int
    busy: int
    """Times that one of the two had its hands full."""


@dataclass(frozen=True, slots=True)
class Report:
    run_id: str
    seed: int
    peers: int
    finished: bool
    """Whether all honest peers that lived came to the run's last epoch."""
    seconds: float
    """Virtual."""
    epoch: int
    """That most were at in the end."""
    evaluation: Mapping[str, float]
    """Of their state there."""
    epochs_of_all: int
    """That honest peers came to, all together."""
    samples: int
    """That were counted for them."""
    starts: int
    crashes: int
    departures: int
    resyncs: int
    banned: int
    """Peers whom an honest one has banned."""
    refused: Mapping[str, int]
    """By honest peers: how often for what reason."""
    accepted: int
    """Statements that honest peers have accepted, each seen to be signed."""
    traffic: Mapping[str, TrafficReport]
    """By kind of request or stream."""
    trace: str
    """Digest of the trace."""
    gossip: GossipReport | None
    violation: Violation | None
    reproduce: str
    """The command that does the same again."""
    processor_seconds: float
    """That it took here."""
    memory_bytes: int
    """The most that this process has taken."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
