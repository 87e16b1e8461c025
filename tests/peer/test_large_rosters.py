"""A member of a swarm of thousands keeps knowing all of them, at an effort that does not grow with the swarm."""

from collections import Counter

from dht.border import Border
from dht.interfaces import Transport
from dht.simulated import SimulatedNetwork, run_simulation
from peer.demo import demo_manifest
from peer.membership import AT_ONCE, HELLO_KIND, HELLOS_A_TURN, Membership
from peer.roster import MAX_MEMBERS
from peer.tasks import beside
from protocols.admission import Admission
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.signed import Signer
from tests.peer.evil_transport import EvilTransport
from tests.peer.simulated_swarm import identity

RUN = f"run-{'a' * 26}"
SECONDS = 600.0


def entry(expires: float) -> RosterEntry:
    return RosterEntry(
        expires=expires,
        name="somebody",
        role="trainer",
        addresses=(),
        client_mode=False,
        state_digest=None,
        samples_contributed=0,
        samples_per_second=0.0,
        bandwidth_bytes_per_second=0.0,
        departed=False,
    )


class Crowd(EvilTransport):
    """Everybody answers a hello with the same word each time, and says none without being asked."""

    def __init__(self, transport: Transport, words: dict[PeerId, bytes]) -> None:
        super().__init__(transport, "none")
        self._words = words
        self.asked: Counter[PeerId] = Counter()

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        assert kind == HELLO_KIND
        self.asked[peer] += 1
        return self._words[peer]


def test_all_members_of_a_large_swarm_stay_known() -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        others = (identity(number) for number in range(1, MAX_MEMBERS + 1))
        words = {who.peer_id: Signer(who, RUN, 1).sign(body, 0).wire for who in others}
        crowd = Crowd(network.join(me.peer_id), words)
        membership = Membership(
            crowd,
            network.records(me.peer_id),
            Signer(me, RUN, 1),
            lambda: (body, 0),
            on_word=lambda peer, new: None,
            on_left=lambda peer: None,
            on_lost=lambda peer: None,
            border=Border(me.peer_id, network.clock, lambda peer, reason, message: None),
            admission=Admission(demo_manifest()),
        )
        for peer, wire in words.items():
            await membership._answer(peer, wire)
        async with beside(membership.run()):
            await network.clock.sleep(SECONDS)
            assert len(membership.roster) == MAX_MEMBERS
        assert crowd.asked.keys() == words.keys()
        assert crowd.asked.total() <= AT_ONCE * SECONDS * 1.3 + HELLOS_A_TURN

    run_simulation(main, seed=1)
