"""DADAO: accelerated, asynchronous, decentralised optimisation of strongly convex functions, one peer's part of it.

Nabli & Oyallon 2023, "DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization" (ICML), section 3; the
constants are those of the authors' public implementation. The sum of all peers' functions f_i, each μ-strongly convex
and L-smooth, is minimised as the saddle point of a problem in a model x, a dual y and, for the network, z. Each of the
three has a companion (a tilde in the paper), towards which it moves all the time, and which takes the longer jumps:
acceleration in continuous time. There are two kinds of events, at independent times, and nobody waits for anybody:

    a gradient    of the peer's own function at its own model; on average once in a unit of time
    an exchange   of the messages y + z of two peers; both jump by their difference, in opposite directions

Exchanges have to be frequent enough: χ1 · χ2 ≤ 1/2 (`protocols.gossip.spectrum.Connectivity`), which a graph with
χ1, χ2 at one exchange in a unit of time has at √(2 · χ1 · χ2) of them. Then it takes O(√(L/μ) · log 1/ε) gradients of
each peer to come ε-close to the optimum, however the functions differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
X, X_TILDE, Y, Y_TILDE, Z, Z_TILDE = range(6)


@dataclass(frozen=True, slots=True)
class Problem:
    """What all peers have to know of what they minimise and of their network."""

    convexity: float
    """μ, of every peer's function."""
    smoothness: float
    """L, of every peer's function."""
    chi_1: float
    """Of the graph, with exchanges as frequent as they are."""

    @property
    def nu(self) -> float:
        """The share of the convexity that the saddle point's problem takes for itself."""
        return self.convexity / 2

    @property
    def root(self) -> float:
        """√(ν / L)."""
        return sqrt(self.nu / self.smoothness)


class Dadao:
    """The variables of one peer."""

    def __init__(self, start: Array, problem: Problem) -> None:
        """`start`: the model (d float64) to begin with; the duals begin at 0."""
        self._problem = problem
        self._variables: Array = np.zeros((6, len(start)))
        self._variables[[X, X_TILDE]] = start
        self._moment = 0.0
        self._flow = _flow(problem)

    @property
    def model(self) -> Array:
        model: Array = self._variables[X]
        return model

    @property
    def message(self) -> Array:
        """What another gets in an exchange."""
        message: Array = self._variables[Y] + self._variables[Z]
        return message

    def advance(self, moment: float) -> None:
        """All variables move towards their companions until `moment`: before each event."""
        self._variables = self._flow(moment - self._moment) @ self._variables
        self._moment = moment

    def step(self, gradient: Array) -> None:
        """The peer's own gradient at `model`, at the moment to which it has been advanced."""
        nu, root, smoothness = self._problem.nu, self._problem.root, self._problem.smoothness
        residual = gradient - nu * self._variables[X] - self._variables[Y_TILDE]
        self._variables[X] -= residual / (4 * smoothness)
        self._variables[X_TILDE] -= residual / (4 * sqrt(nu * smoothness))
        self._variables[Y_TILDE] += (root / 4 + 1) * residual

    def mix(self, other: Array) -> None:
        """The message of another, who gets ours of before; both were advanced to the same moment."""
        difference = self.message - other
        self._variables[Z] -= difference / 2
        self._variables[Z_TILDE] -= 2 * self._problem.chi_1 / self._problem.root * difference


def _flow(problem: Problem) -> Callable[[float], Array]:
    """exp(t · A), by the time t, of the linear differential equation V' = A · V (6 × 6) between events."""
    nu, root = problem.nu, problem.root
    to_x, to_y, to_z, to_z_tilde, pull = root / 8, root / 4, root / 4, root / 8, 1 / (2 * root)
    equation = np.zeros((6, 6))
    equation[X, [X, X_TILDE]] = -to_x, to_x
    equation[X_TILDE, [X, X_TILDE]] = to_x, -to_x
    equation[Y, [Y, Y_TILDE]] = -to_y, to_y
    equation[Y_TILDE, [X_TILDE, Y, Z]] = -pull * nu, -pull, -pull
    equation[Z, [Z, Z_TILDE]] = -to_z, to_z
    equation[Z_TILDE, [Z, Z_TILDE]] = to_z_tilde, -to_z_tilde
    rates, vectors = np.linalg.eig(equation)
    resting = np.argsort(np.abs(rates))[:2]  # twice 0, whose vectors `eig` does not part
    rates[resting] = 0
    vectors[:, resting] = np.array([[1, 1, -nu, -nu, 0, 0], [0, 0, -1, -1, 1, 1]]).T
    inverse = np.linalg.inv(vectors)
    return lambda time: np.real((vectors * np.exp(rates * time)) @ inverse)
