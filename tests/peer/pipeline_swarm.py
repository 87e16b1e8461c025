"""Whole peers of a pipeline over a simulated network, under virtual time: real stages of a small model."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dht.simulated import SimulatedNetwork, SimulatedTransport, run_simulation
from dht.simulated_link import Link
from peer.data.asking import Ask
from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.misbehaviour.pipelines import assemble_pipeline
from peer.participant import Participant
from peer.profile import Profile
from peer.signal import Signal
from peer.swarm.assembly import Wishes
from peer.swarm.pipeline import PipelinePeer
from protocols.manifest import Data, Manifest, Model, Pipeline, Sgd
from protocols.roles import Role
from protocols.signed import Signer
from protocols.state import ModelState
from tests.peer.simulated_swarm import CountedRejections, identity


def pipeline(epochs: int = 20, stages: int = 4, codec: Any = "none", **training: Any) -> Manifest:
    """Digits through a deep perceptron."""
    options: dict[str, Any] = {"batch_size": 8, "target_batch": 64, "optimizer": Sgd(learning_rate=0.1, momentum=0.9)}
    return Manifest(
        name="pipeline",
        model=Model(architecture="mlp", options={"inputs": 64, "width": 16, "layers": 4}),
        data=Data(dataset="digits"),
        training=Pipeline(stages=stages, codec=codec, **(options | training)),
        epochs=epochs,
    )


async def evaluate_twice(dataset: Dataset, ask: Ask, limit: int) -> dict[str, float]:
    """As `peer.data.asking.evaluate`, without a thread: once to hear what is asked, once with the answers."""
    asked: list[Tensor] = []

    def remember(inputs: Tensor) -> Tensor:
        asked.append(inputs)
        return torch.zeros(len(inputs), 10)

    dataset.evaluate(remember, limit)
    answers = iter([await ask(inputs) for inputs in asked])
    return dataset.evaluate(lambda _inputs: next(answers), limit)


@dataclass
class Peer:
    number: int
    pipeline: PipelinePeer
    transport: SimulatedTransport
    rejections: CountedRejections
    task: "asyncio.Task[None] | None" = None

    @property
    def participant(self) -> Participant:
        return self.pipeline.participant

    @property
    def stage(self) -> int | None:
        return self.participant.stage

    @property
    def state(self) -> ModelState:
        return self.participant.state

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def __str__(self) -> str:
        held = self.pipeline.server.stage
        counted = {e: m.bit_count() for e, m in held.open_epochs.items()} if held else None
        session = self.participant._conversation.sessions.get(self.state.epoch)
        phase = session and (session.machine.phase.value, session.machine.term)
        return (
            f"peer {self.number} ({self.transport.peer_id[-6:]}): stage {self.stage} epoch {self.state.epoch} "
            f"{self.participant.activity} {phase} counted={counted} {dict(self.rejections.by_reason)}"
        )


class PipelineSwarm:
    def __init__(
        self, network: SimulatedNetwork, manifest: Manifest, tasks: asyncio.TaskGroup, disks: Path | None
    ) -> None:
        """`disks`: where peers keep their snapshots; None: nowhere."""
        self._disks = disks
        self.network, self.manifest = network, manifest
        self.peers: dict[int, Peer] = {}
        self.changed = Signal()
        self._tasks = tasks
        self._dataset = open_dataset(manifest.data)

    @property
    def running(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.running]

    async def start(self, number: int, *, stage: int | None = None, role: Role = "both", **parts: Any) -> Peer:
        rejections = CountedRejections()
        who = identity(number)
        transport = self.network.join(who.peer_id, on_rejected=rejections)
        signer = Signer(who, self.manifest.run_id, int(transport.clock.wall() * 1e9))
        peer = Peer(number, self._make(transport, signer, rejections, role, stage, **parts), transport, rejections)
        await peer.participant.start()
        await peer.pipeline.serve()
        peer.task = self._tasks.create_task(self._live(peer), name=f"peer {number}")
        self.peers[number] = peer
        return peer

    def _make(
        self,
        transport: SimulatedTransport,
        signer: Signer,
        rejections: CountedRejections,
        role: Role,
        stage: int | None,
        misbehaviour: str | None = None,
        **parts: Any,
    ) -> PipelinePeer:
        return assemble_pipeline(
            misbehaviour,
            transport=transport,
            records=self.network.records(transport.peer_id),
            signer=signer,
            manifest=self.manifest,
            profile=Profile(
                f"peer {transport.peer_id[-6:]}",
                role,
                False,
                lambda: transport.addresses,
                lambda: transport.bandwidth.bytes_per_second,
            ),
            rejections=rejections,
            directory=self._disks / transport.peer_id if self._disks is not None else None,
            open_data=self._data,
            wishes=Wishes(stage),
            evaluate=evaluate_twice,
            in_thread=transport.in_thread,
            **parts,
        )

    async def _data(self) -> Dataset:
        return self._dataset

    async def _live(self, peer: Peer) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(peer.pipeline.run())
            watching = tasks.create_task(self._watch(peer))
            saving = tasks.create_task(peer.pipeline.keep_saving())
            await peer.participant.run()
            for task in (running, watching, saving):
                task.cancel()
        await peer.transport.close()

    async def _watch(self, peer: Peer) -> None:
        while True:
            self.changed.notify()
            await peer.participant.changed.wait()

    async def crash(self, peer: Peer) -> None:
        """As by kill -9."""
        assert peer.task is not None
        self.network.crash(peer.transport.peer_id)
        peer.task.cancel()
        await asyncio.wait([peer.task])
        await peer.transport.close()

    async def until(self, condition: Callable[[], Any], within: float) -> None:
        """Returns when `condition` holds; fails after `within` virtual seconds."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"not reached in {within:g} virtual seconds\n{self}") from None

    @property
    def serving(self) -> list[Peer]:
        """Who serves a stage, or will."""
        return [peer for peer in self.running if peer.participant.profile.role != "trainer"]

    @property
    def finished(self) -> bool:
        """Whether some peer of each stage has come to the end of the run."""
        ended = {peer.stage for peer in self.running if peer.state.epoch == self.manifest.epochs}
        return ended >= set(range(self.manifest.training.stages))

    async def finish(self, within: float) -> None:
        """All stages come to the end of the run, and all peers of a stage to one state."""
        last = self.manifest.epochs
        await self.until(lambda: all(peer.state.epoch == last for peer in self.serving), within)

    def parameters(self) -> list[np.ndarray]:
        """Of each stage; its peers agree on them."""
        by_stage: dict[int, dict[bytes, np.ndarray]] = {}
        for peer in self.serving:
            assert peer.stage is not None
            by_stage.setdefault(peer.stage, {})[peer.state.digest] = peer.state.parameters
        assert all(len(states) == 1 for states in by_stage.values()), str(self)
        return [next(iter(by_stage[stage].values())) for stage in sorted(by_stage)]

    async def stop(self) -> None:
        for peer in self.running:
            await self.crash(peer)

    def __str__(self) -> str:
        return "\n".join(f"{peer}{'' if peer.running else ' (gone)'}" for peer in self.peers.values())


@asynccontextmanager
async def pipeline_swarm(
    network: SimulatedNetwork, manifest: Manifest, disks: Path | None
) -> AsyncIterator[PipelineSwarm]:
    async with asyncio.TaskGroup() as tasks:
        swarm = PipelineSwarm(network, manifest, tasks, disks)
        yield swarm
        await swarm.stop()


def simulate(
    scenario: Callable[[PipelineSwarm], Awaitable[Any]],
    manifest: Manifest,
    seed: int = 0,
    disks: Path | None = None,
    link: Link | None = None,
) -> Any:
    """Runs `scenario` in a new swarm of the manifest's run, under virtual time; `link`: each peer's."""

    async def main(network: SimulatedNetwork) -> Any:
        async with pipeline_swarm(network, manifest, disks) as swarm:
            return await scenario(swarm)

    return run_simulation(main, seed, link)
