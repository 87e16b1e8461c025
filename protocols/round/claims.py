"""What a member says that it has voted for in an earlier term, and what proves where that came from.

Whoever adopts such results makes no new ones, so nobody may make them up. A claim therefore carries the signed words
of the leader under whom they were reduced: its `Begin`, and the `Reassign`s up to the vote. They name the group and the
owner of each part; whoever fetches the results asks for that owner's signed `Result`. So a claim can show no more than
what owners have reduced that a leader has named; whether that leader was one is for the machine to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.checks import check_begin
from protocols.round.messages import Begin, PartResult, Ready, Reassign
from protocols.signed import Signed, open_signed


@dataclass(frozen=True, slots=True)
class Claim:
    """Verified in itself."""

    ready: Signed[Ready]
    """The voter's word."""
    begin: Signed[Begin]
    """Of the term in which the results were reduced; later terms may have adopted them since."""
    owners: tuple[PeerId, ...]
    """Of each part."""

    @property
    def results(self) -> tuple[PartResult, ...]:
        return self.ready.body.held


def open_claim(statement: Signed[Message], chunks: int) -> Claim | None:
    """The claim that a `Ready` makes, or on which a `Begin` builds; None when it makes none. Raises Rejected."""
    match statement.body:
        case Ready(held=held) if held:
            return _open(statement, chunks)  # type: ignore[arg-type]
        case Begin(adopted=adopted, proof=(proof,)) as body:
            ready = open_signed(proof, Ready, run=statement.run)
            if ready.epoch != statement.epoch or ready.sender not in body.holders:
                raise Rejected(Reason.MALFORMED, "begin: the proof is none of its holders' word in this epoch")
            if (ready.body.base, ready.body.term, ready.body.held) != (body.base, body.term, adopted):
                raise Rejected(Reason.MALFORMED, f"begin: {ready.sender} does not claim what is adopted")
            return _open(ready, chunks)
    return None


def _open(ready: Signed[Ready], chunks: int) -> Claim:
    run, (first, *others) = ready.run, ready.body.origin
    begin = open_signed(first, Begin, run=run)
    check_begin(begin.body, chunks)
    return claim_of(ready, begin, [open_signed(wire, Reassign, run=run, sender=begin.sender) for wire in others])


def claim_of(ready: Signed[Ready], begin: Signed[Begin], reassigned: Sequence[Signed[Reassign]]) -> Claim:
    """`ready` with the statements that its `origin` names, opened. Raises Rejected (malformed)."""
    members = {member.peer for member in begin.body.members}
    owners = {number: (0, part.owner) for number, part in enumerate(begin.body.parts)}
    for statement in reassigned:
        body = statement.body
        fits = (statement.epoch, body.term) == (begin.epoch, begin.body.term) and body.owner in members
        if not fits or body.part not in owners or body.attempt <= owners[body.part][0]:
            raise Rejected(Reason.MALFORMED, "ready: a reassignment does not follow on the begin that it claims")
        owners[body.part] = (body.attempt, body.owner)
    held_term = ready.body.held_term
    same = (begin.epoch, begin.body.base) == (ready.epoch, ready.body.base)
    bounds = [(part.start, part.stop) for part in begin.body.parts]
    if not same or held_term is None or begin.body.term > held_term:
        raise Rejected(Reason.MALFORMED, "ready: it claims a begin of another epoch, base or term")
    if bounds != [(result.start, result.stop) for result in ready.body.held]:
        raise Rejected(Reason.MALFORMED, "ready: the results that it claims are not the parts of their begin")
    if held_term == begin.body.term and ready.sender not in members:
        raise Rejected(Reason.MALFORMED, f"ready: {ready.sender} was not in the group in which it claims to have voted")
    return Claim(ready, begin, tuple(owner for _, (_, owner) in sorted(owners.items())))
