"""The parts of one round, as one member has to do with them: reduced here, exchanged with their owners, fetched."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog

from dht.interfaces import Stream, TransportError
from peer.rounds.exchange import PartAddress, exchange_part
from peer.rounds.owning import OwnedPart
from peer.rounds.plan import Plan
from peer.rounds.results import HeldPart, Wanted, fetch
from peer.rounds.traffic import Traffic
from peer.signal import Signal
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.aggregate import Aggregate
from protocols.round.events import Event, Fetch, FetchFailed, PartBroken, PartHeld, PartObserved
from protocols.round.messages import Begin, Contribution, Observed, PartResult, Result, begin_digest, weighing_digest
from protocols.round.reduction import EncodedUpdate, PartReduction
from protocols.round.setting import Setting
from protocols.signed import Signed, open_signed
from protocols.suspension import Fault
from protocols.vectors import Vector

STALL_FACTOR = 1.5
"""An owner that sends nothing for this many times `Timing.failure` (its own deadline for senders) is given up."""

log = structlog.get_logger()


class Parts:
    def __init__(
        self,
        plan: Plan,
        setting: Setting,
        begun: Callable[[int], Signed[Begin] | None],
        check: Callable[[PeerId, Contribution], None],
        tell: Callable[[Event], object],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """`begun`: the `Begin` that we follow in a term. `check` raises Rejected for what a member must not contribute.

        `tell` takes what becomes of them; `spawn` starts a task of the round.
        """
        self.traffic = Traffic()
        self._plan, self._setting = plan, setting
        self._begun, self._check, self._tell, self._spawn = begun, check, tell, spawn
        self._update: EncodedUpdate | None = None
        self._weight = 0
        self._aggregate = Aggregate(plan.grid, plan.memory)
        self._begin: Begin | None = None
        self._rounds: dict[int, bytes] = {}
        """Term → `begin_digest` of the round that we followed in it."""
        self._owned: dict[tuple[int, int, int], OwnedPart] = {}
        """(term, part, attempt) → the part that is reduced here."""
        self._owning_changed = Signal()
        self._observed: dict[int, tuple[Signed[Observed], ...]] = {}
        """Term → what the owners of its parts have observed."""
        self._exchanges: dict[int, asyncio.Task[None]] = {}
        """Part → the running exchange of its latest attempt."""
        self._released = False

    # -- what the round asks for --------------------------------------------------------------------------------------

    def contribute(self, update: EncodedUpdate, weight: int) -> None:
        """What we have committed to last, and the samples behind it."""
        self._update, self._weight = update, weight

    def begin(self, begin: Begin) -> None:
        """Exchanges all parts as it says."""
        self._begin = begin
        self._rounds[begin.term] = begin_digest(begin)
        self._plan.results.make_room(self._plan.codec.encoded_size(self._plan.grid.count))
        for number, part in enumerate(begin.parts):
            self.start(number, 0, part.owner)

    def start(self, number: int, attempt: int, owner: PeerId) -> None:
        """Reduces the part here, or exchanges it with its owner; ends an earlier attempt at it."""
        begin = self._begin
        assert begin is not None
        if number in self._exchanges:
            self._exchanges[number].cancel()
        round_ = self._rounds[begin.term]
        address = PartAddress(self._setting.epoch, begin.term, number, attempt, begin.parts[number], owner, round_)
        if _key(address) in self._owned:
            return
        values = self._aggregate.room(address.part.start, address.part.stop)
        if owner == self._setting.me:
            work = partial(self._own(address, begin).run, self._contribution(begin), values, self._say_observed)
        else:
            work = partial(
                exchange_part,
                self._plan.transport,
                self._plan.signer,
                address,
                self._contribution(begin),
                self._plan.grid,
                self._plan.codec,
                values,
                STALL_FACTOR * self._setting.timing.failure,
                self.traffic,
            )
        self._exchanges[number] = self._spawn(self._hold(address, work, values))

    def weigh(self, term: int, observed: tuple[Signed[Observed], ...]) -> None:
        """What the owners of all parts of that term have observed."""
        self._observed[term] = observed
        for (of_term, *_), owned in self._owned.items():
            if of_term == term:
                owned.weigh(_bodies(observed))

    def fetch(self, wanted: Fetch) -> None:
        """Gets a part that others have, from one holder after the other."""
        self._spawn(self._fetch(wanted))

    def release(self) -> None:
        """Streams that are open are served to their end; who comes now gets the results from whoever has them."""
        self._owned.clear()
        self._released = True

    def clear(self) -> None:
        """The round is over here: lets go of all vectors."""
        self._update = None
        self._aggregate.clear()

    # -- what others do -----------------------------------------------------------------------------------------------

    async def serve(self, stream: Stream, statement: Signed[Contribution]) -> None:
        """A member's stream to a part that we own, as soon as we know that we do. Raises Rejected, Unreachable."""
        body = statement.body
        address = (body.term, body.part, body.attempt)
        if self._released:
            raise Rejected(Reason.ABSENT, "the round is over")
        try:
            async with asyncio.timeout(self._setting.timing.failure):
                while address not in self._owned:
                    self._compare(stream.peer, body)
                    await self._owning_changed.wait()
        except TimeoutError as error:
            raise Rejected(Reason.ABSENT, "this part is not reduced here") from error
        self._compare(stream.peer, body)
        self._check(stream.peer, body)
        await self._owned[address].serve(stream, statement)

    def forget(self, peer: PeerId) -> None:
        """No part waits for it any more."""
        for owned in self._owned.values():
            owned.forget(peer)

    def _compare(self, peer: PeerId, contribution: Contribution) -> None:
        """Whether `peer` follows the same `Begin`; it is shown ours if not, for one leader has told two stories then.

        Raises Rejected (absent): whom it believes is not its fault.
        """
        ours = self._rounds.get(contribution.term)
        if ours is None or ours == contribution.begin:
            return
        begin = self._begun(contribution.term)
        if begin is not None:
            self._plan.checking.testify(peer, begin)
        raise Rejected(Reason.ABSENT, "the contribution is to another round than its leader has told us of")

    # -- what came of them --------------------------------------------------------------------------------------------

    @property
    def weight(self) -> int:
        """Of what we have committed to last: samples."""
        return self._weight

    @property
    def bytes_sent(self) -> int:
        return self.traffic.sent + sum(owned.bytes_sent for owned in self._owned.values())

    @property
    def bytes_received(self) -> int:
        return self.traffic.received + sum(owned.bytes_received for owned in self._owned.values())

    @property
    def missing_senders(self) -> int:
        """In the part of ours where most were missing."""
        return max((owned.missing_senders for owned in self._owned.values()), default=0)

    @property
    def faults(self) -> dict[PeerId, Fault]:
        """Whom parts of ours waited for, and went on without."""
        return {peer: fault for owned in self._owned.values() for peer, fault in owned.faults.items()}

    def observed(self, term: int) -> tuple[Signed[Observed], ...]:
        """What the owners of its parts have observed, as far as we know."""
        return self._observed.get(term, ())

    def assemble(self, results: tuple[PartResult, ...]) -> Vector:
        """The decided vector, of parts that are all here. Blocking."""
        return self._aggregate.assemble(results)

    # -- carried out --------------------------------------------------------------------------------------------------

    def _own(self, address: PartAddress, begin: Begin) -> OwnedPart:
        plan = self._plan
        reduction = PartReduction(address.part, plan.grid, begin.members, plan.codec, plan.rule, keeps=plan.verifies)
        owned = OwnedPart(reduction, plan.transport, plan.signer, self._setting.timing, address)
        self._owned[_key(address)] = owned
        self._owning_changed.notify()
        if observed := self._observed.get(begin.term):
            owned.weigh(_bodies(observed))
        return owned

    def _say_observed(self, observed: Observed) -> None:
        self._tell(PartObserved(observed))

    def _contribution(self, begin: Begin) -> EncodedUpdate | None:
        """Our update, if the leader has named what we committed to."""
        ours = next(member for member in begin.members if member.peer == self._setting.me)
        same = self._update is not None and (ours.root, ours.weight) == (self._update.root, self._weight)
        return self._update if same else None

    async def _hold(
        self, address: PartAddress, exchange: Callable[[], Coroutine[Any, Any, HeldPart]], values: Vector
    ) -> None:
        """`values`: what `exchange` decodes its result into."""
        try:
            held = await exchange()
        except (TransportError, Rejected) as error:
            if isinstance(error, Rejected) and address.owner != self._setting.me:
                self._plan.transport.reject(address.owner, error.reason, str(error))
            self._break(address, str(error))
            return
        if not self._is_as_weighed(held, address):
            why = "the result follows from other observations than the leader has told us of"
            self._plan.transport.reject(address.owner, Reason.UNEXPECTED, why)
            self._break(address, why)
            return
        if self._setting.microbatches and not self._is_of_all(held, address):
            self._break(address, "a microbatch would be lost with a member that is missing from it")
            return
        self._plan.results.put(self._setting.epoch, held)
        self._show(address, held)
        self._aggregate.keep(held.result, values)
        self._tell(PartHeld(held.result, address.term, address.attempt))

    def _break(self, address: PartAddress, why: str) -> None:
        log.debug("part broken", epoch=address.epoch, part=address.number, owner=address.owner, error=why)
        self._tell(PartBroken(address.term, address.number, address.attempt))

    def _is_as_weighed(self, held: HeldPart, address: PartAddress) -> bool:
        """Whether it says to follow from the observations that we know of, if we do: else nobody could check it."""
        observed = self._observed.get(address.term)
        if observed is None or address.owner == self._setting.me:
            return True
        result = open_signed(held.statement, Result, run=self._setting.run)
        return result.body.weighed == weighing_digest(_bodies(observed))

    def _is_of_all(self, held: HeldPart, address: PartAddress) -> bool:
        """Whether all who contribute are in every chunk of it."""
        begin = self._begun(address.term)
        assert begin is not None
        wanted = sum(1 << number for number, member in enumerate(begin.body.members) if member.weight)
        result = open_signed(held.statement, Result, run=self._setting.run)
        return all(mask == wanted for mask in result.body.included)

    def _show(self, address: PartAddress, held: HeldPart) -> None:
        """To those who check the round."""
        self._plan.checking.witness(held.statement)
        owned = self._owned.get(_key(address))
        if owned is not None and self._plan.verifies:
            self._plan.checking.inputs.put(address.begin, owned.contributions, owned.reduction.inputs)

    async def _fetch(self, wanted: Fetch) -> None:
        plan, result = self._plan, wanted.result
        for holder in wanted.holders:
            values = self._aggregate.room(result.start, result.stop)
            part = Wanted(plan.signer.run, self._setting.epoch, result, wanted.owner)
            try:
                held = await fetch(plan.transport, holder, part, plan.grid, plan.codec, values, self.traffic)
            except (TransportError, Rejected) as error:
                if isinstance(error, Rejected):
                    plan.transport.reject(holder, error.reason, str(error))
                log.debug("result not fetched", epoch=self._setting.epoch, holder=holder, error=str(error))
                continue
            plan.results.put(self._setting.epoch, held)
            plan.checking.witness(held.statement)
            self._aggregate.keep(result, values)
            self._tell(PartHeld(result))
            return
        self._tell(FetchFailed(result, wanted.term))


def _key(address: PartAddress) -> tuple[int, int, int]:
    return address.term, address.number, address.attempt


def _bodies(observed: Iterable[Signed[Observed]]) -> tuple[Observed, ...]:
    return tuple(statement.body for statement in observed)
