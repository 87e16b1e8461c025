"""A member of a swarm of thousands keeps knowing all of them, at an effort that does not grow with the swarm."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from dht.border import Border
from dht.interfaces import Transport
from dht.simulated import SimulatedNetwork, run_simulation
from peer.demo import demo_manifest
from peer.gossip.participant import CONTACTS
from peer.membership import (
    AT_ONCE,
    HELLO_KIND,
    HELLO_SECONDS,
    HELLOS_A_TURN,
    MOST_TURNS_AHEAD,
    SHORTEST_PAUSE_SECONDS,
    Membership,
    _speaks_first,
)
from peer.roster import MAX_MEMBERS
from peer.tasks import beside
from protocols.admission import Admission
from protocols.identity import Identity, PeerId
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
        state_digest=b"\x01" * 32,
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


def make_membership(
    network: SimulatedNetwork,
    transport: Transport,
    me: Identity,
    contacts: int | None = None,
    mates: Callable[[Iterable[PeerId]], Iterable[PeerId]] = lambda _peers: (),
) -> Membership:
    return Membership(
        transport,
        network.records(me.peer_id),
        Signer(me, RUN, 1),
        lambda: (entry(network.clock.wall() + 60), 0),
        on_word=lambda peer, new: None,
        on_left=lambda peer: None,
        on_lost=lambda peer: None,
        border=Border(me.peer_id, network.clock, lambda peer, reason, message: None),
        admission=Admission(demo_manifest()),
        contacts=contacts,
        mates=mates,
    )


def test_all_members_of_a_large_swarm_stay_known() -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        others = (identity(number) for number in range(1, MAX_MEMBERS + 1))
        words = {who.peer_id: Signer(who, RUN, 1).sign(body, 0).wire for who in others}
        crowd = Crowd(network.join(me.peer_id), words)
        membership = make_membership(network, crowd, me)
        for peer, wire in words.items():
            await membership._answer(peer, wire)
        async with beside(membership.run()):
            await network.clock.sleep(SECONDS)
            assert len(membership.roster) == MAX_MEMBERS
        assert crowd.asked.keys() == words.keys()
        assert crowd.asked.total() <= AT_ONCE * SECONDS * 1.3 + HELLOS_A_TURN

    run_simulation(main, seed=1)


@pytest.mark.parametrize("members", [30, 300])
def test_who_keeps_in_touch_with_a_few_knows_all_and_says_as_many_hellos_in_any_swarm(members: int) -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        words: dict[PeerId, bytes] = {}
        for number in range(1, members + 1):
            signer = Signer(identity(number), RUN, 1)
            words[signer.peer_id] = signer.sign(body, 0).wire
            await network.records(signer.peer_id).publish(signer.sign(body, 0), body.expires)
        crowd = Crowd(network.join(me.peer_id), words)
        membership = make_membership(network, crowd, me, CONTACTS)
        began = network.clock.monotonic()
        async with beside(membership.run()):
            await network.clock.sleep(30.0)
            assert len(membership.roster) == members
            assert {member.peer for member in membership.roster} == words.keys()
            turns = (network.clock.monotonic() - began) / HELLO_SECONDS * 1.3 + 1
            assert 30 <= crowd.asked.total() <= CONTACTS * (turns + 1)

    run_simulation(main, seed=1)


@pytest.mark.parametrize(("its_mates", "told"), [(0, CONTACTS), (1, CONTACTS), (20, 20)])
def test_news_are_told_to_mates_and_to_nobody_else_where_these_are_as_many_as_it_keeps_in_touch_with(
    its_mates: int, told: int
) -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        others = [identity(number) for number in range(1, 61)]
        words = {who.peer_id: Signer(who, RUN, 1).sign(body, 0).wire for who in others}
        mates = set(list(words)[:its_mates])
        crowd = Crowd(network.join(me.peer_id), words)
        membership = make_membership(network, crowd, me, CONTACTS, lambda peers: [p for p in peers if p in mates])
        for peer, wire in words.items():
            await membership._answer(peer, wire)
        await network.clock.sleep(2 * HELLO_SECONDS)  # all are due
        membership.announce()
        await network.clock.sleep(HELLO_SECONDS)  # whoever is to speak first has had its turn
        due = membership._due()
        assert mates <= set(due)
        assert len(due) == len(set(due)) == told

    run_simulation(main, seed=1)


def test_others_wait_until_as_many_hellos_would_have_been_said_as_mates_have_taken_and_not_for_ever() -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        words = {who.peer_id: Signer(who, RUN, 1).sign(body, 0).wire for who in map(identity, range(1, 61))}
        mates = set(list(words)[:40])
        crowd = Crowd(network.join(me.peer_id), words)
        membership = make_membership(network, crowd, me, CONTACTS, lambda peers: [p for p in peers if p in mates])
        for peer, wire in words.items():
            await membership._answer(peer, wire)
        await network.clock.sleep(2 * HELLO_SECONDS)
        membership.announce()
        await network.clock.sleep(HELLO_SECONDS)
        turns = []
        for _ in range(MOST_TURNS_AHEAD + 2):
            due = membership._due()
            for peer in due:
                membership.roster.told(peer, network.clock.monotonic())
            turns.append(len(due))
            await network.clock.sleep(HELLO_SECONDS)
        assert turns == [40, *[0] * (MOST_TURNS_AHEAD - 1), CONTACTS, CONTACTS]

    run_simulation(main, seed=1)


def test_mates_are_told_news_a_moment_later_if_they_have_not_said_the_same_by_then() -> None:
    async def main(network: SimulatedNetwork) -> None:
        me = identity(0)
        body = entry(network.clock.wall() + 60)
        words = {who.peer_id: Signer(who, RUN, 1).sign(body, 0).wire for who in map(identity, range(1, 21))}
        crowd = Crowd(network.join(me.peer_id), words)
        membership = make_membership(network, crowd, me, CONTACTS, list)
        for peer, wire in words.items():
            await membership._answer(peer, wire)
        async with beside(membership.run()):
            await network.clock.sleep(SHORTEST_PAUSE_SECONDS)
            membership.announce()
            first, *rest = [peer for peer in words if _speaks_first(me.peer_id, peer)]
            await network.clock.sleep(SHORTEST_PAUSE_SECONDS / 2)
            assert not crowd.asked
            await membership._answer(first, words[first])
            await network.clock.sleep(SHORTEST_PAUSE_SECONDS)
            assert crowd.asked == Counter(rest)

    run_simulation(main, seed=1)


def test_who_has_departed_by_the_word_of_the_dht_is_no_member_any_more() -> None:
    async def main(network: SimulatedNetwork) -> None:
        me, other = identity(0), Signer(identity(1), RUN, 1)
        body = entry(network.clock.wall() + 60)
        await network.records(other.peer_id).publish(other.sign(body, 0), body.expires)
        words = {other.peer_id: other.sign(body, 0).wire}
        membership = make_membership(network, Crowd(network.join(me.peer_id), words), me, CONTACTS)
        await membership.look_up()
        assert len(membership.roster) == 1
        gone = body.model_copy(update={"departed": True, "expires": body.expires + 1})
        await network.records(other.peer_id).publish(other.sign(gone, 0), gone.expires)
        await membership.look_up()
        assert len(membership.roster) == 0

    run_simulation(main, seed=1)
