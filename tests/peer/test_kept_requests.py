"""Whoever asks for a stage's snapshot again and again has it read once."""

from pathlib import Path

import pytest

from peer.swarm.factory import StageFactory
from peer.swarm.restoring import KEPT_KIND
from protocols.state import ModelState
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity


def test_a_snapshot_is_not_read_for_each_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    saved = StageFactory.saved

    def counted(self: StageFactory, number: int) -> ModelState | None:
        read.append(number)
        return saved(self, number)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number)
        await swarm.finish(within=60)
        victim = swarm.peers[0]
        await victim.pipeline.save(last=True)
        stranger = swarm.network.join(identity(99).peer_id)
        await stranger.connect(victim.transport.peer_id, victim.transport.addresses)
        monkeypatch.setattr(StageFactory, "saved", counted)
        answers = {await stranger.request(victim.transport.peer_id, KEPT_KIND, bytes([0]), 5) for _ in range(50)}
        assert len(answers) == 1
        assert len(read) == 1
        await stranger.close()

    simulate(scenario, pipeline(epochs=2, stages=2), disks=tmp_path)
