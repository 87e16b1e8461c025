"""Gradients that are finite, and whose sum is not, end no peer of a stage: they count as zeros."""

import numpy as np
import torch

from peer.swarm.factory import real_compute
from peer.swarm.microbatch import Tensor
from peer.swarm.server import COUNT_KIND, WORK_KIND
from peer.swarm.tensor_frames import send_message
from protocols.swarm.coverage import from_bytes, to_bytes
from protocols.swarm.messages import Count, Delivery, Work
from tests.peer.attacks import Attacker
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity

MANIFEST = pipeline(epochs=6, stages=2)
BATCH = MANIFEST.training.batch_size
INPUTS = torch.full((BATCH, 64), 1e15)
LARGE = 1.5e38
"""What the largest element of the gradient is: finite, and infinite times BATCH."""


def outputs_gradient(parameters: np.ndarray) -> Tensor:
    """With which the first stage's gradient is as large."""
    made = real_compute(MANIFEST, 0).backward(parameters, INPUTS, torch.full((BATCH, 16), 1e10))
    scale = 1e10 * LARGE / float(np.abs(made.gradient).max())
    return Tensor.of(np.full((BATCH, 16), scale, np.float32), "none")


async def have_counted(attacker: Attacker, victim: Peer) -> bool:
    """Whether one such gradient was counted."""
    stage = victim.pipeline.server.stage
    assert stage is not None
    epoch, counted = stage.epoch, stage.open_epochs[stage.epoch]
    number = (~counted & (counted + 1)).bit_length() - 1
    given, other = Tensor.of(INPUTS.numpy(), "none"), outputs_gradient(stage.parameters_of(epoch))
    work = Work(task="backward", epoch=epoch, stage=0, microbatch=number, inputs=given.header, other=other.header)
    async with await attacker.transport.open_stream(victim.transport.peer_id, WORK_KIND) as stream:
        await send_message(stream, Delivery(work=work).to_bytes(), [given.payload, other.payload])
        await stream.receive()
    wire = attacker.wire(Count(stage=0, microbatches=to_bytes(1 << number)), epoch)
    return bool(from_bytes(await attacker.transport.request(victim.transport.peer_id, COUNT_KIND, wire, 5)))


def test_a_sum_that_is_infinite_ends_no_peer_of_a_stage() -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(4):
            await swarm.start(number, stage=number % 2)
        victim = swarm.peers[0]
        await swarm.until(lambda: victim.state.epoch >= 2, within=60)
        who = identity(99)
        transport = swarm.network.join(who.peer_id)
        await transport.connect(victim.transport.peer_id, victim.transport.addresses)
        attacker = Attacker(who, transport, swarm.manifest.run_id)
        stage = victim.pipeline.server.stage
        assert stage is not None
        while not (await have_counted(attacker, victim) and stage.dropped):
            await transport.clock.sleep(0.01)
        await swarm.finish(within=300)
        assert len(swarm.running) == 4
        await transport.close()

    simulate(scenario, MANIFEST)
