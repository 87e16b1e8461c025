"""The rounds that a member plays and has played last, by their numbers; and what is said of those to come."""

from collections import deque
from collections.abc import Callable, Iterator

from dht.interfaces import Stream
from peer.rounds.post import ELSEWHERE
from peer.rounds.session import Session
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.cells import epoch_of, round_number
from protocols.round.messages import Contribution, Progress, Ready
from protocols.signed import Signed

EARLY_MESSAGES = 256
EARLY_MESSAGES_OF_ONE = 16
"""So many messages of the next rounds are kept, and so many of one sender, so that nobody crowds out the others."""
EARLY_BYTES = 16 * 2**20
EARLY_BYTES_OF_ONE = 2**20
"""As sent."""
SESSIONS_KEPT = 8
OnEarly = Callable[[PeerId, Signed[Message]], None]
AHEAD = 6
"""So many rounds beyond the one that we play are believed to be played elsewhere."""


class Sessions:
    def __init__(self, cells: int, on_rejected: Callable[[PeerId, Rejected], None]) -> None:
        """`cells`: of the run's averaging; a round's number is its epoch's where there are none."""
        self._cells, self._on_rejected = cells, on_rejected
        self._by_number: dict[int, Session] = {}
        self._early: deque[tuple[PeerId, Signed[Message]]] = deque()

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Session | None:
        return self._by_number.get(number)

    def of(self, epoch: int) -> list[Session]:
        """Those of that epoch, in order."""
        return [session for number, session in self._by_number.items() if epoch_of(number, self._cells) == epoch]

    def played(self, epoch: int) -> Session | None:
        """The last one of that epoch."""
        return next(reversed(self.of(epoch)), None)

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What is kept here: what it is, how many, and how many at most."""
        yield "sessions", len(self), SESSIONS_KEPT
        yield "messages of epochs to come", len(self._early), EARLY_MESSAGES
        yield "their bytes", self._early_bytes, EARLY_BYTES

    def open(self, session: Session) -> None:
        """It is played from now on; earlier ones let go of what they hold."""
        self._by_number[session.epoch] = session
        while len(self) > SESSIONS_KEPT:
            del self._by_number[min(self._by_number)]
        for number, earlier in self._by_number.items():
            if number < session.epoch:
                earlier.release()
        for sender, statement in list(self._early):
            if statement.epoch <= session.epoch:
                self._early.remove((sender, statement))
                if statement.epoch == session.epoch:
                    self._tell(session, sender, statement)

    def forget(self, epoch: int) -> None:
        """That epoch is to be played anew."""
        for session in self.of(epoch):
            del self._by_number[session.epoch]

    def clear(self) -> None:
        self._by_number.clear()
        self._early.clear()

    def hear(self, sender: PeerId, statement: Signed[Message], epoch: int, on_early: OnEarly, *, asks: bool) -> bytes:
        """What `sender` has said or passed on, while we are at that epoch; `on_early` looks at what is kept for later.

        Returns what to answer as `Session.hear` does, ELSEWHERE where it is of no round of ours. Raises Rejected.
        """
        current, session = max(self._by_number, default=-1), self.get(statement.epoch)
        if session is not None:
            answer = session.hear(statement, sender, asks=asks)
            if answer == ELSEWHERE:
                return answer
            if isinstance(statement.body, Progress | Ready) and statement.epoch < current:  # it is there in a moment
                self._by_number[current].find({sender: statement.body.client_mode})
            return answer
        if not current < statement.epoch <= max(current, round_number(epoch, 0, self._cells)) + AHEAD:
            return ELSEWHERE
        on_early(sender, statement)
        self._keep(sender, statement)
        return b""

    def _keep(self, sender: PeerId, statement: Signed[Message]) -> None:
        """For the round to come that it is about; what is oldest gives way. Raises Rejected: busy."""
        sizes = [len(kept.wire) for peer, kept in self._early if peer == sender]
        if len(sizes) >= EARLY_MESSAGES_OF_ONE or sum(sizes) + len(statement.wire) > EARLY_BYTES_OF_ONE:
            raise Rejected(Reason.BUSY, "too many messages of epochs to come")
        self._early.append((sender, statement))
        while len(self._early) > EARLY_MESSAGES or self._early_bytes > EARLY_BYTES:
            self._early.popleft()

    @property
    def _early_bytes(self) -> int:
        return sum(len(statement.wire) for _, statement in self._early)

    async def serve_part(self, stream: Stream, statement: Signed[Contribution]) -> None:
        """Raises Rejected, Unreachable."""
        session = self.get(statement.epoch)
        if session is None:
            raise Rejected(Reason.UNEXPECTED, f"no round {statement.epoch} is under way here")
        await session.serve_part(stream, statement)

    def is_open(self, number: int, base: bytes) -> bool:
        """Whether a `Done` of that round, from that base, would decide something here; no session looks at others."""
        session = self.get(number)
        return session is None or (session.setting.base == base and session.machine.done is None)

    def _tell(self, session: Session, sender: PeerId, statement: Signed[Message]) -> None:
        """What came before its round had begun."""
        try:
            session.hear(statement, sender, asks=False)
        except Rejected as error:
            self._on_rejected(sender, error)
