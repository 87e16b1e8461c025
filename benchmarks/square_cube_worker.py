"""Worker of `square_cube.py`: a stage that computes nothing, or the trainer that sends it microbatches."""

import asyncio
import time
from statistics import median

import numpy as np
import torch
import uvloop
from our_peer import command, libp2p_node
from pipeline_task import PipelineTask
from reporting import Command, Reports, configuration

from dht.border import Border
from dht.node import count_nothing
from peer.models.stages import activation_shape, stage_tensors
from peer.swarm.client import StageClient
from peer.swarm.kept_passes import Passage
from peer.swarm.server import Accepted, StageServer
from peer.swarm.stage import Order
from protocols.activations import TensorBounds, encode_tensor
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.messages import Work
from protocols.vectors import Vector

RUN = "square-cube"
MIDDLE = 1
"""The stage that is served: it takes activations, and gives them."""
UNDER_WAY = 8
"""Microbatches at once, as many as a peer takes from one trainer."""
ASK_SECONDS = 120.0


class EchoStage:
    """Gives back what it is given, at once: all that a microbatch takes is communication."""

    number, epoch = MIDDLE, 0

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()

    def parameters_of(self, epoch: int) -> Vector:
        return np.zeros(1, np.float32)

    def has_kept(self, _passage: Passage) -> bool:
        return False

    async def forward(self, orders: list[Order]) -> list[torch.Tensor]:
        return [order.given for order in orders]

    async def backward(self, order: Order) -> tuple[torch.Tensor, None]:
        return order.other, None


async def serve(settings: Command) -> None:
    reports = Reports()
    async with libp2p_node(settings["host"]) as (identity, node):
        reports.send("up", peer=identity.peer_id, addresses=node.addresses(), baseline_bytes=0)
        members = (await command())["members"]
        signer = Signer(identity, RUN, time.time_ns())
        task = PipelineTask(**settings["task"])
        border = Border(identity.peer_id, node.transport.clock, count_nothing)
        server = StageServer(node.transport, signer, task.manifest.training, border, lambda _peer: None)
        client = StageClient(node.transport, signer, task.codec, server)
        async with asyncio.TaskGroup() as tasks:
            if settings["seed"] == 0:
                await server.serve()
                computing = tasks.create_task(server.run())
            else:
                stage, addresses = next((peer, at) for peer, at in members.items() if peer != identity.peer_id)
                await node.transport.connect(stage, addresses)
            reports.send("ready")
            while (asked := await command())["command"] == "width":
                wide = PipelineTask(**(settings["task"] | {"width": asked["width"]}))
                if settings["seed"] == 0:
                    tensors = stage_tensors(wide.manifest)
                    server.take(EchoStage(), Accepted((tensors.activations,), (tensors.activations,)))
                    reports.send("serving")
                else:
                    reports.send("measured", **await measure(client, stage, wide, asked["repeat"]))
            if settings["seed"] == 0:
                computing.cancel()


async def measure(client: StageClient, stage: PeerId, task: PipelineTask, repeat: int) -> dict[str, float]:
    """Seconds of a microbatch, there and back, forward and backward: alone, and when many are under way."""
    shape = activation_shape(task.manifest, (task.batch_size, task.context))
    activations = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    header, payload = encode_tensor(activations, task.codec)
    accepted = [TensorBounds.exactly(shape)]
    forward = Work(task="forward", epoch=0, stage=MIDDLE, microbatch=0, inputs=header, other=None)
    backward = forward.model_copy(update={"task": "backward", "other": header})

    async def microbatch() -> float:
        began = time.monotonic()
        for work in (forward, backward):
            reply = await client.ask(stage, work, [payload] * len(work.tensors), accepted, ASK_SECONDS)
            assert reply.answer.outcome == "done", reply.answer
        return time.monotonic() - began

    async def several() -> None:
        for _ in range(repeat):
            await microbatch()

    await microbatch()  # connections, and how much they may carry
    alone = [await microbatch() for _ in range(repeat)]
    async with asyncio.TaskGroup() as warm:
        for _ in range(UNDER_WAY):
            warm.create_task(microbatch())
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(UNDER_WAY):
            tasks.create_task(several())
    streamed = (time.monotonic() - began) / (UNDER_WAY * repeat)
    return {"alone_seconds": median(alone), "streamed_seconds": streamed, "tensor_bytes": len(payload)}


if __name__ == "__main__":
    uvloop.run(serve(configuration()))
