"""Who is on its way to another stage arrives there, whatever becomes of those who serve it."""

import asyncio
from collections.abc import Callable

import pytest

from peer.swarm.pipeline import PipelinePeer
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, identity, pipeline, simulate


def has_set_out(mover: Peer) -> bool:
    return mover.pipeline.moving_to == 1 and mover.stage == 0


def has_come(mover: Peer) -> bool:
    """And has not heard yet what the state is."""
    return mover.stage == 1 and not mover.participant.joined


@pytest.mark.parametrize("when", [has_set_out, has_come])
def test_who_moves_to_a_stage_that_loses_its_last_peer_meanwhile_goes_on_in_its_place(
    when: Callable[[Peer], bool],
) -> None:
    """No round ends any more that it could wait for, and nobody tells it any more how far the stage has come."""

    async def scenario(swarm: PipelineSwarm) -> None:
        for number, stage in enumerate((0, 0, 1)):
            await swarm.start(number, stage=stage)
        staying, mover, last = swarm.peers.values()
        await swarm.until(lambda: all(peer.state.epoch >= 2 for peer in swarm.running), within=60)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mover.pipeline._take(1, at_once=False))
            await swarm.until(lambda: when(mover), within=60)
            await swarm.crash(last)
            epoch = staying.state.epoch
            await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) > epoch + 2, within=120)
        assert (staying.stage, mover.stage) == (0, 1)

    simulate(scenario, pipeline(epochs=1000, stages=2))


def test_a_stage_that_is_served_by_a_word_alone_is_repaired() -> None:
    """Its only peer takes works and never answers: it counts for nothing, and somebody else goes there."""

    async def scenario(swarm: PipelineSwarm) -> None:
        await swarm.start(0, stage=1, role="stage", misbehaviour="withheld_answers")
        for number in (1, 2):
            await swarm.start(number)
        honest = [swarm.peers[number] for number in (1, 2)]
        await swarm.until(lambda: all(peer.stage is not None for peer in honest), within=60)
        assert {peer.stage for peer in honest} == {0}
        await swarm.until(lambda: all(peer.state.epoch >= 5 for peer in honest), within=300)
        assert {peer.stage for peer in honest} == {0, 1}

    simulate(scenario, pipeline(epochs=1000, stages=2))


@pytest.fixture
def all_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PipelinePeer, "rate", 1.0)


def in_order_of_identity(*numbers: int) -> list[int]:
    """Of peers that are as fast, the first is called to move."""
    return sorted(numbers, key=lambda number: identity(number).peer_id)


@pytest.mark.usefixtures("all_as_fast")
def test_a_stage_is_repaired_by_who_was_not_told_to_stay_elsewhere() -> None:
    staying, going, *lost = in_order_of_identity(0, 1, 2, 3)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in (staying, *lost):
            await swarm.start(number, stage=int(number in lost))
        await swarm.until(lambda: all(peer.state.epoch >= 1 for peer in swarm.running), within=60)
        free = await swarm.start(going)
        await swarm.until(lambda: free.stage == 0, within=60)
        await swarm.until(lambda: all(peer.state.epoch >= 2 for peer in swarm.running), within=60)
        for number in lost:
            await swarm.crash(swarm.peers[number])
        await swarm.until(lambda: free.stage == 1, within=60)
        epoch = free.state.epoch
        await swarm.until(lambda: all(peer.state.epoch > epoch + 2 for peer in swarm.running), within=60)

    simulate(scenario, pipeline(epochs=1000, stages=2))


@pytest.mark.usefixtures("all_as_fast")
def test_a_stage_is_repaired_though_who_is_called_does_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing, going, last = in_order_of_identity(0, 1, 2)

    async def ignore(_stage: int, *, at_once: bool) -> None:
        del at_once

    async def scenario(swarm: PipelineSwarm) -> None:
        await swarm.start(last, stage=1)
        for number in (refusing, going):
            peer = await swarm.start(number)
            await swarm.until(lambda peer=peer: peer.stage == 0, within=60)  # type: ignore[misc]
        await swarm.until(lambda: all(peer.state.epoch >= 2 for peer in swarm.running), within=60)
        monkeypatch.setattr(swarm.peers[refusing].pipeline, "_take", ignore)
        await swarm.crash(swarm.peers[last])
        await swarm.until(lambda: swarm.peers[going].stage == 1, within=120)
        epoch = swarm.peers[going].state.epoch
        await swarm.until(lambda: all(peer.state.epoch > epoch + 2 for peer in swarm.running), within=60)

    simulate(scenario, pipeline(epochs=1000, stages=2))
