"""Virtual time: jumps, never waits, is the same every time, and notices when nothing can happen any more."""

import asyncio

import pytest

from dht.interfaces import Frame, Stream, TimedOut, Unreachable
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Link
from dht.virtual_time import FIRST_WALL_SECONDS, DeadlockError, VirtualTimeLoop
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.signed import Signer
from tests.dht.worlds import identity
from tests.protocols.test_records import RUN, entry
from tests.steps import count_steps

PEERS = [identity(number).peer_id for number in range(1, 9)]


async def echo(_peer: PeerId, body: bytes) -> bytes:
    return body


async def everybody_asks_everybody(network: SimulatedNetwork) -> tuple[str, float]:
    transports = [network.join(peer) for peer in PEERS]
    for transport in transports:
        await transport.serve_requests("echo", echo)

    async def ask_all(asker: int) -> None:
        for number, other in enumerate(transports):
            if number != asker:
                await transports[asker].connect(other.peer_id, other.addresses)
                for _ in range(5):
                    await transports[asker].request(other.peer_id, "echo", bytes(1000), 60)

    async with asyncio.TaskGroup() as group:
        for number in range(len(transports)):
            group.create_task(ask_all(number))
    return network.trace(), network.clock.monotonic()


def test_an_hour_passes_in_no_time() -> None:
    async def main(network: SimulatedNetwork) -> float:
        await network.clock.sleep(3600)
        return network.clock.wall()

    ended: list[float] = []
    steps = count_steps(lambda: ended.append(run_simulation(main, seed=0)))
    assert ended == [FIRST_WALL_SECONDS + 3600]
    assert steps < 2000


def test_timers_fire_in_order() -> None:
    fired: list[tuple[float, str]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        for delay, name in [(3.0, "c"), (1.0, "a"), (2.0, "b"), (3.0, "d")]:
            loop.call_later(delay, lambda name=name: fired.append((loop.time(), name)))
        loop.call_later(4.0, done.set)
        await done.wait()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert fired == [(1.0, "a"), (2.0, "b"), (3.0, "c"), (3.0, "d")]


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set() -> None:
    """Whatever else is scheduled, fires or is cancelled meanwhile: a heap moves its ties about."""
    fired: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_at(5.0, fired.append, number)
            for moment in (number % 7, 3 - number % 3):
                other = loop.call_at(moment, lambda: None)
                if number % 2:
                    other.cancel()
        await asyncio.sleep(6)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert fired == list(range(100))


def test_deadlock_is_an_error() -> None:
    async def main(network: SimulatedNetwork) -> None:
        await network.clock.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match=r"at 5\.000 virtual seconds"):
        run_simulation(main, seed=0)


def test_same_seed_same_trace() -> None:
    link = Link(jitter_seconds=0.01)
    first = run_simulation(everybody_asks_everybody, 7, link)
    assert run_simulation(everybody_asks_everybody, 7, link) == first
    assert run_simulation(everybody_asks_everybody, 8, link) != first


def test_a_message_is_little_work() -> None:
    messages = 2 * 5 * len(PEERS) * (len(PEERS) - 1)
    assert count_steps(lambda: run_simulation(everybody_asks_everybody, 1)) / messages < 600


def test_bandwidth_and_latency_set_the_pace() -> None:
    async def main(network: SimulatedNetwork) -> float:
        one, other = network.join(PEERS[0]), network.join(PEERS[1])
        await other.serve_requests("echo", echo)
        await one.connect(other.peer_id, other.addresses)
        started = network.clock.monotonic()
        await one.request(other.peer_id, "echo", bytes(500_000), 60)
        return network.clock.monotonic() - started

    link = Link(upload_bytes_per_second=1e6, download_bytes_per_second=1e6, latency_seconds=0.05)
    # Dialling takes one round trip (0.2 s); message and answer 0.1 s, and half a second for both links at once.
    assert run_simulation(main, 0, link) == pytest.approx(0.2 + 2 * (0.5 + 0.1), abs=0.01)


def test_lost_message_breaks_the_stream_later() -> None:
    async def main(network: SimulatedNetwork) -> float:
        one, other = network.join(PEERS[0]), network.join(PEERS[1], link=Link(loss=1.0))
        await other.serve_requests("echo", echo)
        await one.connect(other.peer_id, other.addresses)
        started = network.clock.monotonic()
        with pytest.raises(Unreachable):
            await one.request(other.peer_id, "echo", b"", 60)
        return network.clock.monotonic() - started

    assert run_simulation(main, 0) > 1


def test_crash_breaks_streams_and_restart_serves_again() -> None:
    async def main(network: SimulatedNetwork) -> None:
        stopped = asyncio.Event()

        async def hold(stream: Stream) -> None:
            try:
                await stream.send(Frame(header=b"in"))
                await asyncio.Event().wait()
            finally:
                stopped.set()

        one, other = network.join(PEERS[0]), network.join(PEERS[1])
        await other.serve_streams("hold", hold)
        await one.connect(other.peer_id, other.addresses)
        stream = await one.open_stream(other.peer_id, "hold")
        assert await stream.receive() == Frame(header=b"in")
        network.crash(other.peer_id)
        with pytest.raises(Unreachable):
            await stream.receive()
        assert stopped.is_set()
        with pytest.raises(Unreachable):
            await one.request(other.peer_id, "echo", b"", 5)
        again = network.join(PEERS[1])
        await again.serve_requests("echo", echo)
        assert await one.request(other.peer_id, "echo", b"back", 5) == b"back"

    run_simulation(main, 0)


def test_short_partition_delays_and_long_partition_breaks() -> None:
    async def main(network: SimulatedNetwork) -> None:
        async def echo_stream(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                await stream.send(frame)

        one, other = network.join(PEERS[0]), network.join(PEERS[1])
        await other.serve_requests("echo", echo)
        await other.serve_streams("stream", echo_stream)
        await one.connect(other.peer_id, other.addresses)
        stream = await one.open_stream(other.peer_id, "stream")
        network.partition([one.peer_id], [other.peer_id])
        await stream.send(Frame(header=b"held back"))
        with pytest.raises(TimedOut):
            await one.request(other.peer_id, "echo", b"", 1)
        network.heal()
        assert await stream.receive() == Frame(header=b"held back")
        assert await one.request(other.peer_id, "echo", b"again", 5) == b"again"
        network.partition([one.peer_id])
        with pytest.raises(Unreachable):
            await stream.receive()

    run_simulation(main, 0)


def test_records_are_seen_within_a_partition_until_they_expire() -> None:
    async def main(network: SimulatedNetwork) -> None:
        who = identity(1)
        signer = Signer(who, RUN, 1)
        network.join(who.peer_id)
        network.join(PEERS[1])
        own, others = network.records(who.peer_id), network.records(PEERS[1])
        body = entry(expires=network.clock.wall() + 60)
        record = signer.sign(body, 3)
        assert await own.publish(record, body.expires)
        assert not await own.publish(record, body.expires + 1)
        assert [found.wire for found in await others.lookup(RUN, RosterEntry.kind)] == [record.wire]
        network.partition([who.peer_id])
        assert await others.lookup(RUN, RosterEntry.kind) == []
        network.heal()
        assert len(await others.lookup(RUN, RosterEntry.kind)) == 1
        await network.clock.sleep(60)
        assert await others.lookup(RUN, RosterEntry.kind) == []

    run_simulation(main, 0)


def test_sets_of_tasks_have_the_order_in_which_these_were_made() -> None:
    async def main() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(number)) for number in range(50)}
        await asyncio.wait(tasks)
        return [task.get_name() for task in tasks]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == [str(number) for number in range(50)]
