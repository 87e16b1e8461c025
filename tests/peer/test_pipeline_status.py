"""What a status says of a pipeline: by who serves a stage, by who only trains, and from outside."""

from collections.abc import Sequence
from functools import partial

import pytest

from peer.status import StageStatus, Status
from peer.view import epoch_of, status_of
from protocols.swarm.rebalance import Load, Move
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.test_gathering import observer_of


def seen_by(peer: Peer) -> Status:
    return status_of(peer.participant, peer.transport.peer_id, peer.pipeline)


def peers_at(stages: Sequence[StageStatus]) -> list[int]:
    return [stage.peers for stage in stages]


def test_all_see_the_same_stages() -> None:
    manifest = pipeline(epochs=40, stages=3)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=number % 3)
        trainer = await swarm.start(4, role="trainer")
        await swarm.until(lambda: swarm.peers[0].state.epoch >= 10, within=100)
        outside = await observer_of(swarm).look()
        for status in (seen_by(swarm.peers[0]), seen_by(trainer), outside):
            assert status.run.state == "training"
            assert peers_at(status.stages) == [2, 1, 1]
            assert all(abs((stage.epoch or 0) - status.run.epoch) <= 1 for stage in status.stages)
            assert [stage.number for stage in status.stages] == [0, 1, 2]
            at_stage_1 = [peer.peer_id for peer in status.peers if peer.stage == 1]
            assert at_stage_1 == [swarm.peers[1].transport.peer_id]
        mine = seen_by(swarm.peers[0])
        assert mine.self_ is not None
        assert (mine.self_.stage, mine.self_.epoch) == (0, swarm.peers[0].state.epoch)
        assert mine.pipeline is not None
        assert mine.pipeline.microbatches_done > 0
        theirs = seen_by(trainer)
        assert theirs.self_ is not None
        assert (theirs.self_.stage, theirs.self_.state, theirs.self_.state_digest) == (None, "training", None)

    simulate(scenario, manifest)


def test_who_is_behind_a_slow_line_says_to_be_as_slow_as_that() -> None:
    """However fast it computes, which takes no virtual time, so that it has to be said here."""
    line_bytes_per_second, computed = 100_000.0, 1e6
    delivered = line_bytes_per_second / (2 * 8 * 16 * 4)  # float32 activations of a microbatch, and their gradient

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(3):
            await swarm.start(number, stage=number)
        await swarm.until(lambda: swarm.finished, within=100)
        for number in (1, 2):
            stage = swarm.peers[number].pipeline.server.stage
            assert stage is not None
            stage.rate = computed
        swarm.peers[1].transport.bandwidth.limit_bytes_per_second = line_bytes_per_second
        for number, rate in ((1, delivered), (2, computed)):
            mine = seen_by(swarm.peers[number]).pipeline
            assert mine is not None
            assert mine.microbatches_per_second == pytest.approx(rate, abs=0.01)
            await swarm.until(partial(told, swarm, number, rate), within=10)

    def told(swarm: PipelineSwarm, number: int, rate: float) -> bool:
        return bool(seen_by(swarm.peers[0]).stages[number].microbatches_per_second == pytest.approx(rate, abs=0.01))

    simulate(scenario, pipeline(epochs=2, stages=3))


def test_who_only_trains_sees_the_run_end_though_all_have_left() -> None:
    manifest = pipeline(epochs=5, stages=2)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number, role="stage")
        trainer = await swarm.start(2, role="trainer")
        await swarm.until(lambda: epoch_of(trainer.participant) >= 2, within=100)
        assert seen_by(trainer).run.state == "training"
        await swarm.finish(within=100)
        for number in range(2):
            swarm.peers[number].participant.leave()
        await swarm.until(lambda: not len(trainer.participant.membership.roster), within=100)
        assert epoch_of(trainer.participant) == 5
        assert seen_by(trainer).run.state == "finished"

    simulate(scenario, manifest)


def test_a_run_waits_for_a_stage_that_nobody_serves() -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        first = await swarm.start(0, stage=0)
        await swarm.until(lambda: first.participant.joined, within=100)
        assert seen_by(first).run.state == "waiting"
        assert [(stage.peers, stage.epoch) for stage in seen_by(first).stages] == [(1, 0), (0, None)]
        await swarm.start(1, stage=1)
        await swarm.until(lambda: seen_by(first).run.state == "training", within=100)

    simulate(scenario, pipeline(epochs=1000, stages=2))


def test_a_move_is_seen_while_it_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[Move] = []

    def next_move(loads: Sequence[Load], _stages: int) -> Move | None:
        at = {load.peer: load.stage for load in loads}
        return next((move for move in moves if at.get(move.peer) == move.source), None)

    monkeypatch.setattr("peer.swarm.pipeline.next_move", next_move)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number)
        other = swarm.peers[0]
        await swarm.until(lambda: other.state.epoch > 0, within=100)
        mover = await swarm.start(2)
        await swarm.until(lambda: sum(peers_at(seen_by(other).stages)) == 3 and mover.state.epoch, within=100)
        assert mover.stage is not None
        source, target = mover.stage, 1 - mover.stage
        moves.append(Move(mover.transport.peer_id, source, target))
        seen: list[tuple[int, int, int | None]] = []

        def moved() -> bool:
            status = seen_by(other)
            [member] = [peer for peer in status.peers if peer.peer_id == mover.transport.peer_id]
            seen.append((status.stages[source].leaving, status.stages[target].arriving, member.moving_to))
            return member.stage == target and member.moving_to is None

        await swarm.until(moved, within=100)
        assert (1, 1, target) in seen
        assert seen[-1] == (0, 0, None)
        assert seen_by(other).stages[target].peers == 2

    simulate(scenario, pipeline(epochs=1000, stages=2))
