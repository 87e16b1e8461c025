"""What a keeper of the board says has no trainer keep more and more."""

import pytest

from peer.swarm.keeper import BoardKeeper
from protocols.identity import PeerId
from protocols.swarm.messages import OPEN_EPOCHS, Claim, Grant, Lacking
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate


def test_a_keeper_for_whom_no_epoch_is_ever_stepped_fills_no_trainers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = BoardKeeper.claim

    def lie(self: BoardKeeper, trainer: PeerId, wanted: Claim) -> Grant:
        grant = claim(self, trainer, wanted)
        first = Lacking(epoch=0, missing=(b"", b""))
        return grant.model_copy(update={"standings": (first, *grant.standings[: OPEN_EPOCHS - 1])})

    monkeypatch.setattr(BoardKeeper, "claim", lie)

    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(2):
            await swarm.start(number, stage=number)
        await swarm.until(lambda: min(peer.state.epoch for peer in swarm.running) >= 8, within=60)
        for peer in swarm.running:
            assert peer.pipeline.trainer is not None
            kept = {epoch for epoch, _ in peer.pipeline.trainer._held}
            assert min(kept, default=8) >= 8 - 2 * OPEN_EPOCHS

    simulate(scenario, pipeline(epochs=1000, stages=2))
