"""An attacker with a valid identity, and the bad input that it can send without taking part, with what it must meet."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from dht.interfaces import MAX_REQUEST_BYTES, Frame, Refused, Transport, Unreachable
from peer.contents import BLOCKS_KIND, INDEX_KIND
from peer.manifests import MANIFEST_KIND
from peer.membership import HELLO_KIND
from peer.participant import Participant
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import ROUND_KIND
from peer.rounds.results import FETCH_KIND
from peer.sync import HEAD_KIND
from protocols.encoding import decode, digest, encode
from protocols.heads import Head
from protocols.identity import Identity, PeerId
from protocols.message import Message
from protocols.records import RosterEntry
from protocols.rejection import Reason
from protocols.round.messages import Close, Contribution, PartResult, Prepared, Progress, Ready, Standing, Wait
from protocols.signed import Signer

FORGED = digest(b"forged")
REQUEST_SECONDS = 30.0


class Attacker:
    """Speaks as it likes; nobody of the run until it says hello."""

    def __init__(self, who: Identity, transport: Transport, run: str) -> None:
        self.identity, self.transport, self.run = who, transport, run
        self.signer = Signer(who, run, int(transport.clock.wall() * 1e9))
        self._like: Participant | None = None

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id

    def wire(self, body: Message, epoch: int) -> bytes:
        return self.signer.sign(body, epoch).wire

    async def ask(self, victim: PeerId, kind: str, body: bytes) -> str:
        """The reason of the refusal; empty when the request was answered."""
        try:
            await self.transport.request(victim, kind, body, REQUEST_SECONDS)
        except Refused as refusal:
            return refusal.reason
        return ""

    async def say(self, victim: PeerId, body: Message, epoch: int) -> str:
        """Like `ask`, for a message of a round."""
        return await self.ask(victim, ROUND_KIND, self.wire(body, epoch))

    async def stream(self, victim: PeerId, kind: str, frames: list[Frame]) -> None:
        """Sends the frames and reads until the victim has ended or broken the stream."""
        stream = await self.transport.open_stream(victim, kind)
        try:
            for frame in frames:
                await stream.send(frame)
            while await stream.receive() is not None:
                pass
            await stream.close()
        except Unreachable:
            stream.abort()

    async def pretend(self, victim: Participant) -> None:
        """From now on says, when asked, that it is where the victim is."""
        self._like = victim

        async def answer(_peer: PeerId, _wire: bytes) -> bytes:
            return self._word()

        await self.transport.serve_requests(HELLO_KIND, answer)

    async def note_hellos(self, heard: "asyncio.Queue[bytes]") -> None:
        """From now on puts there what is said to it, and answers nothing that makes it a member."""

        async def answer(_peer: PeerId, wire: bytes) -> bytes:
            heard.put_nowait(wire)
            return b""

        await self.transport.serve_requests(HELLO_KIND, answer)

    async def hello(self, victim: PeerId) -> str:
        """Becomes a member for the victim."""
        return await self.ask(victim, HELLO_KIND, self._word())

    def _word(self) -> bytes:
        assert self._like is not None
        return self.wire(self.roster_entry(self._like.state.digest), self._like.state.epoch)

    def roster_entry(self, state_digest: bytes | None, **changes: object) -> RosterEntry:
        fields = {
            "expires": self.transport.clock.wall() + 60,
            "name": "mallory",
            "role": "trainer",
            "addresses": (),
            "client_mode": False,
            "state_digest": state_digest,
            "samples_contributed": 0,
            "samples_per_second": 0.0,
            "bandwidth_bytes_per_second": 0.0,
            "departed": False,
        }
        return RosterEntry.model_construct(**(fields | changes))  # unchecked, as an attacker would


@dataclass(frozen=True)
class Situation:
    """What an attacker builds its input from."""

    attacker: Attacker
    stranger: Identity
    """Whose statements the attacker passes off as its own."""
    epoch: int
    """The victim's, and `base`: the digest of its state."""
    base: bytes

    def progress(self, **changes: object) -> Progress:
        fields = {"base": self.base, "samples": 5, "complete": False, "client_mode": False, "samples_per_second": 1.0}
        return Progress.model_construct(**(fields | changes))

    def ready(self, **changes: object) -> Ready:
        fields = {
            "base": self.base,
            "term": 0,
            "weight": 5,
            "root": FORGED,
            "client_mode": False,
            "speed": 1.0,
            "held_term": None,
            "held": (),
        }
        return Ready.model_construct(**(fields | changes))

    def signed(self, body: Message, *, epoch: int | None = None) -> bytes:
        return self.attacker.wire(body, self.epoch if epoch is None else epoch)

    def as_stranger(self, body: Message) -> bytes:
        return Signer(self.stranger, self.attacker.run, 1).sign(body, self.epoch).wire

    def of_other_run(self, body: Message) -> bytes:
        return Signer(self.attacker.identity, "other-" + "a" * 26, 1).sign(body, self.epoch).wire

    def forged(self, body: Message) -> bytes:
        """With a signature of something else."""
        items = decode(self.signed(body), 2**30)
        return encode([*items[:-1], self.attacker.identity.sign(b"something else")])

    def contribution(self, **changes: object) -> Contribution:
        fields = {"term": 0, "part": 0, "attempt": 0, "begin": FORGED, "chunks": (FORGED,)}
        return Contribution.model_construct(**(fields | changes))


Build = Callable[[Situation], bytes]


@dataclass(frozen=True)
class BadRequest:
    name: str
    kind: str
    body: Build
    reason: Reason


def _spoiled(kind: str, body: Callable[[Situation], Message]) -> list[BadRequest]:
    """What every signed request is spoiled by."""
    return [
        BadRequest("random bytes", kind, lambda s: bytes(range(256)), Reason.MALFORMED),
        BadRequest("nothing", kind, lambda s: b"", Reason.MALFORMED),
        BadRequest("truncated", kind, lambda s: s.signed(body(s))[:-1], Reason.MALFORMED),
        BadRequest("deep", kind, lambda s: b"\x91" * 8000, Reason.MALFORMED),
        BadRequest("huge by its word", kind, lambda s: b"\xdd\xff\xff\xff\xff", Reason.MALFORMED),
        BadRequest("another run", kind, lambda s: s.of_other_run(body(s)), Reason.WRONG_RUN),
        BadRequest("another kind", kind, lambda s: s.signed(Head(digests=(FORGED,), nonce=b"")), Reason.WRONG_KIND),
        BadRequest("signed by another", kind, lambda s: s.as_stranger(body(s)), Reason.WRONG_SENDER),
        BadRequest("forged signature", kind, lambda s: s.forged(body(s)), Reason.BAD_SIGNATURE),
    ]


BAD_REQUESTS = [
    *_spoiled(ROUND_KIND, lambda s: s.progress()),
    BadRequest("oversized", ROUND_KIND, lambda s: bytes(MAX_REQUEST_BYTES + 1), Reason.OVERSIZED),
    BadRequest("long progress", ROUND_KIND, lambda s: s.signed(s.progress(base=bytes(66_000))), Reason.OVERSIZED),
    BadRequest(
        "infinite speed", ROUND_KIND, lambda s: s.signed(s.progress(samples_per_second=float("inf"))), Reason.MALFORMED
    ),
    BadRequest("speed of NaN", ROUND_KIND, lambda s: s.signed(s.ready(speed=float("nan"))), Reason.MALFORMED),
    BadRequest("short base", ROUND_KIND, lambda s: s.signed(s.progress(base=b"short")), Reason.MALFORMED),
    BadRequest("weight alone", ROUND_KIND, lambda s: s.signed(s.ready(root=None)), Reason.MALFORMED),
    BadRequest(
        "more samples than one can have", ROUND_KIND, lambda s: s.signed(s.progress(samples=2**40)), Reason.UNEXPECTED
    ),
    BadRequest("negative samples", ROUND_KIND, lambda s: s.signed(s.progress(samples=-1)), Reason.MALFORMED),
    BadRequest("last term", ROUND_KIND, lambda s: s.signed(Close(base=s.base, term=2**31)), Reason.UNEXPECTED),
    BadRequest("far term", ROUND_KIND, lambda s: s.signed(s.ready(term=2**31 - 1)), Reason.UNEXPECTED),
    *_spoiled(HELLO_KIND, lambda s: s.attacker.roster_entry(None)),
    BadRequest("oversized", HELLO_KIND, lambda s: bytes(32 * 1024), Reason.OVERSIZED),
    BadRequest(
        "escape sequences",
        HELLO_KIND,
        lambda s: s.signed(s.attacker.roster_entry(None, name="\x1b[2Jroot")),
        Reason.MALFORMED,
    ),
    BadRequest(
        "unknown role", HELLO_KIND, lambda s: s.signed(s.attacker.roster_entry(None, role="admin")), Reason.MALFORMED
    ),
    BadRequest("long nonce", HEAD_KIND, lambda s: bytes(33), Reason.OVERSIZED),
    BadRequest("unknown content", INDEX_KIND, lambda s: FORGED, Reason.ABSENT),
    BadRequest("no address", INDEX_KIND, lambda s: b"", Reason.UNEXPECTED),
    BadRequest("long address", INDEX_KIND, lambda s: bytes(60_000), Reason.UNEXPECTED),
    BadRequest("another run", MANIFEST_KIND, lambda s: b"other-" + b"a" * 26, Reason.WRONG_RUN),
    BadRequest("no run", MANIFEST_KIND, lambda s: b"\xff" * 1000, Reason.WRONG_RUN),
]


@dataclass(frozen=True)
class BadStream:
    name: str
    kind: str
    frames: Callable[[Situation], list[Frame]]
    reason: Reason


def _wanted(epoch: object, start: object = 0, stop: object = 1, wanted: object = FORGED) -> bytes:
    return msgpack.packb([epoch, start, stop, wanted])


def _block(number: bytes, address: bytes = FORGED) -> list[Frame]:
    return [Frame(address + number)]


def _head_of_part(kind: str, build: Build, reason: Reason) -> BadStream:
    return BadStream(kind, PART_KIND, lambda s: [Frame(build(s))], reason)


BAD_STREAMS = [
    *(_head_of_part(bad.name, bad.body, bad.reason) for bad in _spoiled(PART_KIND, lambda s: s.contribution())),
    _head_of_part("a round's message", lambda s: s.signed(Wait(term=0)), Reason.WRONG_KIND),
    _head_of_part("short digests", lambda s: s.signed(s.contribution(chunks=(b"short",))), Reason.MALFORMED),
    _head_of_part("epoch to come", lambda s: s.signed(s.contribution(), epoch=s.epoch + 99), Reason.UNEXPECTED),
    BadStream("oversized", PART_KIND, lambda s: [Frame(bytes(1024 * 1024))], Reason.OVERSIZED),
    BadStream("random bytes", FETCH_KIND, lambda s: [Frame(bytes(range(256)))], Reason.MALFORMED),
    BadStream("nothing", FETCH_KIND, lambda s: [Frame()], Reason.MALFORMED),
    BadStream("no result held", FETCH_KIND, lambda s: [Frame(_wanted(s.epoch))], Reason.UNEXPECTED),
    BadStream("infinite epoch", FETCH_KIND, lambda s: [Frame(_wanted(float("inf")))], Reason.MALFORMED),
    BadStream("epoch of NaN", FETCH_KIND, lambda s: [Frame(_wanted(float("nan")))], Reason.MALFORMED),
    BadStream("epoch of text", FETCH_KIND, lambda s: [Frame(_wanted("1"))], Reason.MALFORMED),
    BadStream("negative part", FETCH_KIND, lambda s: [Frame(_wanted(1, -1, -1))], Reason.MALFORMED),
    BadStream("digest of text", FETCH_KIND, lambda s: [Frame(_wanted(1, wanted="x" * 32))], Reason.MALFORMED),
    BadStream("a map", FETCH_KIND, lambda s: [Frame(encode({"a": 1, "b": 2, "c": 3, "d": 4}))], Reason.MALFORMED),
    BadStream("random bytes", BLOCKS_KIND, lambda s: [Frame(b"random")], Reason.MALFORMED),
    BadStream("no address", BLOCKS_KIND, lambda s: [Frame()], Reason.MALFORMED),
    BadStream("unknown content", BLOCKS_KIND, lambda s: _block(bytes(8)), Reason.ABSENT),
    BadStream("block too far", BLOCKS_KIND, lambda s: _block(b"\xff" * 8, s.base), Reason.UNEXPECTED),
]


def messages_of_another_round() -> list[Message]:
    """For a victim that does not play that epoch, or not from that base: answered, and nothing else."""
    result = PartResult(start=0, stop=8, digest=FORGED)
    return [
        Progress(base=FORGED, samples=100, complete=True, client_mode=False, samples_per_second=0.0),
        Standing(base=FORGED, samples=2**53),
        Close(base=FORGED, term=0),
        Prepared(base=FORGED, term=0, results=(result,)),
        Ready(base=FORGED, term=0, weight=5, root=FORGED, client_mode=False, speed=1.0, held_term=None, held=()),
    ]
