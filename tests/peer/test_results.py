"""Fetching a reduced part: it is what was asked for, and its owner has signed it."""

import numpy as np
import pytest

from dht.interfaces import Frame, Stream, TimedOut
from dht.simulated import SimulatedNetwork, run_simulation
from peer.rounds.chunk_frames import chunk_header
from peer.rounds.results import (
    FETCH_KIND,
    SLOWEST_BYTES_PER_SECOND,
    WAITING_EPOCHS,
    HeldPart,
    ResultStore,
    Wanted,
    fetch,
)
from peer.rounds.traffic import Traffic
from protocols.codecs import codec
from protocols.encoding import digest, encode
from protocols.identity import Identity
from protocols.message import Message
from protocols.rejection import Reason, Rejected
from protocols.round.messages import PartResult, Result, Wait, commitment
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate
from protocols.signed import Signer
from tests.peer.simulated_swarm import identity

RUN = "demo-" + "a" * 26
EPOCH = 3
GRID = Grid(1000)
BEGIN = digest(b"begin")
NONE = codec("none")
PART = EncodedUpdate(np.ones(GRID.count, np.float32), NONE)
RESULT = PartResult(start=0, stop=GRID.chunks, digest=commitment(PART.digests))
OWNER, HOLDER, ASKER, STRANGER = (identity(number) for number in range(4))


def statement(digests: tuple[bytes, ...] = PART.digests) -> Result:
    return Result(term=0, part=0, attempt=0, begin=BEGIN, chunks=digests, included=(1,) * len(digests))


def fetched(body: Message, *, signed_by: Identity = OWNER, epoch: int = EPOCH, run: str = RUN) -> HeldPart:
    """From a holder that has the right chunks, and this statement with them."""

    async def scenario(network: SimulatedNetwork) -> HeldPart:
        holder, asker = network.join(HOLDER.peer_id), network.join(ASKER.peer_id)
        store = ResultStore()
        store.put(EPOCH, HeldPart(RESULT, tuple(PART.chunks), Signer(signed_by, run, 1).sign(body, epoch).wire))
        await holder.serve_streams(FETCH_KIND, store.serve)
        await asker.connect(HOLDER.peer_id, holder.addresses)
        wanted = Wanted(RUN, EPOCH, RESULT, OWNER.peer_id)
        return await fetch(asker, HOLDER.peer_id, wanted, GRID, NONE, np.empty(GRID.count, np.float32), Traffic())

    return run_simulation(scenario, 0)


def test_a_part_comes_with_the_word_of_its_owner() -> None:
    assert fetched(statement()).result == RESULT


@pytest.mark.parametrize(
    ("reason", "body", "changes"),
    [
        (Reason.WRONG_SENDER, statement(), {"signed_by": STRANGER}),
        (Reason.WRONG_RUN, statement(), {"run": "demo-" + "b" * 26}),
        (Reason.WRONG_DIGEST, statement(), {"epoch": EPOCH + 1}),
        (Reason.WRONG_DIGEST, statement(PART.digests[:1]), {}),
        (Reason.WRONG_KIND, Wait(term=0), {}),
    ],
    ids=["by a stranger", "of another run", "of another epoch", "of other chunks", "of something else"],
)
def test_a_part_with_another_word_is_refused(reason: Reason, body: Message, changes: dict) -> None:
    with pytest.raises(Rejected) as refused:
        fetched(body, **changes)
    assert refused.value.reason is reason


def held(value: float, count: int = 64 * 256) -> HeldPart:
    part = EncodedUpdate(np.full(count, value, np.float32), NONE)
    result = PartResult(start=0, stop=len(part.chunks), digest=commitment(part.digests))
    return HeldPart(result, tuple(part.chunks), b"its owner's word")


def test_old_results_make_room_for_the_next_unless_somebody_fetches_what_comes_before_them() -> None:
    count = 64 * 256 * 100  # more than fits between two peers at a time

    async def scenario(network: SimulatedNetwork) -> None:
        holder, asker = network.join(HOLDER.peer_id), network.join(ASKER.peer_id)
        parts = {epoch: held(epoch, count) for epoch in range(1, 5)}
        store = ResultStore(limit_bytes=8 * count)

        def play(epoch: int) -> None:
            store.make_room(4 * count)
            store.put(epoch, parts[epoch])

        def kept() -> list[int]:
            return [epoch for epoch, part in parts.items() if store.get(epoch, part.result) is part]

        await holder.serve_streams(FETCH_KIND, store.serve)
        await asker.connect(HOLDER.peer_id, holder.addresses)
        for epoch in (1, 2, 3):
            play(epoch)
        assert kept() == [2, 3]
        second = parts[2]
        async with await asker.open_stream(HOLDER.peer_id, FETCH_KIND) as stream:
            await stream.send(Frame(encode([2, second.result.start, second.result.stop, second.result.digest])))
            assert await stream.receive() is not None
            play(4)
            assert kept() == [2, 3, 4]
            while (frame := await stream.receive()) is not None and frame.header:
                pass
            assert frame is not None
            assert frame.payload == second.statement
            while await stream.receive() is not None:
                pass
        store.make_room(4 * count)  # it may be about to ask for the next
        assert kept() == [2, 3, 4]
        store.make_room(4 * count)
        assert kept() == [4]

    run_simulation(scenario, 0)


def test_results_wait_for_who_fetches_the_state_before_them_but_only_so_many() -> None:
    fetched: int | None = 3
    size = held(0).size_bytes
    store = ResultStore(lambda: fetched, limit_bytes=2 * size)
    parts = {epoch: held(epoch) for epoch in range(12)}
    for epoch, part in parts.items():
        store.make_room(size)
        store.put(epoch, part)
        kept = [epoch for epoch, part in parts.items() if store.get(epoch, part.result) is part]
        if epoch <= 3:
            assert kept == [*range(max(0, epoch - 1), epoch + 1)]
        else:
            assert kept == [*range(max(3, epoch - WAITING_EPOCHS + 1), epoch + 1)]
    fetched = None
    store.make_room(size)
    store.make_room(size)
    assert store.epochs == 1


@pytest.mark.parametrize("between", [1.0, 30.0], ids=["a drip", "silence"])
def test_a_holder_that_takes_too_long_is_given_up(between: float) -> None:
    """Each chunk in time, but all of them not; or nothing more."""

    async def scenario(network: SimulatedNetwork) -> None:
        holder, asker = network.join(HOLDER.peer_id), network.join(ASKER.peer_id)
        grid = Grid(60 * 32_768)

        async def serve(stream: Stream) -> None:
            await stream.receive()
            for chunk in range(grid.chunks):
                await stream.send(Frame(chunk_header(chunk), bytes(4 * grid.size(chunk))))
                await network.clock.sleep(between * 4 * grid.size(chunk) / SLOWEST_BYTES_PER_SECOND * 1.1)

        await holder.serve_streams(FETCH_KIND, serve)
        await asker.connect(HOLDER.peer_id, holder.addresses)
        wanted = Wanted(RUN, EPOCH, PartResult(start=0, stop=grid.chunks, digest=RESULT.digest))
        began, traffic, values = network.clock.monotonic(), Traffic(), np.empty(grid.count, np.float32)
        with pytest.raises(TimedOut):
            await fetch(asker, HOLDER.peer_id, wanted, grid, NONE, values, traffic)
        assert 0 < traffic.received < 4 * grid.count
        assert network.clock.monotonic() - began < 1.2 * 4 * grid.count / SLOWEST_BYTES_PER_SECOND

    run_simulation(scenario, 0)
