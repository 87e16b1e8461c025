"""What must hold whatever happens, looked at while a simulation runs; the first thing that does not is a `Violation`.

- Peers at one epoch have one state. Who differs from most (cut off, or come late) must soon have taken their history.
- No epoch goes backwards, unless the peer has given its state up first.
- No sample is counted twice, and none that was not trained on.
- Nothing is accepted that its sender has not signed (`signatures.py`).
- What a peer keeps of others is bounded, and nothing that it does fails unforeseen.
- Once faults have stopped, every honest peer that lives comes to another epoch within a bound.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from dht.border import TASK_FAILED
from dht.gate import HANDLER_FAILED
from peer.rounds.session import RoundOutcome
from peer.simulation.plan import Plan
from peer.simulation.scenario import Check
from peer.simulation.swarm import SimulatedPeer
from protocols.identity import PeerId

REMEMBERED_EPOCHS = 64
MOST_CONNECTIONS = 2048
"""Of one peer: those kept, and the streams that it serves and has opened."""


@dataclass(frozen=True, slots=True)
class Violation:
    time: float
    peer: int
    what: str


@dataclass(slots=True)
class _Course:
    """Of one honest peer, since it has started."""

    epoch: int
    advanced_at: float
    astray_since: float | None = None
    """Since when its history is another than that of most."""


class Invariants:
    def __init__(self, check: Check, quorum: int, plan: Plan, on_violation: Callable[[Violation], None]) -> None:
        """`quorum`: with fewer members no round begins."""
        self._check, self._quorum, self._plan, self._on_violation = check, quorum, plan, on_violation
        self._courses: dict[int, _Course] = {}
        self._histories: dict[int, dict[bytes, set[int]]] = {}
        """By epoch and digest of the state: whose it was, as far as they have not given it up since."""
        self._quiet_from = plan.quiet_from

    # -- what happens -------------------------------------------------------------------------------------------------

    def started(self, peer: SimulatedPeer, now: float) -> None:
        self._courses[peer.number] = _Course(0, now)
        self._forget(peer)

    def ended(self, peer: SimulatedPeer) -> None:
        self._courses.pop(peer.number, None)

    def resynced(self, peer: SimulatedPeer) -> None:
        """It has given its state up, to take that of the swarm."""
        self._courses[peer.number].epoch = 0
        self._forget(peer)

    def came_to(self, peer: SimulatedPeer, epoch: int, state: bytes, now: float) -> None:
        """An epoch, and the digest of its state there."""
        course = self._courses[peer.number]
        if epoch < course.epoch:
            self._violated(peer, now, f"went back from epoch {course.epoch} to {epoch}")
        course.epoch, course.advanced_at = epoch, now
        states = self._histories.setdefault(epoch, {})
        states.setdefault(state, set()).add(peer.number)
        if self._check.agree_within == 0 and len(states) > 1:
            self._violated(peer, now, f"has another state at epoch {epoch} than others")
        while len(self._histories) > REMEMBERED_EPOCHS:
            del self._histories[min(self._histories)]

    def counted(self, peer: SimulatedPeer, now: float, outcome: RoundOutcome, trained: int) -> None:
        """A round that `peer` has finished, and how many samples it has trained on for it."""
        names = [member.peer for member in outcome.group]
        if len(set(names)) < len(names):
            self._violated(peer, now, "somebody is named twice in a group, and counted twice")
        counted = [outcome.weight, *(member.weight for member in outcome.group if member.peer == peer.peer)]
        if max(counted) > trained:
            self._violated(peer, now, f"{max(counted)} samples were counted for it, and it has trained on {trained}")

    def accepted(self, peer: SimulatedPeer, now: float, flaw: str | None) -> None:
        """`peer` has accepted a statement."""
        if flaw is not None:
            self._violated(peer, now, flaw)

    # -- looked at now and then ---------------------------------------------------------------------------------------

    def look(self, peers: Collection[SimulatedPeer], now: float, connections: Callable[[PeerId], int]) -> None:
        """At all honest peers that live and take part."""
        astray = self._astray()
        parted = any(begin <= now < end for begin, end in self._plan.parted_in)
        for peer in peers:
            course = self._courses[peer.number]
            if peer.number not in astray:
                course.astray_since = None
            elif course.astray_since is None or parted:
                course.astray_since = now
            elif now - course.astray_since > self._check.agree_within:
                self._violated(peer, now, f"keeps to another history than most, for {now - course.astray_since:.0f} s")
            if parted or len(peers) < self._quorum or peer.participant.finished:
                course.advanced_at = now
            elif now - max(course.advanced_at, self._quiet_from) > self._check.progress_within:
                self._violated(peer, now, f"stands still at epoch {peer.state.epoch} since {course.advanced_at:.1f} s")
            self._look_at_bounds(peer, now, connections(peer.peer))

    def _forget(self, peer: SimulatedPeer) -> None:
        """It begins anew: its states are what it comes to from now on."""
        for states in self._histories.values():
            for tellers in states.values():
                tellers.discard(peer.number)

    def _astray(self) -> set[int]:
        """Who has been in another state at some epoch than most have."""
        astray: set[int] = set()
        for states in self._histories.values():
            if len(states) > 1:
                most = max(states, key=lambda state: len(states[state]))
                astray.update(*(tellers for state, tellers in states.items() if state != most))
        return astray

    def _look_at_bounds(self, peer: SimulatedPeer, now: float, connections: int) -> None:
        for what, length, most in (*peer.participant.queues(), ("connections", connections, MOST_CONNECTIONS)):
            if length > most:
                self._violated(peer, now, f"keeps {length} {what}, of {most} at most")
        for reason in (TASK_FAILED, HANDLER_FAILED):
            if peer.rejections.by_reason[reason]:
                self._violated(peer, now, f"failed: {peer.rejections.words[-1]}")

    def _violated(self, peer: SimulatedPeer, now: float, what: str) -> None:
        self._on_violation(Violation(now, peer.number, what))
