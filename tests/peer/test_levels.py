"""Whole members in rounds of two levels: all of them count, whoever dies, lies or comes late."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from peer.participant import Participant
from peer.rounds.levels import CellLearner, Levels
from peer.rounds.session import Session
from protocols.identity import PeerId
from protocols.manifest import Averaging, Manifest
from protocols.rejection import Reason
from protocols.round.cells import cell_of
from protocols.round.machine import Phase
from protocols.round.reduction import EncodedUpdate
from protocols.round.setting import Setting
from protocols.state import ModelState
from tests.peer.simulated_swarm import (
    BATCH,
    INNER_STEPS,
    SimulatedPeer,
    SimulatedSwarm,
    data_parallel,
    distance,
    identity,
    local_sgd,
    simulate,
)

PEERS, CELLS, EPOCHS = 24, 4, 4
ROBUST = Averaging(cells=CELLS, rule="trimmed_mean", byzantine=1, quorum=3)


def in_cells(manifest: Manifest, averaging: Averaging | None = None) -> Manifest:
    return manifest.model_copy(update={"averaging": averaging or Averaging(cells=CELLS)})


def session_of(peer: SimulatedPeer) -> Session | None:
    participant = peer.participant
    assert isinstance(participant, Participant)
    return participant._session


def is_representative(peer: SimulatedPeer) -> bool:
    session = session_of(peer)
    return session is not None and session.setting.is_of_cells and not session.setting.follows


def follows(peer: SimulatedPeer) -> bool:
    session = session_of(peer)
    return session is not None and session.setting.is_of_cells and session.setting.follows


async def some_peer(swarm: SimulatedSwarm, fits: Callable[[SimulatedPeer], bool]) -> SimulatedPeer:
    """The first of which that holds, looked for every ten milliseconds."""
    while True:
        for peer in swarm.running:
            if fits(peer):
                return peer
        await swarm.network.clock.sleep(0.01)


def play(manifest: Manifest, seed: int = 0) -> list[SimulatedPeer]:
    """All members, when they have come to the end with one state."""

    async def scenario(swarm: SimulatedSwarm) -> list[SimulatedPeer]:
        await swarm.start_all(PEERS)
        await swarm.finish(120)
        return swarm.running

    return simulate(scenario, manifest, seed)


def samples(peers: Iterable[SimulatedPeer]) -> int:
    return sum(peer.participant.samples_contributed for peer in peers)


# -- what comes of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "error"), [("none", 1e-4), ("float16", 2e-2), ("int8", 1e-1)])
@pytest.mark.parametrize("seed", range(2))
def test_the_mean_of_cells_is_that_of_all_members(seed: int, codec: str, error: float) -> None:
    one, two = (
        play(local_sgd(EPOCHS), seed),
        play(in_cells(local_sgd(EPOCHS), Averaging(cells=CELLS, codec=codec)), seed),
    )
    assert samples(one) == samples(two) == PEERS * EPOCHS * INNER_STEPS * BATCH
    assert not any(peer.resyncs for peer in two)
    ours, theirs = (peers[0].state.parameters for peers in (two, one))
    np.testing.assert_allclose(ours, theirs, atol=error)


def test_an_epoch_has_the_samples_that_it_needs() -> None:
    target = PEERS * 40
    peers = play(in_cells(data_parallel(EPOCHS, target_batch=target)))
    assert samples(peers) >= EPOCHS * target
    assert distance(peers[0].state) < 5


def test_the_first_epoch_takes_no_longer_than_the_others() -> None:
    """Who starts meets its cell before the others, and is not to take it for half of the swarm."""
    peers = play(in_cells(data_parallel(EPOCHS, target_batch=PEERS * 400)))
    for peer in peers:
        times = peer.epoch_times
        assert times[1] - times[0] < 1.5 * (times[3] - times[2])


def test_no_group_is_the_whole_swarm() -> None:
    for peer in play(in_cells(local_sgd(EPOCHS))):
        assert isinstance(peer.participant, Participant)
        assert peer.participant.largest_group < PEERS // 2


def test_who_cannot_be_dialled_takes_part_in_both_levels() -> None:
    async def scenario(swarm: SimulatedSwarm) -> list[SimulatedPeer]:
        for number in range(PEERS):
            await swarm.start(number, client_mode=number % 3 == 0)
        await swarm.finish(200)
        return swarm.running

    peers = simulate(scenario, in_cells(local_sgd(EPOCHS)))
    assert {peer.participant.samples_contributed for peer in peers} == {EPOCHS * INNER_STEPS * BATCH}


# -- who dies ---------------------------------------------------------------------------------------------------------


def kill(fits: Callable[[SimulatedPeer], bool], seed: int) -> list[SimulatedPeer]:
    """Who is in the second epoch and fits is killed; the others, when they have come to the end with one state."""

    async def scenario(swarm: SimulatedSwarm) -> list[SimulatedPeer]:
        await swarm.start_all(PEERS)
        victim = await some_peer(swarm, lambda peer: peer.state.epoch >= 1 and fits(peer))
        await swarm.crash(victim)
        await swarm.finish(200)
        assert len(swarm.running) == PEERS - 1
        return swarm.running

    return simulate(scenario, in_cells(local_sgd(EPOCHS)), seed)


def is_in(phase: Phase, peer: SimulatedPeer) -> bool:
    session = session_of(peer)
    return session is not None and session.machine.phase is phase


def leads(peer: SimulatedPeer, *, of_cells: bool) -> bool:
    session = session_of(peer)
    return session is not None and session.setting.is_of_cells is of_cells and session.machine.leader == peer.peer


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("phase", [Phase.GATHERING, Phase.READY, Phase.EXCHANGING, Phase.PREPARED])
def test_a_representative_dies(phase: Phase, seed: int) -> None:
    survivors = kill(lambda peer: is_representative(peer) and is_in(phase, peer), seed)
    assert not any(peer.resyncs for peer in survivors)


@pytest.mark.parametrize("phase", [Phase.READY, Phase.EXCHANGING])
@pytest.mark.parametrize("of_cells", [False, True])
def test_a_leader_of_either_level_dies(of_cells: bool, phase: Phase) -> None:
    survivors = kill(lambda peer: leads(peer, of_cells=of_cells) and is_in(phase, peer), seed=3)
    assert not any(peer.resyncs for peer in survivors)


def test_the_next_of_its_cell_takes_the_place_of_a_representative() -> None:
    """Nothing is lost: one slow member has the cells wait until then."""

    async def scenario(swarm: SimulatedSwarm) -> list[SimulatedPeer]:
        for number in range(PEERS):
            await swarm.start(number, speed=200 if number else 50)

        def is_followed_and_waits(peer: SimulatedPeer) -> bool:
            waits = is_representative(peer) and is_in(Phase.GATHERING, peer)
            mates = peer.participant._mates(other.peer for other in swarm.running) if waits else ()
            return bool(mates) and all(follows(other) for other in swarm.running if other.peer in mates)

        victim = await some_peer(swarm, is_followed_and_waits)
        await swarm.crash(victim)
        await swarm.finish(200)
        return swarm.running

    survivors = simulate(scenario, in_cells(local_sgd(EPOCHS)))
    assert {peer.participant.samples_contributed for peer in survivors} == {EPOCHS * INNER_STEPS * BATCH}


def test_a_whole_cell_dies() -> None:
    async def scenario(swarm: SimulatedSwarm) -> int:
        await swarm.start_all(PEERS)
        furthest = await some_peer(swarm, lambda peer: peer.state.epoch == 1)
        for peer in [peer for peer in swarm.running if cell_of(furthest.state.digest, CELLS, peer.peer) == 0]:
            await swarm.crash(peer)
        await swarm.finish(200)
        return len(swarm.running)

    assert 0 < simulate(scenario, in_cells(local_sgd(EPOCHS))) < PEERS


@pytest.mark.parametrize("seed", range(3))
def test_members_come_and_go(seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(PEERS)
        for number in range(6):
            await swarm.epoch(number)
            await swarm.crash(swarm.peers[number])
            await swarm.start(PEERS + number)
            if number % 2:
                await swarm.leave(swarm.peers[number + 6])
        await swarm.finish(300)
        assert all(swarm.peers[PEERS + number].participant.samples_contributed for number in range(6))

    simulate(scenario, in_cells(local_sgd(8)), seed)


# -- who lies ---------------------------------------------------------------------------------------------------------


class LyingLevels(Levels):
    """As who represents its cell it contributes something else than what the cell has come to."""

    def _represent(self, ours: Any) -> Session:
        honest: CellLearner = ours.learner
        chunks = [
            np.full(memoryview(chunk).nbytes // 4, 1e6, np.float32).tobytes() for chunk in honest._aggregate.chunks
        ]
        lie = EncodedUpdate.of_results(honest._aggregate.grid, chunks, honest._aggregate.cell[0])
        object.__setattr__(ours, "learner", CellLearner(lie, honest._samples))
        return super()._represent(ours)

    def _of_cells(self, **given: Any) -> Setting:
        """It owns no part: what an owner makes of its own part is another matter."""
        return replace(super()._of_cells(**given), client_mode=True)


class LyingRepresentative(Participant):
    levels = LyingLevels


def test_nobody_can_contribute_for_a_cell_what_it_has_not_voted_for() -> None:
    async def scenario(swarm: SimulatedSwarm) -> tuple[ModelState, int]:
        for number in range(PEERS):
            await swarm.start(number, make=LyingRepresentative if number % 8 == 0 else Participant)
        honest = [peer for peer in swarm.running if peer.number % 8]
        await swarm.until(lambda: swarm.finished(honest), 200)
        return honest[0].state, swarm.rejected(honest)[Reason.WRONG_DIGEST]

    state, refused = simulate(scenario, in_cells(local_sgd(EPOCHS)))
    assert refused > 0
    assert distance(state) < 10


@pytest.mark.parametrize("rule", [Averaging(cells=CELLS), ROBUST])
def test_robust_rules_within_cells_and_across_them(rule: Averaging) -> None:
    """With a liar in some cells the mean is lost, and a robust rule is not."""

    async def scenario(swarm: SimulatedSwarm) -> float:
        for number in range(PEERS):
            await swarm.start(number, learns=partial(_lying, swarm) if number < 2 else None)
        await swarm.finish(300)
        return distance(swarm.peers[5].state)

    lost = simulate(scenario, in_cells(local_sgd(EPOCHS), rule)) > 10
    assert lost is (rule.rule == "mean")


def _lying(swarm: SimulatedSwarm, manifest: Manifest, peer: PeerId, *given: Any) -> Any:
    learner = swarm._learns(manifest, peer, *given)

    async def update() -> Any:
        made = await type(learner).update(learner)
        return None if made is None else (np.full_like(made[0], -1e4), made[1])

    learner.update = update
    return learner


@pytest.mark.parametrize("acquainted", [False, True])
def test_who_comes_back_in_an_epoch_speaks_for_its_cell_where_it_was_known_before(acquainted: bool) -> None:
    """Not who is heard of for the first time: it may have been made for this cell."""
    ids = [identity(number).peer_id for number in range(30)]
    me, base = ids[0], b"\x05" * 32
    setting = Setting(run="run", epoch=7, base=base, me=me, target_samples=None, chunks=1, cells=CELLS)
    here, back = dict.fromkeys(ids[1:8], False), ids[8:]
    unknown: Any = None
    levels = Levels(setting, lambda: here, back if acquainted else (), unknown, unknown, unknown, unknown)
    here |= dict.fromkeys(back, False)
    assert set(levels._heirs()).isdisjoint(back) is not acquainted
