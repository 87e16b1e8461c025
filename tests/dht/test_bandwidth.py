"""What a peer can send is measured on its streams; what it may send is limited, and its senders feel it."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from dht.bandwidth import BURST_SECONDS, SMALL_BYTES, Bandwidth
from dht.interfaces import Frame, Stream
from dht.simulated import SimulatedNetwork, SimulatedTransport, run_simulation
from dht.simulated_link import Link
from dht.virtual_time import VirtualClock
from tests.dht.worlds import Libp2pWorld, World, identity, run_on_libp2p

MEGABYTE = 1024 * 1024
KIND = "bulk"
FAST, SLOW = 8 * MEGABYTE, MEGABYTE
"""Bytes per second, at which a frame takes a time without rounding: what is measured is compared with them exactly."""


async def swallow(stream: Stream) -> None:
    while await stream.receive() is not None:
        pass


async def join(network: SimulatedNetwork, number: int, link: Link) -> SimulatedTransport:
    transport = network.join(identity(number).peer_id, link=link)
    await transport.serve_streams(KIND, swallow)
    return transport


async def send(transport: SimulatedTransport, to: SimulatedTransport, frames: int, size: int = MEGABYTE) -> float:
    """Seconds that it took."""
    await transport.connect(to.peer_id, to.addresses)
    began = transport.clock.monotonic()
    async with await transport.open_stream(to.peer_id, KIND) as stream:
        for _ in range(frames):
            await stream.send(Frame(payload=bytes(size)))
    return transport.clock.monotonic() - began


@pytest.mark.parametrize("bytes_per_second", [625_000.0, 12.5e6])
def test_own_link_is_measured_though_one_receiver_is_slow(bytes_per_second: float) -> None:
    async def scenario(network: SimulatedNetwork) -> None:
        sender = await join(network, 1, Link(upload_bytes_per_second=bytes_per_second))
        fast = await join(network, 2, Link(download_bytes_per_second=1e9))
        slow = await join(network, 3, Link(download_bytes_per_second=bytes_per_second / 20))
        assert sender.bandwidth.bytes_per_second == 0
        for _ in range(5):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send(sender, fast, 8))
                tasks.create_task(send(sender, slow, 2))
            await sender.clock.sleep(1.0)
        assert 0.6 * bytes_per_second <= sender.bandwidth.bytes_per_second <= bytes_per_second

    run_simulation(scenario, seed=1)


def test_waiting_for_something_to_send_is_not_slowness() -> None:
    async def scenario(network: SimulatedNetwork) -> None:
        sender = await join(network, 1, Link(upload_bytes_per_second=10e6))
        receiver = await join(network, 2, Link())
        await send(sender, receiver, 16)
        measured = sender.bandwidth.bytes_per_second
        await sender.clock.sleep(60)
        await send(sender, receiver, 3, size=1000)
        assert sender.bandwidth.bytes_per_second == measured

    run_simulation(scenario, seed=1)


def test_a_limit_is_kept_over_all_streams_and_small_frames_pass() -> None:
    async def scenario(network: SimulatedNetwork) -> None:
        sender = await join(network, 1, Link(upload_bytes_per_second=100e6))
        receivers = [await join(network, number, Link(download_bytes_per_second=100e6)) for number in (2, 3)]
        sender.bandwidth.limit_bytes_per_second = 1e6
        assert sender.bandwidth.bytes_per_second == 1e6
        async with asyncio.TaskGroup() as tasks:
            began = sender.clock.monotonic()
            bulk = [tasks.create_task(send(sender, receiver, 10)) for receiver in receivers]
            await sender.clock.sleep(1.0)
            assert await send(sender, receivers[0], 5, size=SMALL_BYTES // 2) < 0.5
        assert all(task.done() for task in bulk)
        elapsed = sender.clock.monotonic() - began
        assert 0.9 * 20 * MEGABYTE / 1e6 - 2 <= elapsed <= 1.1 * 20 * MEGABYTE / 1e6
        assert sender.bandwidth.bytes_per_second <= 1e6

    run_simulation(scenario, seed=1)


@pytest.mark.parametrize("limited", ["who asks", "who answers"])
def test_requests_and_answers_count_too(limited: str) -> None:
    body, count, limit = bytes(256 * 1024), 16, 1e6

    async def scenario(network: SimulatedNetwork) -> None:
        one, other = [network.join(identity(number).peer_id) for number in (1, 2)]

        async def echo(_peer: object, received: bytes) -> bytes:
            return received if limited == "who answers" else b""

        await other.serve_requests("echo", echo)
        await one.connect(other.peer_id, other.addresses)
        (other if limited == "who answers" else one).bandwidth.limit_bytes_per_second = limit
        began = one.clock.monotonic()
        for _ in range(count):
            await one.request(other.peer_id, "echo", body, 60)
        elapsed = one.clock.monotonic() - began
        at_least = (count - 1) * len(body) / limit - BURST_SECONDS
        assert at_least <= elapsed <= at_least + 2.0
        assert one.bandwidth.bytes_per_second in (0, limit)  # nothing measured

    run_simulation(scenario, seed=1)


def test_a_limit_holds_on_a_real_network(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert isinstance(world, Libp2pWorld)
        one, other = await world.pair()
        await other.serve_streams(KIND, swallow)
        limit = 4e6
        world.nodes[one.peer_id].transport.bandwidth.limit_bytes_per_second = limit
        began = one.clock.monotonic()
        async with await one.open_stream(other.peer_id, KIND) as stream:
            for _ in range(8):
                await stream.send(Frame(payload=bytes(MEGABYTE)))
        elapsed = one.clock.monotonic() - began
        assert elapsed >= 0.9 * (7 * MEGABYTE - limit / 4) / limit

    run_on_libp2p(scenario, tmp_path)


class StepClock(VirtualClock):
    """Stands until it is moved."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_link_that_has_become_slow_is_noticed_soon() -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)

    def burst(bytes_per_second: float) -> None:
        clock.now += 10.0
        for _ in range(8):
            with bandwidth.sending(identity(1).peer_id, MEGABYTE):
                clock.now += MEGABYTE / bytes_per_second

    for _ in range(10):
        burst(12.5e6)
    for _ in range(2):
        burst(0.625e6)
    assert bandwidth.bytes_per_second < 12.5e6 / 8


def test_waiting_for_what_is_to_be_sent_is_no_slowness_of_the_link() -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)

    def frame(bytes_per_second: float) -> None:
        with bandwidth.sending(identity(1).peer_id, MEGABYTE):
            clock.now += MEGABYTE / bytes_per_second

    clock.now = 10.0
    for bytes_per_second in (SLOW, SLOW, *[FAST] * 8, SLOW):
        frame(bytes_per_second)
    assert 0.8 * FAST <= bandwidth.bytes_per_second <= FAST
    clock.now += 10.0
    for _ in range(8):
        frame(SLOW)
    after_a_slow_burst = bandwidth.bytes_per_second
    assert after_a_slow_burst < 0.5 * FAST
    clock.now += 10.0
    for _ in range(8):
        frame(FAST)
    assert 0.8 * FAST <= bandwidth.bytes_per_second <= FAST


def test_an_owner_that_waits_for_a_slow_members_chunks_does_not_take_its_link_for_slow() -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)

    def burst(wait_seconds: float, send_seconds: float) -> None:
        clock.now += 10.0
        for _ in range(8):
            clock.now += wait_seconds
            with bandwidth.sending(identity(1).peer_id, MEGABYTE):
                clock.now += send_seconds

    burst(0.0, 0.1)
    measured = bandwidth.bytes_per_second
    for _ in range(5):
        burst(0.2, 0.001)
    assert bandwidth.bytes_per_second == measured
    for _ in range(5):
        burst(0.001, 0.2)
    assert bandwidth.bytes_per_second < 0.7 * measured


@pytest.mark.parametrize("megabytes", [7, 8, 10, 14])
def test_equal_links_are_measured_alike_though_the_buffers_of_many_receivers_could_hold_nearly_all(
    megabytes: int,
) -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)

    def burst(bytes_per_second: float) -> None:
        clock.now += 10.0
        for number in range(2 * megabytes):
            with bandwidth.sending(identity(1 + number % 7).peer_id, MEGABYTE // 2):
                clock.now += MEGABYTE / 2 / bytes_per_second

    burst(FAST)
    assert FAST / 2 <= bandwidth.bytes_per_second <= 1.01 * FAST
    for _ in range(5):
        burst(SLOW)
    assert bandwidth.bytes_per_second <= 2 * SLOW
    for _ in range(5):
        burst(FAST)
    assert FAST / 2 <= bandwidth.bytes_per_second <= 1.01 * FAST, "nobody stays slow for good"


def test_buffers_that_had_drained_are_not_taken_for_a_fast_link() -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)
    for receiver in (1, 2):
        for _ in range(2):
            with bandwidth.sending(identity(receiver).peer_id, MEGABYTE // 2):
                clock.now += 0.0001
    assert bandwidth.bytes_per_second == 0


def test_a_frame_that_could_not_be_sent_counts_for_nothing() -> None:
    clock = StepClock()
    bandwidth = Bandwidth(clock)
    for number in range(16):
        with suppress(ConnectionError), bandwidth.sending(identity(1).peer_id, MEGABYTE):
            clock.now += 0.1
            if number % 2:
                raise ConnectionError
    assert 0.8 * 5 * MEGABYTE <= bandwidth.bytes_per_second <= 5.5 * MEGABYTE
