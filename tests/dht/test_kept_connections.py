"""Connections that wait for the next request."""

import asyncio

from dht.kept_connections import KEEP_SECONDS, MAX_KEPT, TOGETHER_SECONDS, KeptConnections
from dht.virtual_time import VirtualTimeLoop
from tests.dht.worlds import identity

PEER, OTHER = identity(1).peer_id, identity(2).peer_id


class Line:
    """What is known of a connection while nobody uses it."""

    def __init__(self) -> None:
        self.intact = True
        self.closed = False

    def close(self) -> None:
        self.closed = True


def run(scenario) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())


def test_the_last_of_a_peer_and_kind_is_taken_once() -> None:
    async def scenario() -> None:
        kept: KeptConnections[Line] = KeptConnections()
        first, second, other = Line(), Line(), Line()
        kept.keep(PEER, "round", first)
        kept.keep(PEER, "round", second)
        kept.keep(OTHER, "round", other)
        assert kept.take(PEER, "hello") is None
        assert kept.take(PEER, "round") is second
        assert kept.take(PEER, "round") is first
        assert kept.take(PEER, "round") is None
        assert kept.take(OTHER, "round") is other

    run(scenario)


def test_a_broken_one_is_not_given_out() -> None:
    async def scenario() -> None:
        kept: KeptConnections[Line] = KeptConnections()
        good, broken = Line(), Line()
        kept.keep(PEER, "round", good)
        kept.keep(PEER, "round", broken)
        broken.intact = False
        assert kept.take(PEER, "round") is good
        assert broken.closed

    run(scenario)


def test_nobody_waits_for_long_and_not_too_many_do() -> None:
    async def scenario() -> None:
        kept: KeptConnections[Line] = KeptConnections()
        lines = [Line() for _ in range(MAX_KEPT + 1)]
        for line in lines:
            kept.keep(PEER, "round", line)
        assert [line.closed for line in lines] == [True] + [False] * MAX_KEPT
        await asyncio.sleep(KEEP_SECONDS + 1)
        assert all(line.closed for line in lines)
        assert kept.take(PEER, "round") is None

    run(scenario)


def test_those_that_are_due_at_nearly_the_same_time_are_closed_at_once() -> None:
    async def scenario() -> None:
        kept: KeptConnections[Line] = KeptConnections()
        lines = [Line() for _ in range(10)]
        for line in lines:
            kept.keep(PEER, "round", line)
            await asyncio.sleep(TOGETHER_SECONDS / 10)
        await asyncio.sleep(KEEP_SECONDS - TOGETHER_SECONDS / 2)
        assert not any(line.closed for line in lines)
        await asyncio.sleep(TOGETHER_SECONDS / 2 + 0.01)
        assert all(line.closed for line in lines[:-1])

    run(scenario)


def test_closing_closes_all() -> None:
    async def scenario() -> None:
        kept: KeptConnections[Line] = KeptConnections()
        line = Line()
        kept.keep(PEER, "round", line)
        kept.close()
        assert line.closed

    run(scenario)
