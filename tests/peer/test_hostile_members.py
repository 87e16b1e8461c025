"""A member that keeps to the protocol in all but one thing: in its chunks, its results, its claims, or as a leader.

Whatever it does, the honest come to the end of the run with the same bits after every epoch.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Frame
from peer.participant import Participant
from peer.rounds.chunk_frames import chunk_header
from peer.rounds.exchange import PART_KIND
from peer.rounds.results import FETCH_KIND
from protocols.encoding import digest
from protocols.message import Message
from protocols.rejection import Reason
from protocols.round.messages import (
    Begin,
    Busy,
    Close,
    Done,
    Member,
    Part,
    PartResult,
    Prepared,
    Progress,
    Ready,
    Reassign,
    Standing,
    Suspect,
    Wait,
)
from protocols.signed import Signer
from tests.peer.attacks import FORGED
from tests.peer.evil_codecs import NotANumber, TooShort, encoding_badly
from tests.peer.evil_transport import EvilTransport, Tamper
from tests.peer.simulated_swarm import SimulatedSwarm, identity
from tests.peer.under_attack import EVIL, Liar, simulate_attack

pytestmark = pytest.mark.usefixtures("every_chunk_in_a_frame_of_its_own")


# -- a member whose frames are wrong ----------------------------------------------------------------------------------


def member_with(make: Callable[..., Participant]) -> Callable[[SimulatedSwarm], Any]:
    async def enter(swarm: SimulatedSwarm) -> None:
        await swarm.start(EVIL, make=make)

    return enter


def tampering(kind: str, **hooks: Tamper) -> Callable[..., Participant]:
    return lambda **given: Participant(**(given | {"transport": EvilTransport(given["transport"], kind, **hooks)}))


def is_chunk(frame: Frame) -> bool:
    return len(frame.header) == 4


def altered(frame: Frame) -> Iterable[Frame]:
    payload = bytearray(frame.payload)
    if is_chunk(frame):
        payload[0] ^= 1
    yield Frame(frame.header, payload)


def shortened(frame: Frame) -> Iterable[Frame]:
    yield Frame(frame.header, bytes(frame.payload)[:-4]) if is_chunk(frame) else frame


def lengthened(frame: Frame) -> Iterable[Frame]:
    yield Frame(frame.header, bytes(frame.payload) + bytes(1024 * 1024)) if is_chunk(frame) else frame


def misnumbered(frame: Frame) -> Iterable[Frame]:
    number = int.from_bytes(frame.header, "big")
    yield Frame(chunk_header(number + 1), frame.payload) if is_chunk(frame) else frame


def without_number(frame: Frame) -> Iterable[Frame]:
    yield Frame(b"no number", frame.payload) if is_chunk(frame) else frame


def too_many(frame: Frame) -> Iterable[Frame]:
    yield frame
    if is_chunk(frame):
        number = int.from_bytes(frame.header, "big")
        yield from (Frame(chunk_header(number + more), frame.payload) for more in range(1, 20))


def silent(frame: Frame) -> Iterable[Frame]:
    return [] if is_chunk(frame) else [frame]


def nothing(_frame: Frame) -> Iterable[Frame]:
    return []


CHUNKS_TO_OWNERS = {
    altered: {Reason.WRONG_DIGEST},
    shortened: {Reason.WRONG_DIGEST},
    lengthened: {Reason.OVERSIZED},
    misnumbered: {Reason.UNEXPECTED},
    without_number: {Reason.MALFORMED},
    too_many: {Reason.UNEXPECTED, Reason.WRONG_DIGEST},
    silent: set(),
    nothing: set(),
}


@pytest.mark.parametrize(
    ("tamper", "reasons"), CHUNKS_TO_OWNERS.items(), ids=[tamper.__name__ for tamper in CHUNKS_TO_OWNERS]
)
def test_member_that_sends_wrong_chunks_is_left_out(
    tamper: Tamper, reasons: set[Reason], caplog: pytest.LogCaptureFixture
) -> None:
    refused = simulate_attack(member_with(tampering(PART_KIND, sent=tamper)), caplog)
    assert not reasons or any(refused[reason] for reason in reasons)


def forged_statement(frame: Frame) -> Iterable[Frame]:
    yield frame if frame.header else Frame(b"", bytes(frame.payload)[:-1] + b"\x00")


def rubbish_statement(frame: Frame) -> Iterable[Frame]:
    yield frame if frame.header else Frame(b"", b"\x91" * 5000)


def long_statement(frame: Frame) -> Iterable[Frame]:
    yield frame if frame.header else Frame(b"", bytes(4 * 1024 * 1024))


RESULTS_TO_SENDERS = {
    altered: {Reason.WRONG_DIGEST, Reason.NON_FINITE},
    shortened: {Reason.WRONG_SHAPE},
    lengthened: {Reason.UNEXPECTED},
    misnumbered: {Reason.UNEXPECTED},
    without_number: {Reason.MALFORMED},
    too_many: {Reason.UNEXPECTED},
    silent: {Reason.WRONG_DIGEST},
    nothing: set(),
    forged_statement: {Reason.BAD_SIGNATURE},
    rubbish_statement: {Reason.MALFORMED},
    long_statement: {Reason.OVERSIZED},
}


@pytest.mark.parametrize(
    ("tamper", "reasons"), RESULTS_TO_SENDERS.items(), ids=[tamper.__name__ for tamper in RESULTS_TO_SENDERS]
)
def test_part_of_an_owner_that_returns_something_wrong_is_given_to_another(
    tamper: Tamper, reasons: set[Reason], caplog: pytest.LogCaptureFixture
) -> None:
    refused = simulate_attack(member_with(tampering(PART_KIND, served=tamper)), caplog)
    assert not reasons or any(refused[reason] for reason in reasons)


def test_holder_that_gives_wrong_results_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    """By who was cut off for some epochs, and fetches what the others have decided."""
    asked: Counter[tuple[int, PartResult]] = Counter()

    def make(**given: Any) -> Participant:
        participant = tampering(FETCH_KIND, served=altered)(**given)
        get = participant._results.get

        def count(epoch: int, result: PartResult) -> Any:
            asked[epoch, result] += 1
            return get(epoch, result)

        participant._results.get = count  # type: ignore[method-assign]
        return participant

    async def enter(swarm: SimulatedSwarm) -> None:
        evil = await swarm.start(EVIL, make=make)
        victim = swarm.peers[0]
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {4}, within=60)
        swarm.network.partition([victim.peer])
        decided = evil.state.epoch + 5
        await swarm.until(lambda: evil.state.epoch >= decided, within=60)
        swarm.network.heal()

    refused = simulate_attack(enter, caplog, epochs=12)
    assert refused[Reason.WRONG_DIGEST] > 0
    assert set(asked.values()) == {1}


@pytest.mark.parametrize(
    ("codec", "value"),
    [("none", np.nan), ("none", -np.inf), ("float16", np.nan), ("int8", np.inf)],
)
def test_nan_and_infinity_in_chunks_and_results_reach_nobody(
    codec: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    make = partial(encoding_badly, spoil=lambda honest: NotANumber(honest, value))
    refused = simulate_attack(member_with(make), caplog, codec)
    assert refused[Reason.NON_FINITE] > 0, refused


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_chunks_and_results_of_a_wrong_shape_reach_nobody(codec: str, caplog: pytest.LogCaptureFixture) -> None:
    """The digests are right: those of chunks that are too short."""
    refused = simulate_attack(member_with(partial(encoding_badly, spoil=TooShort)), caplog, codec)
    assert refused[Reason.WRONG_SHAPE] > 0, refused


# -- a member whose words are wrong -----------------------------------------------------------------------------------


RESULTS = (PartResult(start=0, stop=8, digest=FORGED),)


def ready(liar: Liar, term: int, **changes: Any) -> Ready:
    fields = {
        "base": liar.base,
        "term": term,
        "weight": 5,
        "root": digest(b"root"),
        "client_mode": False,
        "speed": 1.0,
        "held_term": None,
        "held": (),
    }
    return Ready.model_construct(**(fields | changes))


def begin(liar: Liar, term: int, **changes: Any) -> Begin:
    peers = [liar.peer, *(victim.peer for victim in liar.victims)]
    fields = {
        "base": liar.base,
        "term": term,
        "members": tuple(Member(peer=peer, weight=5, root=FORGED) for peer in peers),
        "parts": (Part(owner=liar.peer, start=0, stop=8),),
        "adopted": (),
        "holders": (),
    }
    return Begin.model_construct(**(fields | changes))


def forged_done(liar: Liar, *more: Any) -> Done:
    vote = Prepared(base=liar.base, term=0, results=RESULTS)
    return Done(
        base=liar.base,
        term=0,
        members=(liar.peer, *more),
        results=RESULTS,
        votes=(liar.attacker.wire(vote, liar.epoch),),
    )


def to_close(answer: Callable[[Liar, int], list[Message]]) -> Callable[[Liar, Message], list[Message]]:
    return lambda liar, heard: answer(liar, heard.term) if isinstance(heard, Close) else []


def leads(then: Callable[[Liar, int], list[Message]]) -> Callable[[Liar, Message], list[Message]]:
    """Closes the epoch as soon as anybody speaks of it, and answers those who are ready."""

    def script(liar: Liar, heard: Message) -> list[Message]:
        match heard:
            case Progress() | Standing():
                return [Close(base=liar.base, term=0)]
            case Ready(term=term) | Prepared(term=term):
                return then(liar, term)
        return []

    return script


def group_of_those_ready(liar: Liar, term: int) -> Begin:
    """All parts are the liar's, who never sends a result."""
    roots = {ready.sender: ready.body for ready in liar.ready.values() if ready.body.term == term}
    members = [Member(peer=peer, weight=body.weight, root=body.root) for peer, body in roots.items()]
    return begin(liar, term, members=(Member(peer=liar.peer, weight=0, root=None), *members))


SCRIPTS: dict[str, Callable[[Liar, Message], list[Message]]] = {
    "says nothing": lambda liar, heard: [],
    "is ready and sends nothing": to_close(lambda liar, term: [ready(liar, term)]),
    "is a billion times as fast": to_close(lambda liar, term: [ready(liar, term, speed=1e12)]),
    "weighs more than all": to_close(lambda liar, term: [ready(liar, term, weight=2**53)]),
    "commits to nothing": to_close(lambda liar, term: [ready(liar, term, root=None)]),
    "holds results of this term": to_close(lambda liar, term: [ready(liar, term, held_term=term, held=RESULTS)]),
    "holds what nobody has": to_close(
        lambda liar, term: [Suspect(term=term, part=0, attempt=0), ready(liar, term, held_term=0, held=RESULTS)]
    ),
    "is at the last term": lambda liar, heard: [ready(liar, 2**31), Close(base=liar.base, term=2**31)],
    "is always busy": lambda liar, heard: [Busy(term=60, leader=liar.peer)],
    "follows nobody who exists": lambda liar, heard: [Busy(term=0, leader=identity(1234).peer_id)],
    "closes every epoch at once": lambda liar, heard: [Close(base=liar.base, term=0)],
    "leads all further terms": lambda liar, heard: [Close(base=liar.base, term=getattr(heard, "term", 0) + 1)],
    "begins what it does not lead": lambda liar, heard: [begin(liar, getattr(heard, "term", 0))],
    "begins with parts that overlap": lambda liar, heard: [
        begin(liar, 0, parts=(Part(owner=liar.peer, start=0, stop=8),) * 2)
    ],
    "reassigns what it does not lead": lambda liar, heard: [
        Reassign(term=getattr(heard, "term", 0), part=0, attempt=1, owner=liar.peer)
    ],
    "suspects everybody": lambda liar, heard: [
        Suspect(term=getattr(heard, "term", 0), part=part, attempt=0) for part in range(4)
    ],
    "votes for what is not": to_close(
        lambda liar, term: [ready(liar, term), Prepared(base=liar.base, term=term, results=RESULTS)]
    ),
    "is done alone": lambda liar, heard: [forged_done(liar)],
    "is done with others' names": lambda liar, heard: [forged_done(liar, *(victim.peer for victim in liar.victims))],
    "gathers for ever": lambda liar, heard: [Standing(base=liar.base, samples=1)],
    "leads and says that it is alive": leads(lambda liar, term: [Wait(term=term)]),
    "leads and closes term after term": leads(lambda liar, term: [Close(base=liar.base, term=term + 1)]),
    "leads and never gives a result": leads(lambda liar, term: [group_of_those_ready(liar, term), Wait(term=term)]),
    "has all the samples": lambda liar, heard: [
        Progress(base=liar.base, samples=400, complete=True, client_mode=False, samples_per_second=1e300)
    ],
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_member_that(script: Callable[[Liar, Message], list[Message]], caplog: pytest.LogCaptureFixture) -> None:
    async def enter(swarm: SimulatedSwarm) -> None:
        await swarm.until(lambda: swarm.agree() and swarm.members[0].state.epoch >= 1, within=60)
        await Liar(swarm, script).enter()

    simulate_attack(enter, caplog)


# -- a member whose answers are wrong ---------------------------------------------------------------------------------


class Answering(Liar):
    """Says nothing by itself, and answers each message of a round with one thing."""

    def __init__(self, swarm: SimulatedSwarm, answer: Callable[[Liar], bytes]) -> None:
        super().__init__(swarm, lambda _liar, _heard: [])
        self._answer = answer

    async def _hear(self, _sender: object, _wire: bytes) -> bytes:
        return self._answer(self)


def standing_of_another(liar: Liar) -> bytes:
    return Signer(identity(1234), liar.attacker.run, 1).sign(Standing(base=liar.base, samples=1), liar.epoch).wire


@lru_cache(maxsize=1)
def standing_of_the_first_epoch(liar: Liar) -> bytes:
    return liar.attacker.wire(Standing(base=liar.base, samples=1), liar.epoch)


ANSWERS: dict[str, tuple[Callable[[Liar], bytes], Reason]] = {
    "with rubbish": (lambda liar: b"rubbish", Reason.MALFORMED),
    "with more than an answer says": (
        lambda liar: liar.attacker.wire(Close(base=liar.base, term=0), liar.epoch),
        Reason.WRONG_KIND,
    ),
    "in the name of another": (standing_of_another, Reason.WRONG_SENDER),
    "with the same again and again": (standing_of_the_first_epoch, Reason.REPLAYED),
}


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
def test_member_that_answers(answer: Callable[[Liar], bytes], reason: Reason, caplog: pytest.LogCaptureFixture) -> None:
    async def enter(swarm: SimulatedSwarm) -> None:
        await swarm.until(lambda: swarm.agree() and swarm.members[0].state.epoch >= 1, within=60)
        await Answering(swarm, answer).enter()

    assert simulate_attack(enter, caplog)[reason]
