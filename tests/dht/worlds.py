"""The two kinds of network that the conformance suite runs on."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from dht.interfaces import Transport
from dht.node import Node
from dht.simulated import SimulatedNetwork, SimulatedTransport, run_simulation
from protocols.identity import Identity, PeerId

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def identity(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


class World(ABC):
    """Peers that join, and what each of them has refused."""

    def __init__(self) -> None:
        self.refused: Counter[tuple[PeerId, str]] = Counter()
        """By (who was refused, reason)."""
        self._joined = 0

    def on_rejected(self, peer: PeerId, reason: str, message: str) -> None:
        self.refused[peer, reason] += 1

    @abstractmethod
    async def join(self, *, client_mode: bool = False) -> Transport: ...

    @abstractmethod
    def addresses(self, transport: Transport) -> tuple[str, ...]: ...

    async def pair(self) -> tuple[Transport, Transport]:
        """Two peers, the first connected to the second."""
        one, other = await self.join(), await self.join()
        await one.connect(other.peer_id, self.addresses(other))
        return one, other

    def _next_identity(self) -> Identity:
        self._joined += 1
        return identity(self._joined)


Scenario = Callable[[World], Awaitable[Any]]


class Libp2pWorld(World):
    def __init__(self, directory: Path, resources: AsyncExitStack) -> None:
        super().__init__()
        self._directory = directory
        self._resources = resources
        self.nodes: dict[PeerId, Node] = {}

    async def join(self, *, client_mode: bool = False) -> Transport:
        who = self._next_identity()
        node = await self._resources.enter_async_context(
            running_node(self._directory, who, client_mode=client_mode, on_rejected=self.on_rejected)
        )
        self.nodes[node.peer_id] = node
        return node.transport

    def addresses(self, transport: Transport) -> tuple[str, ...]:
        return self.nodes[transport.peer_id].addresses()


class SimulatedWorld(World):
    def __init__(self, network: SimulatedNetwork) -> None:
        super().__init__()
        self.network = network

    async def join(self, *, client_mode: bool = False) -> Transport:
        who = self._next_identity().peer_id
        return self.network.join(who, client_mode=client_mode, on_rejected=self.on_rejected)

    def addresses(self, transport: Transport) -> tuple[str, ...]:
        assert isinstance(transport, SimulatedTransport)
        return transport.addresses


@asynccontextmanager
async def running_node(directory: Path, who: Identity, **options: Any) -> AsyncIterator[Node]:
    node = await Node.start(identity_file(directory, who), **({"listen": (LOOPBACK,)} | options))
    try:
        yield node
    finally:
        await node.close()


def identity_file(directory: Path, who: Identity) -> Path:
    path = directory / who.peer_id
    path.write_bytes(who.to_libp2p())
    path.chmod(0o600)
    return path


def run_on_libp2p(scenario: Scenario, directory: Path) -> Any:
    async def main() -> Any:
        async with AsyncExitStack() as resources:
            return await scenario(Libp2pWorld(directory, resources))

    return run_real(main())


def run_real(main: Any) -> Any:
    """Runs a coroutine as the daemon does, under uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def run_on_simulation(scenario: Scenario) -> Any:
    return run_simulation(lambda network: scenario(SimulatedWorld(network)), seed=1)
