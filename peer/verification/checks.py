"""Does members' work once more: a sender's update from its data, an owner's part from what it was sent."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

import structlog

from dht.interfaces import Transport, TransportError
from peer.learner import Learner
from peer.rounds.results import HeldPart
from peer.verification.account import RoundAccount
from peer.verification.inputs import Inputs, InputStore, Row, fetch_rows
from protocols.codecs import Codec, Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Begin, begin_digest
from protocols.round.parts import Grid
from protocols.rules import DistanceRule, Rule
from protocols.signed import Signed
from protocols.state import ModelState
from protocols.vectors import Vector
from protocols.verification.charges import (
    Observation,
    OwnerCharge,
    ReducedPart,
    SenderCharge,
    SentChunk,
    is_as_recomputed,
    is_reduced_right,
    open_begin,
    open_reduced,
    open_sent,
)
from protocols.verification.duties import CHUNKS_OF_A_SENDER, Duty

FEWEST_STATES, MOST_STATES = 2, 16
KEPT_BYTES = 64 * 1024 * 1024
"""Where epochs are short more of them are kept, as far as they take no more than this."""
WRONG_UPDATE = "its update is not what its data make of the epoch's state"
WRONG_PART = "its part is not what the rule makes of what it was sent"
WRONG_OBSERVATION = "the distances that it says to see are not those of what it was sent"
FALSE_CHARGE = "has charged a peer with work that was right"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Finding:
    """Somebody's work is wrong, and `body` shows it."""

    peer: PeerId
    why: str
    body: Message


class Checks:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        codec: Codec,
        rule: Rule,
        grid: Callable[[], Grid],
        learner: Callable[[], Learner],
        inputs: InputStore,
        on_withheld: Callable[[PeerId], None],
    ) -> None:
        """`on_withheld`: an owner does not show what it was sent; nothing is proved by that."""
        self._on_withheld = on_withheld
        self.validated_samples = 0
        self.fetched_bytes = 0
        """Of what others were sent."""
        self._transport, self._manifest = transport, manifest
        self._codec, self._rule, self._grid_now = codec, rule, grid
        self._learner, self._inputs = learner, inputs
        self._tolerance = manifest.verification.tolerance
        self._states: OrderedDict[bytes, ModelState] = OrderedDict()
        """By digest, the last ones, without their slots."""

    @property
    def _grid(self) -> Grid:
        """Of the vector that is averaged here now."""
        return self._grid_now()

    def remember(self, state: ModelState) -> None:
        """The updates of the next round are made from it."""
        self._states[state.digest] = ModelState(state.run, state.epoch, state.parameters, {})
        size = 4 * state.parameter_count
        while len(self._states) > max(FEWEST_STATES, min(MOST_STATES, KEPT_BYTES // size)):
            self._states.popitem(last=False)

    # -- a validator's ------------------------------------------------------------------------------------------------

    async def do(self, duty: Duty, account: RoundAccount, state: ModelState) -> AsyncIterator[Finding]:
        """What is wrong, once our duty is done as far as others show us what it takes."""
        if duty.part is not None:
            finding = await self._check_owner(duty, account)
            if finding is not None:
                yield finding
        if duty.sender is not None and self._manifest.checks_senders:
            finding = await self._check_sender(duty, account, state)
            if finding is not None:
                yield finding

    async def _check_sender(self, duty: Duty, account: RoundAccount, state: ModelState) -> Finding | None:
        sender, begin = duty.sender, account.begin
        assert sender is not None
        number = next(n for n, member in enumerate(begin.body.members) if member.peer == sender)
        shown: list[tuple[int, Row]] = []
        for chunk in duty.chunks:
            if len(shown) < CHUNKS_OF_A_SENDER and (row := await self._shown(account, chunk, number)) is not None:
                shown.append((chunk, row))
        if not shown:
            log.debug("nobody shows what it has sent", sender=sender, epoch=account.epoch)
            return None
        update = await self._recompute(state, sender, begin.body.members[number].weight)
        if update is None:
            return None
        for chunk, row in shown:
            sent = open_sent(begin, row.contribution, chunk, row.payload, self._codec, self._grid)
            if not await self._is_as_recomputed(sent, update):
                charge = SenderCharge(
                    begin=begin.wire, contribution=row.contribution, chunk=chunk, payload=bytes(row.payload)
                )
                return Finding(sender, WRONG_UPDATE, charge)
        return None

    async def _recompute(self, state: ModelState, sender: PeerId, samples: int) -> Vector | None:
        """None where we cannot tell; counted as work of ours."""
        update = await self._learner().recompute(state, sender, samples)
        self.validated_samples += samples if update is not None else 0
        return update

    async def _is_as_recomputed(self, sent: SentChunk, update: Vector) -> bool:
        right: bool = await self._transport.in_thread(
            is_as_recomputed, sent, update, self._codec, self._grid, self._tolerance
        )
        return right

    async def _shown(self, account: RoundAccount, chunk: int, number: int) -> Row | None:
        """What that member has sent of this chunk, by the owner of its part."""
        parts = account.begin.body.parts
        part = next(n for n, bounds in enumerate(parts) if bounds.start <= chunk < bounds.stop)
        return (await self._rows(account.begin, account.owners[part], chunk, number)).get(number)

    async def _rows(self, begin: Signed[Begin], holder: PeerId, chunk: int, number: int = -1) -> dict[int, Row]:
        """What `holder` shows of this chunk; nothing where it does not answer, or shows what was not sent."""
        if holder == self._transport.peer_id:
            return _own_rows(self._inputs.get(begin_digest(begin.body)), chunk)
        try:
            rows = await fetch_rows(self._transport, holder, begin, chunk, self._codec, self._grid, number)
        except TransportError as error:
            log.debug("no inputs", holder=holder, error=str(error))
        except Rejected as error:
            self._transport.reject(holder, error.reason, str(error))
        else:
            self.fetched_bytes += sum(memoryview(row.payload).nbytes for row in rows.values())
            return rows
        return {}

    async def _check_owner(self, duty: Duty, account: RoundAccount) -> Finding | None:
        assert duty.part is not None
        begin, owner = account.begin, account.owners[duty.part]
        bounds = begin.body.parts[duty.part]
        held = next((part for part in account.results if part.result.start == bounds.start), None)
        if held is None:
            return None
        observed = tuple(statement.wire for statement in account.observed)
        try:
            reduced = open_reduced(begin, held.statement, observed, weighs=isinstance(self._rule, DistanceRule))
        except Rejected as error:  # it is of another term than we have heard the observations of
            log.debug("a result that cannot be checked", owner=owner, epoch=account.epoch, error=str(error))
            return None
        if reduced.owner != owner:
            return None
        for chunk in duty.part_chunks:
            rows = await self._rows(begin, owner, chunk)
            result = held.chunks[chunk - bounds.start]
            if not set(reduced.numbers(chunk)) <= rows.keys():
                log.debug("the owner does not show what it was sent", owner=owner, epoch=account.epoch)
                self._on_withheld(owner)
                return None
            if not await self._is_reduced_right(reduced, chunk, result, rows):
                self._keep(begin, chunk, rows)
                return Finding(owner, WRONG_PART, _owner_charge(begin, held, observed, chunk, bytes(result)))
        if isinstance(self._rule, DistanceRule):
            right = await self._is_observed_right(reduced, begin, owner, self._rule)
            if right is False and reduced.observer is not None:
                return Finding(reduced.observer, WRONG_OBSERVATION, _owner_charge(begin, held, observed, None, b""))
        return None

    async def _is_reduced_right(self, reduced: ReducedPart, chunk: int, result: Payload, rows: dict[int, Row]) -> bool:
        right: bool = await self._transport.in_thread(
            is_reduced_right,
            reduced,
            chunk,
            result,
            {number: row.payload for number, row in rows.items()},
            self._rule,
            self._codec,
            self._grid,
            self._tolerance,
        )
        return right

    async def _is_observed_right(
        self, reduced: ReducedPart, begin: Signed[Begin], holder: PeerId, rule: DistanceRule
    ) -> bool | None:
        """None where not all that it was sent is to be had, or nobody counts. One chunk at a time is held here."""
        if not reduced.numbers(None):
            return None
        observation = Observation(reduced, rule, self._codec, self._grid)
        for chunk in range(reduced.part.start, reduced.part.stop):
            rows = await self._rows(begin, holder, chunk)
            if not set(reduced.numbers(None)) <= rows.keys():
                return None
            payloads = {number: row.payload for number, row in rows.items()}
            await self._transport.in_thread(observation.add, chunk, payloads)
        return observation.is_right()

    def _keep(self, begin: Signed[Begin], chunk: int, rows: dict[int, Row]) -> None:
        """To show to whoever looks into our charge."""
        contributions = {number: row.contribution for number, row in rows.items()}
        payloads = {chunk: {number: row.payload for number, row in rows.items()}}
        self._inputs.put(begin_digest(begin.body), contributions, payloads)

    # -- a judge's ----------------------------------------------------------------------------------------------------

    async def judge(self, statement: Signed[Message], group: Collection[PeerId]) -> tuple[PeerId, str] | None:
        """Who is guilty, and of what: the one who is charged, or who has charged it. None where we cannot tell.

        `group`: the members of that epoch's round; others' work is not worth ours. Raises Rejected (the charge shows
        nothing of the kind), TransportError.
        """
        match statement.body:
            case SenderCharge() as charge:
                return await self._judge_sender(charge, statement, group)
            case OwnerCharge() as charge:
                return await self._judge_owner(charge, statement, group)
        raise Rejected(Reason.WRONG_KIND, f"{statement.kind} is no charge")

    async def _judge_sender(
        self, charge: SenderCharge, statement: Signed[Message], group: Collection[PeerId]
    ) -> tuple[PeerId, str] | None:
        begin = self._begin_of(charge, statement)
        sent = open_sent(begin, charge.contribution, charge.chunk, charge.payload, self._codec, self._grid)
        _require_member(sent.sender, group)
        right = await self._is_update_right(sent)
        if right is None:
            return None
        return (statement.sender, FALSE_CHARGE) if right else (sent.sender, WRONG_UPDATE)

    def _begin_of(self, charge: SenderCharge | OwnerCharge, statement: Signed[Message]) -> Signed[Begin]:
        begin = open_begin(charge.begin, statement.run, self._grid.chunks)
        if begin.epoch != statement.epoch:
            raise Rejected(Reason.UNEXPECTED, "the charge is about another epoch than it says")
        return begin

    async def _is_update_right(self, sent: SentChunk) -> bool | None:
        state = self._states.get(sent.base)
        if state is None or not self._manifest.checks_senders or sent.weight > self._manifest.training.most_samples:
            return None
        update = await self._recompute(state, sent.sender, sent.weight)
        return None if update is None else await self._is_as_recomputed(sent, update)

    async def _judge_owner(
        self, charge: OwnerCharge, statement: Signed[Message], group: Collection[PeerId]
    ) -> tuple[PeerId, str] | None:
        accuser, weighs = statement.sender, isinstance(self._rule, DistanceRule)
        begin = self._begin_of(charge, statement)
        reduced = open_reduced(begin, charge.result, charge.observed, weighs=weighs)
        _require_member(reduced.owner, group)
        if charge.chunk is None:
            if not isinstance(self._rule, DistanceRule):
                raise Rejected(Reason.UNEXPECTED, "the rule of this run observes nothing")
            right = await self._is_observed_right(reduced, begin, reduced.owner, self._rule)
            if right is None or reduced.observer is None:
                return None
            _require_member(reduced.observer, group)
            return (accuser, FALSE_CHARGE) if right else (reduced.observer, WRONG_OBSERVATION)
        if not reduced.part.start <= charge.chunk < reduced.part.stop:
            raise Rejected(Reason.UNEXPECTED, "the chunk is not of the part")
        result = reduced.result.chunks[charge.chunk - reduced.part.start]
        if digest(charge.payload) != result:
            raise Rejected(Reason.WRONG_DIGEST, "the chunk is not what the owner has signed")
        rows = await self._rows(begin, accuser, charge.chunk)
        if not set(reduced.numbers(charge.chunk)) <= rows.keys():
            raise Rejected(Reason.ABSENT, "who charges an owner does not show what that was sent")
        if await self._is_reduced_right(reduced, charge.chunk, charge.payload, rows):
            return accuser, FALSE_CHARGE
        return reduced.owner, WRONG_PART


def _own_rows(inputs: Inputs, chunk: int) -> dict[int, Row]:
    return {
        number: Row(number, inputs.contributions[number], payload)
        for number, payload in inputs.rows.get(chunk, {}).items()
        if number in inputs.contributions
    }


def _owner_charge(
    begin: Signed[Begin], held: HeldPart, observed: tuple[bytes, ...], chunk: int | None, payload: bytes
) -> OwnerCharge:
    return OwnerCharge(begin=begin.wire, result=held.statement, observed=observed, chunk=chunk, payload=payload)


def _require_member(peer: PeerId, group: Collection[PeerId]) -> None:
    if peer not in group:
        raise Rejected(Reason.UNEXPECTED, f"{peer} was not in that round")
