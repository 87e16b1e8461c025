"""Claims to hold results of an earlier term, and the `Begin`s that adopt them: what they must prove."""

import pytest

from protocols.encoding import digest
from protocols.identity import Identity
from protocols.message import Message
from protocols.rejection import Reason
from protocols.round.claims import open_claim
from protocols.round.messages import Begin, Part, PartResult, Ready, Reassign, Wait
from protocols.signed import Signed
from tests.protocols.examples import (
    CHUNKS,
    EPOCH,
    MEMBERS,
    OTHER_RUN,
    PEERS,
    RESULTS,
    STRANGER,
    begin,
    begun,
    claiming,
    signer,
)
from tests.protocols.refusals import refusal

MANY = [MEMBERS[0].peer_id, *(Identity.from_seed(bytes([number]) * 32).peer_id for number in range(100, 163))]
FORGED = (PartResult(start=0, stop=CHUNKS, digest=digest(b"forged")),)


def reassigned(by: Identity = MEMBERS[0], epoch: int = EPOCH, **changes: object) -> bytes:
    fields = {"term": 0, "part": 1, "attempt": 1, "owner": PEERS[2]}
    return signer(by).sign(Reassign(**(fields | changes)), epoch).wire


def adopting(ready: Signed[Ready], by: Identity = MEMBERS[2], **changes: object) -> Signed[Begin]:
    fields = {"term": 2, "parts": (), "adopted": RESULTS, "holders": (ready.sender,), "proof": (ready.wire,)}
    return signer(by).sign(begin(**(fields | changes)), EPOCH)


def test_claim_names_the_leader_and_the_owners() -> None:
    claim = open_claim(claiming(), CHUNKS)
    assert claim is not None
    assert (claim.begin.sender, claim.owners, claim.results) == (PEERS[0], PEERS[:2], RESULTS)
    moved = open_claim(claiming(origin=(begun().wire, reassigned())), CHUNKS)
    assert moved is not None
    assert moved.owners == (PEERS[0], PEERS[2])


def test_begin_is_proved_by_the_word_of_a_holder() -> None:
    claim = open_claim(adopting(claiming(MEMBERS[1])), CHUNKS)
    assert claim is not None
    assert (claim.ready.sender, claim.begin.sender) == (PEERS[1], PEERS[0])


def test_most_words_claim_nothing() -> None:
    others: list[Message] = [Wait(term=0), begin(), claiming(held_term=None, held=(), origin=()).body]
    for body in others:
        assert open_claim(signer(MEMBERS[0]).sign(body, EPOCH), CHUNKS) is None


HALF = begun(parts=begin().parts[:1])
BAD_CLAIMS = {
    "of other bounds": claiming(held=FORGED),
    "under a begin of another base": claiming(origin=(begun(base=digest(b"x")).wire,)),
    "under a begin of another epoch": claiming(origin=(signer(MEMBERS[0]).sign(begin(), EPOCH + 1).wire,)),
    "under a begin of a term to come": claiming(origin=(begun(term=2).wire,)),
    "under a begin of half of the vector": claiming(held=RESULTS[:1], origin=(HALF.wire,)),
    "under a begin that adopts, too": claiming(origin=(adopting(claiming()).wire,)),
    "in a group that it was not in": claiming(STRANGER, held_term=0),
    "with a reassignment to a stranger": claiming(origin=(begun().wire, reassigned(owner=STRANGER.peer_id))),
    "with a reassignment of another term": claiming(origin=(begun().wire, reassigned(term=1))),
    "with a reassignment of another epoch": claiming(origin=(begun().wire, reassigned(epoch=EPOCH + 1))),
    "with a reassignment of no part": claiming(origin=(begun().wire, reassigned(part=2))),
    "with a reassignment back": claiming(origin=(begun().wire, reassigned(), reassigned(attempt=1))),
    "adopted in another term": adopting(claiming(), term=1),
    "adopted from who is no holder": adopting(claiming(), holders=(PEERS[3],)),
    "of something else than what is adopted": adopting(claiming(), adopted=FORGED),
}


@pytest.mark.parametrize("bad", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
def test_claim_is_refused(bad: Signed[Message]) -> None:
    assert refusal(lambda: open_claim(bad, CHUNKS)) is Reason.MALFORMED


OTHERS_BEGIN = signer(MEMBERS[0], OTHER_RUN).sign(begin(), EPOCH)
FORGERIES = {
    "begin": (claiming(origin=(begun().wire[:-1] + b"\xff",)), Reason.BAD_SIGNATURE),
    "begin of another run": (claiming(origin=(OTHERS_BEGIN.wire,)), Reason.WRONG_RUN),
    "reassignment by another": (claiming(origin=(begun().wire, reassigned(MEMBERS[1]))), Reason.WRONG_SENDER),
    "random origin": (claiming(origin=(b"random",)), Reason.MALFORMED),
    "proof": (adopting(claiming(), proof=(claiming().wire[:-1] + b"\xff",)), Reason.BAD_SIGNATURE),
    "random proof": (adopting(claiming(), proof=(b"random",)), Reason.MALFORMED),
}


@pytest.mark.parametrize(("bad", "reason"), FORGERIES.values(), ids=FORGERIES.keys())
def test_forgery_is_refused(bad: Signed[Message], reason: Reason) -> None:
    assert refusal(lambda: open_claim(bad, CHUNKS)) is reason


def test_the_largest_claim_fits_into_its_messages() -> None:
    members = tuple(begin().members[0].model_copy(update={"peer": peer, "weight": 2**53}) for peer in MANY)
    parts = tuple(Part(owner=peer, start=number, stop=number + 1) for number, peer in enumerate(MANY))
    largest = begun(members=members, parts=parts, term=1)
    moves = tuple(reassigned(term=1, part=n, attempt=63, owner=MANY[0]) for n in range(64))
    held = tuple(PartResult(start=n, stop=n + 1, digest=digest(b"x")) for n in range(64))
    ready = claiming(held=held, origin=(largest.wire, *moves))
    adopted = adopting(ready, members=members, adopted=held, holders=tuple(MANY))
    for statement in (ready, adopted):
        assert len(statement.body.to_bytes()) <= statement.body.limit_bytes
