"""The outer optimizer: how the shared state follows from the aggregated update, with the same bits on any CPU.

Every element goes through a fixed chain of additions, multiplications, divisions and square roots, each rounded once
as IEEE 754 demands. Nothing is left to a compiler or a library: no fused multiply-add, no `pow`, no `exp`; the
schedules are linear and powers are taken by repeated squaring in float64.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from protocols.manifest import AdamW, Sgd
from protocols.vectors import Vector, slices

Slots = Mapping[str, Vector]
"""The optimizer's own vectors (momentum, moments), each as long as the parameters."""


class OuterOptimizer(ABC):
    """One step per epoch; pure: what goes in stays as it is."""

    slot_names: tuple[str, ...]

    def initial_slots(self, count: int) -> dict[str, Vector]:
        """Zeros, `count` elements each."""
        return {name: np.zeros(count, np.float32) for name in self.slot_names}

    def step(self, parameters: Vector, update: Vector, slots: Slots, epoch: int) -> tuple[Vector, dict[str, Vector]]:
        """The parameters and slots after `epoch`, whose aggregated update (a gradient: it is descended) is given.

        May overflow to infinity; the caller decides what becomes of such a step.
        """
        new_parameters = parameters.copy()
        new_slots = {name: slots[name].copy() for name in self.slot_names}
        self.step_in_place(new_parameters, update, new_slots, epoch)
        return new_parameters, new_slots

    def step_in_place(self, parameters: Vector, update: Vector, slots: Slots, epoch: int) -> None:
        """Like `step`, where nobody needs what was before."""
        if len(update) != len(parameters):
            raise ValueError(f"an update of {len(update)} elements for {len(parameters)} parameters")
        with np.errstate(over="ignore", invalid="ignore"):
            for piece in slices(len(parameters)):
                self._step(parameters[piece], update[piece], {k: v[piece] for k, v in slots.items()}, epoch)

    @abstractmethod
    def _step(self, parameters: Vector, update: Vector, slots: dict[str, Vector], epoch: int) -> None:
        """The step on one piece, in place but for `update`."""


class SgdOptimizer(OuterOptimizer):
    """SGD as torch.optim.SGD defines it (Sutskever et al. 2013; dampening 0).

    gradient ← update + weight_decay · parameters; momentum ← μ · momentum + gradient;
    parameters ← parameters − rate · (momentum, or with Nesterov: gradient + μ · momentum).
    """

    def __init__(self, spec: Sgd, total_epochs: int) -> None:
        self.spec = spec
        self.total_epochs = total_epochs
        self.slot_names = ("momentum",) if spec.momentum else ()

    def _step(self, parameters: Vector, update: Vector, slots: dict[str, Vector], epoch: int) -> None:
        rate = np.float32(learning_rate(self.spec, epoch, self.total_epochs))
        factor = np.float32(self.spec.momentum)
        gradient = parameters * np.float32(self.spec.weight_decay)
        gradient += update
        direction = gradient
        if self.slot_names:
            momentum = slots["momentum"]
            momentum *= factor
            momentum += gradient
            direction = momentum
            if self.spec.nesterov:
                direction = momentum * factor
                direction += gradient
        parameters -= direction * rate


class AdamWOptimizer(OuterOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in the form of torch.optim.AdamW.

    parameters ← (1 − rate · weight_decay) · parameters − rate / (1 − β1ᵗ) · m / (√v / √(1 − β2ᵗ) + ε)
    with m ← β1 · m + (1 − β1) · update, v ← β2 · v + (1 − β2) · update², t = epoch + 1.
    """

    slot_names = ("first_moment", "second_moment")

    def __init__(self, spec: AdamW, total_epochs: int) -> None:
        self.spec = spec
        self.total_epochs = total_epochs

    def _step(self, parameters: Vector, update: Vector, slots: dict[str, Vector], epoch: int) -> None:
        spec = self.spec
        rate = learning_rate(spec, epoch, self.total_epochs)
        first, second = slots["first_moment"], slots["second_moment"]
        first *= np.float32(spec.beta1)
        first += update * np.float32(1 - spec.beta1)
        squared = update * update
        squared *= np.float32(1 - spec.beta2)
        second *= np.float32(spec.beta2)
        second += squared
        denominator = np.sqrt(second, out=squared)
        denominator /= np.float32(math.sqrt(1 - _power(spec.beta2, epoch + 1)))
        denominator += np.float32(spec.epsilon)
        change = first / denominator
        change *= np.float32(rate / (1 - _power(spec.beta1, epoch + 1)))
        parameters *= np.float32(1 - rate * spec.weight_decay)
        parameters -= change


def make_optimizer(spec: Sgd | AdamW, total_epochs: int) -> OuterOptimizer:
    """The optimizer of a run of `total_epochs`."""
    return SgdOptimizer(spec, total_epochs) if isinstance(spec, Sgd) else AdamWOptimizer(spec, total_epochs)


def learning_rate(spec: Sgd | AdamW, epoch: int, total_epochs: int) -> float:
    """The rate of the step that follows `epoch` (0 … total_epochs − 1): linear warm-up, then linear decay."""
    if epoch < spec.warmup_epochs:
        return spec.learning_rate * ((epoch + 1) / spec.warmup_epochs)
    if spec.final_learning_rate is None:
        return spec.learning_rate
    remaining = max(0, total_epochs - epoch) / max(1, total_epochs - spec.warmup_epochs)
    return spec.final_learning_rate + (spec.learning_rate - spec.final_learning_rate) * min(1.0, remaining)


def _power(base: float, exponent: int) -> float:
    """base ** exponent by repeated squaring: `pow` of the C library differs from machine to machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
