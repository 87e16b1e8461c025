"""Messages of rounds: taken in (verified, once each) and sent out (a few at a time to each peer)."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import structlog

from dht.border import Border
from dht.interfaces import Clock, Refused, TimedOut, Transport, Unreachable
from dht.rates import Rates
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.checks import check_begin, check_done, check_samples, check_seed
from protocols.round.messages import ROUND_MESSAGES, Begin, Done, Standing, Wait
from protocols.signed import ReplayGuard, Signed, Signer, open_signed, signed_run_and_kind

ROUND_KIND = "round"
MAX_MESSAGE_BYTES = 1024 * 1024
REQUEST_SECONDS = 5.0
OUTBOX_LIMIT = 64
IN_FLIGHT = 4
"""Messages on their way to one peer; more than one, so that one that is lost does not hold up all that follow it."""
ELSEWHERE = b"elsewhere"
"""The answer to a message of an epoch or a history that is not ours: nobody's fault, but do not wait for us there."""

CHECKS_PER_SECOND = 256
CHECKS_AT_ONCE = 1024
"""Signatures that are checked for one peer that shows us the votes of a `Done`; each takes a tenth of a millisecond."""
PROVED_LIMIT = 32
ANSWERS = (Standing.kind, Wait.kind)
"""Kinds of statements that answer a message of a round: they tell how it stands there, and bind nobody."""

log = structlog.get_logger()


class Inbox:
    """Opens what comes in: signature, sender, replay, and what `Begin` and `Done` must satisfy."""

    def __init__(
        self,
        run: str,
        chunks: int,
        clock: Clock,
        is_open: Callable[[int, bytes], bool],
        most_samples: int,
        *,
        verifies: bool = False,
        on_astray: Callable[[PeerId, int], None] = lambda _peer, _epoch: None,
    ) -> None:
        """`is_open`: whether a `Done` of this epoch and base would decide anything here. `most_samples`: of one.

        `verifies`: whether members check each other. `on_astray`: who has signed a `Begin` of which epoch that no
        honest leader signs.
        """
        self._most_samples, self._verifies, self._on_astray = most_samples, verifies, on_astray
        self.chunks = chunks
        self._run, self._clock, self._is_open = run, clock, is_open
        self._replays = ReplayGuard()
        self._proved: OrderedDict[bytes, Signed[Done]] = OrderedDict()
        """By digest, those proved last: the same one comes from many members, or again and again from a hostile one."""
        self._checks = Rates(CHECKS_PER_SECOND, CHECKS_AT_ONCE)

    def open(self, sender: PeerId, wire: bytes) -> Signed[Message]:
        """Raises Rejected."""
        run, kind = signed_run_and_kind(wire, MAX_MESSAGE_BYTES)
        if run != self._run:
            raise Rejected(Reason.WRONG_RUN, "a message of another run")
        body_type = ROUND_MESSAGES.get(kind)
        if body_type is None:
            raise Rejected(Reason.WRONG_KIND, f"there is no round message {kind[:32]!r}")
        if body_type is Done:  # may be passed on, and comes from several peers
            return self._open_done(sender, wire)  # type: ignore[return-value]
        statement = open_signed(wire, body_type, run=run, sender=sender)
        self._replays.admit(statement)
        try:
            self._check(statement.body)
        except Rejected:
            if isinstance(statement.body, Begin):
                self._on_astray(sender, statement.epoch)
            raise
        return statement

    def _check(self, body: Message) -> None:
        if isinstance(body, Begin):
            check_begin(body, self.chunks)
        check_samples(body, self._most_samples)
        if self._verifies:
            check_seed(body)

    def _open_done(self, shown_by: PeerId, wire: bytes) -> Signed[Done]:
        """Proved, unless nobody will look at it; proving takes a signature check for each of its votes."""
        address = digest(wire)
        if (proved := self._proved.get(address)) is not None:
            self._proved.move_to_end(address)
            return proved
        done = open_signed(wire, Done, run=self._run)
        if not self._is_open(done.epoch, done.body.base):
            return done
        if not self._checks.take(shown_by, self._clock.monotonic(), cost=len(done.body.votes)):
            raise Rejected(Reason.BUSY, "too many votes to check")
        check_done(done, self.chunks)
        self._proved[address] = done
        if len(self._proved) > PROVED_LIMIT:
            self._proved.popitem(last=False)
        return done


def check_answer(wire: bytes) -> None:
    """Whether it is what a message may be answered with, by its own, unverified word. Raises Rejected."""
    _, kind = signed_run_and_kind(wire, MAX_MESSAGE_BYTES)
    if kind not in ANSWERS:
        raise Rejected(Reason.WRONG_KIND, f"a message of a round is not answered with {kind[:32]!r}")


class Outbox:
    """Sends statements without making the sender wait; a few at a time to each peer, and no more than it can take."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        on_lost: Callable[[PeerId], None],
        on_elsewhere: Callable[[PeerId, int], None],
        border: Border,
        on_answer: Callable[[PeerId, bytes], None] = lambda _peer, _wire: None,
        request_kind: str = ROUND_KIND,
        *,
        replaces: bool = True,
    ) -> None:
        """`on_lost`: a peer could not be reached, tried twice. `on_elsewhere`: a peer does not play this epoch.
        `on_answer`: what a peer has answered else, if it is anything.

        `replaces`: whether a newer statement takes the place of an unsent one of its kind and epoch.
        """
        self._request_kind, self._replaces = request_kind, replaces
        self._transport, self._signer = transport, signer
        self._on_lost, self._on_elsewhere, self._border = on_lost, on_elsewhere, border
        self._on_answer = on_answer
        self._pending: dict[PeerId, dict[tuple[Any, ...], bytes]] = {}
        self._workers: Counter[PeerId] = Counter()
        self._tasks: asyncio.TaskGroup | None = None
        """Of those who deliver; None while it does not run."""

    def send(self, to: PeerId, body: Message, epoch: int) -> Signed[Message]:
        """Signs `body`; to ourselves it is only signed."""
        statement = self._signer.sign(body, epoch)
        if to != self._transport.peer_id:
            self.relay(to, statement)
        return statement

    def relay(self, to: PeerId, statement: Signed[Any]) -> None:
        body = statement.body
        one_of_many = getattr(body, "part", None) if self._replaces else statement.sequence
        key = (statement.epoch, statement.kind, one_of_many, statement.sender)
        pending = self._pending.setdefault(to, {})
        pending.pop(key, None)
        pending[key] = statement.wire
        if len(pending) > OUTBOX_LIMIT:
            pending.pop(next(iter(pending)))
        self._start_delivering(to)

    @property
    def longest_queue(self) -> int:
        return max(map(len, self._pending.values()), default=0)

    async def run(self) -> None:
        """Delivers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for peer, pending in self._pending.items():
                    for _ in pending:
                        self._start_delivering(peer)
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def _start_delivering(self, peer: PeerId) -> None:
        """One more message, unless as many are on their way as may be."""
        if self._tasks is not None and self._workers[peer] < IN_FLIGHT:
            self._workers[peer] += 1
            self._tasks.create_task(self._deliver(peer))

    async def _deliver(self, peer: PeerId) -> None:
        pending = self._pending[peer]
        while pending:
            async with self._border.around(f"a message to {peer}"):
                await self._deliver_next(peer, pending)
        self._workers[peer] -= 1
        if not self._workers[peer]:
            del self._workers[peer], self._pending[peer]

    async def _deliver_next(self, peer: PeerId, pending: dict[tuple[Any, ...], bytes]) -> None:
        key = next(iter(pending))
        wire = pending.pop(key)
        try:
            answer = await self._deliver_one(peer, wire)
            if answer == ELSEWHERE:
                self._on_elsewhere(peer, key[0])
            elif answer:
                self._on_answer(peer, answer)
        except Unreachable as error:
            pending.clear()
            log.debug("peer unreachable", peer=peer, error=str(error))
            self._on_lost(peer)
        except TimedOut:
            log.debug("peer does not answer", peer=peer, message=key[1])
        except Refused as error:
            log.debug("message refused", peer=peer, message=key[1], reason=error.reason)

    async def _deliver_one(self, peer: PeerId, wire: bytes) -> bytes:
        try:
            return await self._transport.request(peer, self._request_kind, wire, REQUEST_SECONDS)
        except Unreachable:  # once more: a single broken connection is not a dead peer
            return await self._transport.request(peer, self._request_kind, wire, REQUEST_SECONDS)
