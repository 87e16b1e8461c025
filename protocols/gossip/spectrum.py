"""How fast a topology brings models together: its mixing matrix, spectral gap, and the consensus error to expect.

The consensus error after t epochs is the root mean square distance of the models from their mean, as a fraction of what
it was; here for models that are independent at first, in expectation over the draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.gossip.topologies import Exponential, Graph, Ring, Topology
from protocols.identity import PeerId

Matrix = NDArray[np.float64]
Probabilities = NDArray[np.float64]


def mixing_matrix(graph: Graph, degree: int, roster: list[PeerId]) -> Matrix:
    """W (n × n): after the epoch, peer i has Σ W_ij x_j. Rows and columns are in the order of `roster`."""
    places = {peer: place for place, peer in enumerate(roster)}
    weight = 1 / (degree + 1)
    matrix = np.eye(len(roster))
    for caller, callee in graph.links:
        i, j = places[caller], places[callee]
        matrix[i, j] += weight
        matrix[j, i] += weight
        matrix[i, i] -= weight
        matrix[j, j] -= weight
    return matrix


def spectral_gap(matrix: Matrix) -> float:
    """1 − the second largest eigenvalue of a symmetric mixing matrix, by magnitude; 0 when the graph is not connected.

    The consensus error shrinks at least by the factor 1 − gap in an epoch of this matrix.
    """
    magnitudes = np.sort(np.abs(np.linalg.eigvalsh(matrix)))
    return float(1 - magnitudes[-2]) if len(magnitudes) > 1 else 1.0


def contraction(matrix: Matrix) -> float:
    """By what factor one epoch of this matrix shrinks the expected squared consensus error of independent models.

    The squared error is then (tr WᵀW − 1) / (n − 1) of what it was. Where each epoch's graph is the last one's with its
    peers relabelled at random, this holds in every epoch: no direction is worse than another.
    """
    return float((np.sum(np.square(matrix)) - 1) / (len(matrix) - 1))


@dataclass(frozen=True, slots=True)
class Connectivity:
    """χ1 and χ2 of a graph whose links are used at random times, by which DADAO and A²CiD² set their pace
    (`protocols.gossip.dadao`, `protocols.gossip.momentum`).

    With Λ the Laplacian whose weights are how often each link is used in a unit of time: χ1 is one by the smallest
    positive eigenvalue of Λ, χ2 half of the largest resistance between linked peers. 1 ≤ χ1 / χ2, and the more so the
    worse connected the graph is.
    """

    chi_1: float
    chi_2: float

    @classmethod
    def of(cls, count: int, links: Sequence[tuple[int, int]], rate: float) -> Self:
        """`links`, between places 0 … count − 1, are used `rate` times in a unit of time each; all are connected."""
        first, second = np.array(links).T
        laplacian = np.zeros((count, count))
        np.add.at(laplacian, (first, first), rate)
        np.add.at(laplacian, (second, second), rate)
        np.add.at(laplacian, (first, second), -rate)
        np.add.at(laplacian, (second, first), -rate)
        inverse = np.linalg.pinv(laplacian, hermitian=True)
        resistances = inverse[first, first] + inverse[second, second] - 2 * inverse[first, second]
        return cls(float(np.linalg.eigvalsh(inverse)[-1]), float(resistances.max() / 2))

    @classmethod
    def of_ring(cls, count: int) -> Self:
        """Of `count` peers, three or more, who take part in one exchange in a unit of time each."""
        return cls(1 / (1 - math.cos(2 * math.pi / count)), (count - 1) / count)

    @property
    def acceleration(self) -> float:
        """√(χ1 / χ2)."""
        return math.sqrt(self.chi_1 / self.chi_2)


def ring_gap(count: int) -> float:
    """Of the ring with weights 1/3, three peers or more: 2/3 · (1 − cos 2π/n), which is O(1 / n²)."""
    return 2 / 3 * (1 - math.cos(2 * math.pi / count))


def expected_error(topology: Topology, count: int, epochs: int) -> float:
    """The consensus error after that many epochs, as a fraction of what it was at first; theory, for n = `count` > 2.

    Of random pairs and of regular graphs of an odd degree the theory is for even n, where nobody is left over; of the
    exponential graph for powers of two.
    """
    if isinstance(topology, Exponential):
        averaged = 2 ** min(epochs, (count - 1).bit_length())
        return float(np.sqrt(max(0.0, (count / averaged - 1) / (count - 1))))
    if isinstance(topology, Ring):
        eigenvalues = (1 + 2 * np.cos(2 * np.pi * np.arange(1, count) / count)) / 3
        return float(np.sqrt(np.mean(eigenvalues ** (2 * epochs))))
    weight = 1 / (topology.degree + 1)
    row = sum(p * ((1 - met * weight) ** 2 + met * weight**2) for met, p in enumerate(_neighbours(topology, count)))
    return float(((count * row - 1) / (count - 1)) ** (epochs / 2))  # what `contraction` says, in expectation


def expected_gap(topology: Topology, count: int) -> float:
    """The spectral gap of the expected mixing matrix, over the draws or over the epochs of a cycle; n = `count` > 2.

    It bounds how fast the mean over all draws comes together; for which n it is exact `expected_error` says. Of the
    exponential graph it is O(1 / log n).
    """
    if isinstance(topology, Exponential):
        return 1 / (count - 1).bit_length()
    if isinstance(topology, Ring):
        return ring_gap(count)
    met = sum(number * p for number, p in enumerate(_neighbours(topology, count)))
    return float(met / (topology.degree + 1) * count / (count - 1))


def _neighbours(topology: Topology, count: int) -> Probabilities:
    """How likely a peer has 0, 1, … `degree` neighbours in an epoch, whose draws may share links.

    A cycle gives it two of the others, a matching one, whoever it has already.
    """
    others = count - 1
    known = np.zeros(topology.degree + 1)
    known[0] = 1.0
    for drawn in [2] * (topology.degree // 2) + [1] * (topology.degree % 2):
        then = np.zeros_like(known)
        for before in map(int, np.flatnonzero(known)):
            for new in range(drawn + 1):
                ways = math.comb(others - before, new) * math.comb(before, drawn - new)
                then[before + new] += known[before] * ways / math.comb(others, drawn)
        known = then
    return known
