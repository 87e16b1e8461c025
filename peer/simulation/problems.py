"""Small problems whose optimum is known, so that a thousand peers can train on one in one process."""

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from protocols.manifest import LocalSgd, Manifest
from protocols.optimizers import make_optimizer
from protocols.sampling import sample_indices
from protocols.state import ModelState
from protocols.vectors import Vector

START = 10.0
NEWTON_STEPS = 25


class Problem(ABC):
    """A loss to descend by gradients of microbatches."""

    @abstractmethod
    def start(self) -> Vector:
        """The parameters at epoch 0."""

    @abstractmethod
    def gradient(self, parameters: Vector, run: str, epoch: int, peer: PeerId, start: int, count: int) -> Vector:
        """Of the microbatch at places start … start + count − 1 of the peer's samples in the epoch."""

    @abstractmethod
    def distance(self, parameters: Vector) -> float:
        """To the optimum: root mean square of the parameters' differences."""

    def initial_state(self, manifest: Manifest) -> ModelState:
        parameters = self.start()
        slots = make_optimizer(manifest.training.outer, manifest.epochs).initial_slots(len(parameters))
        return ModelState(manifest.run_id, 0, parameters, slots)


class Quadratic(Problem):
    """½·|w|² with noisy gradients (Zhang et al. 2019, "Which algorithmic choices matter at which batch sizes?").

    The noise of a microbatch has variance 1 in each coordinate, and follows from (peer, epoch, microbatch).
    """

    def __init__(self, parameters: int) -> None:
        self._count = parameters

    def start(self) -> Vector:
        return np.full(self._count, START, np.float32)

    def gradient(self, parameters: Vector, run: str, epoch: int, peer: PeerId, start: int, count: int) -> Vector:
        seed = digest(encode([peer, epoch, start // count]))
        place = int.from_bytes(seed[:8], "big") % len(parameters)
        noise: Vector = _normal(2 * len(parameters))[place : place + len(parameters)]
        return parameters + noise

    def distance(self, parameters: Vector) -> float:
        return _root_mean_square(parameters)


class Logistic(Problem):
    """Logistic regression with L2 penalty on `samples` points in `parameters` dimensions that a plane nearly parts.

    Its optimum is found by Newton's method when the problem is made (Boyd & Vandenberghe 2004, §9.5).
    """

    def __init__(self, parameters: int, samples: int, penalty: float) -> None:
        random = np.random.default_rng(0)
        self._points = random.standard_normal((samples, parameters)) / np.sqrt(parameters)
        plane = 4.0 * random.standard_normal(parameters)
        chance = _sigmoid(self._points @ plane)
        self._labels = (random.random(samples) < chance).astype(np.float64)
        self._penalty = penalty
        self._optimum = self._find_optimum()

    def start(self) -> Vector:
        return np.zeros(self._points.shape[1], np.float32)

    def gradient(self, parameters: Vector, run: str, epoch: int, peer: PeerId, start: int, count: int) -> Vector:
        chosen = sample_indices(run, epoch, peer, start=start, count=count, population=len(self._labels))
        return self._gradient(parameters.astype(np.float64), self._points[chosen], self._labels[chosen]).astype(
            np.float32
        )

    def distance(self, parameters: Vector) -> float:
        return _root_mean_square(parameters - self._optimum)

    def _gradient(
        self, weights: NDArray[np.float64], points: NDArray[np.float64], labels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        error = _sigmoid(points @ weights) - labels
        slope: NDArray[np.float64] = points.T @ error / len(labels) + self._penalty * weights
        return slope

    def _find_optimum(self) -> NDArray[np.float64]:
        weights = np.zeros(self._points.shape[1])
        for _ in range(NEWTON_STEPS):
            chance = _sigmoid(self._points @ weights)
            curvature = (self._points.T * (chance * (1 - chance))) @ self._points / len(chance)
            curvature += self._penalty * np.eye(len(weights))
            weights -= np.linalg.solve(curvature, self._gradient(weights, self._points, self._labels))
        return weights


class ProblemTrainer:
    """Makes one peer's update for an epoch, as `peer.trainer.Trainer` does for a model (both: `Trains`).

    Local steps are plain gradient steps at the inner optimizer's learning rate.
    """

    def __init__(self, manifest: Manifest, problem: Problem, peer: PeerId) -> None:
        self._training, self._run = manifest.training, manifest.run_id
        self._problem, self._peer = problem, peer
        self._epoch = self.samples = 0
        self._start = self._parameters = self._sum = np.zeros(0, np.float32)

    @property
    def complete(self) -> bool:
        return self.samples >= self._training.most_samples

    def start_epoch(self, state: ModelState) -> None:
        self._epoch, self.samples = state.epoch, 0
        self._start, self._parameters = state.parameters, state.parameters.copy()
        self._sum = np.zeros_like(state.parameters)

    def train_microbatch(self) -> None:
        size = self._training.batch_size
        gradient = self._problem.gradient(self._parameters, self._run, self._epoch, self._peer, self.samples, size)
        self.samples += size
        if isinstance(self._training, LocalSgd):
            self._parameters -= np.float32(self._training.inner.learning_rate) * gradient
        else:
            self._sum += gradient

    def update(self) -> Vector:
        if isinstance(self._training, LocalSgd):
            return self._start - self._parameters
        return self._sum / np.float32(self.samples // self._training.batch_size)

    def evaluate(self, state: ModelState) -> dict[str, float]:
        return {"distance": self._problem.distance(state.parameters)}


class ProblemObjective:
    """Where one peer is that goes its own way (`peer.gossip.trainer.Objective`); its loss is the distance left."""

    layers = ()

    def __init__(self, run: str, problem: Problem, peer: PeerId) -> None:
        self.parameters = problem.start()
        self._run, self._problem, self._peer = run, problem, peer

    def gradient(self, epoch: int, start: int, count: int) -> tuple[Vector, float]:
        gradient = self._problem.gradient(self.parameters, self._run, epoch, self._peer, start, count)
        return gradient, self._problem.distance(self.parameters)

    def evaluate(self) -> dict[str, float]:
        return {"distance": self._problem.distance(self.parameters)}


@lru_cache(maxsize=4)
def _normal(count: int) -> Vector:
    return np.random.default_rng(0).standard_normal(count, np.float32)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * values))
    return result


def _root_mean_square(values: NDArray[np.floating]) -> float:
    exact = values.astype(np.float64)
    return float(np.sqrt(exact @ exact / len(exact)))
