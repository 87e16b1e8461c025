"""What a `Begin` and a `Done` must satisfy before a machine sees them; checked by whoever receives one."""

from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, Done, PartResult, Prepared, Progress, Ready
from protocols.signed import Signed, open_signed

TERM_LEAP = 64
"""By how many terms one peer may be ahead of another in the same epoch, at most."""


def check_begin(begin: Begin, chunks: int) -> None:
    """The parts (or the adopted results) are the whole grid, each owned by a member.

    Raises Rejected (malformed).
    """
    members = {member.peer for member in begin.members}
    bounds = [(part.start, part.stop) for part in begin.parts]
    whole = [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])] and bounds[-1:] != []
    whole = whole and bounds[-1][1] == chunks and all(start < stop for start, stop in bounds)
    if begin.adopted:
        whole = not begin.parts and covers(begin.adopted, chunks) and members.issuperset(begin.holders)
    if not whole:
        raise Rejected(Reason.MALFORMED, f"begin: the parts are not the {chunks} chunks, each once")
    if len(members) != len(begin.members) or not members.issuperset(part.owner for part in begin.parts):
        raise Rejected(Reason.MALFORMED, "begin: a member appears twice, or an owner is none")


def check_done(done: Signed[Done], chunks: int) -> None:
    """A majority of the named group has signed for exactly these results, in this term, from this base.

    Raises Rejected (malformed, bad_signature, …).
    """
    body = done.body
    if not covers(body.results, chunks):
        raise Rejected(Reason.MALFORMED, f"done: the results are not the {chunks} chunks, each once")
    members = set(body.members)
    if len(members) != len(body.members) or 2 * len(body.votes) <= len(members):
        raise Rejected(
            Reason.MALFORMED, f"done: {len(body.votes)} votes are no majority of {len(body.members)} members"
        )
    voters: set[PeerId] = set()
    for wire in body.votes:
        vote = open_signed(wire, Prepared, run=done.run)
        agrees = (vote.body.base, vote.body.term, vote.body.results) == (body.base, body.term, body.results)
        if not agrees or vote.epoch != done.epoch or vote.sender not in members:
            raise Rejected(Reason.MALFORMED, f"done: the vote of {vote.sender} is for something else")
        if vote.sender in voters:
            raise Rejected(Reason.MALFORMED, f"done: {vote.sender} votes twice")
        voters.add(vote.sender)


def check_samples(body: Message, most: int) -> None:
    """No peer says to have, or is said to have, more samples than one can (`most`). Raises Rejected (unexpected)."""
    match body:
        case Progress(samples=samples) | Ready(weight=samples):
            said = samples
        case Begin(members=members):
            said = max(member.weight for member in members)
        case _:
            return
    if said > most:
        raise Rejected(Reason.UNEXPECTED, f"{body.kind}: {said} samples of one peer, which has {most} at the most")


def check_seed(body: Message) -> None:
    """Whoever takes part has its part in the seed, where members check each other. Raises Rejected (malformed)."""
    match body:
        case Ready(key=None) | Prepared(dealing=None):
            lacking = True
        case Begin(members=members):
            lacking = any(member.key is None for member in members)
        case _:
            lacking = False
    if lacking:
        raise Rejected(Reason.MALFORMED, f"{body.kind}: a member has no part in the seed")


def check_term(body: Message, ours: int) -> None:
    """A term is one of those that follow on ours (−1 while no term has begun).

    Terms rise by one each time that a leader fails; who could make them leap would bring them to their end, where
    nobody can lead any more. Raises Rejected (unexpected).
    """
    term = getattr(body, "term", ours)
    if term > ours + TERM_LEAP:
        raise Rejected(Reason.UNEXPECTED, f"{body.kind}: term {term} is far beyond {ours}")


def covers(results: tuple[PartResult, ...], chunks: int) -> bool:
    """Whether the results are all chunks of the grid, each once and in order."""
    starts = [result.start for result in results]
    stops = [result.stop for result in results]
    return (
        bool(results)
        and [0, *stops[:-1]] == starts
        and stops[-1] == chunks
        and all(start < stop for start, stop in zip(starts, stops, strict=True))
    )
