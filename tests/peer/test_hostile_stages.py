"""What a hostile peer of a stage sends to trainers is refused, and the run goes on by the others."""

from collections.abc import Sequence

import numpy as np
import pytest

from peer.models.stages import join
from protocols.codecs import Payload
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.signed import Signed
from protocols.swarm.messages import Answer, Count, Delivery, work_digest
from tests.peer.pipeline_swarm import PipelineSwarm, pipeline, simulate
from tests.peer.test_pipeline import in_one_process


def test_work_that_is_done_without_a_tensor_is_no_work() -> None:
    manifest = pipeline(epochs=6, stages=2)

    async def nothing(_trainer: PeerId, delivery: Delivery, payloads: Sequence[Payload]) -> tuple[Answer, Payload]:
        asked = work_digest(delivery.work, *(digest(memoryview(payload)) for payload in payloads))
        return Answer(outcome="done", work=asked), b""

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        liar = await swarm.start(0, stage=1, role="stage")
        liar.pipeline.server.handle = nothing  # type: ignore[method-assign]
        for number in range(1, 4):
            await swarm.start(number, stage=number % 2)
        await swarm.finish(within=300)
        for peer in swarm.running[1:]:
            assert peer.rejections.by_reason["wrong_shape"] > 0
            assert not peer.rejections.by_reason.keys() - {"wrong_shape"}
        return join(swarm.parameters())

    trained = simulate(scenario, manifest)
    np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [0, 1])
def test_who_counts_nothing_of_what_it_has_done_is_passed_by(stage: int) -> None:
    """Also by whose forward pass it says to have kept."""
    manifest = pipeline(epochs=6, stages=2)

    async def refuse(_statement: Signed[Count]) -> int:
        return 0

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        liar = await swarm.start(0, stage=stage, role="stage")
        liar.pipeline.server.count = refuse  # type: ignore[method-assign]
        for number in range(1, 4):
            await swarm.start(number, stage=(number + stage) % 2)
        await swarm.finish(within=60)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest)
    np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5)
