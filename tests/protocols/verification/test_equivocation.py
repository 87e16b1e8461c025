"""Two statements of one signer: proof when one memory has made both, and nothing else is."""

from typing import Any

import pytest

from protocols.encoding import digest
from protocols.identity import Identity
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, Ready, Result, Wait
from protocols.signed import LEAP, Signed, Signer
from protocols.verification.equivocation import Equivocation, Witness, proved_guilty
from tests.protocols.examples import BASE, BEGIN, EPOCH, MEMBERS, OTHER_RUN, RUN, begin, done, vote

A, B = MEMBERS[:2]


def ready(**changes: object) -> Ready:
    fields = {
        "base": BASE,
        "term": 0,
        "weight": 5,
        "root": digest(b"root"),
        "client_mode": False,
        "speed": 2.0,
        "held_term": None,
        "held": (),
    }
    return Ready(**(fields | changes))


def result(**changes: object) -> Result:
    fields = {
        "term": 0,
        "part": 0,
        "attempt": 0,
        "begin": BEGIN,
        "chunks": (digest(b"a"), digest(b"b")),
        "included": (3, 3),
    }
    return Result(**(fields | changes))


def two(first: Message, second: Message, by: Identity = A, run: str = RUN) -> tuple[Signed[Any], Signed[Any]]:
    signer = Signer(by, run, 1000)
    return signer.sign(first, EPOCH), signer.sign(second, EPOCH)


def heard(*statements: Signed[Any]) -> list[Equivocation | None]:
    witness = Witness()
    return [witness.hear(statement) for statement in statements]


CONTRADICTIONS = {
    "two roots": (ready(), ready(root=digest(b"other"))),
    "two weights": (ready(), ready(weight=6)),
    "two groups": (begin(), begin(members=begin().members[:4])),
    "two owners": (begin(), begin(parts=tuple(reversed(begin().parts)))),
    "two results": (result(), result(chunks=(digest(b"a"), digest(b"c")))),
    "of other members": (result(), result(included=(3, 1))),
    "two outcomes": (done().body, done((vote(MEMBERS[0]), vote(MEMBERS[1]), vote(MEMBERS[3]))).body),
}


@pytest.mark.parametrize(("first", "second"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_two_stories_prove_their_teller_guilty(first: Message, second: Message) -> None:
    nothing, proof = heard(*two(first, second))
    assert nothing is None
    assert proof is not None
    assert proved_guilty(proof, RUN) == A.peer_id
    assert proved_guilty(Equivocation(first=proof.second, second=proof.first), RUN) == A.peer_id


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ready(), ready()),
        (ready(), ready(speed=3.0)),
        (ready(), ready(term=1, root=digest(b"other"))),
        (ready(), ready(base=digest(b"elsewhere"), root=digest(b"other"))),
        (begin(), begin(term=1, members=begin().members[:4])),
        (result(), result(part=1, chunks=(digest(b"c"),), included=(3,))),
        (result(), result(attempt=1, included=(1, 1))),
        (result(), result(begin=digest(b"other"), included=(1, 1))),
        (Wait(term=0), Wait(term=1)),
    ],
)
def test_what_a_member_may_say_is_no_contradiction(first: Message, second: Message) -> None:
    statements = two(first, second)
    assert heard(*statements) == [None, None]
    with pytest.raises(Rejected):
        proved_guilty(Equivocation(first=statements[0].wire, second=statements[1].wire), RUN)


def test_who_has_forgotten_may_say_something_else() -> None:
    signer = Signer(A, RUN, 1000)
    before = signer.sign(ready(), EPOCH)
    signer.forget()
    after = signer.sign(ready(root=digest(b"other")), EPOCH)
    restarted = Signer(A, RUN, 1000 + 10 * LEAP).sign(ready(root=digest(b"third")), EPOCH)
    assert heard(before, after, restarted) == [None, None, None]


def test_nobody_is_proved_guilty_by_what_others_have_signed() -> None:
    ours, theirs = two(ready(), ready(root=digest(b"other")))[0], two(ready(), ready(root=digest(b"x")), by=B)[1]
    assert heard(ours, theirs) == [None, None]
    with pytest.raises(Rejected):
        proved_guilty(Equivocation(first=ours.wire, second=theirs.wire), RUN)


def test_statements_of_another_run_or_spoiled_prove_nothing() -> None:
    first, second = two(ready(), ready(root=digest(b"other")), run=OTHER_RUN)
    for wires in ((first.wire, second.wire), (first.wire, second.wire[:-1] + b"x"), (b"", second.wire)):
        with pytest.raises(Rejected) as refused:
            proved_guilty(Equivocation(first=wires[0], second=wires[1]), RUN)
        assert refused.value.reason in (Reason.WRONG_RUN, Reason.MALFORMED, Reason.BAD_SIGNATURE)


def test_a_witness_takes_so_much_memory_and_no_more() -> None:
    witness = Witness(limit_bytes=20_000, of_one=8)
    for number, identity in enumerate(MEMBERS):
        signer = Signer(identity, RUN, 1000)
        for term in range(40):
            witness.hear(signer.sign(begin(term=term), EPOCH + number % 2))
    assert witness._bytes <= 20_000
    assert max(witness._counts.values()) <= 8
    assert sum(witness._counts.values()) == len(witness._heard)


def test_what_is_long_ago_is_forgotten() -> None:
    signer, witness = Signer(A, RUN, 1000), Witness(epochs=4)
    witness.hear(signer.sign(begin(), 1))
    witness.hear(signer.sign(begin(), 9))
    assert [heard.epoch for heard in witness._heard.values()] == [9]
    assert isinstance(begin(), Begin)
