"""What members say to each other of rounds: what comes in is checked, and given to the session that plays its round."""

from collections.abc import Callable, Iterator

from dht.border import Border
from dht.interfaces import Stream, Transport
from peer.rounds.exchange import PART_FRAME_BYTES, PART_KIND
from peer.rounds.levels import Levels
from peer.rounds.post import ELSEWHERE, OUTBOX_LIMIT, ROUND_KIND, Inbox, Outbox, check_answer
from peer.rounds.session import Session
from peer.rounds.sessions import Sessions
from peer.streams import next_request
from protocols.admission import Admission
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.message import Message
from protocols.rejection import Rejected
from protocols.round.cells import LEVELS, round_number
from protocols.round.messages import MAX_MEMBERS, Begin, Contribution, Done, Progress, Standing, Wait
from protocols.signed import Signed, Signer, open_signed
from protocols.state import ModelState


class Conversation:
    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        manifest: Manifest,
        border: Border,
        admission: Admission,
        state: Callable[[], ModelState | None],
        chunks: int,
        on_statement: Callable[[Signed[Message]], None],
    ) -> None:
        """`state`: with which we play; None where we play no rounds. `chunks`: of an update.

        `on_statement`: what was said, verified.
        """
        self._transport, self._admission, self._state, self._on_statement = transport, admission, state, on_statement
        self._run, self._cells = manifest.run_id, manifest.averaging.cells
        self.sessions = Sessions(self._cells, lambda peer, error: transport.reject(peer, error.reason, str(error)))
        self.inbox = Inbox(
            manifest.run_id,
            chunks,
            transport.clock,
            self.sessions.is_open,
            manifest.training.most_samples * (MAX_MEMBERS if self._cells else 1),
            verifies=manifest.verification.validators > 0,
            on_astray=self._went_astray,
        )
        self.outbox = Outbox(transport, signer, self.lose, self._elsewhere, border, self._hear_answer)
        self.levels: Levels | None = None
        """Of this epoch, where its rounds have two."""

    async def start(self) -> None:
        """From now on others are heard."""
        await self._transport.serve_requests(ROUND_KIND, self._hear)
        await self._transport.serve_streams(PART_KIND, self._serve_part, PART_FRAME_BYTES)

    async def run(self) -> None:
        """Delivers what is to be sent, until cancelled."""
        await self.outbox.run()

    @property
    def session(self) -> Session | None:
        """The round that we play."""
        state = self._state()
        return self.sessions.played(state.epoch) if state is not None else None

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What is kept of others' words: what it is, how many, and how many at most."""
        yield from self.sessions.queues()
        yield "messages to one peer", self.outbox.longest_queue, OUTBOX_LIMIT

    # -- of one member ------------------------------------------------------------------------------------------------

    def lose(self, peer: PeerId) -> None:
        """It is not heard of any more, or could not be reached; it may live."""
        if session := self.session:
            session.lose(peer)

    def ask_what_was_decided(self, peer: PeerId, *, client_mode: bool) -> None:
        """Of the cells, while ours averages: `peer` has gone on, and our cell may have nobody to tell us."""
        state = self._state()
        if state is None:
            return
        body = Progress(
            base=state.digest, samples=0, complete=True, client_mode=client_mode, samples_per_second=0.0, follows=True
        )
        self.outbox.send(peer, body, round_number(state.epoch, LEVELS - 1, self._cells))

    def _went_astray(self, peer: PeerId, number: int) -> None:
        if session := self.sessions.get(number):
            session.mistrust(peer)

    def _elsewhere(self, peer: PeerId, number: int) -> None:
        if session := self.sessions.get(number):
            session.miss(peer)

    # -- what comes in ------------------------------------------------------------------------------------------------

    async def _hear(self, sender: PeerId, wire: bytes) -> bytes:
        return self._take_in(sender, wire, asks=True)

    def _hear_answer(self, peer: PeerId, wire: bytes) -> None:
        """To a message of a round: how it stands there, taken in as if `peer` had told us so by itself."""
        if self._transport.refuses(peer):
            return
        try:
            check_answer(wire)
            self._take_in(peer, wire, asks=False)
        except Rejected as error:
            self._transport.reject(peer, error.reason, str(error))

    def _take_in(self, sender: PeerId, wire: bytes, *, asks: bool) -> bytes:
        """What to answer, if it `asks`. Raises Rejected."""
        self._require(sender)
        state = self._state()
        if state is None:
            return ELSEWHERE
        statement = self.inbox.open(sender, wire)
        self._on_statement(statement)
        if isinstance(statement.body, Begin):
            self._admission.check_listed(member.peer for member in statement.body.members)
        return self.sessions.hear(sender, statement, state.epoch, self._hear_of_next_level, asks=asks)

    def _hear_of_next_level(self, sender: PeerId, statement: Signed[Message]) -> None:
        """While our cell averages: the cells have come to an end without it, or wait for it."""
        session, state, body = self.session, self._state(), statement.body
        if session is None or state is None or self.levels is None or statement.epoch != session.epoch + 1:
            return
        if isinstance(body, Done) and body.base == state.digest and self.levels.believes(body):
            session.abandon()
        elif isinstance(body, Progress | Standing):
            self.outbox.send(sender, Wait(term=0), statement.epoch)

    async def _serve_part(self, stream: Stream) -> None:
        frame = await next_request(stream)
        if frame is None:
            return
        self._require(stream.peer)
        statement = open_signed(frame.header, Contribution, run=self._run, sender=stream.peer)
        await self.sessions.serve_part(stream, statement)

    def _require(self, peer: PeerId) -> None:
        self._admission.require(peer, self._transport.clock.wall())
