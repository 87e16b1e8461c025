"""With whom a peer exchanges models, epoch after epoch, beside its training.

An epoch that ends while the exchanges of the last one are under way is skipped: exchanges follow each other as fast as
links allow, and training never waits for them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.gossip.exchanges import Exchanges, Host
from peer.gossip.models import Busy
from peer.gossip.trainers import Trainers
from peer.signal import Signal
from protocols.gossip.mixing import Neighbourhood, length
from protocols.gossip.topologies import Topology, links_of
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.vectors import Vector

ATTEMPTS = 3
"""At an exchange, while either side has its hands full."""
SHORTEST_PAUSE_SECONDS = 0.005
"""Between two of them."""

log = structlog.get_logger()

T = TypeVar("T")


class Mixer:
    def __init__(
        self,
        host: Host,
        exchanges: Exchanges,
        transport: Transport,
        border: Border,
        run: str,
        topology: Topology,
        trainers: Trainers,
        neighbourhood: Neighbourhood | None,
        fewest: int,
    ) -> None:
        """`neighbourhood`: how all neighbours' models are mixed at once; None: one after the other.

        `fewest`: models that a neighbourhood needs, our own included.
        """
        self.advanced = Signal()
        """The host has come to another epoch."""
        self._host, self._exchanges = host, exchanges
        self._transport, self._border = transport, border
        self._run, self._topology, self._trainers = run, topology, trainers
        self._neighbourhood, self._fewest = neighbourhood, fewest
        self._stopping = False
        self._random = random.Random(transport.peer_id)  # noqa: S311  (jitter)

    async def run(self) -> None:
        """Returns soon after `stop`, when the exchanges under way have ended."""
        self._stopping = False
        done = self._host.epoch
        while not self._stopping:
            if self._host.epoch == done:
                await self.advanced.wait()
                continue
            done = self._host.epoch
            async with self._border.around("mixing with neighbours"):
                await self._mix(done)

    def stop(self) -> None:
        self._stopping = True
        self.advanced.notify()

    async def _mix(self, epoch: int) -> None:
        if self._neighbourhood is not None:
            await self._mix_all(self._neighbourhood, self._neighbours(epoch))
            return
        async with asyncio.TaskGroup() as tasks:
            for callee in self._callees(epoch):
                tasks.create_task(self._try(callee, self._exchanges.mix_with))

    def _neighbours(self, epoch: int) -> Sequence[PeerId]:
        return self._training(*self._links(epoch))

    def _callees(self, epoch: int) -> list[PeerId]:
        """The neighbours whom we call; who cannot be called calls."""
        callees, callers = self._links(epoch)
        clients, me = self._trainers.mixing.clients, self._transport.peer_id
        return [
            neighbour
            for neighbour in self._training(callees, callers)
            if (clients[me] if clients[me] != clients[neighbour] else neighbour in callees)
        ]

    def _training(self, callees: Sequence[PeerId], callers: Sequence[PeerId]) -> Sequence[PeerId]:
        return [neighbour for neighbour in (*callees, *callers) if self._trainers.trains(neighbour)]

    def _links(self, epoch: int) -> tuple[Sequence[PeerId], Sequence[PeerId]]:
        """Whom we call and who calls us, if all can be called."""
        peers = self._trainers.mixing.peers
        return links_of(self._topology, self._run, epoch, peers, self._transport.peer_id)

    async def _mix_all(self, neighbourhood: Neighbourhood, neighbours: Sequence[PeerId]) -> None:
        """Shifts our model towards what the rule makes of it and those of the neighbours who answer."""
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._try(peer, self._exchanges.ask)) for peer in neighbours]
        models = [model for task in asked if (model := task.result()) is not None]
        if len(models) + 1 < self._fewest:
            return
        try:
            own = await self._host.model()
        except Busy:
            return
        shift, distance, own_length = await self._transport.in_thread(_mixed, neighbourhood, own, models)
        self._host.measured(distance, own_length)
        await self._host.shift(shift)

    async def _try(self, peer: PeerId, exchange: Callable[[PeerId], Awaitable[T]]) -> T | None:
        """What comes of an exchange; None when nothing does."""
        if self._exchanges.patience.leaves_alone(peer, self._transport.clock.monotonic()):
            return None
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = max(SHORTEST_PAUSE_SECONDS, self._exchanges.patience.usual_seconds)
                await self._transport.clock.sleep(pause * self._random.uniform(0.5, 1.5) * attempt)
            try:
                return await exchange(peer)
            except Busy as error:
                log.debug("no exchange yet", peer=peer, why=str(error))
            except TransportError as error:
                log.debug("an exchange failed", peer=peer, error=str(error))
                return None
            except Rejected as error:
                self._transport.reject(peer, error.reason, str(error))
                return None
        return None


def _mixed(neighbourhood: Neighbourhood, own: Vector, models: Sequence[Vector]) -> tuple[Vector, float, float]:
    """Blocking: the shift, the middle one of the neighbours' distances, and the length of our model."""
    with np.errstate(over="ignore"):
        distances = [length(model - own) for model in models]
    return neighbourhood(own, models), float(np.median(distances)), length(own)
