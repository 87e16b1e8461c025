"""What a trainer shows when two peers of a stage give different answers to the same work.

Both have signed what they were asked and what they gave, so that one of them is wrong is plain, and which one is for
anybody to find out who has the stage's parameters of that epoch. There is nobody to slander: a charge accuses none but
those whose signed words contradict each other.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from protocols.encoding import digest
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.signed import ENVELOPE_BYTES, Signed, open_signed
from protocols.swarm.messages import Answer, Work

AnswerWire = Annotated[bytes, Field(max_length=Answer.limit_bytes + ENVELOPE_BYTES)]


class AnswerCharge(Message):
    """Two answers to one work. The tensors, those of the work and those of the answers, are shown on request."""

    kind: ClassVar[str] = "answer_charge"
    limit_bytes: ClassVar[int] = Work.limit_bytes + 2 * (Answer.limit_bytes + ENVELOPE_BYTES) + 512
    work: Work
    first: AnswerWire
    """Wire bytes of the `Signed[Answer]` of one …"""
    second: AnswerWire
    """… and of the other."""


def open_answers(charge: AnswerCharge, run: str) -> tuple[Signed[Answer], Signed[Answer]]:
    """The two, by different peers, to the same work. Raises Rejected.

    What is evaluated is no part of training, and its epoch is that of another state than a microbatch's where updates
    are delayed; nobody is charged with it.
    """
    if charge.work.task == "evaluate":
        raise Rejected(Reason.UNEXPECTED, "nobody is charged with an evaluation")
    first, second = (open_signed(wire, Answer, run=run) for wire in (charge.first, charge.second))
    if first.sender == second.sender or first.body.work != second.body.work:
        raise Rejected(Reason.UNEXPECTED, "these are not answers of two peers to one work")
    for statement in (first, second):
        if statement.epoch != charge.work.epoch or statement.body.outcome != "done":
            raise Rejected(Reason.UNEXPECTED, f"{statement.sender} has not done the work that is shown")
        if (statement.body.tensor is None) != (statement.body.payload is None):
            raise Rejected(Reason.MALFORMED, "a tensor without a digest, or a digest without a tensor")
    if (first.body.tensor, first.body.payload, first.body.loss) == (
        second.body.tensor,
        second.body.payload,
        second.body.loss,
    ):
        raise Rejected(Reason.UNEXPECTED, "the two answers are the same")
    return first, second


def charge_digest(charge: AnswerCharge) -> bytes:
    """Names a charge to who shows its tensors."""
    return digest(b"peer/1/answer-charge\x00", charge.to_bytes())
