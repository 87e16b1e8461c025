"""A caller that has others prepared and never says what it has decided: they take calls of others all the same."""

from collections.abc import Iterable
from typing import Any

from dht.interfaces import Frame, RequestHandler
from peer.gossip.doubts import ANSWER_SECONDS, OUTCOME_KIND
from peer.gossip.exchanges import GOSSIP_KIND
from peer.gossip.participant import GossipParticipant
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import signed_run_and_kind
from tests.peer.evil_transport import EvilTransport
from tests.peer.gossip.gossiping import gossip, simulate_gossip, start, start_all
from tests.peer.simulated_swarm import SimulatedSwarm

HONEST = 3
EVIL = 99


class NeverSays(EvilTransport):
    """Breaks each exchange off in place of `Commit`, and refuses to say what became of it."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport, GOSSIP_KIND, sent=_without_commit)

    async def serve_requests(self, kind: str, handler: RequestHandler, *limits: int) -> None:
        async def refuse(_peer: PeerId, _body: bytes) -> bytes:
            raise Rejected(Reason.BUSY, "not now")

        await super().serve_requests(kind, refuse if kind == OUTCOME_KIND else handler, *limits)


def _without_commit(frame: Frame) -> Iterable[Frame]:
    if frame.payload or signed_run_and_kind(frame.header, 10**6)[1] != "gossip_commit":
        yield frame


def make(**given: Any) -> GossipParticipant:
    return GossipParticipant(**given | {"transport": NeverSays(given["transport"])})


def test_who_never_says_what_it_has_decided_keeps_nobody_from_being_called() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest = await start_all(swarm, HONEST)
        await start(swarm, EVIL, make=make)
        await swarm.network.clock.sleep(120)
        before = sum(peer.participant.exchanges.counts.completed for peer in honest)
        await swarm.network.clock.sleep(30)
        assert sum(peer.participant.exchanges.counts.completed for peer in honest) - before > 30 * HONEST
        assert not any(peer.participant.exchanges.doubts.too_many for peer in honest)


def test_who_lives_and_does_not_say_what_it_has_decided_is_taken_to_have_given_up() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        honest = await start(swarm, 0)
        await start(swarm, EVIL, make=make)
        shifts = honest.participant.exchanges.doubts._prepared._shifts
        await swarm.until(lambda: bool(shifts), within=60)
        [exchange, *_] = shifts
        await swarm.network.clock.sleep(ANSWER_SECONDS + 10)
        assert exchange not in shifts

    simulate_gossip(scenario, gossip(epochs=100_000), parameters=600)
