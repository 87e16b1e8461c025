"""Whoever asks for a stage's snapshot again and again has it read once."""

from pathlib import Path

import pytest

from peer.contents import INDEX_KIND
from peer.swarm.factory import StageFactory
from peer.swarm.restoring import FOREIGN_SECONDS, KEPT_KIND, SHOWN_SECONDS
from protocols.signed import open_signed
from protocols.state import ModelState
from protocols.swarm.messages import Kept
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
        await swarm.network.clock.sleep(2 * FOREIGN_SECONDS)  # all have saved what they keep, and have looked once
        victim = swarm.peers[0]
        stranger = swarm.network.join(identity(99).peer_id)
        await stranger.connect(victim.transport.peer_id, victim.transport.addresses)
        monkeypatch.setattr(StageFactory, "saved", counted)
        answers = {await stranger.request(victim.transport.peer_id, KEPT_KIND, bytes([0]), 5) for _ in range(50)}
        assert len(answers) == 1
        assert len(read) == 1
        await stranger.close()

    simulate(scenario, pipeline(epochs=2, stages=2), disks=tmp_path)


def test_a_snapshot_that_is_asked_for_takes_no_state_of_ours_from_those_who_fetch_it(tmp_path: Path) -> None:
    """Where there is room for one in memory."""

    async def scenario(swarm: PipelineSwarm) -> None:
        peers = [await swarm.start(number, stage=number) for number in range(2)]
        await swarm.finish(within=60)
        victim, other = peers
        await victim.pipeline._factory.save(1, other.state)
        contents = victim.participant.contents
        contents._limit_bytes = 0
        stranger = swarm.network.join(identity(99).peer_id)
        await stranger.connect(victim.transport.peer_id, victim.transport.addresses)
        for _ in range(2):
            wire = await stranger.request(victim.transport.peer_id, KEPT_KIND, bytes([1]), 5)
            kept = open_signed(wire, Kept, run=swarm.manifest.run_id).body.state
            for digest in (kept, victim.state.digest):
                assert await stranger.request(victim.transport.peer_id, INDEX_KIND, digest, 5)
            await swarm.network.clock.sleep(SHOWN_SECONDS)
        await stranger.close()

    simulate(scenario, pipeline(epochs=2, stages=2), disks=tmp_path)
