"""What the members of a round say to each other. Every message travels in a `Signed` envelope that names the epoch.

`base` is the digest of the state that the epoch starts from, so that only peers with one history meet in a round.
`term` numbers the attempts at an epoch; each has one leader.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from protocols.encoding import digest
from protocols.message import Count, Digest, Item, Many, Message, Peer
from protocols.swarm.coverage import MAX_COVERED_BYTES
from protocols.verification.dealing import Dealing, Key

MAX_MEMBERS = 64
MAX_CHUNKS = 16_380
MAX_OBSERVED_BYTES = 8 * (MAX_MEMBERS + 1) * (MAX_MEMBERS + 2) // 2
"""Inner products of all members and the origin, each pair once, as float64."""
MAX_OBSERVERS = 32
"""Owners, where the rule looks at distances: what they all observe has to fit into one message."""
MAX_CELL_BYTES = 128 * 1024
"""Of a cell's `Done`: the votes of 33 members, each for 64 parts, take some 100 kB."""
Term = Annotated[int, Field(ge=0, le=2**31)]
PartNumber = Annotated[int, Field(ge=0, lt=MAX_MEMBERS)]
Attempt = Annotated[int, Field(ge=0, lt=MAX_MEMBERS)]
"""How often a part has changed its owner within a term; each member owns it once at most."""
ChunkNumber = Annotated[int, Field(ge=0, le=MAX_CHUNKS)]


def _shortest(mask: bytes) -> bytes:
    if mask.endswith(b"\x00"):
        raise ValueError("ends with a zero byte: one set has one form")
    return mask


Covered = Annotated[bytes, Field(max_length=MAX_COVERED_BYTES), AfterValidator(_shortest)]
"""The microbatches of a pipeline's epoch that a member has counted (`protocols.swarm.coverage`)."""
MemberMask = Annotated[int, Field(ge=0, lt=2**MAX_MEMBERS)]
"""Bit i stands for member i of the `Begin`."""


class Member(Item):
    """One member of a group and what it has committed to."""

    peer: Peer
    weight: Count
    """Samples behind the update; 0: sends nothing, only reads the result."""
    root: Digest | None
    """`commitment` of its encoded chunks; None where weight is 0."""
    key: Key | None = None
    """Where members check each other: as in `Ready`."""
    covered: Covered = b""

    @model_validator(mode="after")
    def _contributes_what_it_commits_to(self) -> Self:
        _check_commitment(self.weight, self.root)
        return self


class Part(Item):
    """Chunks start … stop − 1, which `owner` reduces."""

    owner: Peer
    start: ChunkNumber
    stop: ChunkNumber


class PartResult(Item):
    """The reduced part: `digest` is the `commitment` of its encoded chunks."""

    start: ChunkNumber
    stop: ChunkNumber
    digest: Digest


Results = Annotated[Many[PartResult], Field(min_length=1, max_length=MAX_MEMBERS)]


class Progress(Message):
    """To the leader, while training: what this peer has for the epoch."""

    kind: ClassVar[str] = "progress"
    base: Digest
    samples: Count
    complete: bool
    """local_sgd: the inner steps are done."""
    covered: Covered = b""
    client_mode: bool
    samples_per_second: Annotated[float, Field(ge=0)]
    follows: bool = False
    """In the second of two levels: takes no part, and asks what has been decided."""


class Standing(Message):
    """From the leader, while the swarm trains: I lead this epoch, and so far we have."""

    kind: ClassVar[str] = "standing"
    base: Digest
    samples: Count
    covered: Covered = b""
    """In a pipeline: the microbatches that are counted by whoever counts …"""
    refused: Covered = b""
    """… and what you have counted in vain: another has, too, or the epoch goes on without you."""


class Close(Message):
    """From the leader: the epoch has its samples; finish your update and say `Ready`."""

    kind: ClassVar[str] = "close"
    base: Digest
    term: Term


class Prepared(Message):
    """To the leader: I hold all these results (a vote for them)."""

    kind: ClassVar[str] = "prepared"
    base: Digest
    term: Term
    results: Results
    dealing: Dealing | None = None
    """Its part in the seed that says who checks whom, where members do (`protocols.verification.seed`)."""


UNMEASURED = 1.0
"""The speed of a member that has not sent enough yet to know its own."""


class Ready(Message):
    """To the leader: my update is finished and committed to."""

    kind: ClassVar[str] = "ready"
    base: Digest
    term: Term
    weight: Count
    root: Digest | None
    covered: Covered = b""
    client_mode: bool
    """Cannot be dialled, so cannot own a part."""
    key: Key | None = None
    """X25519, of this term and nothing else: its share of others' secrets is sealed for that."""
    speed: Annotated[float, Field(gt=0, le=1e12)]
    """Bytes per second that it can send, for the size of its part; UNMEASURED where it does not know."""
    held_term: Term | None
    """The term of the results it has prepared in an earlier term, if any …"""
    held: Annotated[Many[PartResult], Field(max_length=MAX_MEMBERS)]
    """… these results …"""
    origin: Annotated[Many[bytes], Field(max_length=1 + MAX_MEMBERS)] = ()
    """… and under whom they were reduced: wire of the `Signed[Begin]`, then of each part's last `Signed[Reassign]`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _check_commitment(self.weight, self.root)
        if (self.held_term is not None) != bool(self.held) or (self.held_term or 0) > self.term:
            raise ValueError("results are held of this term or an earlier one, or not at all")
        if bool(self.held) != bool(self.origin):
            raise ValueError("who holds results says where they come from")
        return self


class Begin(Message):
    """From the leader: the group, what each of its members committed to, and who reduces what."""

    kind: ClassVar[str] = "begin"
    limit_bytes: ClassVar[int] = 128 * 1024
    base: Digest
    term: Term
    members: Annotated[Many[Member], Field(min_length=1, max_length=MAX_MEMBERS)]
    parts: Annotated[Many[Part], Field(max_length=MAX_MEMBERS)]
    """Empty when `adopted` is given: nothing is reduced anew."""
    adopted: Annotated[Many[PartResult], Field(max_length=MAX_MEMBERS)] = ()
    """Results carried over from an earlier term …"""
    holders: Annotated[Many[Peer], Field(max_length=MAX_MEMBERS)] = ()
    """… the members that hold them …"""
    proof: Annotated[Many[bytes], Field(max_length=1)] = ()
    """… and the word of one of those: wire bytes of its `Signed[Ready]`."""

    @model_validator(mode="after")
    def _proves_what_it_adopts(self) -> Self:
        if bool(self.adopted) != bool(self.proof):
            raise ValueError("what is adopted is proved, and nothing else")
        return self


class Suspect(Message):
    """To the leader: I get no result of this part from its owner."""

    kind: ClassVar[str] = "suspect"
    term: Term
    part: PartNumber
    attempt: Attempt


class Reassign(Message):
    """From the leader: this part is now reduced by another owner."""

    kind: ClassVar[str] = "reassign"
    term: Term
    part: PartNumber
    attempt: Attempt
    owner: Peer


class Wait(Message):
    """From the leader: I am alive, and not there yet."""

    kind: ClassVar[str] = "wait"
    term: Term


class Busy(Message):
    """To somebody who wants to lead: I follow this leader in this term."""

    kind: ClassVar[str] = "busy"
    term: Term
    leader: Peer


class Done(Message):
    """From the leader: these results stand, and here are the `Prepared` votes of a majority of the group.

    Anybody who has the state `base` can verify it, fetch the results from the voters, and apply them.
    """

    kind: ClassVar[str] = "done"
    limit_bytes: ClassVar[int] = 512 * 1024
    base: Digest
    term: Term
    members: Annotated[Many[Peer], Field(min_length=1, max_length=MAX_MEMBERS)]
    results: Results
    votes: Annotated[Many[bytes], Field(min_length=1, max_length=MAX_MEMBERS)]
    """Wire bytes of `Signed[Prepared]`, one of each voter."""


class Contribution(Message):
    """Head of the stream from a sender to the owner of a part: the digests of all chunks of its encoded update."""

    kind: ClassVar[str] = "contribution"
    limit_bytes: ClassVar[int] = MAX_CHUNKS * 34 + MAX_CELL_BYTES + 2048
    term: Term
    part: PartNumber
    attempt: Attempt
    begin: Digest
    """`begin_digest` of what it follows, so that nobody can be shown another round than the one it has signed for."""
    chunks: Annotated[Many[Digest], Field(max_length=MAX_CHUNKS)]
    """Empty where the member only reads the result."""
    cell: Annotated[Many[Annotated[bytes, Field(max_length=MAX_CELL_BYTES)]], Field(max_length=1)] = ()
    """In the second of two levels: wire bytes of the `Signed[Done]` of its cell, whose aggregate these chunks are."""


class Result(Message):
    """The owner's statement at the end of a part: what it reduced it to, and from whom."""

    kind: ClassVar[str] = "result"
    limit_bytes: ClassVar[int] = MAX_CHUNKS * 48 + 1024
    term: Term
    part: PartNumber
    attempt: Attempt
    begin: Digest
    """As in `Contribution`."""
    chunks: Annotated[Many[Digest], Field(min_length=1, max_length=MAX_CHUNKS)]
    """Digest of every encoded chunk of the part, in order."""
    included: Annotated[Many[MemberMask], Field(min_length=1, max_length=MAX_CHUNKS)]
    """Whose updates each chunk is made of."""
    weighed: Digest | None = None
    """`weighing_digest` of what its weights follow from, where the rule looks at distances."""

    @model_validator(mode="after")
    def _says_it_of_every_chunk(self) -> Self:
        if len(self.included) != len(self.chunks):
            raise ValueError("as many masks as chunks")
        return self


class Observed(Message):
    """To the leader, from the owner of a part: what it sees of its members' distances (rules that look at those)."""

    kind: ClassVar[str] = "observed"
    limit_bytes: ClassVar[int] = MAX_OBSERVED_BYTES + 1024
    term: Term
    part: PartNumber
    attempt: Attempt
    begin: Digest
    """`begin_digest`: whose chunks are meant."""
    included: MemberMask
    """The members whose chunks of this part are all here."""
    gram: Annotated[bytes, Field(max_length=MAX_OBSERVED_BYTES)]
    """`protocols.round.weighing.pack` of their inner products over this part, and those of the origin."""

    @model_validator(mode="after")
    def _is_of_those_included(self) -> Self:
        points = self.included.bit_count() + 1
        if len(self.gram) != 4 * points * (points + 1):
            raise ValueError("one inner product for each pair of those included and the origin")
        return self


class Weigh(Message):
    """From the leader: what the owners have observed, one of each part, from which all derive the same weights."""

    kind: ClassVar[str] = "weigh"
    limit_bytes: ClassVar[int] = MAX_OBSERVERS * (MAX_OBSERVED_BYTES + 2048)
    term: Term
    observed: Annotated[Many[bytes], Field(min_length=1, max_length=MAX_OBSERVERS)]
    """Wire bytes of `Signed[Observed]`, in the order of the parts."""


ROUND_MESSAGES: dict[str, type[Message]] = {
    body.kind: body
    for body in (
        Progress,
        Standing,
        Close,
        Ready,
        Begin,
        Observed,
        Weigh,
        Suspect,
        Reassign,
        Prepared,
        Wait,
        Busy,
        Done,
    )
}


def _check_commitment(weight: int, root: bytes | None) -> None:
    if (weight > 0) != (root is not None):
        raise ValueError("who contributes commits to it, and nobody else does")


def begin_digest(begin: Begin) -> bytes:
    """Names the round: its base, term, members, what they committed to, and the parts."""
    return digest(b"peer/1/begin\x00", begin.to_bytes())


def weighing_digest(observations: Sequence[Observed]) -> bytes:
    """Names what the owners of all parts have observed."""
    return digest(b"peer/1/weighing\x00", *(observed.to_bytes() for observed in observations))


def commitment(chunk_digests: tuple[bytes, ...]) -> bytes:
    """One digest for a list of chunk digests."""
    return digest(b"peer/1/commitment\x00", *chunk_digests)
