"""Finds out who lies: by two stories of one signer always, by doing others' work once more where the run says so.

After each round it draws the seed that says who checks whom, does our share of the checks, and tells what came of it,
beside the next epochs. Nothing here holds up a round, and a member that takes no part in it is none the worse
for it, so neither a crash nor a slow line is an offence.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from dht.border import Border
from dht.interfaces import Stream, Transport, TransportError
from peer.learner import Learner
from peer.rounds.post import Outbox
from peer.signal import Signal
from peer.streams import REQUEST_BYTES
from peer.verification.account import RoundAccount, recipients
from peer.verification.checks import Checks
from peer.verification.inputs import INPUTS_KIND, InputStore
from protocols.codecs import Codec
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, Done, Prepared
from protocols.round.parts import Grid
from protocols.rules import Rule
from protocols.signed import ReplayGuard, Signed, Signer, open_signed, signed_run_and_kind
from protocols.state import ModelState
from protocols.verification.charges import OwnerCharge, SenderCharge
from protocols.verification.docket import Docket
from protocols.verification.duties import duties
from protocols.verification.equivocation import Equivocation, Testimony, Witness, open_binding, proved_guilty
from protocols.verification.seed import Reveal, SeedRound, SeedWord

VERIFY_KIND = "verify"
MESSAGES: dict[str, type[Message]] = {
    body.kind: body for body in (SeedWord, SenderCharge, OwnerCharge, Equivocation, Testimony)
}
MAX_MESSAGE_BYTES = max(body.limit_bytes for body in MESSAGES.values()) + 1024
OVERDUE_SECONDS = 2.0
"""Who has not opened what it has dealt by then is opened by the others."""
ASK_SECONDS = 0.5
"""In client mode: whom nobody can dial asks those that it can what the others have said."""
SEED_SECONDS = 20.0
"""A seed that has not come by then does not come: half of the group is gone."""
ROUNDS_AT_ONCE = 3
"""Older ones are given up: their states and inputs are let go."""
EARLY = 256
EARLY_OF_ONE = 4
GROUPS_KEPT = 32
"""Of so many epochs it is known who was in the group: others have nobody to charge, and are not worth a ban."""
CHARGES_WAITING, CHARGES_OF_ONE = 32, 8
"""A charge that is refused does not come again, and a validator may find several at once. Those of a false accuser cost
no more than the first: it is banned then."""

log = structlog.get_logger()


class Inspector:
    """Of one run, at one member."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        manifest: Manifest,
        codec: Codec,
        rule: Rule,
        grid: Callable[[], Grid],
        learner: Callable[[], Learner],
        members: Callable[[], Iterable[PeerId]],
        on_guilty: Callable[[PeerId, str], None],
        on_withheld: Callable[[PeerId], None],
        border: Border,
        checks: type[Checks] = Checks,
        *,
        client_mode: bool = False,
    ) -> None:
        """`learner`: recomputes updates; `members`: all that we know; `on_guilty`: whose guilt is proved, and why;
        `on_withheld`: who does not show what it was sent.
        """
        self.inputs = InputStore()
        self._transport, self._signer, self._manifest = transport, signer, manifest
        self._members, self._on_guilty, self._border = members, on_guilty, border
        self._patience = ASK_SECONDS if client_mode else OVERDUE_SECONDS
        self._checks = checks(transport, manifest, codec, rule, grid, learner, self.inputs, on_withheld)
        self._witness = Witness()
        self._replays = ReplayGuard()
        self._seeds: OrderedDict[int, tuple[bytes, SeedRound]] = OrderedDict()
        """Epoch → `done_digest` of its round, and the seed."""
        self._dones: dict[int, bytes] = {}
        """Epoch → wire bytes of the `Done` that we go by."""
        self._early: deque[Signed[SeedWord]] = deque(maxlen=EARLY)
        """Of rounds that are not over here."""
        self._revealed = Signal()
        self._at_seeds = asyncio.Lock()
        """One thread is at a seed at a time: what one word settles in a large group may take it a third of a second."""
        self._accounts: asyncio.Queue[tuple[RoundAccount, ModelState]] = asyncio.Queue()
        self._charges: Docket[Signed[Any]] = Docket(CHARGES_WAITING, CHARGES_OF_ONE)
        self._charged = Signal()
        self._outbox = Outbox(transport, signer, _nothing, _nothing, border, request_kind=VERIFY_KIND, replaces=False)
        self._groups: dict[int, frozenset[PeerId]] = {}
        self._fellows: frozenset[PeerId] = frozenset()
        """Epoch → who was in its round."""
        self._guilty: set[PeerId] = set()

    @property
    def validated_samples(self) -> int:
        """That we have trained on once more: a validator's work."""
        return self._checks.validated_samples

    @property
    def fetched_bytes(self) -> int:
        """What others were sent, for checks."""
        return self._checks.fetched_bytes

    async def serve(self) -> None:
        await self._transport.serve_requests(VERIFY_KIND, self._hear, MAX_MESSAGE_BYTES)
        await self._transport.serve_streams(INPUTS_KIND, self._serve_inputs, REQUEST_BYTES)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._judge())
            inspections: deque[asyncio.Task[None]] = deque()
            while True:
                account, state = await self._accounts.get()
                inspections.append(tasks.create_task(self._inspect(account, state)))
                if len(inspections) > ROUNDS_AT_ONCE:
                    inspections.popleft().cancel()

    def inspect(self, done: Signed[Done], account: RoundAccount | None, state: ModelState) -> None:
        """A round is over; `state` is what its updates were made from. No account: we were not there."""
        if self._manifest.verification.validators:
            self._checks.remember(state)
        self._groups[done.epoch] = frozenset(done.body.members)
        while len(self._groups) > GROUPS_KEPT:
            del self._groups[min(self._groups)]
        if account is not None:
            self._accounts.put_nowait((account, state))

    # -- what a session tells -----------------------------------------------------------------------------------------

    def hear_statement(self, statement: Signed[Any]) -> None:
        """A verified one of a round."""
        if (proof := self._witness.hear(statement)) is not None:
            self._say_to_all(proof, statement.epoch)
            self._find_guilty(statement.sender, f"has signed two different {statement.kind} statements in one term")

    def witness(self, wire: bytes) -> None:
        """The wire bytes of one that was verified."""
        self.hear_statement(open_binding(wire, self._manifest.run_id))

    def follow(self, members: Iterable[PeerId]) -> None:
        """We are in a round with these now."""
        self._fellows = frozenset(members)

    def testify(self, peer: PeerId, begin: Signed[Begin]) -> None:
        self._say(peer, Testimony(statement=begin.wire), begin.epoch)

    # -- what others say ----------------------------------------------------------------------------------------------

    async def _hear(self, sender: PeerId, wire: bytes) -> bytes:
        run, kind = signed_run_and_kind(wire, MAX_MESSAGE_BYTES)
        body_type = MESSAGES.get(kind)
        if run != self._manifest.run_id or body_type is None:
            raise Rejected(Reason.WRONG_KIND, f"there is no such message here: {kind[:32]!r}")
        statement = open_signed(wire, body_type, run=run, sender=sender)
        self._replays.admit(statement)
        match statement.body:
            case SeedWord():
                await self._hear_reveal(statement)  # type: ignore[arg-type]
            case Testimony(statement=theirs):
                self.witness(theirs)
            case Equivocation() as proof:
                self._find_guilty(proved_guilty(proof, run), "has signed two statements that contradict each other")
            case SenderCharge() | OwnerCharge():
                self._hear_charge(statement)
        return b""

    async def _serve_inputs(self, stream: Stream) -> None:
        """To members: to anybody else they are of no use."""
        if stream.peer not in self._members():
            raise Rejected(Reason.NOT_ADMITTED, "inputs are shown to members")
        await self.inputs.serve(stream)

    def _hear_charge(self, statement: Signed[Any]) -> None:
        """Looked into in its turn; only a member of the round has anybody to charge."""
        if statement.sender not in self._groups.get(statement.epoch, ()):
            raise Rejected(Reason.UNEXPECTED, "a charge by somebody who was not in that round")
        if not self._charges.put(statement.sender, statement):
            raise Rejected(Reason.BUSY, "too many charges wait to be looked into")
        self._charged.notify()

    async def _hear_reveal(self, statement: Signed[SeedWord]) -> None:
        if statement.epoch not in self._seeds:
            newest = next(reversed(self._seeds), -1)
            of_one = sum(early.sender == statement.sender for early in self._early)
            if statement.epoch > newest and of_one < EARLY_OF_ONE:
                self._early.append(statement)
            return
        if statement.sender not in self._groups.get(statement.epoch, ()):
            raise Rejected(Reason.UNEXPECTED, "a word on the seed by somebody who was not in that round")
        done, seed = self._seeds[statement.epoch]
        if statement.body.done != done:
            if statement.epoch in self._dones:  # one leader has told two stories: together they prove it
                self._say(statement.sender, Testimony(statement=self._dones[statement.epoch]), statement.epoch)
            return
        answer = await self._at_a_seed(seed.hear, statement.sender, statement.body.reveal)
        if answer is not None:
            self._say(statement.sender, SeedWord(done=done, reveal=answer), statement.epoch)
        self._revealed.notify()

    async def _judge(self) -> None:
        """One charge after the other: each costs as much as the work that it is about."""
        while True:
            while (charge := self._charges.take()) is None:
                await self._charged.wait()
            began = self._transport.clock.monotonic()
            async with self._border.around(f"looking into a charge by {charge.sender}"):
                await self._look_into(charge)
            self._charges.done(self._transport.clock.monotonic() - began)

    async def _look_into(self, charge: Signed[Any]) -> None:
        if charge.sender in self._guilty:
            return
        try:
            verdict = await self._checks.judge(charge, self._groups.get(charge.epoch, frozenset()))
        except (Rejected, TransportError) as error:
            reason = error.reason if isinstance(error, Rejected) else Reason.ABSENT
            self._transport.reject(charge.sender, reason, f"{charge.kind}: {error}")
            return
        if verdict is not None:
            self._find_guilty(*verdict)

    # -- a round that is over -----------------------------------------------------------------------------------------

    async def _inspect(self, account: RoundAccount, state: ModelState) -> None:
        async with self._border.around(f"checking the round of epoch {account.epoch}"):
            seed = await self._draw_seed(account)
            if seed is None:
                log.debug("no seed", epoch=account.epoch)
                return
            me = self._transport.peer_id
            for duty in duties(seed, account.begin.body, account.owners, self._manifest.verification.validators):
                if duty.validator == me:
                    async for charge in self._checks.do(duty, account, state):
                        log.warning("found out", peer=charge.peer, epoch=account.epoch, reason=charge.why)
                        self._say_to_all(charge.body, account.epoch)
                        self._find_guilty(charge.peer, charge.why)

    async def _draw_seed(self, account: RoundAccount) -> bytes | None:
        """None when most of the group does not answer for SEED_SECONDS."""
        seed, clock = await self._open_seed(account), self._transport.clock
        self._say_to_group(seed.start(), account)
        began = clock.monotonic()
        while not seed.is_settled and clock.monotonic() < began + SEED_SECONDS:
            try:
                async with asyncio.timeout(self._patience):
                    while not seed.is_settled:
                        await self._revealed.wait()
            except TimeoutError:
                self._say_to_group(await self._at_a_seed(seed.overdue), account)
        for peer in seed.cheats:
            log.warning("a dealing was not sound", peer=peer, epoch=account.epoch)
        return seed.seed

    async def _at_a_seed(self, function: Callable[..., Reveal | None], *arguments: Any) -> Reveal | None:
        """Who is cancelled meanwhile does not let others at it before the thread has ended."""

        async def alone() -> Reveal | None:
            async with self._at_seeds:
                reveal: Reveal | None = await self._transport.in_thread(function, *arguments)
                return reveal

        return await asyncio.shield(alone())

    async def _open_seed(self, account: RoundAccount) -> SeedRound:
        """What others have said of it before counts now."""
        done, group = account.done, recipients(account.group)
        me = [recipient.peer for recipient in group].index(self._transport.peer_id)
        seed = SeedRound(
            done.run, done.epoch, account.base, group, _dealings(done), me, account.private_key, account.secret
        )
        self._seeds[done.epoch] = (done_digest(done.body), seed)
        self._dones[done.epoch] = done.wire
        while len(self._seeds) > ROUNDS_AT_ONCE:
            epoch, _ = self._seeds.popitem(last=False)
            del self._dones[epoch]
        early = [statement for statement in self._early if statement.epoch == done.epoch]
        later = [statement for statement in self._early if statement.epoch > done.epoch]
        self._early = deque(later, maxlen=EARLY)
        for statement in early:
            try:
                await self._hear_reveal(statement)
            except Rejected as error:
                self._transport.reject(statement.sender, error.reason, str(error))
        return seed

    # -- telling ------------------------------------------------------------------------------------------------------

    def _find_guilty(self, peer: PeerId, why: str) -> None:
        """Once of each who is in a round with us, or was lately: of others there may be any number."""
        if peer not in self._guilty and any(peer in group for group in (*self._groups.values(), self._fellows)):
            self._guilty.add(peer)
            self._on_guilty(peer, why)

    def _say_to_all(self, body: Message, epoch: int) -> None:
        statement = self._signer.sign(body, epoch)
        for peer in self._members():
            self._outbox.relay(peer, statement)

    def _say_to_group(self, reveal: Reveal | None, account: RoundAccount) -> None:
        if reveal is not None:
            word = SeedWord(done=done_digest(account.done.body), reveal=reveal)
            for member in account.group.members:
                self._say(member.peer, word, account.epoch)

    def _say(self, peer: PeerId, body: Message, epoch: int) -> None:
        self._outbox.send(peer, body, epoch)


def done_digest(done: Done) -> bytes:
    """Names what was decided, and by whose votes: the dealings in those make the seed."""
    return digest(b"peer/1/done\x00", done.to_bytes())


def _dealings(done: Signed[Done]) -> dict[PeerId, Any]:
    """Those of the voters that `Done` names, verified with it before."""
    votes = [open_signed(wire, Prepared, run=done.run) for wire in done.body.votes]
    return {vote.sender: vote.body.dealing for vote in votes if vote.body.dealing is not None}


def _nothing(*_: object) -> None:
    """Who cannot be told of a check is none the worse for it."""
