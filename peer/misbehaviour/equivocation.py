"""Two stories: of the same thing one is told to some, another to the others, and both are signed."""

from collections.abc import Iterable
from typing import Any

from dht.interfaces import Frame, Stream
from dht.wrapped_transport import WrappedStream
from peer.learner import Learner
from peer.misbehaviour.lying_transport import LyingTransport, in_other_half
from peer.misbehaviour.wrapped_learner import WrappedLearner, with_learner
from peer.participant import Participant
from peer.rounds.chunk_frames import SIGN_OF_LIFE, chunks_of
from peer.rounds.exchange import PART_KIND
from protocols.codecs import Codec, Payload, codec
from protocols.encoding import digest
from protocols.message import Message
from protocols.round.messages import Begin, Contribution, Member, Part, Ready, Result
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate
from protocols.signed import Signed, Signer, open_signed
from protocols.vectors import Vector

# -- two commitments --------------------------------------------------------------------------------------------------


class SecondUpdate:
    """The update of this epoch turned round, beside the one that it is."""

    encoded: EncodedUpdate | None = None


class TwoUpdates(WrappedLearner):
    """Makes the second beside the first."""

    def __init__(self, honest: Learner, second: SecondUpdate, its_codec: Codec) -> None:
        super().__init__(honest)
        self._second, self._codec = second, its_codec

    async def update(self) -> tuple[Vector, int] | None:
        made = await super().update()
        self._second.encoded = None if made is None else EncodedUpdate(-made[0], self._codec)
        return made


class TwoCommitments(LyingTransport):
    """Commits to both, the one that counts last, and sends half of the owners the other."""

    def __init__(self, second: SecondUpdate, **given: Any) -> None:
        super().__init__(given["transport"], given["signer"])
        self._second, self._codec = second, codec(given["manifest"].averaging.codec)

    def say(self, to: Any, statement: Signed[Any]) -> Iterable[Message]:
        body, second = statement.body, self._second.encoded
        if isinstance(body, Ready) and body.root is not None and second is not None:
            yield body.model_copy(update={"root": second.root})
        yield body

    def opened(self, kind: str, stream: Stream) -> Stream:
        second = self._second.encoded
        if kind != PART_KIND or second is None or not in_other_half(stream.peer):
            return stream
        return _OtherChunks(stream, self.signer, second, self._codec)


class _OtherChunks(WrappedStream):
    """To an owner: the second update instead of the first."""

    def __init__(self, stream: Stream, signer: Signer, second: EncodedUpdate, its_codec: Codec) -> None:
        super().__init__(stream)
        self._signer, self._second, self._codec = signer, second, its_codec
        self._has_begun = False

    async def send(self, frame: Frame) -> None:
        if self._has_begun:
            chunks = [self._second.chunks[number] for number, _ in chunks_of(frame, self._second.grid, self._codec)]
            await super().send(Frame(frame.header, b"".join(chunks)))
            return
        self._has_begun = True
        statement = open_signed(frame.header, Contribution, run=self._signer.run)
        body = statement.body
        if body.chunks:
            body = body.model_copy(update={"chunks": self._second.digests})
        await super().send(Frame(self._signer.sign(body, statement.epoch).wire))


def two_commitments(**given: Any) -> Participant:
    second, its_codec = SecondUpdate(), codec(given["manifest"].averaging.codec)
    given = with_learner(given, lambda learner: TwoUpdates(learner, second, its_codec))
    return Participant(**(given | {"transport": TwoCommitments(second, **given)}))


# -- two begins -------------------------------------------------------------------------------------------------------


class TwoBegins(LyingTransport):
    """As a leader: names half of the members other owners, and in every other epoch another group."""

    def say(self, to: Any, statement: Signed[Any]) -> Iterable[Message]:
        body = statement.body
        if not isinstance(body, Begin) or body.adopted or not in_other_half(to):
            return (body,)
        return (_with_other_owners(body) if statement.epoch % 2 else self._without_one(body, to),)

    def _without_one(self, begin: Begin, to: Any) -> Begin:
        """Without the last member that is neither who hears it nor we; its parts are another's."""
        others = [member.peer for member in begin.members if member.peer not in (to, self.peer_id)]
        members = tuple(member for member in begin.members if member.peer != others[-1:][0]) if others else ()
        if not members:
            return begin
        return _begin(begin, members, [p.owner if p.owner != others[-1] else self.peer_id for p in begin.parts])


def _with_other_owners(begin: Begin) -> Begin:
    owners = [part.owner for part in begin.parts]
    return _begin(begin, begin.members, [*owners[1:], *owners[:1]])


def _begin(begin: Begin, members: tuple[Member, ...], owners: list[Any]) -> Begin:
    parts = tuple(
        Part(owner=owner, start=part.start, stop=part.stop) for owner, part in zip(owners, begin.parts, strict=True)
    )
    return begin.model_copy(update={"members": members, "parts": parts})


def two_begins(**given: Any) -> Participant:
    return Participant(**(given | {"transport": TwoBegins(given["transport"], given["signer"])}))


# -- two results ------------------------------------------------------------------------------------------------------


class TwoResults(LyingTransport):
    """As an owner: gives half of the members the result turned round, signed as the other is."""

    def __init__(self, **given: Any) -> None:
        super().__init__(given["transport"], given["signer"])
        self._codec, self._grid = codec(given["manifest"].averaging.codec), Grid(given["state"].parameter_count)

    def served(self, kind: str, stream: Stream) -> Stream:
        if kind != PART_KIND or not in_other_half(stream.peer):
            return stream
        return _OtherResult(stream, self.signer, self._codec, self._grid)


class _OtherResult(WrappedStream):
    def __init__(self, stream: Stream, signer: Signer, its_codec: Codec, grid: Grid) -> None:
        super().__init__(stream)
        self._signer, self._codec, self._grid = signer, its_codec, grid
        self._digests: list[bytes] = []

    async def send(self, frame: Frame) -> None:
        if frame == SIGN_OF_LIFE:
            await super().send(frame)
        elif frame.header:
            chunks = [
                self._turned_round(payload, self._grid.size(number))
                for number, payload in chunks_of(frame, self._grid, self._codec)
            ]
            self._digests += map(digest, chunks)
            await super().send(Frame(frame.header, b"".join(chunks)))
        else:
            statement = open_signed(bytes(frame.payload), Result, run=self._signer.run)
            body = statement.body.model_copy(update={"chunks": tuple(self._digests)})
            await super().send(Frame(b"", self._signer.sign(body, statement.epoch).wire))

    def _turned_round(self, payload: Payload, count: int) -> bytes:
        return bytes(self._codec.encode(-self._codec.decode(payload, count)))


def two_results(**given: Any) -> Participant:
    return Participant(**(given | {"transport": TwoResults(**given)}))
