"""What happened in one term does not count in another, unless it was voted for and can be proved."""

from collections import Counter
from typing import Any

import pytest

from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.claims import Claim
from protocols.round.events import (
    Action,
    Fetch,
    FetchFailed,
    FinishUpdate,
    Heard,
    Lost,
    PartHeld,
    Send,
    Tick,
    Trained,
    UpdateReady,
)
from protocols.round.machine import Phase, Round
from protocols.round.messages import Begin, Close, Done, Member, Part, PartResult, Prepared, Ready, Reassign, Suspect
from protocols.round.order import order
from protocols.round.setting import Setting
from protocols.signed import Signed
from tests.protocols.round.simulation import BASE, PEERS, RUN

EPOCH = 7
CHUNKS = 16
FIRST, SECOND, THIRD, FOURTH = ALL = order(RUN, EPOCH, PEERS[:4])
STRANGER = PEERS[9]
RESULT = PartResult(start=0, stop=CHUNKS, digest=digest(b"reduced"))
ROOT = digest(b"root")


class Machine:
    """One of four, whose update is ready as soon as it is asked for."""

    def __init__(self, me: PeerId) -> None:
        setting = Setting(run=RUN, epoch=EPOCH, base=BASE, me=me, target_samples=1000, chunks=CHUNKS)
        self.round = Round(setting, {peer: False for peer in ALL if peer != me}, 0.0, electorate=ALL)
        self.begun: list[Begin] = []
        self.now, self._sequence = 0.0, 0

    def event(self, event: Any) -> list[Action]:
        """What it does, and then does because it hears itself."""
        actions = self.round.handle(event, self.now)
        if any(isinstance(action, FinishUpdate) for action in actions):
            actions += self.round.handle(UpdateReady(ROOT, 5), self.now)
        self.begun += [a.body for a in actions if isinstance(a, Send) and isinstance(a.body, Begin)]
        for action in list(actions):
            if isinstance(action, Send) and action.to == self.round.setting.me and isinstance(action.body, Ready):
                actions += self.hear(action.to, action.body)
        return actions

    def hear(self, sender: PeerId, body: Message, claim: Claim | None = None) -> list[Action]:
        self._sequence += 1
        return self.event(Heard(signed(sender, body, self._sequence), claim=claim))


def signed(sender: PeerId, body: Message, sequence: int = 0) -> Signed[Any]:
    return Signed(RUN, sender, EPOCH, sequence, body, f"{sender} {sequence}".encode())


def begin(owner: PeerId, term: int, **changes: Any) -> Begin:
    members = tuple(Member(peer=peer, weight=5, root=ROOT) for peer in ALL)
    fields: dict[str, Any] = {"members": members, "parts": (Part(owner=owner, start=0, stop=CHUNKS),)}
    return Begin(base=BASE, term=term, **(fields | changes))


def ready(term: int, held_term: int | None = None) -> Ready:
    held = {"held": (RESULT,), "origin": (b"begin",)} if held_term is not None else {"held": ()}
    return Ready(base=BASE, term=term, weight=5, root=ROOT, client_mode=False, speed=1.0, held_term=held_term, **held)


def claim(voter: PeerId, leader: PeerId, owner: PeerId, term: int, held_term: int = 0, begin_term: int = 0) -> Claim:
    return Claim(signed(voter, ready(term, held_term)), signed(leader, begin(owner, begin_term)), (owner,))


def adopting(proof: Claim, term: int) -> Begin:
    holders = (proof.ready.sender,)
    return begin(FIRST, term, parts=(), adopted=proof.results, holders=holders, proof=(b"opened by the driver",))


def test_a_part_of_an_earlier_term_does_not_count_in_this_one() -> None:
    machine = Machine(THIRD)
    machine.hear(FIRST, Close(base=BASE, term=0))
    machine.hear(FIRST, begin(FOURTH, 0))
    machine.event(Lost(FIRST))
    machine.hear(SECOND, Close(base=BASE, term=2))
    machine.hear(SECOND, begin(FOURTH, 2))
    machine.event(PartHeld(RESULT, term=0, attempt=0))
    assert machine.round.phase is Phase.EXCHANGING
    machine.event(PartHeld(RESULT, term=2, attempt=0))
    assert machine.round.phase is Phase.PREPARED


def test_a_late_failure_of_an_adopted_result_does_not_lose_the_decided_one() -> None:
    machine = Machine(THIRD)
    machine.hear(FIRST, Close(base=BASE, term=1))
    proof = claim(FOURTH, SECOND, SECOND, term=1)
    (fetch,) = [a for a in machine.hear(FIRST, adopting(proof, 1), proof) if isinstance(a, Fetch)]
    assert (fetch.term, fetch.owner) == (1, SECOND)
    machine.hear(FIRST, Done(base=BASE, term=1, members=ALL, results=(RESULT,), votes=(b"checked by the driver",)))
    machine.event(FetchFailed(RESULT, term=1))
    assert machine.round.phase is Phase.FETCHING
    machine.event(FetchFailed(RESULT, term=None))
    assert machine.round.phase is Phase.LOST


@pytest.mark.parametrize("term", [1, 0], ids=["the next", "a restarted leader's"])
def test_what_was_voted_for_is_adopted_in_a_later_term(term: int) -> None:
    machine = Machine(SECOND)
    if term:
        machine.hear(FIRST, Close(base=BASE, term=0))
    machine.event(Lost(FIRST))
    if not term:
        machine.hear(THIRD, ready(0))
    assert machine.round.leader == SECOND
    assert machine.round.term == 1
    machine.hear(THIRD, ready(1, held_term=term), claim(THIRD, FIRST, FOURTH, term=1, held_term=term))
    machine.hear(FOURTH, ready(1))
    begun = machine.begun[0]
    assert begun.adopted == (RESULT,)
    assert begun.holders == (THIRD,)
    assert begun.proof


UNPROVED = {
    "without a proof": None,
    "under a stranger": claim(THIRD, STRANGER, STRANGER, term=1),
    "under another begin than the one that was followed": claim(THIRD, FIRST, THIRD, term=1),
    "under another leader than the one that was followed": claim(THIRD, THIRD, THIRD, term=1),
}


@pytest.mark.parametrize("proof", UNPROVED.values(), ids=UNPROVED.keys())
def test_what_nobody_proves_is_not_adopted(proof: Claim | None) -> None:
    machine = Machine(SECOND)
    machine.hear(FIRST, Close(base=BASE, term=0))
    machine.hear(FIRST, begin(FOURTH, 0))
    machine.event(Lost(FIRST))
    machine.hear(THIRD, ready(1, held_term=0), proof)
    machine.hear(FOURTH, ready(1))
    assert machine.begun[0].adopted == ()


@pytest.mark.parametrize("proof", UNPROVED.values(), ids=UNPROVED.keys())
def test_leader_that_adopts_what_nobody_proves_is_given_up(proof: Claim | None) -> None:
    machine = Machine(FOURTH)
    machine.hear(FIRST, Close(base=BASE, term=0))
    machine.hear(FIRST, begin(FOURTH, 0))
    machine.hear(FIRST, Close(base=BASE, term=1))
    body = adopting(proof or claim(THIRD, FIRST, FOURTH, term=1), 1)
    assert not any(isinstance(action, Fetch) for action in machine.hear(FIRST, body, proof))
    assert machine.round.leader == SECOND


def test_the_word_of_a_leader_about_its_own_term_proves_nothing_to_who_did_not_follow_it() -> None:
    machine = Machine(SECOND)
    machine.hear(FIRST, Close(base=BASE, term=0))
    machine.event(Lost(FIRST))
    machine.hear(THIRD, ready(1, held_term=0), claim(THIRD, THIRD, THIRD, term=1))
    machine.hear(FOURTH, ready(1))
    assert machine.begun[0].adopted == ()


def test_a_vote_tells_under_whom_its_results_were_reduced() -> None:
    machine = Machine(THIRD)
    machine.hear(FIRST, Close(base=BASE, term=0))
    machine.hear(FIRST, begin(FOURTH, 0))
    votes = [a.body for a in machine.event(PartHeld(RESULT, 0, 0)) if isinstance(getattr(a, "body", None), Prepared)]
    assert [vote.results for vote in votes] == [(RESULT,)]
    words = [getattr(a, "body", None) for a in machine.hear(FIRST, Close(base=BASE, term=1))]
    (said,) = [body for body in words if isinstance(body, Ready)]
    assert (said.held_term, said.held, said.origin) == (0, (RESULT,), (f"{FIRST} 2".encode(),))


@pytest.mark.parametrize(("complaining", "mended"), [(3, True), (2, False)])
def test_a_part_that_most_do_not_get_has_another_owner_though_it_was_voted_for(complaining: int, mended: bool) -> None:
    """It may withhold the result; where half have it, something may have been decided with it."""
    leader = Machine(FIRST)
    leader.event(Trained(1000, False, 1.0))
    for peer in ALL[1:]:
        leader.hear(peer, ready(0))
    owner = leader.begun[0].parts[-1].owner
    results = tuple(
        PartResult(start=part.start, stop=part.stop, digest=digest(b"reduced")) for part in leader.begun[0].parts
    )
    assert owner != FIRST
    leader.hear(owner, Prepared(base=BASE, term=0, results=results))
    complaint = Suspect(term=0, part=len(results) - 1, attempt=0)
    others = [peer for peer in ALL if peer != owner][:complaining]
    actions = [action for peer in others for action in leader.hear(peer, complaint)]
    owners = {action.body.owner for action in actions if isinstance(getattr(action, "body", None), Reassign)}
    assert bool(owners) == mended
    assert owner not in owners


def test_who_is_ready_for_a_leader_that_does_not_know_of_it_hears_what_is_decided_without_it() -> None:
    """It had been forgotten while it was out of reach; and the others may be gone when it asks again."""
    leader = Machine(FIRST)
    leader.event(Trained(1000, False, 1.0))
    for peer in ALL[1:]:
        leader.hear(peer, ready(0))
    leader.hear(STRANGER, ready(0))
    results = tuple(
        PartResult(start=part.start, stop=part.stop, digest=digest(b"reduced")) for part in leader.begun[0].parts
    )
    said = [a for peer in ALL[:3] for a in leader.hear(peer, Prepared(base=BASE, term=0, results=results))]
    assert STRANGER in {a.to for a in said if isinstance(a, Send) and isinstance(a.body, Done)}


def test_who_waits_for_a_leader_that_takes_it_for_its_own_leads() -> None:
    """They know different electorates, as those do who have joined at different moments; each would wait for ever."""
    machine = Machine(THIRD)
    said = machine.hear(FIRST, ready(0))
    assert machine.round.leader == THIRD
    assert {a.to for a in said if isinstance(a, Send) and isinstance(a.body, Close)} == {FIRST, SECOND, FOURTH}


def test_who_waits_for_another_leader_than_the_one_that_follows_it_does_not_lead() -> None:
    machine = Machine(THIRD)
    machine.hear(SECOND, ready(0))
    assert machine.round.leader is None
    assert machine.round.phase is Phase.GATHERING


def test_those_who_lack_the_results_ask_different_holders_first() -> None:
    """Else one of them would send the whole model to all."""
    holders, asked = ALL, Counter[PeerId]()
    results = tuple(PartResult(start=n, stop=n + 1, digest=digest(bytes([n]))) for n in range(CHUNKS))
    done = Done(base=BASE, term=0, members=holders, results=results, votes=(b"checked by the driver",))
    for me in PEERS[4:]:
        setting = Setting(run=RUN, epoch=EPOCH, base=BASE, me=me, target_samples=1000, chunks=CHUNKS)
        late = Round(setting, dict.fromkeys(holders, False), 0.0, electorate=holders)
        late.handle(Heard(signed(FIRST, done, 1)), 0.1)
        fetches = [action for action in late.handle(Tick(), 0.2) if isinstance(action, Fetch)]
        assert [fetch.result for fetch in fetches] == list(results)
        assert all(sorted(fetch.holders) == sorted(holders) for fetch in fetches)
        asked.update(fetch.holders[0] for fetch in fetches)
    assert set(asked.values()) == {asked.total() // len(holders)}
