"""Connections that are over leave nothing: a simulation makes millions of them."""

import asyncio
import gc
from contextlib import suppress

import pytest

from dht.interfaces import Frame, Stream, Unreachable
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_connection import LINGER_SECONDS, SimulatedConnection
from tests.dht.worlds import identity

ONE, OTHER = (identity(number).peer_id for number in (1, 2))


@pytest.mark.parametrize("end", ["closed", "aborted", "crashed"])
def test_both_ends_are_gone_without_a_search_for_cycles(end: str) -> None:
    async def main(network: SimulatedNetwork) -> int:
        caller, callee = network.join(ONE), network.join(OTHER)

        async def echo(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                await stream.send(frame)

        await callee.serve_streams("echo", echo)
        await caller.connect(OTHER, callee.addresses)
        for _ in range(3):
            stream = await caller.open_stream(OTHER, "echo")
            await stream.send(Frame(b"header", b"payload"))
            await stream.receive()
            if end == "closed":
                await stream.close()
            elif end == "aborted":
                stream.abort()
        if end == "crashed":
            network.crash(OTHER)
            with suppress(Unreachable):
                await stream.receive()
        del stream
        await asyncio.sleep(3 * LINGER_SECONDS)
        return sum(type(kept) is SimulatedConnection for kept in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        assert run_simulation(main, 0) == 0
    finally:
        gc.enable()


def test_a_pair_is_forgotten_as_soon_as_both_have_closed_and_nothing_is_on_its_way() -> None:
    async def main(network: SimulatedNetwork) -> None:
        caller, callee = network.join(ONE), network.join(OTHER)

        async def until_the_end(stream: Stream) -> None:
            while await stream.receive() is not None:
                pass

        await callee.serve_streams("talk", until_the_end)
        await caller.connect(OTHER, callee.addresses)
        stream = await caller.open_stream(OTHER, "talk")
        await stream.send(Frame(b"header", b"payload"))
        await stream.close()
        assert network.open_connections(ONE) == network.open_connections(OTHER) == 1
        await asyncio.sleep(LINGER_SECONDS / 5)
        assert network.open_connections(ONE) == network.open_connections(OTHER) == 0

    run_simulation(main, 0)
