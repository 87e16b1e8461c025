"""Makes what a peer needs to serve a stage, from the manifest and the home alone."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dht.interfaces import Clock
from peer.data.registry import loss_of
from peer.models.stages import stage_model, stage_shape, stage_state, stage_tensors
from peer.saving import Saver
from peer.snapshots import SnapshotStore
from peer.swarm.compute import Compute, StageCompute
from peer.swarm.kept_passes import KEPT_BYTES
from peer.swarm.server import Accepted
from peer.swarm.stage import InThread, Stage
from protocols.activations import TensorBounds
from protocols.manifest import Manifest, Pipeline
from protocols.state import ModelState

ComputeFactory = Callable[[Manifest, int], Compute]


def real_compute(manifest: Manifest, number: int, *, kept_bytes: int = KEPT_BYTES) -> Compute:
    """`kept_bytes` as in `StageCompute`. Raises PluginError, DatasetError."""
    assert isinstance(manifest.training, Pipeline)
    model, loss = stage_model(manifest, number), loss_of(manifest.data)
    last = number == manifest.training.stages - 1
    return StageCompute(model, first=number == 0, last=last, loss=loss, kept_bytes=kept_bytes)


class StageFactory:
    def __init__(
        self,
        manifest: Manifest,
        directory: Path | None,
        clock: Clock,
        *,
        compute: ComputeFactory = real_compute,
        in_thread: InThread | None = None,
    ) -> None:
        """`directory`: where snapshots are kept; None: nowhere. `in_thread` as in `Stage`."""
        assert isinstance(manifest.training, Pipeline)
        self.manifest, self.training = manifest, manifest.training
        self._directory, self._clock, self._compute, self._in_thread = directory, clock, compute, in_thread
        self._tensors = stage_tensors(manifest)
        self._stores: dict[int, SnapshotStore] = {}
        self._savers: dict[str, Saver] = {}

    def make(self, number: int) -> Stage:
        """Blocking."""
        return Stage(self.manifest, number, self.compute(number), self._clock, self._in_thread)

    def compute(self, number: int) -> Compute:
        """Blocking."""
        return self._compute(self.manifest, number)

    def accepted(self, number: int) -> Accepted:
        """The tensors that the stage takes."""
        inputs: TensorBounds = self._tensors.inputs if number == 0 else self._tensors.activations
        last = number == self.training.stages - 1
        return Accepted((inputs,), self._tensors.targets if last else (self._tensors.activations,))

    def store(self, number: int) -> SnapshotStore | None:
        """Of a stage's states, ours or foreign ones."""
        if self._directory is not None and number not in self._stores:
            self._stores[number] = SnapshotStore(self._directory / f"stage-{number}")
        return self._stores.get(number)

    def saved(self, number: int, epoch: int | None = None) -> ModelState | None:
        """The stage's state of that epoch on this disk, or its newest. Blocking."""
        store = self.store(number)
        if store is None:
            return None
        first = stage_shape(self.manifest, number)
        find = store.latest if epoch is None else partial(store.of_epoch, epoch)
        return find(run=first.run, parameter_count=first.parameter_count, slot_names=tuple(first.slots))

    def first(self, number: int) -> ModelState:
        """Where the run starts. Blocking."""
        return stage_state(self.manifest, number)

    async def save(self, number: int, state: ModelState, *, last: bool = False) -> bool:
        """As `Saver.save`."""
        store = self.store(number)
        if store is None:
            return False
        if state.run not in self._savers:
            in_thread = self._in_thread or asyncio.to_thread
            known: ModelState | None = await in_thread(partial(self.saved, number))
            self._savers[state.run] = Saver(store, known, self._clock, in_thread)
        return await self._savers[state.run].save(state, last=last)
