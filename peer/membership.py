"""Keeps the roster: tells the others and the DHT of us, hears of them, and notices who is gone.

Members say `hello` to each other directly every few seconds: that is how a joiner becomes known at once, and how fresh
epochs and digests get about. The DHT's roster records are for finding the run from elsewhere.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from dht.border import Border
from dht.interfaces import Records, Refused, TimedOut, Transport, TransportError, Unreachable
from peer.roster import Roster
from peer.signal import Signal
from peer.status import PeerStatus
from protocols.admission import Admission
from protocols.awake import AwakeTime
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.rejection import Rejected
from protocols.signed import Signed, Signer, open_signed

HELLO_KIND = "hello"
HELLO_SECONDS = 2.0
SHORTEST_PAUSE_SECONDS = 0.25
"""Between two turns of hellos, whatever there is to tell: short epochs are not told to everybody one by one."""
REQUEST_SECONDS = 5.0
PUBLISH_SECONDS = 20.0
LOOKUP_SECONDS = 5.0
FIRST_LOOKUP_SECONDS = 0.5
"""At first we look up more often: who starts together must meet before their histories part."""
GREETING_SECONDS = 1.0
FAILURES_UNTIL_GONE = 2
AT_ONCE = 16
"""Hellos under way at the same time, and on average said in a second when nothing happens."""
HELLOS_A_TURN = 128
"""To those first who have not heard of us for longest; so nobody's effort grows with the square of the swarm."""
MEETINGS_AT_ONCE = 64
"""Strangers dialled at the same time: their addresses are what they, or somebody, say."""
LONGEST_GAP_SECONDS = 2 * (HELLO_SECONDS + REQUEST_SECONDS)
"""We look at the clock at least so often, as long as we run."""

log = structlog.get_logger()


class Membership:
    def __init__(
        self,
        transport: Transport,
        records: Records,
        signer: Signer,
        entry: Callable[[], tuple[RosterEntry, int]],
        on_word: Callable[[PeerId, bool], None],
        on_left: Callable[[PeerId], None],
        on_lost: Callable[[PeerId], None],
        border: Border,
        admission: Admission,
    ) -> None:
        """`entry`: what to say of ourselves now (its expiry is set here), and our epoch.

        `on_word`: a member has said where it is; the flag says whether we have just found it. `on_left`: one has
        departed, by its own signed word. `on_lost`: one is not heard of any more; it may live.
        """
        self.roster = Roster(transport.peer_id)
        self.heard = Signal()
        """A member has said something, or is not heard of any more."""
        self._transport, self._records, self._signer = transport, records, signer
        self._entry, self._border, self._admission = entry, border, admission
        self._on_word, self._on_left, self._on_lost = on_word, on_left, on_lost
        self._hurry = asyncio.Event()
        self._news_at = float("-inf")
        """When something about us was last worth telling."""
        self._departed = False
        self._published = asyncio.Event()
        self._outdated = asyncio.Event()
        self._addressed: set[PeerId] = set()
        """To whom a hello is under way."""
        self._awake = AwakeTime(transport.clock.monotonic(), LONGEST_GAP_SECONDS)
        self._random = random.Random(transport.peer_id)  # noqa: S311  (jitter)

    async def start(self) -> None:
        await self._transport.serve_requests(HELLO_KIND, self._answer)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._say_hellos())
            tasks.create_task(self._publish())
            tasks.create_task(self._look_up())

    def status(self) -> tuple[PeerStatus, ...]:
        """The members, this peer not among them."""
        return self.roster.status(self._now())

    def clock(self) -> float:
        """Seconds, as `is_at` counts them."""
        return self._now()

    def is_at(self, peer: PeerId, epoch: int, since: float) -> bool:
        """Whether `peer` has told us since then that it lives, and has come to this epoch."""
        member = self.roster.get(peer)
        return (
            member is not None
            and member.seen >= since
            and member.epoch >= epoch
            and member.entry.state_digest is not None
        )

    def banish(self, peer: PeerId, why: str) -> str | None:
        """`peer` is none of the members any more; returns its name, where it was one."""
        self._transport.remember(peer, ())
        return self.roster.banish(peer, why, self._now())

    def announce(self) -> None:
        """Something about us is worth telling at once."""
        self._news_at = self._now()
        self._hurry.set()

    def republish(self) -> None:
        """As `announce`; and what the DHT has of us misleads who looks from elsewhere."""
        self.announce()
        self._outdated.set()

    async def meet(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Connects to a peer that may be a member, and exchanges hellos."""
        async with self._border.around(f"meeting {peer}"):
            try:
                if addresses:
                    await self._transport.connect(peer, addresses)
                await self._hello(peer)
            except TransportError as error:
                log.debug("could not meet a peer", peer=peer, error=str(error))

    async def introduce(self) -> None:
        """Meets everybody whom the DHT knows once it knows us: of two who start together one finds the other."""
        await self._published.wait()
        await self.look_up()

    async def look_up(self) -> None:
        """Meets everybody whom the DHT knows and we do not."""
        async with self._border.around("looking members up"):
            found = await self._records.lookup(self._signer.run, RosterEntry.kind)
            strangers = {
                record.sender: record.body.addresses
                for record in found
                if record.sender != self._transport.peer_id
                and not record.body.departed
                and self.roster.get(record.sender) is None
            }
            await self.meet_all(strangers)

    async def greet(self) -> None:
        """Tells all members where we are, and hears where they are, as far as they answer within GREETING_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                await self.meet_all({member.peer: () for member in self.roster})

    async def meet_all(self, peers: Mapping[PeerId, Sequence[str]]) -> None:
        """Like `meet`, of several with their addresses, some at a time."""
        gate = asyncio.Semaphore(MEETINGS_AT_ONCE)

        async def meet(peer: PeerId, addresses: Sequence[str]) -> None:
            async with gate:
                await self.meet(peer, addresses)

        async with asyncio.TaskGroup() as tasks:
            for peer, addresses in peers.items():
                tasks.create_task(meet(peer, addresses))

    async def depart(self) -> None:
        """Tells everybody that we leave, and from now on whoever asks."""
        self._departed = True
        statement = self._word()
        async with asyncio.TaskGroup() as tasks:
            for member in self.roster:
                tasks.create_task(self._tell_departure(member.peer, statement.wire))
            tasks.create_task(self._store(statement))

    # -- hello --------------------------------------------------------------------------------------------------------

    def _word(self) -> Signed[RosterEntry]:
        body, epoch = self._entry()
        expires = self._transport.clock.wall() + RosterEntry.ttl_seconds
        return self._signer.sign(body.model_copy(update={"departed": self._departed, "expires": expires}), epoch)

    async def _answer(self, sender: PeerId, wire: bytes) -> bytes:
        self._learn(open_signed(wire, RosterEntry, run=self._signer.run, sender=sender))
        self.roster.told(sender, self._now())
        return self._word().wire

    def _learn(self, statement: Signed[RosterEntry]) -> None:
        self._admission.admit(statement.sender, statement.body.token, self._transport.clock.wall())
        known = self.roster.get(statement.sender)
        self._transport.remember(statement.sender, statement.body.addresses)
        new = self.roster.learn(statement, self._now(), directly=True)
        if new:
            log.info("member joined", member=statement.body.name, peer=statement.sender)
        self._on_word(statement.sender, new)
        if known is not None and statement.body.departed:
            log.info("member left", member=known.entry.name, peer=statement.sender)
            self._on_left(statement.sender)
        self.heard.notify()

    async def _hello(self, peer: PeerId) -> None:
        began = self._now()
        answer = await self._transport.request(peer, HELLO_KIND, self._word().wire, REQUEST_SECONDS)
        self.roster.told(peer, began)
        try:
            self._learn(open_signed(answer, RosterEntry, run=self._signer.run, sender=peer))
        except Rejected as error:
            self._transport.reject(peer, error.reason, str(error))
            raise Refused(f"{peer} answers a hello with something else: {error}", str(error.reason)) from error

    async def _say_hellos(self) -> None:
        """Turn after turn; none waits for answers, or nobody would hear of anybody while one is silent."""
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                due = self._due()
                for peer in due:
                    self._addressed.add(peer)
                    tasks.create_task(self._keep_in_touch(peer, gate))
                async with self._border.around("forgetting who is silent"):
                    for peer in self.roster.expire(self._now()):
                        self._on_lost(peer)
                await self._transport.clock.sleep(SHORTEST_PAUSE_SECONDS)
                pause = max(HELLO_SECONDS, len(due) / AT_ONCE) * self._random.uniform(0.8, 1.2)
                try:
                    async with asyncio.timeout(pause - SHORTEST_PAUSE_SECONDS):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
                self._hurry.clear()

    def _due(self) -> list[PeerId]:
        """Who is to be told of us in this turn; not who has just asked, or whose answer we still await."""
        since = max(self._news_at, self._now() - HELLO_SECONDS / 2)
        waiting = sorted(
            (member.told, member.peer)
            for member in self.roster
            if member.told < since and member.peer not in self._addressed
        )
        return [peer for _, peer in waiting[:HELLOS_A_TURN]]

    def _now(self) -> float:
        return self._awake.at(self._transport.clock.monotonic())

    async def _keep_in_touch(self, peer: PeerId, gate: asyncio.Semaphore) -> None:
        async with gate, self._border.around(f"a hello to {peer}"):
            began = self._now()
            try:
                await self._hello(peer)
                if began < self._news_at:
                    self._hurry.set()
            except (Unreachable, TimedOut) as error:
                if self.roster.failed(peer) >= FAILURES_UNTIL_GONE:
                    log.info("member lost", peer=peer, error=str(error))
                    self.roster.forget(peer)
                    self._on_lost(peer)
                    self.heard.notify()
            except TransportError as error:
                log.debug("no answer to hello", peer=peer, error=str(error))
            finally:
                self._addressed.discard(peer)

    async def _tell_departure(self, peer: PeerId, wire: bytes) -> None:
        async with self._border.around(f"a farewell to {peer}"):
            try:
                await self._transport.request(peer, HELLO_KIND, wire, 1.0)
            except TransportError as error:
                log.debug("departure not told", peer=peer, error=str(error))

    # -- the DHT ------------------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            self._outdated.clear()
            await self._store(self._word())
            self._published.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_SECONDS * self._random.uniform(0.8, 1.2)):
                    await self._outdated.wait()

    async def _store(self, statement: Signed[RosterEntry]) -> None:
        async with self._border.around("publishing a roster record"):
            if not await self._records.publish(statement, statement.body.expires):
                log.debug("the DHT took no roster record")

    async def _look_up(self) -> None:
        pause = FIRST_LOOKUP_SECONDS
        while True:
            await self.look_up()
            await self._transport.clock.sleep(pause * self._random.uniform(0.8, 1.2))
            pause = min(LOOKUP_SECONDS, 1.5 * pause)
