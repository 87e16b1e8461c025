"""Local training that others' models are mixed into.

Blocking, for a worker thread; one call at a time, so that a shift comes between two steps and never into one. What a
peer trains on follows from (run, epoch, peer), as in any run.
"""

import numpy as np

from peer.data.dataset import Dataset
from peer.models.flat import FlatModel
from peer.trainer import StepReport, compute_gradient
from protocols.gossip.mixing import apply_shift
from protocols.identity import PeerId
from protocols.manifest import AdamW, Gossip, Manifest, Sgd
from protocols.optimizers import OuterOptimizer, make_optimizer
from protocols.sampling import sample_indices
from protocols.state import ModelState
from protocols.vectors import Vector, all_finite


class Diverged(ArithmeticError):
    """The model is not finite any more."""


class GossipTrainer:
    """The parameters and the optimizer's vectors of one peer, which steps change in place."""

    def __init__(self, manifest: Manifest, model: FlatModel, dataset: Dataset, peer_id: PeerId) -> None:
        self._manifest, self._run, self._peer_id = manifest, manifest.run_id, peer_id
        self._model, self._dataset = model, dataset
        self._parameters: Vector = model.parameters.detach().numpy()
        self._slots: dict[str, Vector] = {}
        self._spec: Sgd | AdamW | None = None
        self._optimizer: OuterOptimizer
        self.layers = tuple(entry.elements for entry in model.layout)
        """What the parameters of each layer are."""

    def load(self, state: ModelState) -> None:
        """Goes on from `state`."""
        np.copyto(self._parameters, state.parameters)
        self._slots = {name: slot.copy() for name, slot in state.slots.items()}

    def step(self, epoch: int, number: int, training: Gossip) -> StepReport:
        """Step `number` of `epoch`; one whose gradient is not finite changes nothing, and has no samples.

        `training`: as the organiser has it at that epoch. Its schedules run step by step.
        """
        size = training.batch_size
        population = self._dataset.train_size
        indices = sample_indices(
            self._run, epoch, self._peer_id, start=number * size, count=size, population=population
        )
        loss = compute_gradient(self._model, self._dataset, indices)
        if loss is None:
            return StepReport(0, float("nan"))
        optimizer = self._optimizer_of(training)
        gradient: Vector = self._model.gradient.numpy()
        optimizer.step_in_place(self._parameters, gradient, self._slots, epoch * training.steps + number)
        return StepReport(size, loss)

    def shift(self, shift: Vector) -> None:
        apply_shift(self._parameters, shift)

    def parameters(self) -> Vector:
        """A copy. Raises Diverged."""
        parameters = self._parameters.copy()
        if not all_finite(parameters):
            raise Diverged("the model is not finite")
        return parameters

    def state(self, epoch: int) -> ModelState:
        """A copy of all. Raises Diverged."""
        slots = {name: slot.copy() for name, slot in self._slots.items()}
        if not all(all_finite(slot) for slot in slots.values()):
            raise Diverged("the optimizer's vectors are not finite")
        return ModelState(self._run, epoch, self.parameters(), slots)

    def evaluate(self) -> dict[str, float]:
        return self._dataset.evaluate(self._model, self._manifest.evaluation.samples)

    def _optimizer_of(self, training: Gossip) -> OuterOptimizer:
        spec = training.optimizer
        if spec != self._spec:
            by_step = spec.model_copy(update={"warmup_epochs": spec.warmup_epochs * training.steps})
            self._optimizer = make_optimizer(by_step, self._manifest.epochs * training.steps)
            self._spec = spec
        return self._optimizer
