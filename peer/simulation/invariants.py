"""What must hold whatever happens, looked at while a simulation runs; the first thing that does not is a `Violation`.

- No epoch goes backwards, unless the peer has given its state up first.
- Nothing is accepted that its sender has not signed (`signatures.py`).
- What a peer keeps of others is bounded, and nothing that it does fails unforeseen.
- Once faults have stopped, every honest peer that lives comes to another epoch within a bound.

Runs with rounds have more (`round_invariants.py`), and those without have others (`gossip_invariants.py`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from dht.border import TASK_FAILED
from dht.gate import HANDLER_FAILED
from peer.simulation.plan import Plan
from peer.simulation.scenario import Check
from peer.simulation.swarm import SimulatedPeer
from protocols.identity import PeerId

MOST_CONNECTIONS = 2048
"""Of one peer: those kept, and the streams that it serves and has opened."""


@dataclass(frozen=True, slots=True)
class Violation:
    time: float
    peer: int | None
    """None: no peer in particular."""
    what: str


@dataclass(slots=True)
class Course:
    """Of one honest peer, since it has started."""

    epoch: int
    advanced_at: float
    came_to: int = 0
    """The epoch that it has come to last, also where it has given that up since."""


class Invariants:
    def __init__(self, check: Check, quorum: int, plan: Plan, on_violation: Callable[[Violation], None]) -> None:
        """`quorum`: with fewer members nobody goes on."""
        self._check, self._quorum, self._plan, self._on_violation = check, quorum, plan, on_violation
        self._courses: dict[int, Course] = {}
        self._quiet_from = plan.quiet_from

    # -- what happens -------------------------------------------------------------------------------------------------

    def started(self, peer: SimulatedPeer, now: float) -> None:
        self._courses[peer.number] = Course(0, now)

    def ended(self, peer: SimulatedPeer) -> None:
        self._courses.pop(peer.number, None)

    def resynced(self, peer: SimulatedPeer) -> None:
        """It has given its state up, to take that of the swarm."""
        self._courses[peer.number].epoch = 0

    def came_to(self, peer: SimulatedPeer, epoch: int, state: bytes, now: float) -> None:
        """An epoch, and the digest of its state there."""
        course = self._courses[peer.number]
        if epoch < course.epoch:
            self._violated(peer, now, f"went back from epoch {course.epoch} to {epoch}")
        if epoch != course.came_to:
            course.came_to, course.advanced_at = epoch, now
        course.epoch = epoch

    def accepted(self, peer: SimulatedPeer, now: float, flaw: str | None) -> None:
        """`peer` has accepted a statement."""
        if flaw is not None:
            self._violated(peer, now, flaw)

    # -- looked at now and then ---------------------------------------------------------------------------------------

    def look(self, peers: Collection[SimulatedPeer], now: float, connections: Callable[[PeerId], int]) -> None:
        """At all honest peers that live and take part."""
        parted = self._parted(now)
        for peer in peers:
            course = self._courses[peer.number]
            if parted or len(peers) < self._quorum or peer.participant.finished:
                course.advanced_at = now
            elif now - max(course.advanced_at, self._quiet_from) > self._check.progress_within:
                self._violated(peer, now, f"stands still at epoch {peer.state.epoch} since {course.advanced_at:.1f} s")
            self._look_at_bounds(peer, now, connections(peer.peer))

    def _parted(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self._plan.parted_in)

    def _look_at_bounds(self, peer: SimulatedPeer, now: float, connections: int) -> None:
        for what, length, most in (*peer.participant.queues(), ("connections", connections, MOST_CONNECTIONS)):
            if length > most:
                self._violated(peer, now, f"keeps {length} {what}, of {most} at most")
        for reason in (TASK_FAILED, HANDLER_FAILED):
            if peer.rejections.by_reason[reason]:
                self._violated(peer, now, f"failed: {peer.rejections.words[-1]}")

    def _violated(self, peer: SimulatedPeer, now: float, what: str) -> None:
        self._on_violation(Violation(now, peer.number, what))
