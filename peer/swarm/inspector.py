"""What becomes of two answers that differ: who was wrong is banned, and all are told, who find out by themselves.

A charge goes to all members. Each looks into it as who made it did (`peer.swarm.arbiter`), and bans whom it finds wrong
itself; nobody is banned on a word.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from dht.rates import Rates
from peer.rounds.post import Outbox
from peer.signal import Signal
from peer.swarm.arbiter import Arbiter, Given, Verdict
from peer.swarm.client import Reply
from peer.swarm.evidence import EvidenceStore, fetch_evidence
from peer.swarm.factory import StageFactory
from peer.swarm.microbatch import Tensor
from peer.swarm.recomputation import Assignment, Recomputation
from protocols.codecs import Payload
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import ENVELOPE_BYTES, ReplayGuard, Signed, Signer, open_signed
from protocols.swarm.charges import AnswerCharge, open_answers
from protocols.swarm.messages import Answer
from protocols.verification.docket import Docket

CHARGE_KIND = "swarm-charge"
CHARGES_WAITING, CHARGES_OF_ONE = 32, 4
CHARGES_PER_SECOND, CHARGES_AT_ONCE = 0.1, 4.0
"""By one member: each costs as much as the work that it is about, and more."""
WRONG_ANSWER = "its answer is not what its stage makes of the work"

log = structlog.get_logger()


class AnswerInspector:
    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        factory: StageFactory,
        arbiter: Arbiter,
        recomputation: Recomputation,
        members: Callable[[], Iterable[PeerId]],
        admit: Callable[[PeerId], None],
        ban: Callable[[PeerId, str], None],
        border: Border,
    ) -> None:
        """`members`: the others; `admit` raises Rejected for who may not take part."""
        self.found_wrong = 0
        """Answers, by our own judgement."""
        self._transport, self._signer, self._factory = transport, signer, factory
        self._arbiter, self._recomputation = arbiter, recomputation
        self._members, self._admit, self._ban, self._border = members, admit, ban, border
        self._evidence = EvidenceStore(transport, admit)
        self._outbox = Outbox(transport, signer, _nothing, _nothing, border, request_kind=CHARGE_KIND, replaces=False)
        self._replays = ReplayGuard()
        self._rates = Rates(CHARGES_PER_SECOND, CHARGES_AT_ONCE)
        self._charges: Docket[Signed[AnswerCharge]] = Docket(CHARGES_WAITING, CHARGES_OF_ONE)
        self._charged = Signal()
        self._judging = asyncio.Lock()
        """One at a time: the first verdict on a liar spares the others. Not while evidence is waited for."""

    async def serve(self) -> None:
        limit = AnswerCharge.limit_bytes + ENVELOPE_BYTES
        await self._transport.serve_requests(CHARGE_KIND, self._hear, limit)
        await self._evidence.serve()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._keep_judging())

    # -- what we have found ------------------------------------------------------------------------------------------

    async def look_into(self, assignment: Assignment, first: Given, second: Given) -> Verdict | None:
        """Who is right of two who have given us different answers; who is not is banned, and charged before all.

        None where we cannot tell; somebody else may. Raises Rejected.
        """
        async with self._judging:
            if (known := self._known(first, second)) is not None:
                return known
            verdict = await self._arbiter.settle(assignment, (first, second))
            if verdict is None:
                self._charge(assignment, first, second, self._members())
                return None
            for wrong in verdict.wrong:
                against = next(each for each in (*verdict.right, *verdict.wrong) if each is not wrong)
                self._charge(assignment, wrong, against, self._members())
            self._ban_all(verdict)
            return verdict

    def _known(self, first: Given, second: Given) -> Verdict | None:
        """Where one of the two is banned, it will have been that one."""
        banned = tuple(each for each in (first, second) if self._is_banned(each.peer))
        others = tuple(each for each in (first, second) if each not in banned)
        return Verdict(others, banned) if banned else None

    def _is_banned(self, peer: PeerId) -> bool:
        try:
            self._admit(peer)
        except Rejected as error:
            return error.reason is Reason.BANNED
        return False

    def _ban_all(self, verdict: Verdict) -> None:
        for wrong in verdict.wrong:
            self.found_wrong += 1
            self._ban(wrong.peer, WRONG_ANSWER)

    def _charge(self, assignment: Assignment, first: Given, second: Given, before: Iterable[PeerId]) -> None:
        replies = [first.reply, second.reply]
        charge = AnswerCharge(work=assignment.work, first=replies[0].statement.wire, second=replies[1].statement.wire)
        tensors = [*assignment.tensors, *(reply.tensor for reply in replies if reply.tensor is not None)]
        self._evidence.keep(charge, [tensor.payload for tensor in tensors])
        statement = self._signer.sign(charge, assignment.work.epoch)
        for peer in before:
            self._outbox.relay(peer, statement)

    # -- what others have found --------------------------------------------------------------------------------------

    async def _hear(self, sender: PeerId, wire: bytes) -> bytes:
        self._admit(sender)
        statement = open_signed(wire, AnswerCharge, run=self._signer.run, sender=sender)
        self._replays.admit(statement)
        if sender not in self._members():
            raise Rejected(Reason.UNEXPECTED, "a charge by somebody who is no member")
        if not self._rates.take(sender, self._transport.clock.monotonic()):
            raise Rejected(Reason.BUSY, "too many charges")
        if not self._charges.put(sender, statement):
            raise Rejected(Reason.BUSY, "too many charges wait to be looked into")
        self._charged.notify()
        return b""

    async def _keep_judging(self) -> None:
        while True:
            while (statement := self._charges.take()) is None:
                await self._charged.wait()
            began = self._transport.clock.monotonic()
            async with self._border.around(f"looking into a charge by {statement.sender}"):
                await self._look_into(statement)
            self._charges.done(self._transport.clock.monotonic() - began)

    async def _look_into(self, statement: Signed[AnswerCharge]) -> None:
        try:
            await self._judge(statement)
        except Rejected as error:
            self._transport.reject(statement.sender, error.reason, f"{statement.kind}: {error}")
        except (TransportError, TimeoutError) as error:
            log.debug("no evidence", accuser=statement.sender, error=str(error))

    async def _judge(self, statement: Signed[AnswerCharge]) -> None:
        """Raises Rejected, TransportError, TimeoutError."""
        charge = statement.body
        answers = open_answers(charge, statement.run)
        members = {*self._members(), self._transport.peer_id}
        if any(self._is_banned(answer.sender) for answer in answers):
            return  # that will have been the one
        if statement.epoch != charge.work.epoch or charge.work.stage >= self._factory.training.stages:
            raise Rejected(Reason.UNEXPECTED, "a charge about no work of this run")
        if any(answer.sender not in members for answer in answers):
            raise Rejected(Reason.UNEXPECTED, "a charge against somebody who is no member")
        payloads = await fetch_evidence(
            self._transport,
            statement.sender,
            charge,
            answers,
            self._factory.accepted(charge.work.stage),
            self._recomputation.outputs(charge.work),
            self._factory.training,
        )
        async with self._judging:
            if not any(self._is_banned(answer.sender) for answer in answers):
                await self._settle(charge, answers, payloads)

    async def _settle(
        self, charge: AnswerCharge, answers: tuple[Signed[Answer], Signed[Answer]], payloads: list[Payload]
    ) -> None:
        """Raises Rejected."""
        assignment, given = await self._opened(charge, answers, payloads)
        if self._arbiter.agree(given[0].product, given[1].product):
            raise Rejected(Reason.UNEXPECTED, "a charge about answers that are as good as the same")
        verdict = await self._arbiter.settle(assignment, given)
        if verdict is not None:
            self._ban_all(verdict)
            if given[0] in verdict.right:
                self._clear_the_accused(assignment, verdict)

    def _clear_the_accused(self, assignment: Assignment, verdict: Verdict) -> None:
        """Of a false charge those hear from us who serve that stage, and may be accused of more: the accuser shows them
        nothing, for it has banned them."""
        fellows = [peer for peer in self._recomputation.serving(assignment.work.stage) if not self._is_banned(peer)]
        for wrong in verdict.wrong:
            self._charge(assignment, wrong, verdict.right[0], fellows)

    async def _opened(
        self, charge: AnswerCharge, answers: tuple[Signed[Answer], Signed[Answer]], payloads: list[Payload]
    ) -> tuple[Assignment, list[Given]]:
        shown = iter(payloads)
        assignment = Assignment(charge.work, tuple(Tensor(header, next(shown)) for header in charge.work.tensors))
        given = []
        for answer in answers:
            header = answer.body.tensor
            reply = Reply(answer, None if header is None else Tensor(header, next(shown)))
            given.append(await self._arbiter.given(reply, assignment))
        return assignment, given


def _nothing(*_: object) -> None:
    """Who cannot be told of a charge hears of the ban from the others, or finds out itself."""
