"""A charge shows two answers to one work that contradict each other, or is refused."""

from collections.abc import Callable

import pytest

from protocols.activations import TensorHeader
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer
from protocols.swarm.charges import AnswerCharge, charge_digest, open_answers
from protocols.swarm.messages import Answer, Work, work_digest

RUN = "pipeline-" + "a" * 26
HEADER = TensorHeader(encoding="none", shape=(8, 16))
WORK = Work(task="forward", epoch=3, stage=1, microbatch=5, inputs=HEADER, other=None)
ASKED = work_digest(WORK, digest(b"inputs"))
FIRST, SECOND = (Signer(Identity.from_seed(bytes([number]) * 32), RUN, 1) for number in (1, 2))


def answer(payload: bytes = b"outputs", **changes: object) -> Answer:
    fields = {"outcome": "done", "work": ASKED, "tensor": HEADER, "payload": digest(payload)}
    return Answer.model_validate(fields | changes)


def charge(first: bytes, second: bytes) -> AnswerCharge:
    return AnswerCharge(work=WORK, first=first, second=second)


def test_two_answers_to_one_work_are_opened() -> None:
    wires = FIRST.sign(answer(), 3).wire, SECOND.sign(answer(b"lies"), 3).wire
    made = charge(*wires)
    opened = open_answers(AnswerCharge.from_bytes(made.to_bytes()), RUN)
    assert [statement.sender for statement in opened] == [FIRST.peer_id, SECOND.peer_id]
    assert charge_digest(made) != charge_digest(charge(*reversed(wires)))


def test_a_charge_always_fits_into_its_message() -> None:
    longest = Work(
        task="backward",
        epoch=2**53,
        stage=63,
        microbatch=4095,
        inputs=TensorHeader(encoding="float16", shape=(2**31,) * 8),
        other=TensorHeader(encoding="float16", shape=(2**31,) * 8),
    )
    wire = bytes(Answer.limit_bytes + 512)
    assert len(AnswerCharge(work=longest, first=wire, second=wire).to_bytes()) <= AnswerCharge.limit_bytes


def signed(body: Answer, signer: Signer = SECOND, epoch: int = 3) -> bytes:
    return signer.sign(body, epoch).wire


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (lambda: signed(answer()), Reason.UNEXPECTED),
        (lambda: signed(answer(b"lies"), FIRST), Reason.UNEXPECTED),
        (lambda: signed(answer(b"lies", work=digest(b"other work"))), Reason.UNEXPECTED),
        (lambda: signed(answer(b"lies"), epoch=4), Reason.UNEXPECTED),
        (lambda: signed(answer(b"lies", outcome="busy")), Reason.UNEXPECTED),
        (lambda: signed(answer().model_copy(update={"payload": None})), Reason.MALFORMED),
        (lambda: Signer(SECOND.identity, "other-" + "a" * 26, 1).sign(answer(b"lies"), 3).wire, Reason.WRONG_RUN),
        (lambda: SECOND.sign(WORK, 3).wire, Reason.WRONG_KIND),
        (lambda: signed(answer(b"lies"))[:-1], Reason.MALFORMED),
        (lambda: signed(answer(b"lies"))[:-1] + b"\xff", Reason.BAD_SIGNATURE),
        (lambda: b"", Reason.MALFORMED),
    ],
    ids=[
        "the same",
        "of one peer",
        "to other work",
        "of another epoch",
        "not done",
        "a tensor without a digest",
        "another run",
        "another kind",
        "truncated",
        "a flipped bit",
        "nothing",
    ],
)
def test_what_contradicts_nothing_is_no_charge(second: Callable[[], bytes], reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        open_answers(charge(signed(answer(), FIRST), second()), RUN)
    assert refused.value.reason is reason


def test_nobody_is_charged_with_an_evaluation() -> None:
    work = WORK.model_copy(update={"task": "evaluate"})
    asked = work_digest(work, digest(b"inputs"))
    wires = signed(answer(work=asked), FIRST), signed(answer(b"lies", work=asked))
    with pytest.raises(Rejected, match="evaluation"):
        open_answers(AnswerCharge(work=work, first=wires[0], second=wires[1]), RUN)


def test_answers_that_differ_in_their_loss_alone_contradict_each_other() -> None:
    open_answers(charge(signed(answer(loss=1.0), FIRST), signed(answer(loss=2.0))), RUN)
