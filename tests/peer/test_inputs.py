"""What owners were sent, shown to who checks: only what was sent, and nobody waits for who shows nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dht.interfaces import Frame, Stream, TimedOut, Unreachable
from dht.simulated import SimulatedNetwork, run_simulation
from peer.streams import next_request
from peer.verification.inputs import INPUTS_KIND, MOST_ROUNDS, InputStore, Row, fetch_rows
from protocols.encoding import encode
from protocols.rejection import Reason, Rejected
from protocols.round.messages import begin_digest
from tests.peer.simulated_swarm import identity
from tests.protocols.verification.rounds import PlayedRound

PLAYED = PlayedRound()
BEGIN = begin_digest(PLAYED.begin.body)


def filled() -> InputStore:
    store = InputStore()
    contributions = {number: statement.wire for number, statement in enumerate(PLAYED.contributions)}
    store.put(BEGIN, contributions, {chunk: PLAYED.rows(chunk) for chunk in range(PLAYED.grid.chunks)})
    return store


def fetched(
    serve: Callable[[Stream], Awaitable[None]], chunks: tuple[int, ...] = (0, 1), member: int = -1
) -> dict[int, dict[int, Row]]:
    async def scenario(network: SimulatedNetwork) -> Any:
        holder, asker = network.join(identity(0).peer_id), network.join(identity(1).peer_id)
        await holder.serve_streams(INPUTS_KIND, serve)
        await asker.connect(holder.peer_id, holder.addresses)
        return {
            chunk: await fetch_rows(asker, holder.peer_id, PLAYED.begin, chunk, PLAYED.codec, PLAYED.grid, member)
            for chunk in chunks
        }

    return run_simulation(scenario, 0)


def test_a_validator_gets_what_all_members_have_sent() -> None:
    rows = fetched(filled().serve)
    assert {chunk: {n: bytes(row.payload) for n, row in of_chunk.items()} for chunk, of_chunk in rows.items()} == {
        0: PLAYED.rows(0),
        1: PLAYED.rows(1),
    }
    assert list(fetched(filled().serve, member=3)[0]) == [3]


def test_of_what_is_not_here_nothing_is_shown() -> None:
    assert fetched(InputStore().serve) == {0: {}, 1: {}}
    assert fetched(filled().serve, chunks=(10_000,)) == {10_000: {}}


def answering(*frames: Frame) -> Callable[[Stream], Awaitable[None]]:
    async def serve(stream: Stream) -> None:
        while await next_request(stream) is not None:
            for frame in frames:
                await stream.send(frame)
            await stream.send(Frame())

    return serve


def row(number: int, of: int, chunk: int = 0) -> Frame:
    return Frame(encode([number, PLAYED.contributions[of].wire]), PLAYED.rows(chunk)[of])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([row(0, 0, chunk=1)], Reason.WRONG_DIGEST),
        ([row(1, 0)], Reason.UNEXPECTED),
        ([row(0, 0), row(0, 0)], Reason.UNEXPECTED),
        ([row(63, 0)], Reason.UNEXPECTED),
        ([Frame(encode([-1, b""]), b"")], Reason.MALFORMED),
        ([Frame(encode([0, b"noise"]), b"")], Reason.MALFORMED),
        ([Frame(b"noise", b"")], Reason.MALFORMED),
    ],
)
def test_what_was_not_sent_is_refused(frames: list[Frame], reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        fetched(answering(*frames), chunks=(0,))
    assert refused.value.reason is reason


def test_a_holder_that_says_nothing_is_not_waited_for() -> None:
    async def serve(stream: Stream) -> None:
        await stream.receive()
        await stream.receive()

    with pytest.raises(TimedOut):
        fetched(serve)


@pytest.mark.parametrize(
    "header", [b"", b"noise", encode([BEGIN, 0]), encode([b"short", 0, -1]), encode([BEGIN, "0", 1])]
)
def test_a_bad_request_is_refused(header: bytes) -> None:
    refusals: list[str] = []

    async def scenario(network: SimulatedNetwork) -> None:
        holder = network.join(identity(0).peer_id, on_rejected=lambda peer, reason, why: refusals.append(reason))
        asker = network.join(identity(1).peer_id)
        await holder.serve_streams(INPUTS_KIND, filled().serve)
        await asker.connect(holder.peer_id, holder.addresses)
        stream = await asker.open_stream(holder.peer_id, INPUTS_KIND)
        await stream.send(Frame(header))
        with pytest.raises(Unreachable):
            await stream.receive()

    run_simulation(scenario, 0)
    assert refusals == [Reason.MALFORMED]


def test_so_many_rounds_are_kept_as_are_allowed() -> None:
    store = InputStore()
    for number in range(3 * MOST_ROUNDS):
        store.put(bytes([number]) * 32, {}, {0: {0: b"x"}})
    assert len(store._rounds) == MOST_ROUNDS
    large = InputStore()
    for number in range(5):
        large.put(bytes([number]) * 32, {}, {0: {0: bytes(40 * 1024 * 1024)}})
    assert len(large._rounds) == 2
