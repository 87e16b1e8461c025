"""How the organiser's directives get about: each member hands on what it knows; the organiser need not be there.

Every hello names the digest of the directives that its sender knows. Whoever knows others asks, and gets what it lacks;
then its own hellos name them. Signed as they are, it matters not from whom they come. The organiser's daemon puts them
into the DHT too, for who cannot ask a member.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from dht.border import Border
from dht.interfaces import Records, Transport, TransportError
from peer.signal import Signal
from protocols.directives import MAX_SHARED_BYTES, DirectiveLog, Sharing
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.records import DirectivesRecord
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer

DIRECTIVES_KIND = "directives"
REQUEST_SECONDS = 3.0
CATCH_UP_SECONDS = 6.0
"""A joiner hears what the members know for so long at most, before it begins."""
AT_ONCE = 8
ASK_AGAIN_SECONDS = 10.0
"""Whoever says for so long to know something else, and gave nothing new, is asked again."""
MOST_TURNS = 128
"""With one peer in a row: more than a whole log takes."""
RECORD_SECONDS = 60.0
_MAX_RECORD_STATEMENTS_BYTES = 7 * 1024

log = structlog.get_logger()

Claims = Callable[[], Iterable[tuple[PeerId, bytes | None]]]
"""Who is there, and the digest of the directives that each says to know."""


class Directives:
    """Of one member; `log` is what it knows."""

    def __init__(
        self,
        transport: Transport,
        records: Records,
        signer: Signer,
        manifest: Manifest,
        border: Border,
        claims: Claims,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change`: something new is known."""
        self.log = DirectiveLog(manifest)
        self.changed = Signal()
        """Something new is known."""
        self._transport, self._records, self._signer = transport, records, signer
        self.organiser = manifest.organiser
        self._border, self._claims, self._on_change = border, claims, on_change
        self._news = Signal()
        """Something new is known, or somebody says so."""
        self._asked: dict[PeerId, tuple[bytes, float]] = {}
        """About which digest a peer was asked last, and when."""
        self._catching_up = asyncio.Lock()

    async def start(self) -> None:
        await self._transport.serve_requests(DIRECTIVES_KIND, self._answer, Sharing.limit_bytes)

    async def run(self) -> None:
        """Keeps up with the others until cancelled."""
        if self.organiser is None:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_up())
            tasks.create_task(self._keep_recorded())

    def hear(self, digest: bytes | None) -> None:
        """A member says that it knows the directives of this digest."""
        if digest is not None and digest != self.log.digest:
            self._news.notify()

    def take(self, wire: bytes) -> bool:
        """Takes a directive in; whether anything is new. Raises Rejected."""
        contradictions = len(self.log.contradictions)
        if not self.log.take(wire):
            return False
        if len(self.log.contradictions) > contradictions:
            log.warning(
                "the organiser has signed two directives with one number; that with the smaller digest holds",
                numbers=[one.body.number for one, _ in self.log.contradictions],
            )
        self._on_change()
        self.changed.notify()
        self._news.notify()
        return True

    def recall(self, wires: Iterable[bytes]) -> None:
        """Takes in what was known before this start, as far as it is the organiser's."""
        for wire in wires:
            try:
                self.log.take(wire)
            except Rejected as error:
                log.warning("a saved directive is damaged and not used", error=str(error))

    async def catch_up(self) -> None:
        """Returns when all members who answer have given what they know, or after CATCH_UP_SECONDS."""
        if self.organiser is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS), self._catching_up:
                while asked := self._whom_to_ask():
                    async with asyncio.TaskGroup() as tasks:
                        for peer in asked:
                            tasks.create_task(self.ask(peer))

    async def ask(self, peer: PeerId) -> None:
        """Takes in what `peer` knows and we do not."""
        async with self._border.around(f"asking {peer} for directives"):
            try:
                for _ in range(MOST_TURNS):
                    question = Sharing(known=self.log.known, statements=())
                    if not self._take_all(await share(self._transport, peer, question)):
                        break
            except TransportError as error:
                log.debug("no directives", peer=peer, error=str(error))
            except Rejected as error:
                self._transport.reject(peer, error.reason, str(error))

    async def tell(self, peer: PeerId) -> None:
        """Gives `peer` the newest that we know, whether it asks or not; a peer that does not answer is let be."""
        async with self._border.around(f"telling {peer} directives"):
            message = Sharing(known=self.log.known, statements=self.log.lacking(frozenset(), newest_first=True)[::-1])
            try:
                await share(self._transport, peer, message)
            except (TransportError, Rejected) as error:
                log.debug("directives not told", peer=peer, error=str(error))

    def _whom_to_ask(self) -> list[PeerId]:
        """One of each kind of knowledge that is not ours, first of those that most claim."""
        now = self._transport.clock.monotonic()
        claims: dict[bytes, list[PeerId]] = {}
        for peer, digest in self._claims():
            if digest is not None and digest != self.log.digest and not self._just_asked(peer, digest, now):
                claims.setdefault(digest, []).append(peer)
        common = Counter({digest: len(peers) for digest, peers in claims.items()}).most_common(AT_ONCE)
        chosen = {claims[digest][0]: (digest, now) for digest, _ in common}
        self._asked = {peer: asked for peer, asked in self._asked.items() if now - asked[1] < ASK_AGAIN_SECONDS}
        self._asked |= chosen
        return list(chosen)

    def _just_asked(self, peer: PeerId, digest: bytes, now: float) -> bool:
        asked_about, when = self._asked.get(peer, (b"", 0.0))
        return asked_about == digest and now - when < ASK_AGAIN_SECONDS

    def _take_all(self, statements: Iterable[bytes]) -> bool:
        """Whether there was anything new among them. Raises Rejected at the first that is not the organiser's."""
        taken = [self.take(wire) for wire in statements]
        return any(taken)

    async def _answer(self, _peer: PeerId, body: bytes) -> bytes:
        """What the asker lacks; takes what it gives. Raises Rejected."""
        question = Sharing.from_bytes(body)
        self._take_all(question.statements)
        return Sharing(known=(), statements=self.log.lacking(frozenset(question.known))).to_bytes()

    async def _keep_up(self) -> None:
        while True:
            async with self._border.around("keeping up with directives"):
                await self.catch_up()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    await self._news.wait()

    # -- the DHT ------------------------------------------------------------------------------------------------------

    async def look_up(self) -> None:
        """Takes in what the organiser has put into the DHT."""
        if self.organiser is None:
            return
        async with self._border.around("looking directives up"):
            for record in await self._records.lookup(self._signer.run, DirectivesRecord.kind):
                if record.sender != self.organiser:
                    continue
                try:
                    self._take_all(record.body.statements)
                except Rejected as error:
                    log.warning("the organiser has published what is no directive of this run", error=str(error))

    async def _keep_recorded(self) -> None:
        """The organiser's daemon publishes them; the others look them up."""
        while True:
            if self._signer.peer_id != self.organiser:
                await self.look_up()
            elif len(self.log):
                async with self._border.around("publishing directives"):
                    await publish(self._records, self._signer, self.log, self._transport.clock.wall())
            digest = self.log.digest
            with suppress(TimeoutError):
                async with asyncio.timeout(RECORD_SECONDS):
                    while self.log.digest == digest or self._signer.peer_id != self.organiser:
                        await self._news.wait()


async def share(transport: Transport, peer: PeerId, question: Sharing) -> tuple[bytes, ...]:
    """The statements with which `peer` answers. Raises TransportError, Rejected."""
    answer = Sharing.from_bytes(await transport.request(peer, DIRECTIVES_KIND, question.to_bytes(), REQUEST_SECONDS))
    if sum(map(len, answer.statements)) > MAX_SHARED_BYTES:
        raise Rejected(Reason.OVERSIZED, "more directives at once than there may be")
    return answer.statements


async def publish(records: Records, signer: Signer, known: DirectiveLog, now: float) -> bool:
    """Puts the newest into the DHT, as the organiser; False if no node took them."""
    newest: list[bytes] = []
    for wire in known.lacking(frozenset(), newest_first=True):
        if sum(map(len, newest)) + len(wire) > _MAX_RECORD_STATEMENTS_BYTES:
            break
        newest.append(wire)
    expires = now + DirectivesRecord.ttl_seconds
    record = signer.sign(DirectivesRecord(expires=expires, statements=tuple(reversed(newest))), 0)
    return await records.publish(record, record.body.expires)
