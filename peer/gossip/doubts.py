"""What became of an exchange that broke off after its callee was prepared: the callee asks, the caller answers.

Nobody waits for it: the shift is kept meanwhile, and applied when it is known to be committed.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.signal import Signal
from protocols.encoding import DIGEST_BYTES
from protocols.gossip.commitment import Decisions, Prepared
from protocols.gossip.messages import Outcome
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer, open_signed
from protocols.vectors import Vector

OUTCOME_KIND = "gossip-outcome"
OUTCOME_SECONDS = 5.0
ASK_AGAIN_SECONDS = 1.0
ANSWER_SECONDS = 60.0
"""Who lives and has not answered for so long is taken to have given up, like who is gone: there are few places for
shifts in doubt."""

log = structlog.get_logger()


class Doubts:
    """The decisions of this peer as a caller, and as a callee the shifts that wait for those of others."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        border: Border,
        apply: Callable[[Vector], Awaitable[None]],
        is_member: Callable[[PeerId], bool],
    ) -> None:
        """`apply`: adds a shift to our model. `is_member`: whether a peer is still heard of."""
        self.decisions = Decisions()
        self.dropped = 0
        """Shifts that were prepared for in vain."""
        self._transport, self._signer, self._border = transport, signer, border
        self._apply, self._is_member = apply, is_member
        self._prepared: Prepared[Vector] = Prepared()
        self._open: dict[bytes, PeerId] = {}
        """Exchanges in doubt that nobody asks about yet, and their callers."""
        self._callers: dict[bytes, PeerId] = {}
        """Of all exchanges in doubt."""
        self._opened = Signal()

    async def start(self) -> None:
        """From now on others are answered."""
        await self._transport.serve_requests(OUTCOME_KIND, self._answer, 2 * DIGEST_BYTES)

    async def run(self) -> None:
        """Clears up what is in doubt, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                while self._open:
                    tasks.create_task(self._clear_up(*self._open.popitem()))
                await self._opened.wait()

    @property
    def too_many(self) -> bool:
        """Whether no further shift should be prepared for."""
        return self._prepared.full

    @property
    def in_doubt(self) -> int:
        """Shifts that wait for a decision."""
        return len(self._prepared)

    def prepare(self, exchange: bytes, shift: Vector) -> None:
        self._prepared.prepare(exchange, shift)

    def doubt(self, exchange: bytes, caller: PeerId) -> None:
        """Its stream broke before `caller` has said what it has decided."""
        self._open[exchange] = self._callers[exchange] = caller
        self._opened.notify()

    def waits_for(self, caller: PeerId) -> bool:
        """Whether it has not said yet what it has decided of another exchange."""
        return caller in self._callers.values()

    async def settle(self, exchange: bytes, *, committed: bool) -> None:
        self._callers.pop(exchange, None)
        shift = self._prepared.settle(exchange, committed=committed)
        if shift is None:
            self.dropped += 1
        else:
            await self._apply(shift)

    async def _clear_up(self, exchange: bytes, caller: PeerId) -> None:
        """Until the caller has said what it has decided, or is gone: then it is taken to have given up."""
        committed: bool | None = None
        clock = self._transport.clock
        until = clock.monotonic() + ANSWER_SECONDS
        while committed is None and self._is_member(caller) and clock.monotonic() < until:
            async with self._border.around(f"asking {caller} for an outcome"):
                committed = await self._ask(exchange, caller)
            if committed is None:
                await clock.sleep(ASK_AGAIN_SECONDS)
        await self.settle(exchange, committed=bool(committed))

    async def _ask(self, exchange: bytes, caller: PeerId) -> bool | None:
        try:
            wire = await self._transport.request(caller, OUTCOME_KIND, exchange, OUTCOME_SECONDS)
            outcome = open_signed(wire, Outcome, run=self._signer.run, sender=caller)
            if outcome.body.exchange != exchange:
                raise Rejected(Reason.UNEXPECTED, "the outcome of another exchange")
        except TransportError as error:
            log.debug("no outcome", caller=caller, error=str(error))
            return None
        except Rejected as error:
            self._transport.reject(caller, error.reason, str(error))
            return None
        return outcome.body.committed

    async def _answer(self, peer: PeerId, exchange: bytes) -> bytes:
        if len(exchange) != DIGEST_BYTES:
            raise Rejected(Reason.MALFORMED, "not the name of an exchange")
        committed = self.decisions.answer(exchange, peer)
        return self._signer.sign(Outcome(exchange=exchange, committed=committed), 0).wire
