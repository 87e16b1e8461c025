"""Keeps the roster: tells the others and the DHT of us, hears of them, and notices who is gone.

Members say `hello` to each other directly every few seconds: that is how a joiner becomes known at once, and how fresh
epochs and digests get about. The DHT's roster records are for finding the run from elsewhere.

Where it is enough to know who is there, as in a run without rounds, a member keeps in touch with a few at a time, each
time others, and takes the DHT's word for the rest: then hellos cost the same however many members there are.
"""

import asyncio
import heapq
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import structlog

from dht.border import Border
from dht.interfaces import Records, Refused, TimedOut, Transport, TransportError, Unreachable
from peer.listing import Listing
from peer.roster import LIVE_SECONDS_A_MEMBER, LIVE_SECONDS_A_RECORD, Member, Roster
from peer.signal import Signal
from peer.status import PeerStatus
from peer.word import Word
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
LOOKUP_SECONDS = 5.0
LOOKUP_SECONDS_A_MEMBER = 0.02
"""Where the DHT's word is taken for members, at least: a look-up brings a record of each of them."""
FIRST_LOOKUP_SECONDS = 0.5
"""At first we look up more often: who starts together must meet before their histories part."""
GREETING_SECONDS = 1.0
FAILURES_UNTIL_GONE = 2
AT_ONCE = 16
"""Hellos under way at the same time, and on average said in a second when nothing happens."""
ANSWER_SECONDS = 1.0
"""Who has news does not tell them for so long to a mate that is to speak first."""
HELLOS_A_TURN = 128
"""To those first who have not heard of us for longest; so nobody's effort grows with the square of the swarm."""
MOST_TURNS_AHEAD = 3
"""Of hellos, that are said to mates at once and not to others afterwards."""
SMALL_SWARM = 128
"""In a larger one the next turn comes when it is due, whatever there is to tell."""
FAREWELLS = 64
"""Said by who is in touch with a few; the others hear of it from the DHT."""
WORDS_A_TURN = 64
"""Of the event loop: so many of the DHT's words are taken."""
MEETINGS_AT_ONCE = 64
"""Strangers dialled at the same time: their addresses are what they, or somebody, say."""
LONGEST_GAP_SECONDS = 2 * (HELLO_SECONDS + REQUEST_SECONDS)
"""We look at the clock at least so often, as long as we run."""

log = structlog.get_logger()

Mates = Callable[[Iterable[PeerId]], Iterable[PeerId]]
"""Picks those of others whom we keep in touch with in any case."""


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
        contacts: int | None = None,
        mates: Mates | None = None,
    ) -> None:
        """`entry`: what to say of ourselves now (its expiry is set here), and our epoch.

        `on_word`: a member has said where it is; the flag says whether we have just found it. `on_left`: one has
        departed, by its own signed word. `on_lost`: one is not heard of any more; it may live.

        `contacts`: with how many at a time to keep in touch, beside those whom `mates` picks; None: with all.
        """
        self.roster = Roster(transport.peer_id, LIVE_SECONDS_A_MEMBER if contacts is None else LIVE_SECONDS_A_RECORD)
        self.heard = Signal()
        """A member has said something, or is not heard of any more."""
        self._transport, self._run = transport, signer.run
        self._word = Word(signer, transport.clock, entry)
        self._listing = Listing(records, self._word, signer.run, transport.peer_id, border)
        self._border, self._admission, self._contacts = border, admission, contacts
        self._has_mates, self._mates = mates is not None, mates or (lambda _peers: ())
        self._on_word, self._on_left, self._on_lost = on_word, on_left, on_lost
        self._hurry = asyncio.Event()
        self._news_at = float("-inf")
        """When something about us was last worth telling."""
        self._ahead, self._ahead_at = 0.0, 0.0
        """How many hellos more than `contacts` in each turn have been said to mates, and when that was so."""
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
            tasks.create_task(self._listing.run())
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

    def lives(self, peer: PeerId) -> None:
        """`peer` has said something to us, if no hello."""
        self.roster.lives(peer, self._now())

    def banish(self, peer: PeerId, why: str) -> str | None:
        """`peer` is none of the members any more; returns its name, where it was one."""
        self._transport.remember(peer, ())
        return self.roster.banish(peer, why)

    def announce(self) -> None:
        """Something about us is worth telling at once."""
        self._news_at = self._now()
        self._hurry.set()

    def republish(self) -> None:
        """As `announce`; and what the DHT has of us misleads who looks from elsewhere."""
        self.announce()
        self._listing.republish()

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
        await self._listing.published()
        await self.look_up()

    async def look_up(self) -> None:
        """Meets everybody whom the DHT knows and we do not, or as many as we keep in touch with."""
        async with self._border.around("looking members up"):
            strangers: dict[PeerId, Sequence[str]] = {}
            for number, record in enumerate(await self._listing.others(), 1):
                known = self.roster.get(record.sender)
                if known is None and not record.body.departed:
                    strangers[record.sender] = record.body.addresses
                if self._contacts is not None and _tells_more(record, known):
                    self._take_word(record)
                if self._contacts is not None and number % WORDS_A_TURN == 0:
                    await asyncio.sleep(0)
            if self._contacts is not None:
                self.heard.notify()
            met = dict.fromkeys([*self._mates(strangers), *self._some(strangers)])
            await self.meet_all({peer: strangers[peer] for peer in met})

    async def greet(self) -> None:
        """Tells those with whom we keep in touch where we are, and hears where they are, as far as they answer within
        GREETING_SECONDS.
        """
        members = [member.peer for member in self.roster]
        await self.greet_all([*self._mates(members), *self._some(members)])

    async def greet_all(self, peers: Iterable[PeerId]) -> None:
        """The same, of these members."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                await self.meet_all(dict.fromkeys(peers, ()))

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
        self._word.departed = True
        statement = self._word.say()
        members = [member.peer for member in self.roster]
        async with asyncio.TaskGroup() as tasks:
            for peer in members if self._contacts is None else self._sample(members, FAREWELLS):
                tasks.create_task(self._tell_departure(peer, statement.wire))
            tasks.create_task(self._listing.store(statement))

    # -- hello --------------------------------------------------------------------------------------------------------

    async def _answer(self, sender: PeerId, wire: bytes) -> bytes:
        self._learn(open_signed(wire, RosterEntry, run=self._run, sender=sender))
        self.roster.told(sender, self._now())
        return self._word.say().wire

    def _take_word(self, record: Signed[RosterEntry]) -> None:
        """What the DHT has of a member, whom we may never have met."""
        try:
            self._learn(record, directly=False)
        except Rejected as error:
            log.debug("the DHT has somebody whom the run does not admit", peer=record.sender, error=str(error))

    def _learn(self, statement: Signed[RosterEntry], *, directly: bool = True) -> None:
        """Raises Rejected where the run does not admit its sender."""
        self._admission.admit(statement.sender, statement.body.token, self._transport.clock.wall())
        known = self.roster.get(statement.sender)
        self._transport.remember(statement.sender, statement.body.addresses)
        new = self.roster.learn(statement, self._now(), directly=directly)
        if new:
            log.info("member joined", member=statement.body.name, peer=statement.sender)
        self._on_word(statement.sender, new)
        if known is not None and statement.body.departed:
            log.info("member left", member=known.entry.name, peer=statement.sender)
            self._on_left(statement.sender)
        if directly:
            self.heard.notify()

    async def _hello(self, peer: PeerId) -> None:
        began = self._now()
        answer = await self._transport.request(peer, HELLO_KIND, self._word.say().wire, REQUEST_SECONDS)
        self.roster.told(peer, began)
        try:
            self._learn(open_signed(answer, RosterEntry, run=self._run, sender=peer))
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
                pause = max(HELLO_SECONDS, len(due) / AT_ONCE) * self._random.uniform(0.8, 1.2)
                await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        """Until the next turn: for so long, unless there is something to tell.

        Mates have the same news at nearly the same time, and are told a moment later: of two that told each other at
        once, the later one would have to be told again.
        """
        shortest = SHORTEST_PAUSE_SECONDS if self._is_small else seconds
        if not self._has_mates:
            await self._transport.clock.sleep(shortest)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - shortest):
                await self._hurry.wait()
        if self._has_mates:
            await self._transport.clock.sleep(shortest)
        self._hurry.clear()

    def _due(self) -> list[PeerId]:
        """Who is to be told of us in this turn; not who has just asked, or whose answer we still await.

        Of two mates, who have news at the same time, one tells the other at once, and hears its news by the answer.
        The other waits for that until its next turn. Mates are others in each epoch, drawn from all: whoever tells as
        many of them as it keeps in touch with needs nobody else to hear what goes on elsewhere.
        """
        now, news_at, addressed = self._now(), self._news_at, self._addressed
        uninformed = [peer for peer, member in self.roster.items() if member.told < news_at and peer not in addressed]
        close = list(self._mates(uninformed))
        if now < news_at + ANSWER_SECONDS:
            close = [peer for peer in close if _speaks_first(self._transport.peer_id, peer)]
        most = HELLOS_A_TURN if self._is_small else round(AT_ONCE * HELLO_SECONDS)
        if self._contacts is not None:
            most = self._left_for_others(self._contacts, len(close), now)
        if most <= 0:
            return close
        since = max(news_at, now - HELLO_SECONDS / 2)
        waiting = [
            (member.told, self._random.random(), peer)
            for peer, member in self.roster.items()
            if member.told < since and peer not in addressed and peer not in close
        ]
        return [*close, *(peer for *_, peer in heapq.nsmallest(most, waiting))]

    def _left_for_others(self, contacts: int, close: int, now: float) -> int:
        """Of the hellos of a turn, those that mates have not taken, in this turn and of late."""
        self._ahead = max(0.0, self._ahead - (now - self._ahead_at) * contacts / HELLO_SECONDS)
        self._ahead_at = now
        left = round(contacts - self._ahead - close)
        self._ahead = min(self._ahead + close, MOST_TURNS_AHEAD * contacts)
        return left

    @property
    def _is_small(self) -> bool:
        """Whether news are told at once: in a large swarm they would be most of what is sent."""
        return self._contacts is not None or len(self.roster) <= SMALL_SWARM

    def _some(self, peers: Collection[PeerId]) -> list[PeerId]:
        """As many as we keep in touch with at a time."""
        return list(peers) if self._contacts is None else self._sample(peers, self._contacts)

    def _sample(self, peers: Collection[PeerId], count: int) -> list[PeerId]:
        return self._random.sample(list(peers), min(count, len(peers)))

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

    async def _look_up(self) -> None:
        pause = FIRST_LOOKUP_SECONDS
        while True:
            await self.look_up()
            await self._transport.clock.sleep(pause * self._random.uniform(0.8, 1.2))
            pause = min(LOOKUP_SECONDS, 1.5 * pause)
            if self._contacts is not None:
                pause = max(pause, LOOKUP_SECONDS_A_MEMBER * len(self.roster))


def _speaks_first(me: PeerId, mate: PeerId) -> bool:
    """Which of the two; everybody is the first for half of the others."""
    return (me < mate) == ((ord(me[-1]) + ord(mate[-1])) % 2 == 0)


def _tells_more(record: Signed[RosterEntry], known: Member | None) -> bool:
    """Whether the DHT's word says more of a member than we know; of one without a state, once it has one."""
    return record.body.state_digest is not None if known is None else known.statement.sequence < record.sequence
