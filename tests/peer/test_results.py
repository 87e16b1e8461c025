"""Fetching a reduced part: it is what was asked for, and its owner has signed it."""

import numpy as np
import pytest

from dht.simulated import SimulatedNetwork, run_simulation
from peer.rounds.results import FETCH_KIND, HeldPart, ResultStore, Wanted, fetch
from protocols.codecs import codec
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
NONE = codec("none")
PART = EncodedUpdate(np.ones(GRID.count, np.float32), NONE)
RESULT = PartResult(start=0, stop=GRID.chunks, digest=commitment(PART.digests))
OWNER, HOLDER, ASKER, STRANGER = (identity(number) for number in range(4))


def statement(digests: tuple[bytes, ...] = PART.digests) -> Result:
    return Result(term=0, part=0, attempt=0, chunks=digests, included=(1,) * len(digests))


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
