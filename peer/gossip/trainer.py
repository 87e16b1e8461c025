"""Local training that others' models are mixed into.

Blocking, for a worker thread; one call at a time, so that a shift comes between two steps and never into one.
"""

from collections.abc import Sequence
from typing import Protocol

from protocols.gossip.mixing import apply_shift
from protocols.manifest import AdamW, Gossip, Manifest, Sgd
from protocols.optimizers import OuterOptimizer, make_optimizer
from protocols.state import ModelState
from protocols.vectors import Vector, all_finite


class Diverged(ArithmeticError):
    """The model is not finite any more."""


class Objective(Protocol):
    """What one peer descends. What it draws follows from (run, epoch, peer), as in any run."""

    parameters: Vector
    """Where it is; steps and shifts change them in place."""

    @property
    def layers(self) -> Sequence[slice]:
        """What of the parameters each layer has."""

    def gradient(self, epoch: int, start: int, count: int) -> tuple[Vector, float] | None:
        """Of the peer's samples at places start … start + count − 1 of the epoch, and their mean loss.

        None when it is not finite.
        """

    def evaluate(self) -> dict[str, float]: ...


class GossipTrainer:
    """The optimizer of one peer's steps, and its vectors."""

    def __init__(self, manifest: Manifest, objective: Objective) -> None:
        self._manifest, self._objective = manifest, objective
        self._slots: dict[str, Vector] = {}
        self._spec: Sgd | AdamW | None = None
        self._optimizer: OuterOptimizer

    @property
    def layers(self) -> Sequence[slice]:
        return self._objective.layers

    @property
    def model(self) -> Vector:
        """No copy, and whatever is in it."""
        return self._objective.parameters

    def load(self, state: ModelState) -> None:
        """Goes on from `state`."""
        self._objective.parameters[:] = state.parameters
        self._slots = {name: slot.copy() for name, slot in state.slots.items()}

    def step(self, epoch: int, number: int, training: Gossip) -> float | None:
        """Step `number` of `epoch`; the loss before it. None: its gradient was not finite, and nothing has changed.

        `training`: as the organiser has it at that epoch. Its schedules run step by step.
        """
        made = self._objective.gradient(epoch, number * training.batch_size, training.batch_size)
        if made is None:
            return None
        gradient, loss = made
        optimizer = self._optimizer_of(training)
        optimizer.step_in_place(self._objective.parameters, gradient, self._slots, epoch * training.steps + number)
        return loss

    def shift(self, shift: Vector) -> None:
        apply_shift(self._objective.parameters, shift)

    def parameters(self) -> Vector:
        """A copy, for others. Raises Diverged."""
        return self._copy()

    def _copy(self) -> Vector:
        parameters = self._objective.parameters.copy()
        if not all_finite(parameters):
            raise Diverged("the model is not finite")
        return parameters

    def state(self, epoch: int) -> ModelState:
        """A copy of all. Raises Diverged."""
        slots = {name: slot.copy() for name, slot in self._slots.items()}
        if not all(all_finite(slot) for slot in slots.values()):
            raise Diverged("the optimizer's vectors are not finite")
        return ModelState(self._manifest.run_id, epoch, self._copy(), slots)

    def evaluate(self) -> dict[str, float]:
        return self._objective.evaluate()

    def _optimizer_of(self, training: Gossip) -> OuterOptimizer:
        spec = training.optimizer
        if spec != self._spec:
            by_step = spec.model_copy(update={"warmup_epochs": spec.warmup_epochs * training.steps})
            self._optimizer = make_optimizer(by_step, self._manifest.epochs * training.steps)
            self._spec = spec
        return self._optimizer
