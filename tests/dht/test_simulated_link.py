"""A channel is shared fairly: among flows, not messages; and small messages do not wait behind large ones."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.interfaces import Frame, Stream
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Channel, Link
from dht.virtual_time import VirtualTimeLoop
from tests.dht.worlds import identity

RATE = 1000.0
PEERS = [identity(number).peer_id for number in range(1, 4)]


def passages(arrivals: list[tuple[float, str, int]]) -> dict[int, float]:
    """When each message (when it comes, its flow, its bytes) has passed a channel of RATE, by number."""

    async def main() -> dict[int, float]:
        loop, all_passed = asyncio.get_running_loop(), asyncio.Event()
        channel, passed = Channel(RATE), dict[int, float]()

        def passes(number: int) -> None:
            passed[number] = loop.time()
            if len(passed) == len(arrivals):
                all_passed.set()

        def enter(number: int, flow: str, size: int) -> None:
            channel.enter(flow, size, lambda: passes(number))

        for number, (when, flow, size) in enumerate(arrivals):
            loop.call_at(when, enter, number, flow, size)
        await all_passed.wait()
        return passed

    return run(main)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def test_one_flow_has_the_channel_alone() -> None:
    assert passages([(0.0, "a", 2000), (0.5, "a", 1000)]) == pytest.approx({0: 2.0, 1: 3.0})


def test_two_flows_have_half_each_while_both_wait() -> None:
    assert passages([(0.0, "a", 2000), (1.0, "b", 500)]) == pytest.approx({0: 2.5, 1: 2.0})


def test_a_flow_with_many_messages_has_no_more_than_one_with_one() -> None:
    many = [(0.0, "a", 100)] * 10
    assert passages([*many, (0.0, "b", 1000)])[10] == pytest.approx(2.0)


def test_what_is_dropped_leaves_its_share_to_the_others() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        passed: asyncio.Future[float] = loop.create_future()
        channel = Channel(RATE)
        channel.enter("a", 5000, lambda: pytest.fail("it was dropped"))
        channel.enter("b", 1000, lambda: passed.set_result(loop.time()))
        loop.call_at(1.0, channel.drop, "a")
        return await passed

    assert run(main) == pytest.approx(1.5)


def test_packets_pass_before_what_waits_and_take_its_time() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        passed: asyncio.Future[float] = loop.create_future()
        channel = Channel(RATE)
        channel.enter("a", 2000, lambda: passed.set_result(loop.time()))
        await asyncio.sleep(1.0)
        channel.packet(100, loop.time())
        second = channel.packet(100, loop.time())
        return second, await passed

    assert run(main) == pytest.approx((1.2, 2.2))


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abc"), st.integers(1, 5000)), min_size=1, max_size=12))
def test_a_channel_is_never_idle_while_something_waits_and_never_faster_than_its_rate(
    arrivals: list[tuple[float, str, int]],
) -> None:
    passed = passages(arrivals)
    free, finish = 0.0, 0.0
    for when, _, size in sorted(arrivals):
        free = max(free, when) + size / RATE
        finish = free
    assert max(passed.values()) == pytest.approx(finish, abs=1e-6)
    for number, (when, flow, size) in enumerate(arrivals):
        assert passed[number] >= when + size / RATE - 1e-6
        earlier = [n for n, (w, f, _) in enumerate(arrivals) if f == flow and (w, n) < (when, number)]
        assert all(passed[n] <= passed[number] + 1e-6 for n in earlier)


def test_senders_to_one_peer_share_its_download_and_finish_together() -> None:
    async def main(network: SimulatedNetwork) -> list[float]:
        receiver, *senders = [network.join(peer) for peer in PEERS]
        arrived: list[float] = []

        async def take(stream: Stream) -> None:
            while await stream.receive() is not None:
                arrived.append(network.clock.monotonic())

        await receiver.serve_streams("bulk", take)

        async def send(sender: Any) -> None:
            await sender.connect(receiver.peer_id, receiver.addresses)
            async with await sender.open_stream(receiver.peer_id, "bulk") as stream:
                await stream.send(Frame(payload=bytes(1_000_000)))

        began = network.clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for sender in senders:
                tasks.create_task(send(sender))
        await network.clock.sleep(5)
        return [moment - began for moment in arrived]

    link = Link(1e6, 1e6, latency_seconds=0.0)
    assert run_simulation(main, 0, link) == pytest.approx([2.0, 2.0], abs=0.01)


def test_regions_are_as_far_from_each_other_as_the_matrix_says() -> None:
    async def main(network: SimulatedNetwork) -> tuple[float, float]:
        near, other, far = (
            network.join(peer, link=Link(latency_seconds=0.01, region=region))
            for peer, region in zip(PEERS, ("eu", "eu", "us"), strict=True)
        )
        return network.latency(near.peer_id, other.peer_id), network.latency(near.peer_id, far.peer_id)

    distances = {frozenset({"eu", "us"}): 0.04}
    assert run_simulation(main, 0, distances=distances) == pytest.approx((0.02, 0.06))
