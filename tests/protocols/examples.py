"""One good message of every kind, for tests that spoil them."""

import numpy as np

from protocols.directives import Ban, Directive, Pause, Set, Sharing
from protocols.encoding import digest
from protocols.heads import Head
from protocols.identity import Identity
from protocols.message import Message
from protocols.records import DirectivesRecord, RosterEntry
from protocols.round.messages import (
    Begin,
    Busy,
    Close,
    Contribution,
    Done,
    Member,
    Observed,
    Part,
    PartResult,
    Prepared,
    Progress,
    Ready,
    Reassign,
    Result,
    Standing,
    Suspect,
    Wait,
    Weigh,
)
from protocols.round.weighing import pack
from protocols.signed import Signed, Signer
from protocols.verification.seed import DealtSecret, DealtShare, Reveal, SeedWord

RUN = "demo-" + "a" * 26
OTHER_RUN = "demo-" + "b" * 26
EPOCH = 7
CHUNKS = 8
BASE = digest(b"base")
MEMBERS = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 6)]
STRANGER = Identity.from_seed(b"s" * 32)
BEGIN = digest(b"begin")
PEERS = tuple(member.peer_id for member in MEMBERS)
RESULTS = (
    PartResult(start=0, stop=5, digest=digest(b"first")),
    PartResult(start=5, stop=CHUNKS, digest=digest(b"second")),
)


def signer(identity: Identity, run: str = RUN, first_sequence: int = 1000) -> Signer:
    return Signer(identity, run, first_sequence)


def vote(voter: Identity, *, epoch: int = EPOCH, run: str = RUN, **changes: object) -> bytes:
    fields = {"base": BASE, "term": 0, "results": RESULTS} | changes
    return signer(voter, run).sign(Prepared(**fields), epoch).wire


def done(votes: tuple[bytes, ...] | None = None, **changes: object) -> Signed[Done]:
    """Of a group of five with three votes, signed by the first member."""
    fields = {
        "base": BASE,
        "term": 0,
        "members": PEERS,
        "results": RESULTS,
        "votes": tuple(vote(voter) for voter in MEMBERS[:3]) if votes is None else votes,
    }
    return signer(MEMBERS[0]).sign(Done(**(fields | changes)), EPOCH)


def begin(**changes: object) -> Begin:
    fields = {
        "base": BASE,
        "term": 0,
        "members": tuple(Member(peer=peer, weight=5, root=digest(peer.encode())) for peer in PEERS),
        "parts": (Part(owner=PEERS[0], start=0, stop=5), Part(owner=PEERS[1], start=5, stop=CHUNKS)),
    }
    return Begin(**(fields | changes))


def begun(by: Identity = MEMBERS[0], **changes: object) -> Signed[Begin]:
    """What the leader of an earlier term has said."""
    return signer(by).sign(begin(**changes), EPOCH)


def claiming(by: Identity = MEMBERS[0], origin: tuple[bytes, ...] | None = None, **changes: object) -> Signed[Ready]:
    """A member that is ready in term 2, and has voted in term 1 for what was reduced in term 0."""
    fields = {
        "base": BASE,
        "term": 2,
        "weight": 5,
        "root": digest(b"root"),
        "client_mode": False,
        "speed": 2.0,
        "held_term": 1,
        "held": RESULTS,
        "origin": (begun().wire,) if origin is None else origin,
    }
    return signer(by).sign(Ready(**(fields | changes)), EPOCH)


def observed(by: Identity = MEMBERS[0], *, epoch: int = EPOCH, run: str = RUN, **changes: object) -> Signed[Observed]:
    """What the owner of a part sees of three members, and of the origin."""
    fields = {
        "term": 2,
        "part": 0,
        "attempt": 0,
        "begin": digest(b"begin"),
        "included": 0b10101,
        "gram": pack(np.eye(4)),
    }
    return signer(by, run).sign(Observed(**(fields | changes)), epoch)


def weigh(*statements: Signed[Observed], **changes: object) -> Signed[Weigh]:
    """Of two parts."""
    collected = statements or (observed(), observed(MEMBERS[1], part=1, included=0b11111, gram=pack(np.eye(6))))
    fields = {"term": 2, "observed": tuple(statement.wire for statement in collected)}
    return signer(MEMBERS[2]).sign(Weigh(**(fields | changes)), EPOCH)


def directive(by: Identity = MEMBERS[0]) -> Signed[Directive]:
    return signer(by).sign(Directive(number=1, order=Pause()), EPOCH)


EXAMPLES: tuple[Message, ...] = (
    Progress(base=BASE, samples=3, complete=False, client_mode=True, samples_per_second=1.5),
    Standing(base=BASE, samples=3),
    Close(base=BASE, term=2),
    claiming().body,
    begin(),
    begin(term=2, parts=(), adopted=RESULTS, holders=PEERS[:2], proof=(claiming().wire,)),
    observed().body,
    weigh().body,
    Suspect(term=2, part=1, attempt=0),
    Reassign(term=2, part=1, attempt=1, owner=PEERS[2]),
    Prepared(base=BASE, term=2, results=RESULTS),
    Wait(term=2),
    Busy(term=2, leader=PEERS[3]),
    done().body,
    Contribution(term=2, part=1, attempt=0, begin=BEGIN, chunks=tuple(digest(bytes([n])) for n in range(CHUNKS))),
    Result(
        term=2,
        part=1,
        attempt=0,
        begin=BEGIN,
        chunks=(digest(b"a"), digest(b"b")),
        included=(3, 2**64 - 1),
        weighed=None,
    ),
    Head(digests=(digest(b"new"), digest(b"old")), nonce=b"n" * 16),
    RosterEntry(
        expires=1_800_000_000.5,
        name="a name",
        role="trainer",
        addresses=("/ip4/203.0.113.1/tcp/4001",),
        client_mode=False,
        state_digest=digest(b"state"),
        samples_contributed=10,
        samples_per_second=1.5,
        bandwidth_bytes_per_second=0.0,
        departed=False,
        token=bytes(1024),
        directives=digest(b"directives"),
    ),
    Reveal(
        base=BASE,
        secret=digest(b"secret"),
        secrets=(DealtSecret(dealer=2, secret=digest(b"another")),),
        shares=(DealtShare(dealer=1, share=bytes(33)), DealtShare(dealer=4, share=bytes(33))),
        key=digest(b"key"),
        asks=(1, 4),
    ),
    SeedWord(
        done=digest(b"done"),
        reveal=Reveal(base=BASE, secret=None, secrets=(), shares=(), key=None, asks=(2,)),
    ),
    Directive(number=3, order=Ban(peer=PEERS[1], why="sends noise")),
    Directive(number=4, order=Set(learning_rate=0.05, target_batch=100)),
    Sharing(known=(digest(b"known"),), statements=(directive().wire,)),
    DirectivesRecord(expires=1_800_000_000.5, statements=(directive().wire,)),
)
