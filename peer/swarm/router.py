"""Has a stage do a microbatch's part: by whom the wiring chooses, and by another when that one fails."""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress

import structlog

from dht.interfaces import Transport, TransportError
from peer.signal import Signal
from peer.swarm.client import Reply, StageClient
from peer.swarm.microbatch import Tensor
from protocols.activations import TensorBounds
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.swarm.messages import Work
from protocols.swarm.wiring import Task, Wiring

PATIENCE = 8.0
"""So many times the usual response time a peer is waited for, its own if that is longer …"""
LEAST_SECONDS, MOST_SECONDS = 3.0, 60.0
FIRST_SECONDS = 20.0
"""… and so long as long as either is not known. What it does for who has lost patience, it does in vain."""
RETRY_SECONDS = 0.1
"""Between two looks for a peer, when all of a stage are busy or gone."""
UNTIMELY_SECONDS = 10.0
"""Work of which all say for so long that its epoch is past, or to come, is none."""

log = structlog.get_logger()


class Untimely(Exception):
    """The epoch of a work is not played."""


class Router:
    def __init__(
        self,
        transport: Transport,
        client: StageClient,
        wiring: Wiring,
        peers: Callable[[], Mapping[int, Iterable[PeerId]]],
    ) -> None:
        """`peers`: by stage, who serves it now."""
        self.answered = Signal()
        self._transport, self._client, self._wiring, self._peers = transport, client, wiring, peers
        self._usual: dict[Task, float] = {}

    async def ask(
        self,
        work: Work,
        tensors: Sequence[Tensor],
        accepted: Sequence[TensorBounds],
        *,
        exclude: Iterable[PeerId] = (),
        wanted: PeerId | None = None,
    ) -> tuple[PeerId, Reply]:
        """Who has done it, and what came of it; tries for as long as it takes. `wanted`: who has kept the inputs, and
        comes first, if it can.

        Raises Untimely.
        """
        task, clock = _task(work), self._transport.clock
        untimely_since: float | None = None
        while untimely_since is None or clock.monotonic() <= untimely_since + UNTIMELY_SECONDS:
            self._wiring.set_peers(work.stage, self._peers().get(work.stage, ()))
            peer = self._wiring.choose(work.stage, clock.monotonic(), task, tuple(exclude), wanted)
            if peer is None:
                await clock.sleep(RETRY_SECONDS)
                continue
            reply = await self._ask_one(peer, work, tensors, accepted, kept=peer == wanted)
            if reply is not None and reply.answer.outcome == "done":
                return peer, reply
            if reply is None or reply.answer.outcome not in ("early", "late"):
                untimely_since = None
            elif untimely_since is None:
                untimely_since = clock.monotonic()
        raise Untimely

    async def ask_one(
        self, peer: PeerId, work: Work, tensors: Sequence[Tensor], accepted: Sequence[TensorBounds]
    ) -> Reply | None:
        """What this peer makes of it; None where it has not done it within our patience, or will not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.patience(work)):
                while (reply := await self._ask_one(peer, work, tensors, accepted)) is not None:
                    if reply.answer.outcome == "done":
                        return reply
                    if reply.answer.outcome != "busy":
                        return None
                    await self._transport.clock.sleep(RETRY_SECONDS)
        return None

    def patience(self, work: Work, peer: PeerId | None = None) -> float:
        """Seconds that `peer` is waited for; None: a peer as most are."""
        task = _task(work)
        usual = self._usual.get(task)
        its_own = usual if peer is None else self._wiring.usual(work.stage, peer, task)
        if usual is None or its_own is None:
            return FIRST_SECONDS
        return min(MOST_SECONDS, max(LEAST_SECONDS, PATIENCE * usual, PATIENCE * its_own))

    def blame(self, stage: int, peer: PeerId) -> None:
        """It has said to have done what it has not."""
        self._wiring.failed(stage, peer, self._transport.clock.monotonic())

    def others(self, stage: int, but: Container[PeerId]) -> list[PeerId]:
        """Who serves the stage beside these."""
        return [peer for peer in self._peers().get(stage, ()) if peer not in but]

    async def _ask_one(
        self, peer: PeerId, work: Work, tensors: Sequence[Tensor], accepted: Sequence[TensorBounds], kept: bool = False
    ) -> Reply | None:
        """Its answer, whatever the outcome; the wiring learns of it."""
        task, clock = _task(work), self._transport.clock
        began = clock.monotonic()
        with self._wiring.under_way(work.stage, peer):
            reply = await self._try(peer, work, tensors, accepted, kept)
        now = clock.monotonic()
        match reply.answer.outcome if reply is not None else None:
            case "done":
                self._wiring.done(work.stage, peer, task, now - began)
                usual = self._usual.setdefault(task, now - began)
                self._usual[task] = usual + 0.1 * (now - began - usual)
            case "busy" | "early" | "late":
                self._wiring.busy(work.stage, peer, now + RETRY_SECONDS)
            case _:
                self._wiring.failed(work.stage, peer, now)
        return reply

    async def _try(
        self, peer: PeerId, work: Work, tensors: Sequence[Tensor], accepted: Sequence[TensorBounds], kept: bool
    ) -> Reply | None:
        payloads = [tensor.payload for tensor in tensors]
        try:
            return await self._client.ask(peer, work, payloads, accepted, self.patience(work, peer), kept=kept)
        except TransportError as error:
            log.debug("a stage's peer fails", stage=work.stage, peer=peer, error=str(error))
            self._client.forget(peer)
        except Rejected as error:
            self._transport.reject(peer, error.reason, str(error))
        return None


def _task(work: Work) -> Task:
    return Task.FORWARD if work.task == "forward" else Task.BACKWARD
