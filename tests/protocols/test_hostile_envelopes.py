"""Signed statements that were spoiled, forged, replayed or counted twice: refused, each for its own reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding import decode, digest, encode
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.checks import TERM_LEAP, check_begin, check_done, check_term
from protocols.round.messages import Begin, Close, Done, Member, Part, PartResult, Progress, Ready, Wait
from protocols.signed import ENVELOPE_BYTES, ReplayGuard, Signed, open_signed, signed_run_and_kind
from tests.protocols.examples import (
    BASE,
    CHUNKS,
    EPOCH,
    EXAMPLES,
    MEMBERS,
    OTHER_RUN,
    PEERS,
    RESULTS,
    RUN,
    STRANGER,
    begin,
    done,
    signer,
    vote,
)
from tests.protocols.refusals import accepted_or_refused, plain_data, refusal

SENDER = MEMBERS[0]
STATEMENTS = tuple(signer(SENDER).sign(example, EPOCH) for example in EXAMPLES)
statements = st.sampled_from(STATEMENTS)


def opened(wire: bytes, kind: type[Message] = Progress, **options: Any) -> Signed[Any]:
    return open_signed(wire, kind, **({"run": RUN, "sender": SENDER.peer_id} | options))


def signed_by_hand(**changes: Any) -> bytes:
    """An envelope around a good body, signed as it says, whatever it says."""
    fields = {
        "run": RUN,
        "sender": SENDER.peer_id,
        "kind": "progress",
        "epoch": EPOCH,
        "sequence": 1,
        "body": EXAMPLES[0].to_bytes(),
    } | changes
    items = list(fields.values())
    return encode([*items, SENDER.sign(b"peer/1/signed\x00" + encode(items))])


@given(statements)
def test_statement_opens_to_what_was_signed(statement: Signed[Any]) -> None:
    assert opened(statement.wire, type(statement.body)) == statement
    assert signed_run_and_kind(statement.wire, len(statement.wire)) == (RUN, statement.kind)
    assert len(statement.wire) <= len(statement.body.to_bytes()) + ENVELOPE_BYTES


@given(statements, st.data())
def test_any_byte_changed_makes_it_refused(statement: Signed[Any], data: st.DataObject) -> None:
    wire = bytearray(statement.wire)
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    refusal(lambda: opened(bytes(wire), type(statement.body), sender=None))


@given(statements, st.data())
def test_truncated_or_longer_is_refused(statement: Signed[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(statement.wire) - 1))
    kind = type(statement.body)
    assert refusal(lambda: opened(statement.wire[:cut], kind)) is Reason.MALFORMED
    assert refusal(lambda: opened(statement.wire + b"\xc0", kind)) is Reason.MALFORMED


@given(st.binary(max_size=1024) | plain_data.map(encode))
def test_random_bytes_and_random_data_are_no_envelope(wire: bytes) -> None:
    assert refusal(lambda: opened(wire)) is Reason.MALFORMED
    assert refusal(lambda: signed_run_and_kind(wire, 2**20)) is Reason.MALFORMED


@given(st.integers(0, 6), plain_data)
def test_item_of_any_other_value_is_refused(position: int, value: Any) -> None:
    items = decode(STATEMENTS[0].wire, 2**20)
    if type(value) is type(items[position]) and value == items[position]:
        return
    items[position] = value
    refusal(lambda: opened(encode(items), sender=None))


def longer_encoding(wire: bytes) -> bytes:
    """The same seven items, the epoch (a small number) in nine bytes."""
    items = decode(wire, 2**20)
    epoch = b"\xcf" + items[3].to_bytes(8, "big")
    return b"\x97" + b"".join(encode(item) if at != 3 else epoch for at, item in enumerate(items))


REFUSED = {
    "of another run": (signer(SENDER, OTHER_RUN).sign(EXAMPLES[0], EPOCH).wire, Reason.WRONG_RUN),
    "of another kind": (signer(SENDER).sign(Wait(term=0), EPOCH).wire, Reason.WRONG_KIND),
    "of another kind under this name": (signed_by_hand(body=Wait(term=0).to_bytes()), Reason.MALFORMED),
    "signed by another": (signer(STRANGER).sign(EXAMPLES[0], EPOCH).wire, Reason.WRONG_SENDER),
    "in another's name": (
        encode([*decode(STATEMENTS[0].wire, 2**20)[:-1], STRANGER.sign(STATEMENTS[0].wire)]),
        Reason.BAD_SIGNATURE,
    ),
    "another's signature of the same": (
        encode([*decode(STATEMENTS[0].wire, 2**20)[:-1], decode(STATEMENTS[1].wire, 2**20)[-1]]),
        Reason.BAD_SIGNATURE,
    ),
    "too long": (STATEMENTS[0].wire + bytes(Progress.limit_bytes + ENVELOPE_BYTES), Reason.OVERSIZED),
    "with a body too long": (signed_by_hand(body=bytes(Progress.limit_bytes + 1)), Reason.OVERSIZED),
    "written in another way": (longer_encoding(STATEMENTS[0].wire), Reason.MALFORMED),
    "with a space after the sender": (signed_by_hand(sender=SENDER.peer_id + " "), Reason.MALFORMED),
    "of no peer": (signed_by_hand(sender="nobody"), Reason.MALFORMED),
    "of epoch -1": (signed_by_hand(epoch=-1), Reason.MALFORMED),
    "of epoch true": (signed_by_hand(epoch=True), Reason.MALFORMED),
    "of epoch 1.0": (signed_by_hand(epoch=1.0), Reason.MALFORMED),
    "of an epoch beyond counting": (signed_by_hand(epoch=2**53), Reason.MALFORMED),
    "with a number beyond counting": (signed_by_hand(sequence=2**63), Reason.MALFORMED),
    "with a body of text": (signed_by_hand(body="text"), Reason.MALFORMED),
    "with a kind of bytes": (signed_by_hand(kind=b"progress"), Reason.MALFORMED),
}


@pytest.mark.parametrize(("wire", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(wire: bytes, reason: Reason) -> None:
    assert refusal(lambda: opened(wire)) is reason


def test_whoever_passes_a_statement_on_needs_not_be_its_signer() -> None:
    assert opened(STATEMENTS[0].wire, sender=None).sender == SENDER.peer_id


# -- replays ----------------------------------------------------------------------------------------------------------


def numbered(sequence: int, sender: int = 0, body: Message = EXAMPLES[0]) -> Signed[Any]:
    return Signed(RUN, PEERS[sender], EPOCH, sequence, body, b"")


@given(st.permutations(range(ReplayGuard.WINDOW)), st.data())
def test_each_number_is_admitted_once_in_any_order(numbers: list[int], data: st.DataObject) -> None:
    guard = ReplayGuard()
    for number in numbers:
        guard.admit(numbered(number))
    again = numbered(data.draw(st.sampled_from(numbers)))
    assert refusal(lambda: guard.admit(again)) is Reason.REPLAYED


def test_numbers_before_the_window_are_stale() -> None:
    guard = ReplayGuard()
    for number in range(10, 12 + ReplayGuard.WINDOW):
        guard.admit(numbered(number))
    assert refusal(lambda: guard.admit(numbered(9))) is Reason.STALE
    assert refusal(lambda: guard.admit(numbered(10))) is Reason.STALE
    guard.admit(numbered(2**63 - 1))


def test_one_sender_takes_nothing_from_another_nor_one_kind_from_another() -> None:
    guard = ReplayGuard()
    guard.admit(numbered(2**63 - 1))
    guard.admit(numbered(1, sender=1))
    guard.admit(numbered(1, body=Wait(term=0)))
    assert refusal(lambda: guard.admit(numbered(2**63 - 1))) is Reason.REPLAYED


# -- what a Begin and a Done must satisfy -----------------------------------------------------------------------------


def members(*, weight: int = 5) -> list[Member]:
    return [Member(peer=peer, weight=weight, root=digest(b"x") if weight else None) for peer in PEERS]


def test_good_begins_pass() -> None:
    check_begin(begin(), CHUNKS)
    check_begin(begin(parts=(), adopted=RESULTS, holders=PEERS, proof=(b"opened elsewhere",)), CHUNKS)


BAD_BEGINS = {
    "of no parts": begin(parts=()),
    "of parts with a gap": begin(parts=(Part(owner=PEERS[0], start=0, stop=3), Part(owner=PEERS[1], start=4, stop=8))),
    "of parts that overlap": begin(
        parts=(Part(owner=PEERS[0], start=0, stop=6), Part(owner=PEERS[1], start=5, stop=8))
    ),
    "of too short a vector": begin(parts=(Part(owner=PEERS[0], start=0, stop=7),)),
    "of too long a vector": begin(parts=(Part(owner=PEERS[0], start=0, stop=9),)),
    "of an empty part": begin(parts=(Part(owner=PEERS[0], start=0, stop=0), Part(owner=PEERS[0], start=0, stop=8))),
    "of a part backwards": begin(parts=(Part(owner=PEERS[0], start=8, stop=0),)),
    "with an owner that is no member": begin(parts=(Part(owner=STRANGER.peer_id, start=0, stop=8),)),
    "with a member twice": begin(members=(*members(), members()[0])),
    "with parts and adopted results": begin(adopted=RESULTS, holders=PEERS, proof=(b"",)),
    "with half of the results": begin(parts=(), adopted=RESULTS[:1], holders=PEERS, proof=(b"",)),
    "with results that strangers hold": begin(parts=(), adopted=RESULTS, holders=(STRANGER.peer_id,), proof=(b"",)),
}


@pytest.mark.parametrize("bad", BAD_BEGINS.values(), ids=BAD_BEGINS.keys())
def test_begin_is_refused(bad: Begin) -> None:
    assert refusal(lambda: check_begin(bad, CHUNKS)) is Reason.MALFORMED


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=6))
def test_begin_is_taken_only_when_its_parts_are_each_chunk_once(bounds: list[tuple[int, int]]) -> None:
    parts = tuple(Part(owner=PEERS[0], start=start, stop=stop) for start, stop in bounds)
    whole = [chunk for start, stop in bounds for chunk in range(start, stop)] == list(range(CHUNKS))
    whole = whole and all(start < stop for start, stop in bounds)
    taken = accepted_or_refused(lambda: check_begin(begin(parts=parts), CHUNKS) is None)
    assert bool(taken) == whole


def test_good_done_passes() -> None:
    check_done(done(), CHUNKS)
    check_done(done(tuple(vote(member) for member in MEMBERS)), CHUNKS)


THREE = MEMBERS[:3]
OTHER_RESULTS = (PartResult(start=0, stop=CHUNKS, digest=digest(b"forged")),)
BAD_DONES = {
    "by a minority": (done(tuple(vote(m) for m in MEMBERS[:2])), Reason.MALFORMED),
    "by half": (done(tuple(vote(m) for m in MEMBERS[:2]), members=PEERS[:4]), Reason.MALFORMED),
    "by one who votes three times": (done((vote(MEMBERS[0]),) * 3), Reason.MALFORMED),
    "by one who votes again": (done((*(vote(m) for m in THREE), vote(MEMBERS[0]))), Reason.MALFORMED),
    "by strangers": (done((vote(STRANGER), *(vote(m) for m in THREE))), Reason.MALFORMED),
    "by votes for another term": (done(tuple(vote(m, term=1) for m in THREE)), Reason.MALFORMED),
    "by votes from another base": (done(tuple(vote(m, base=digest(b"x")) for m in THREE)), Reason.MALFORMED),
    "by votes of another epoch": (done(tuple(vote(m, epoch=EPOCH + 1) for m in THREE)), Reason.MALFORMED),
    "by votes for other results": (done(results=OTHER_RESULTS), Reason.MALFORMED),
    "by votes of another run": (done(tuple(vote(m, run=OTHER_RUN) for m in THREE)), Reason.WRONG_RUN),
    "by votes that are no votes": (done((STATEMENTS[0].wire,) * 3), Reason.WRONG_KIND),
    "by random bytes": (done((b"random",) * 3), Reason.MALFORMED),
    "by forged votes": (done(tuple(vote(m)[:-1] + b"\xff" for m in THREE)), Reason.BAD_SIGNATURE),
    "of a group with a member twice": (done(members=(*PEERS, PEERS[0])), Reason.MALFORMED),
    "of half of the vector": (
        done(tuple(vote(m, results=RESULTS[:1]) for m in THREE), results=RESULTS[:1]),
        Reason.MALFORMED,
    ),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_DONES.values(), ids=BAD_DONES.keys())
def test_done_is_refused(bad: Signed[Done], reason: Reason) -> None:
    assert refusal(lambda: check_done(bad, CHUNKS)) is reason


@pytest.mark.parametrize("body", [Close(base=BASE, term=2**31), EXAMPLES[3].model_copy(update={"term": 99})])
def test_term_that_leaps_is_refused(body: Close | Ready) -> None:
    assert refusal(lambda: check_term(body, -1)) is Reason.UNEXPECTED
    check_term(body, body.term - TERM_LEAP)


def test_messages_without_a_term_have_the_right_one() -> None:
    check_term(EXAMPLES[0], -1)
    with pytest.raises(Rejected):
        check_term(Wait(term=64), -1)
