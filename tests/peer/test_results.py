"""Fetching a reduced part: it is what was asked for, and its owner has signed it."""

import numpy as np
import pytest

from dht.interfaces import Frame
from dht.simulated import SimulatedNetwork, run_simulation
from peer.rounds.results import FETCH_KIND, HeldPart, ResultStore, Wanted, fetch
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
        return await fetch(asker, HOLDER.peer_id, wanted, GRID, NONE, np.empty(GRID.count, np.float32))

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


def test_old_results_make_room_for_the_next_unless_somebody_is_fetching_them() -> None:
    count = 64 * 256 * 100  # more than fits between two peers at a time

    def held(value: float) -> HeldPart:
        part = EncodedUpdate(np.full(count, value, np.float32), NONE)
        result = PartResult(start=0, stop=len(part.chunks), digest=commitment(part.digests))
        return HeldPart(result, tuple(part.chunks), b"its owner's word")

    async def scenario(network: SimulatedNetwork) -> None:
        holder, asker = network.join(HOLDER.peer_id), network.join(ASKER.peer_id)
        store, first, second = ResultStore(limit_bytes=8 * count), held(1), held(2)
        await holder.serve_streams(FETCH_KIND, store.serve)
        await asker.connect(HOLDER.peer_id, holder.addresses)
        store.put(1, first)
        store.put(2, second)
        async with await asker.open_stream(HOLDER.peer_id, FETCH_KIND) as stream:
            await stream.send(Frame(encode([1, first.result.start, first.result.stop, first.result.digest])))
            assert await stream.receive() is not None
            store.make_room(4 * count)
            assert store.get(1, first.result) is first
            assert store.get(2, second.result) is None
            while (frame := await stream.receive()) is not None and frame.header:
                pass
            assert frame is not None
            assert frame.payload == first.statement
            while await stream.receive() is not None:
                pass
        store.make_room(8 * count)
        assert store.get(1, first.result) is None

    run_simulation(scenario, 0)
