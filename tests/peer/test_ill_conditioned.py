"""Who makes honest machines differ, by inputs of which only their rounding is left, has none of them banned for it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor as TorchTensor

from peer.misbehaviour.stage_peers import WrongActivations
from peer.models.stages import activation_shape
from peer.swarm.arbiter import Given
from peer.swarm.compute import Compute
from peer.swarm.factory import real_compute
from peer.swarm.kept_passes import Passage
from peer.swarm.microbatch import Tensor
from peer.swarm.recomputation import Assignment
from protocols.activations import TensorBounds
from protocols.manifest import Manifest
from protocols.swarm.messages import Work
from protocols.vectors import Vector
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate

MANIFEST = pipeline(epochs=100_000, stages=2, spot_checks=0.01)
INPUTS, WIDTH = 64, 16
ROUNDING = 2.0**-24
HONEST = [0, 2, 4]
"""Of the first stage; the second has another processor."""


class OtherProcessor(WrongActivations):
    """Rounds differently: what it makes is exactly what comes of inputs that are a rounding away."""

    def forward(self, parameters: Vector, inputs: TorchTensor, passage: Passage | None = None) -> TorchTensor:
        signs = torch.where(torch.arange(inputs.shape[-1]) % 3 > 0, 1.0, -1.0)
        return self._honest.forward(parameters, inputs * (1 + ROUNDING * signs), passage)


def other_processor(manifest: Manifest, stage: int) -> Compute:
    return OtherProcessor(real_compute(manifest, stage))


def all_but_nothing(parameters: Vector) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A microbatch of which the first layer makes nothing but rounding."""
    weights = torch.from_numpy(parameters[: WIDTH * INPUTS].reshape(WIDTH, INPUTS).astype(np.float64))
    *_, directions = torch.linalg.svd(weights, full_matrices=True)
    mix = torch.randn(8, INPUTS - WIDTH, generator=torch.Generator().manual_seed(0)).double()
    return (mix @ directions[WIDTH:] * 1e8).float().numpy()


async def answers(accuser: Peer, assignment: Assignment, peers: list[Peer]) -> list[Given]:
    pipeline_ = accuser.pipeline
    accepted = [TensorBounds.exactly(activation_shape(MANIFEST, assignment.work.inputs.shape))]
    given = []
    for peer in peers:
        reply = await pipeline_._router.ask_one(peer.transport.peer_id, assignment.work, assignment.tensors, accepted)
        assert reply is not None
        given.append(await pipeline_.spot_checks._arbiter.given(reply, assignment))
    return given


@pytest.mark.parametrize("accuser", [1, 4], ids=["of another stage", "of their stage"])
def test_nobody_is_banned_for_rounding_as_its_machine_does(accuser: int) -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(6):
            await swarm.start(number, stage=number % 2, **({"compute": other_processor} if number == 2 else {}))
        await swarm.until(lambda: all(peer.state.epoch for peer in swarm.running), within=60)
        held = swarm.peers[0].pipeline.server.stage
        assert held is not None
        parameters = held.parameters_of(held.epoch)
        assert parameters is not None
        inputs = Tensor.of(all_but_nothing(parameters), "none")
        work = Work(task="forward", epoch=held.epoch, stage=0, microbatch=0, inputs=inputs.header, other=None)
        assignment, who = Assignment(work, (inputs,)), swarm.peers[accuser]
        first, second = await answers(who, assignment, [swarm.peers[0], swarm.peers[2]])
        arbiter, inspector = who.pipeline.spot_checks._arbiter, who.pipeline.inspector
        assert not arbiter.agree(first.product, second.product)
        assert await inspector.look_into(assignment, first, second) is None
        await swarm.network.clock.sleep(30.0)
        assert not any(peer.participant.company.admission.banned for peer in swarm.running)

    simulate(scenario, MANIFEST)
