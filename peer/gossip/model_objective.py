"""A model of the registry on a run's data, as a gossiping peer descends it."""

from peer.data.dataset import Dataset
from peer.models.flat import FlatModel
from peer.trainer import compute_gradient
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.sampling import sample_indices
from protocols.vectors import Vector


class ModelObjective:
    """Implements `peer.gossip.trainer.Objective`."""

    def __init__(self, manifest: Manifest, model: FlatModel, dataset: Dataset, peer: PeerId) -> None:
        self._run, self._evaluation = manifest.run_id, manifest.evaluation
        self._model, self._dataset, self._peer = model, dataset, peer
        self.parameters: Vector = model.parameters.detach().numpy()
        self.layers = tuple(entry.elements for entry in model.layout)

    def gradient(self, epoch: int, start: int, count: int) -> tuple[Vector, float] | None:
        indices = sample_indices(
            self._run, epoch, self._peer, start=start, count=count, population=self._dataset.train_size
        )
        loss = compute_gradient(self._model, self._dataset, indices)
        return None if loss is None else (self._model.gradient.numpy(), loss)

    def evaluate(self) -> dict[str, float]:
        return self._dataset.evaluate(self._model, self._evaluation.samples)
