"""Members of a few cells that make the decision of all of them up, or keep them from one."""

import asyncio

import numpy as np

from peer.rounds.results import FETCH_KIND, HeldPart, ResultStore
from peer.simulation.swarm import SimulatedSwarm, identity
from peer.streams import REQUEST_BYTES
from protocols.codecs import codec
from protocols.round.cells import cell_of, draw_of_cells, heirs_of_each, round_number
from protocols.round.messages import Done, PartResult, Prepared, Result, commitment
from protocols.round.parts import Grid
from protocols.round.reduction import EncodedUpdate
from tests.peer.attacks import Attacker
from tests.peer.simulated_swarm import local_sgd, simulate
from tests.peer.test_hostile_messages import attacker_of
from tests.peer.test_levels import CELLS, EPOCHS, PEERS, in_cells, session_of

NUMBER = round_number(0, 1, CELLS)


async def decide(swarm: SimulatedSwarm, group: list[Attacker]) -> Done:
    """A decision of the round of cells, made up by these; each gives what it has decided to whoever asks."""
    grid, base = Grid(swarm.initial.parameter_count), swarm.initial.digest
    vector = np.full(grid.count, 1e3, np.float32)
    update = EncodedUpdate(vector, codec("none"))
    result = PartResult(start=0, stop=grid.chunks, digest=commitment(update.digests))
    vote = Prepared(base=base, term=0, results=(result,))
    done = Done(
        base=base,
        term=0,
        members=tuple(one.peer for one in group),
        results=(result,),
        votes=tuple(one.wire(vote, NUMBER) for one in group),
    )
    for one in group:
        said = Result(
            term=0, part=0, attempt=0, begin=base, chunks=update.digests, included=(1,) * grid.chunks, weighed=None
        )
        store = ResultStore()
        store.put(NUMBER, HeldPart(result, tuple(update.chunks), one.wire(said, NUMBER)))
        await one.transport.serve_streams(FETCH_KIND, store.serve, REQUEST_BYTES)
    return done


def test_a_few_members_that_represent_no_cell_decide_nothing_for_all() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(PEERS, speed=10)
        honest = swarm.running
        await swarm.until(lambda: all(session_of(peer) is not None for peer in honest), 30)
        base, chosen, found = swarm.initial.digest, [], set()
        for number in range(100, 200):
            peer = identity(number).peer_id
            cell = cell_of(base, CELLS, peer)
            draw, members = draw_of_cells(swarm.manifest.run_id, base), [peer, *(one.peer for one in honest)]
            heirs = heirs_of_each(draw, NUMBER, base, CELLS, dict.fromkeys(members, False))
            if cell not in found and peer not in heirs:
                found.add(cell)
                chosen.append(number)
        group = [await attacker_of(swarm, number) for number in chosen[: CELLS // 2 + 1]]
        for one in group:
            await one.pretend(honest[0].participant)
            await asyncio.gather(*(one.hello(peer.peer) for peer in honest))
        done = group[0].wire(await decide(swarm, group), NUMBER)
        await asyncio.gather(*(group[0].ask(peer.peer, "round", done) for peer in honest))
        await swarm.until(lambda: all(peer.state.epoch >= 1 for peer in honest), 60)
        assert all(np.abs(peer.state.parameters).max() < 100 for peer in honest)
        await swarm.until(lambda: swarm.finished(honest), 200)

    simulate(scenario, in_cells(local_sgd(EPOCHS)))
