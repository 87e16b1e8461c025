"""What every `Transport` promises, on libp2p between real p2pd processes and on the simulated network."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dht.interfaces import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_STREAMS_PER_PEER,
    Frame,
    Refused,
    Stream,
    TimedOut,
    Transport,
    Unreachable,
)
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from tests.dht.worlds import Scenario, World, identity, run_on_libp2p, run_on_simulation

MEBIBYTE = 1024 * 1024

Run = Callable[[Scenario], Any]


@pytest.fixture(params=["libp2p", "simulated"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    if request.param == "libp2p":
        return lambda scenario: run_on_libp2p(scenario, tmp_path)
    return run_on_simulation


async def echo(_peer: PeerId, body: bytes) -> bytes:
    return body


async def echo_stream(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


async def receive_all(stream: Stream) -> list[Frame]:
    frames = []
    while (frame := await stream.receive()) is not None:
        frames.append(frame)
    return frames


def test_request_is_answered_and_says_who_asks(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def who(peer: PeerId, body: bytes) -> bytes:
            return peer.encode() + body

        one, other = await world.pair()
        await other.serve_requests("who", who)
        assert await one.request(other.peer_id, "who", b"!", 10) == one.peer_id.encode() + b"!"
        assert not world.refused

    run(scenario)


def test_empty_and_greatest_bodies_pass(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_requests("echo", echo, limit_bytes=MAX_PAYLOAD_BYTES)
        assert await one.request(other.peer_id, "echo", b"", 10) == b""
        body = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256)
        assert await one.request(other.peer_id, "echo", body, 30) == body

    run(scenario)


def test_the_one_who_was_dialled_can_ask_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        dialled, client = await world.join(), await world.join(client_mode=True)
        await client.connect(dialled.peer_id, world.addresses(dialled))
        await client.serve_requests("echo", echo)
        await dialled.serve_requests("echo", echo)
        assert world.addresses(client) == ()
        assert await client.request(dialled.peer_id, "echo", b"a", 10) == b"a"
        assert await dialled.request(client.peer_id, "echo", b"b", 10) == b"b"

    run(scenario)


def test_refusal_brings_its_reason_and_is_counted(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def refuse(_peer: PeerId, _body: bytes) -> bytes:
            raise Rejected(Reason.STALE, "that was yesterday")

        one, other = await world.pair()
        await other.serve_requests("refuse", refuse)
        with pytest.raises(Refused, match="yesterday") as refusal:
            await one.request(other.peer_id, "refuse", b"", 10)
        assert refusal.value.reason == Reason.STALE
        assert world.refused == {(one.peer_id, Reason.STALE): 1}

    run(scenario)


def test_handler_that_raises_refuses_neutrally_and_serves_on(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def fail_once(_peer: PeerId, body: bytes) -> bytes:
            if body == b"fail":
                raise ZeroDivisionError("a secret")
            return body

        one, other = await world.pair()
        await other.serve_requests("fail", fail_once)
        with pytest.raises(Refused) as refusal:
            await one.request(other.peer_id, "fail", b"fail", 10)
        assert "secret" not in str(refusal.value)
        assert world.refused == {(one.peer_id, "handler_failed"): 1}
        assert await one.request(other.peer_id, "fail", b"fine", 10) == b"fine"

    run(scenario)


def test_unknown_peer_unknown_kind_and_wrong_address_are_unreachable(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        stranger = identity(99).peer_id
        with pytest.raises(Unreachable):
            await one.request(stranger, "echo", b"", 10)
        with pytest.raises(Unreachable):
            await one.open_stream(stranger, "echo")
        with pytest.raises(Unreachable):
            await one.request(other.peer_id, "nothing", b"", 10)
        with pytest.raises(Unreachable):
            await one.connect(stranger, world.addresses(other))
        with pytest.raises(Unreachable):
            await one.connect(stranger, ["not a multiaddr"])

    run(scenario)


def test_no_answer_in_time_times_out(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def never(_peer: PeerId, _body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        one, other = await world.pair()
        await other.serve_requests("never", never)
        await other.serve_requests("echo", echo)
        with pytest.raises(TimedOut):
            await one.request(other.peer_id, "never", b"", 0.3)
        assert await one.request(other.peer_id, "echo", b"x", 10) == b"x"

    run(scenario)


def test_oversized_request_is_refused_before_it_is_read(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_requests("echo", echo, limit_bytes=1000)
        assert await one.request(other.peer_id, "echo", bytes(1000), 10) == bytes(1000)
        for size in (1001, MAX_PAYLOAD_BYTES):
            with pytest.raises(Refused) as refusal:
                await one.request(other.peer_id, "echo", bytes(size), 30)
            assert refusal.value.reason == Reason.OVERSIZED
        assert world.refused == {(one.peer_id, Reason.OVERSIZED): 2}

    run(scenario)


def test_frames_of_all_sizes_come_back_as_sent(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_streams("echo", echo_stream)
        frames = [
            Frame(),
            Frame(header=b"h"),
            Frame(payload=b"p"),
            Frame(header=b"h" * MAX_HEADER_BYTES, payload=bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256)),
            Frame(header=b"after"),
        ]
        async with await one.open_stream(other.peer_id, "echo") as stream:
            assert stream.peer == other.peer_id
            for frame in frames:
                await stream.send(frame)
                back = await stream.receive()
                assert back is not None
                assert (back.header, bytes(back.payload)) == (frame.header, bytes(frame.payload))

    run(scenario)


def test_frame_above_the_limits_is_the_senders_error(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_streams("echo", echo_stream)
        async with await one.open_stream(other.peer_id, "echo") as stream:
            with pytest.raises(ValueError, match="exceeds the limits"):
                await stream.send(Frame(payload=bytes(MAX_PAYLOAD_BYTES + 1)))
            with pytest.raises(ValueError, match="exceeds the limits"):
                await stream.send(Frame(header=bytes(MAX_HEADER_BYTES + 1)))
            await stream.send(Frame(header=b"still open"))
            assert (await stream.receive()) == Frame(header=b"still open")

    run(scenario)


def test_buffer_can_be_reused_once_it_is_sent(run: Run) -> None:
    async def scenario(world: World) -> None:
        arrived: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

        async def collect(stream: Stream) -> None:
            arrived.set_result([bytes(frame.payload) for frame in await receive_all(stream)])

        one, other = await world.pair()
        await other.serve_streams("collect", collect)
        buffer = bytearray(MEBIBYTE)
        async with await one.open_stream(other.peer_id, "collect") as stream:
            for number in range(16):
                buffer[:] = bytes([number]) * MEBIBYTE
                await stream.send(Frame(payload=memoryview(buffer)))
        assert await arrived == [bytes([number]) * MEBIBYTE for number in range(16)]

    run(scenario)


def test_sender_cannot_run_ahead_of_a_reader_without_bound(run: Run) -> None:
    async def scenario(world: World) -> None:
        go_on, received = asyncio.Event(), asyncio.Event()
        frames: list[Frame] = []

        async def read_late(stream: Stream) -> None:
            await go_on.wait()
            frames.extend(await receive_all(stream))
            received.set()

        one, other = await world.pair()
        await other.serve_streams("late", read_late)
        stream = await one.open_stream(other.peer_id, "late")
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(128):
                await stream.send(Frame(payload=bytes(MEBIBYTE)))
                sent += 1
            await stream.close()

        sender = asyncio.ensure_future(send_all())
        done, _ = await asyncio.wait([sender], timeout=3)
        assert not done
        assert sent <= 64
        go_on.set()
        await sender
        await received.wait()
        assert len(frames) == 128

    run(scenario)


def test_orderly_close_delivers_everything_then_the_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def collect(stream: Stream) -> None:
            frames = await receive_all(stream)
            assert await stream.receive() is None
            arrived.set_result(len(frames))

        one, other = await world.pair()
        await other.serve_streams("collect", collect)
        stream = await one.open_stream(other.peer_id, "collect")
        for _ in range(20):
            await stream.send(Frame(payload=bytes(MEBIBYTE)))
        await stream.close()
        await stream.close()
        stream.abort()
        assert await arrived == 20
        with pytest.raises(Unreachable):
            await stream.send(Frame())
        with pytest.raises(Unreachable):
            await stream.receive()

    run(scenario)


def test_abort_is_seen_as_a_break_not_as_an_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def watch(stream: Stream) -> None:
            try:
                await receive_all(stream)
            except Unreachable:
                ending.set_result("broken")
                raise
            ending.set_result("closed")

        one, other = await world.pair()
        await other.serve_streams("watch", watch)
        stream = await one.open_stream(other.peer_id, "watch")
        await stream.send(Frame(header=b"hello"))
        stream.abort()
        assert await ending == "broken"
        with pytest.raises(Unreachable):
            await stream.send(Frame())

    run(scenario)


def test_error_inside_a_stream_breaks_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def fail(stream: Stream) -> None:
            await stream.receive()
            raise ZeroDivisionError

        async def refuse(stream: Stream) -> None:
            raise Rejected(Reason.WRONG_DIGEST, "no")

        one, other = await world.pair()
        await other.serve_streams("fail", fail)
        await other.serve_streams("refuse", refuse)
        for kind in ("fail", "refuse"):
            stream = await one.open_stream(other.peer_id, kind)
            await stream.send(Frame(header=b"x"))
            with pytest.raises(Unreachable):
                await stream.receive()
            stream.abort()
        assert world.refused == {(one.peer_id, "handler_failed"): 1, (one.peer_id, Reason.WRONG_DIGEST): 1}

    run(scenario)


def test_sending_to_one_who_has_closed_fails_in_the_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def close_at_once(stream: Stream) -> None:
            await stream.close()

        one, other = await world.pair()
        await other.serve_streams("close", close_at_once)
        stream = await one.open_stream(other.peer_id, "close")
        assert await stream.receive() is None

        async def send_for_ever() -> None:
            while True:
                await stream.send(Frame(payload=bytes(MEBIBYTE)))

        with pytest.raises(Unreachable):
            await asyncio.wait_for(send_for_ever(), 60)

    run(scenario)


def test_streams_of_one_peer_are_limited(run: Run) -> None:
    async def scenario(world: World) -> None:
        release = asyncio.Event()

        async def hold(stream: Stream) -> None:
            await stream.send(Frame(header=b"in"))
            await release.wait()

        one, other = await world.pair()
        third = await world.join()
        await third.connect(other.peer_id, world.addresses(other))
        await other.serve_streams("hold", hold)
        held = []
        for _ in range(MAX_STREAMS_PER_PEER):
            stream = await one.open_stream(other.peer_id, "hold")
            assert await stream.receive() == Frame(header=b"in")
            held.append(stream)
        with pytest.raises(Unreachable):
            await (await one.open_stream(other.peer_id, "hold")).receive()
        assert world.refused == {(one.peer_id, Reason.BUSY): 1}
        others = await third.open_stream(other.peer_id, "hold")
        assert await others.receive() == Frame(header=b"in")
        release.set()
        for stream in [*held, others]:
            assert await stream.receive() is None
            await stream.close()
        again = await one.open_stream(other.peer_id, "hold")
        assert await again.receive() == Frame(header=b"in")

    run(scenario)


def test_a_kind_of_stream_has_limits_of_its_own(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_streams("echo", echo_stream, 1000)
        async with await one.open_stream(other.peer_id, "echo") as stream:
            await stream.send(Frame(bytes(1000), bytes(1000)))
            assert await stream.receive() == Frame(bytes(1000), bytes(1000))
        for frame in (Frame(payload=bytes(1001)), Frame(header=bytes(1001))):
            stream = await one.open_stream(other.peer_id, "echo")
            await stream.send(frame)
            with pytest.raises(Unreachable):
                await stream.receive()
        assert world.refused[one.peer_id, Reason.OVERSIZED] == 2

    run(scenario)


def test_who_asks_too_often_is_turned_away_and_others_are_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.gate.EXCHANGES_AT_ONCE", 10.0)
    monkeypatch.setattr("dht.gate.EXCHANGES_PER_SECOND", 0.1)

    async def scenario(world: World) -> None:
        one, other = await world.pair()
        third = await world.join()
        await third.connect(other.peer_id, world.addresses(other))
        await other.serve_requests("echo", echo)
        await other.serve_streams("stream", echo_stream)
        for _ in range(10):
            await one.request(other.peer_id, "echo", b"", 10)
        assert await third.request(other.peer_id, "echo", b"", 10) == b""
        with pytest.raises(Refused) as refused:
            await one.request(other.peer_id, "echo", b"", 10)
        assert refused.value.reason == Reason.BUSY
        stream = await one.open_stream(other.peer_id, "stream")
        with pytest.raises(Unreachable):
            await stream.receive()

    run(scenario)


def test_who_gives_bad_answers_is_charged_as_who_asks_badly(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await one.serve_requests("echo", echo)
        for _ in range(33):
            one.reject(other.peer_id, Reason.WRONG_DIGEST, "a part that is not what its owner signed")
        assert world.refused[other.peer_id, Reason.WRONG_DIGEST] == 33
        with pytest.raises((Refused, Unreachable)):
            await other.request(one.peer_id, "echo", b"", 10)

    run(scenario)


def test_streams_run_at_the_same_time(run: Run) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.pair()
        await other.serve_streams("echo", echo_stream)

        async def talk(number: int) -> int:
            async with await one.open_stream(other.peer_id, "echo") as stream:
                for turn in range(20):
                    header = f"{number}/{turn}".encode()
                    await stream.send(Frame(header=header, payload=bytes(10_000)))
                    back = await stream.receive()
                    assert back is not None
                    assert back.header == header
            return number

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(talk(number)) for number in range(16)]
        assert [task.result() for task in tasks] == list(range(16))

    run(scenario)


def test_cancelled_request_leaves_the_transport_working(run: Run) -> None:
    async def scenario(world: World) -> None:
        asked = asyncio.Event()

        async def never(_peer: PeerId, _body: bytes) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        one, other = await world.pair()
        await other.serve_requests("never", never)
        await other.serve_requests("echo", echo)
        task = asyncio.ensure_future(one.request(other.peer_id, "never", b"", 60))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await one.request(other.peer_id, "echo", b"x", 10) == b"x"

    run(scenario)


def test_peer_with_too_much_bad_input_is_refused_for_a_while(run: Run) -> None:
    async def scenario(world: World) -> None:
        async def refuse(_peer: PeerId, _body: bytes) -> bytes:
            raise Rejected(Reason.BAD_SIGNATURE, "no")

        async def is_served(asker: Transport) -> bool:
            try:
                return await asker.request(other.peer_id, "echo", b"", 10) == b""
            except (Refused, Unreachable):
                return False

        one, other = await world.pair()
        third = await world.join()
        await third.connect(other.peer_id, world.addresses(other))
        await other.serve_requests("refuse", refuse)
        await other.serve_requests("echo", echo)
        for _ in range(33):
            with pytest.raises((Refused, Unreachable)):
                await one.request(other.peer_id, "refuse", b"", 10)
        assert world.refused[one.peer_id, Reason.BAD_SIGNATURE] == 33
        assert not await is_served(one)
        assert await is_served(third)

    run(scenario)


def test_a_kind_is_served_once(run: Run) -> None:
    async def scenario(world: World) -> None:
        one = await world.join()
        await one.serve_requests("echo", echo)
        with pytest.raises(ValueError, match="served already"):
            await one.serve_streams("echo", echo_stream)

    run(scenario)


def test_heavy_work_runs_and_its_errors_come_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        one = await world.join()
        assert await one.in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await one.in_thread(divmod, 7, 0)

    run(scenario)


def test_closing_stops_handlers_and_breaks_streams(run: Run) -> None:
    async def scenario(world: World) -> None:
        ended = asyncio.Event()

        async def hold(stream: Stream) -> None:
            try:
                await stream.send(Frame(header=b"in"))
                await asyncio.Event().wait()
            finally:
                ended.set()

        one, other = await world.pair()
        await other.serve_streams("hold", hold)
        stream = await one.open_stream(other.peer_id, "hold")
        assert await stream.receive() == Frame(header=b"in")
        await other.close()
        assert ended.is_set()
        with pytest.raises(Unreachable):
            await stream.receive()

    run(scenario)
