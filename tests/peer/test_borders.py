"""Mistakes of our own, wherever the daemon's long tasks meet others: logged and counted, and everything goes on."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from dht.border import TASK_FAILED, Border
from dht.interfaces import Records, Transport
from dht.simulated import SimulatedNetwork, run_simulation
from peer.participant import Participant
from protocols.identity import PeerId
from protocols.signed import Signed
from tests.peer.evil_transport import EvilTransport
from tests.peer.simulated_swarm import SimulatedSwarm, data_parallel, identity, simulate


class Stumbles:
    """Every third call raises what nobody expects."""

    def __init__(self) -> None:
        self._calls = count(1)

    def __call__(self) -> None:
        if next(self._calls) % 3 == 0:
            raise ZeroDivisionError("a mistake of ours")


class StumblingTransport(EvilTransport):
    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, kind="none")
        self._stumble = Stumbles()

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        self._stumble()
        return await super().request(peer, kind, body, timeout_seconds)

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self._stumble()
        await super().connect(peer, addresses)


class StumblingRecords(Records):
    def __init__(self, records: Records) -> None:
        self._records, self._stumble = records, Stumbles()

    async def publish(self, record: Signed[Any], expires: float) -> bool:
        self._stumble()
        return await self._records.publish(record, expires)

    async def lookup(self, run: str, kind: str) -> list[Signed[Any]]:
        self._stumble()
        return await self._records.lookup(run, kind)


def stumbling(**parts: Any) -> Participant:
    return Participant(
        **parts | {"transport": StumblingTransport(parts["transport"]), "records": StumblingRecords(parts["records"])}
    )


def test_a_member_that_stumbles_at_every_third_exchange_takes_part_to_the_end() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        clumsy = await swarm.start(2, make=stumbling)
        await swarm.finish(within=300)
        assert clumsy.running
        assert clumsy.participant.samples_contributed > 0
        assert clumsy.rejections.by_peer[clumsy.peer, TASK_FAILED] > 10
        await swarm.leave(clumsy)

    simulate(scenario, data_parallel(epochs=10))


def test_an_error_is_counted_and_followed_by_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, str]] = []

    async def main(network: SimulatedNetwork) -> None:
        me = identity(1).peer_id
        border = Border(me, network.clock, lambda peer, reason, message: counted.append((peer, reason)))
        began = network.clock.monotonic()
        async with border.around("an exchange"):
            raise ZeroDivisionError
        assert network.clock.monotonic() > began
        assert counted == [(me, TASK_FAILED)]
        assert "an exchange" in caplog.text

    run_simulation(main, seed=1)


def test_cancellation_passes() -> None:
    async def main(network: SimulatedNetwork) -> None:
        border = Border(identity(1).peer_id, network.clock, lambda peer, reason, message: None)
        with pytest.raises(asyncio.CancelledError):
            async with border.around("an exchange"):
                raise asyncio.CancelledError

    run_simulation(main, seed=1)
