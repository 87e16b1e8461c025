"""Accelerated mixing on graphs that are badly connected: a companion model runs ahead of a peer's own.

A²CiD² (Nabli, Belilovsky & Oyallon 2023, "A²CiD²: Accelerating Asynchronous Communication in Decentralized Deep
Learning", NeurIPS, Algorithm 1), the part of DADAO (`protocols.gossip.dadao`) that goes with any training: a model x
and its companion x̃ take the same gradient steps, move towards each other all the time, and jump when an exchange shifts
x: x by the shift, x̃ by the shift times √(χ1 / χ2). Models come together in O(√(χ1 · χ2)) exchanges instead of O(χ1).

Steps of training leave x̃ − x as it is, so that is what is kept, and it changes in exchanges alone. A peer's time goes
by its own exchanges, of which it takes part in one in a unit of time; the movement that belongs to a unit is made at
its beginning. So nothing depends on clocks, and nothing but models travels.
"""

import math

import numpy as np

from protocols.gossip.mixing import apply_shift
from protocols.gossip.spectrum import Connectivity
from protocols.vectors import Vector


class Companion:
    """How far the companion of one peer's model (d float32) is ahead of it."""

    def __init__(self, elements: int) -> None:
        self.ahead: Vector = np.zeros(elements, np.float32)

    def push(self, shift: Vector, connectivity: Connectivity) -> Vector:
        """An exchange shifts the model by `shift`: by how much it is to be shifted in all; finite.

        `connectivity`: of the graph at one exchange of a peer in a unit of time.
        """
        further = np.float32(connectivity.acceleration - 1)
        towards = np.float32((1 - math.exp(-1 / math.sqrt(connectivity.chi_1 * connectivity.chi_2))) / 2)
        with np.errstate(over="ignore"):
            apply_shift(self.ahead, further * shift)
        total = towards * self.ahead
        apply_shift(total, shift)
        self.ahead *= 1 - 2 * towards
        return total

    def forget(self) -> None:
        """The model is another's now: its companion begins where it is."""
        self.ahead[:] = 0
