"""A member of a gossiping swarm that sends what it should not: it is refused and charged, and costs nobody a step."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Clock, Frame
from dht.simulated_link import Link
from peer.gossip.exchanges import GOSSIP_KIND
from peer.gossip.learner import GossipLearner
from peer.gossip.participant import GossipParticipant
from peer.misbehaviour import FORGERIES, MisbehavingGossipTrainer
from peer.simulation.gossip_learner import PacedGossipLearner
from peer.simulation.learner import Pace
from peer.simulation.problems import ProblemObjective, Quadratic
from protocols.gossip.messages import Commit, Model, Offer, Prepared
from protocols.identity import PeerId
from protocols.manifest import Averaging, Manifest
from protocols.message import Message
from protocols.records import RosterEntry
from protocols.rejection import Reason
from protocols.signed import Signer
from protocols.vectors import Vector
from tests.peer.evil_transport import EvilTransport, Tamper
from tests.peer.gossip.gossiping import BATCH, SPEED, QuadraticGossipLearner, gossip, simulate_gossip, start, start_all
from tests.peer.simulated_swarm import SimulatedSwarm, distance
from tests.peer.test_hostile_members import altered, lengthened, misnumbered, nothing, shortened, silent, without_number

pytestmark = pytest.mark.usefixtures("every_chunk_in_a_frame_of_its_own")
EVIL = 99
NEAR = Link(latency_seconds=0.002)
HONEST = 4
PARAMETERS = 600
PAIRWISE = gossip(epochs=100_000, steps=4)
NEIGHBOURHOODS = {"steps": 4, "topology": "regular", "degree": 4}


def robust(mixing: str, rule: str) -> Manifest:
    return gossip(100_000, Averaging(rule=rule, byzantine=1, quorum=3), mixing=mixing, **NEIGHBOURHOODS)


def play(
    make: Callable[..., GossipParticipant], manifest: Manifest = PAIRWISE, seconds: float = 6.0, **options: Any
) -> tuple[set[str], SimulatedSwarm]:
    """HONEST members and the evil one: why the honest refused what it sent, and the swarm at the end."""

    async def scenario(swarm: SimulatedSwarm) -> tuple[set[str], SimulatedSwarm]:
        honest = await start_all(swarm, HONEST)
        evil = await start(swarm, EVIL, make=make, **options)
        await swarm.network.clock.sleep(3)
        before = [peer.participant.learner.steps for peer in honest]
        await swarm.network.clock.sleep(seconds)
        completed = [peer.participant.exchanges.counts.completed for peer in honest]
        assert sum(completed) / len(completed) > seconds  # who draws the evil one more often has fewer
        for peer, steps in zip(honest, before, strict=True):
            assert peer.participant.learner.steps - steps >= 0.99 * seconds * SPEED / BATCH
            assert distance(peer.state) < 0.7
            charged = {who for (who, reason) in peer.rejections.by_peer if reason != Reason.BUSY}
            assert charged <= {evil.peer}, peer.rejections.words
            assert "task_failed" not in peer.rejections.by_reason, peer.rejections.words
            assert "handler_failed" not in peer.rejections.by_reason, peer.rejections.words
        reasons = {reason for peer in honest for (who, reason) in peer.rejections.by_peer if who == evil.peer}
        return reasons, swarm

    return simulate_gossip(scenario, manifest, link=NEAR, parameters=PARAMETERS)


def tampering(**hooks: Tamper) -> Callable[..., GossipParticipant]:
    return lambda **given: GossipParticipant(
        **(given | {"transport": EvilTransport(given["transport"], GOSSIP_KIND, **hooks)})
    )


WRONG_CHUNKS: dict[Tamper, set[Reason]] = {
    altered: {Reason.WRONG_DIGEST},
    shortened: {Reason.WRONG_DIGEST},
    lengthened: {Reason.OVERSIZED, Reason.WRONG_DIGEST},
    misnumbered: {Reason.UNEXPECTED},
    without_number: {Reason.MALFORMED},
    silent: set(),
    nothing: set(),
}


@pytest.mark.parametrize("side", ["sent", "served"])
@pytest.mark.parametrize(("tamper", "reasons"), WRONG_CHUNKS.items(), ids=[tamper.__name__ for tamper in WRONG_CHUNKS])
def test_wrong_chunks_are_refused_and_shift_nothing(tamper: Tamper, reasons: set[Reason], side: str) -> None:
    refused, swarm = play(tampering(**{side: tamper}), seconds=12.0 if tamper is silent else 6.0)
    assert not reasons or reasons & refused
    counts = [peer.participant.exchanges.counts for peer in swarm.peers.values() if peer.number != EVIL]
    assert all(count.last_peer != swarm.peers[EVIL].peer for count in counts) or side == "sent"


class EvilSigner(Signer):
    """Signs another body than it is given."""

    def __init__(self, signer: Signer, change: Callable[[Message], Message]) -> None:
        super().__init__(signer.identity, signer.run, signer._sequence)
        self._change = change

    def sign(self, body: Any, epoch: int) -> Any:
        return super().sign(self._change(body), epoch)


def signing(change: Callable[[Message], Message]) -> Callable[..., GossipParticipant]:
    return lambda **given: GossipParticipant(**given | {"signer": EvilSigner(given["signer"], change)})


def changed(kind: type[Message], **fields: Any) -> Callable[[Message], Message]:
    return lambda body: body.model_copy(update=fields) if isinstance(body, kind) else body


OTHER = PeerId("12D3KooWJ6x1bWtfmdeuEHaBLgXhRo1mCZ1eE5n2ZHWTUj3nR7S6")
LIES = {
    "more samples than there are": (changed(Model, samples=10**9), Reason.UNEXPECTED),
    "a model for another offer": (changed(Model, offer=b"\x07" * 32), Reason.UNEXPECTED),
    "too few chunks": (changed(Model, chunks=(b"\x07" * 32,)), Reason.WRONG_SHAPE),
    "an offer to another": (changed(Offer, to=OTHER), Reason.UNEXPECTED),
    "an offer of another run's kind": (changed(Offer, only_asks=True), Reason.UNEXPECTED),
    "prepared for something else": (changed(Prepared, exchange=b"\x07" * 32), Reason.UNEXPECTED),
    "commits something else": (changed(Commit, exchange=b"\x07" * 32), Reason.UNEXPECTED),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_in_signed_messages_are_refused(lie: str) -> None:
    change, reason = LIES[lie]
    refused, _ = play(signing(change))
    assert reason in refused


def test_an_offer_is_taken_once() -> None:
    """Whoever shows an old one again is refused."""
    first: list[Frame] = []

    def replay(frame: Frame) -> Iterable[Frame]:
        if not first:
            first.append(frame)
        yield first[0]

    refused, _ = play(tampering(sent=replay))
    assert Reason.REPLAYED in refused or Reason.UNEXPECTED in refused


class Boundless(QuadraticGossipLearner):
    """Its model is as large as numbers go."""

    async def parameters(self) -> Vector:
        return np.full_like(self.weights, 3e38)


def test_neighbours_that_send_any_model_are_withstood_by_a_rule() -> None:
    _, swarm = play(GossipParticipant, robust("rule", "trimmed_mean"), learns=Boundless)
    evil = swarm.peers[EVIL].participant.exchanges.counts
    assert evil.bytes_sent > 0, "it was asked"


@pytest.mark.parametrize(
    ("mixing", "rule"), [("clipped", "mean"), ("rule", "monna"), ("rule", "median"), ("rule", "nnm | trimmed_mean")]
)
def test_other_robust_mixing_withstands_it_too(mixing: str, rule: str) -> None:
    play(GossipParticipant, robust(mixing, rule), learns=Boundless)


@pytest.mark.parametrize("attack", FORGERIES)
def test_attacks_on_models_are_withstood_by_a_rule(attack: str) -> None:
    shown: list[float] = []

    class Misbehaving(MisbehavingGossipTrainer):
        """How far the model that it shows is from its own."""

        def parameters(self) -> Vector:
            forged = super().parameters()
            shown.append(float(np.linalg.norm(forged - self.model)))
            return forged

    def learns(manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> GossipLearner:
        objective = ProblemObjective(manifest.run_id, Quadratic(PARAMETERS), peer)
        return PacedGossipLearner(Misbehaving(manifest, objective, attack, peer), clock, Pace(speed))

    play(GossipParticipant, robust("rule", "trimmed_mean"), learns=learns)
    assert max(shown) > 0.5


def test_in_a_robust_run_nobody_shifts_anothers_model() -> None:
    def offering(**given: Any) -> GossipParticipant:
        participant = GossipParticipant(**given)
        participant._mixer._neighbourhood = None
        return participant

    refused, swarm = play(offering, robust("rule", "median"))
    assert Reason.UNEXPECTED in refused
    assert swarm.peers[EVIL].participant.exchanges.counts.completed == 0


def test_a_peer_that_never_answers_costs_others_seldom_and_seldomer() -> None:
    """It takes every offer, and then says nothing."""
    asked: list[float] = []

    def mute(**given: Any) -> GossipParticipant:
        participant = GossipParticipant(**given)

        async def hold(*_offer: Any) -> None:
            asked.append(participant._transport.clock.monotonic())
            await participant._transport.clock.sleep(1000)

        participant.exchanges._be_called = hold  # type: ignore[method-assign]
        return participant

    play(mute, seconds=60.0)
    halves = [sum(when < 20 for when in asked), sum(when >= 40 for when in asked)]
    assert halves[1] < halves[0] <= 3 * HONEST


def test_who_claims_to_be_at_the_end_ends_the_run_for_nobody() -> None:
    class Boaster(GossipParticipant):
        def _entry(self) -> tuple[RosterEntry, int]:
            said, _ = super()._entry()
            return said, PAIRWISE.epochs

    _, swarm = play(Boaster)
    assert all(peer.state.epoch < 1000 for peer in swarm.peers.values() if peer.number != EVIL)
