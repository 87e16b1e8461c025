"""The owner's end of a part."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from dht.simulated import SimulatedNetwork, run_simulation
from peer.rounds.exchange import PartAddress
from peer.rounds.owning import OwnedPart
from peer.tasks import beside
from protocols.codecs import codec
from protocols.encoding import digest
from protocols.identity import Identity
from protocols.round.deadlines import Timing
from protocols.round.messages import Member, Part
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate, PartReduction
from protocols.rules import rule
from protocols.signed import Signer
from tests.peer.simulated_swarm import identity

GRID = Grid(100)
NONE = codec("none")
FROZEN_SECONDS = 13.0
"""Longer than `Timing.failure`."""


def owned_part(
    network: SimulatedNetwork, owner: Identity, sent: Mapping[Identity, EncodedUpdate], *, keeps: bool = False
) -> OwnedPart:
    """The whole vector is one part."""
    members = [Member(peer=who.peer_id, weight=1, root=update.root) for who, update in sent.items()]
    part = Part(owner=owner.peer_id, start=0, stop=GRID.chunks)
    reduction = PartReduction(part, GRID, members, NONE, rule("mean"), keeps=keeps)
    signer = Signer(owner, "demo-" + "a" * 26, 1)
    address = PartAddress(0, 0, 0, 0, part, owner.peer_id, digest(b"begin"))
    return OwnedPart(reduction, network.join(owner.peer_id), signer, Timing(), address)


def test_an_owner_that_did_not_run_reads_what_came_meanwhile_before_it_drops_anybody() -> None:
    ours, theirs = (EncodedUpdate(np.full(GRID.count, value, np.float32), NONE) for value in (1.0, 3.0))
    owner, sender = identity(0), identity(1)

    async def scenario(network: SimulatedNetwork) -> Any:
        loop: Any = asyncio.get_running_loop()
        owned = owned_part(network, owner, {owner: ours, sender: theirs})
        reduction = owned.reduction
        values = np.empty(GRID.count, np.float32)
        async with beside(owned.run(ours, values, lambda observed: None)) as running:
            await asyncio.sleep(0.5)
            loop._now += FROZEN_SECONDS  # all timers that are due now fire before anything is read
            await asyncio.sleep(0.01)
            for chunk in range(GRID.chunks):
                reduction.add(1, chunk, theirs.chunks[chunk])
            owned._arrived.notify()
            await running
        return owned.missing_senders, values

    missing, values = run_simulation(scenario, 0)
    assert missing == 0
    assert (values == 2.0).all()


def test_what_is_kept_of_the_owners_own_chunks_does_not_keep_its_whole_update() -> None:
    update = np.full(GRID.count, 1.0, np.float32)
    ours, owner = EncodedUpdate(update, NONE), identity(0)
    assert np.shares_memory(np.frombuffer(ours.chunks[0], np.float32), update)

    async def scenario(network: SimulatedNetwork) -> Any:
        owned = owned_part(network, owner, {owner: ours}, keeps=True)
        await owned.run(ours, np.empty(GRID.count, np.float32), lambda observed: None)
        return owned.reduction.inputs

    kept = np.frombuffer(run_simulation(scenario, 0)[0][0], np.float32)
    assert (kept == update).all()
    assert not np.shares_memory(kept, update)
