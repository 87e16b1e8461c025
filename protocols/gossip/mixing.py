"""What a peer does with its neighbours' models: it shifts its own by a vector.

A shift is made of models as they were when an exchange began, and added to the model as it is when the exchange ends.
So mixing runs beside training (Wang et al. 2025, "From promise to practice: realizing high-performance decentralized
training", section 3): steps taken meanwhile are kept, and shifts that come in any order give the same.

`pairwise` shifts the two sides of an exchange against each other, so that the mean over all peers, weighted by their
samples, stays what it is. That is why both have to be applied or neither (`protocols.gossip.commitment`).

`neighbourhood` is for runs in which neighbours may send anything: each peer asks all neighbours of an epoch, and shifts
towards what a robust rule makes of them and itself. Nobody's mean is kept then, so there is nothing to agree on.
"""

from collections.abc import Callable, Sequence

import numpy as np

from protocols.gossip.variance import correct_variance
from protocols.manifest import Gossip, Manifest
from protocols.rules import CoordinateWiseRule, DistanceRule, Rule
from protocols.rules import rule as make_rule
from protocols.vectors import Vector, slices

Neighbourhood = Callable[[Vector, Sequence[Vector]], Vector]
"""(own model, neighbours' models) → shift of the own model; float32, d elements each."""


def share_of_other(own_samples: float, other_samples: float, degree: int) -> float:
    """How far towards the other's model ours is shifted in one exchange of `degree` in an epoch: 0 to 1.

    With one exchange an epoch two peers meet in the mean weighted by their samples; with more the weights are those of
    `protocols.gossip.topologies`. Two that have no samples yet count alike.
    """
    both = own_samples + other_samples
    weight = other_samples / both if both > 0 else 0.5
    return weight * 2 / (degree + 1)


def pairwise(own: Vector, other: Vector, share: float, layers: Sequence[slice] = ()) -> tuple[Vector, float]:
    """The shift of a peer whose model is `own`, towards `other` by that share, and how far apart they are.

    Both sides must take the models as they were sent, rounded by the codec: then what one loses the other gains. With
    `layers` the mean keeps their variance instead (`protocols.gossip.variance`).
    """
    shift = _difference(own, other)
    distance = length(shift)
    for piece in slices(len(shift)):
        shift[piece] *= np.float32(share)
    if layers:
        mixed = own.copy()
        apply_shift(mixed, shift)
        shift = _difference(own, correct_variance(mixed, (own, other), (1 - share, share), layers))
    return shift, distance


def clipped(byzantine: int) -> Neighbourhood:
    """Clipped gossip: neighbours pull with equal weights, none further than a radius τ (He, Karimireddy & Jaggi 2022,
    "Byzantine-Robust Decentralized Learning via ClippedGossip", Algorithm 1).

    With f of k neighbours malicious and equal weights, the paper's radius is τ² = Σ ‖x_j − x_i‖² / f over the honest
    ones. Who they are is not known; as the paper's experiments do, the k − f nearest are taken for them.
    """

    def shift(own: Vector, others: Sequence[Vector]) -> Vector:
        differences = [_difference(own, other) for other in others]
        lengths = np.array([length(difference) for difference in differences])
        radius = np.inf
        if byzantine:
            nearest = np.sort(lengths)[: max(0, len(lengths) - byzantine)]
            radius = float(np.sqrt(np.sum(nearest**2) / byzantine))
        total = np.zeros_like(own)
        for difference, far in zip(differences, lengths, strict=True):
            total += difference * np.float32((min(1.0, radius / far) if far else 1.0) / (len(others) + 1))
        return total

    return shift


def by_rule(rule: Rule) -> Neighbourhood:
    """Towards what a rule of the registry makes of the own model, which comes first, and the neighbours', alike in
    weight: `monna` is nearest-neighbour averaging (Farhadkhani et al. 2023, "Robust Collaborative Learning with Linear
    Gradient Overhead", Algorithm 1), `trimmed_mean` what BRIDGE does (Fang et al. 2022).
    """

    def shift(own: Vector, others: Sequence[Vector]) -> Vector:
        rows = np.stack([own, *others])
        if isinstance(rule, CoordinateWiseRule):
            mixed = rule.aggregate(rows, [1.0] * len(rows))
        else:
            mixed = rule.plan(rule.observe(rows)).apply(rows)
        return _difference(own, mixed)

    return shift


def neighbourhood_of(manifest: Manifest) -> Neighbourhood | None:
    """How a run's peers mix with all neighbours at once; None where they do with one after the other.

    Raises ValueError when this program has no such rule, or the rule cannot serve so small a neighbourhood.
    """
    training = manifest.training
    if not isinstance(training, Gossip) or training.mixing == "pairwise":
        return None
    averaging = manifest.averaging
    if training.mixing == "clipped":
        return clipped(averaging.byzantine)
    rule = make_rule(averaging.rule, averaging.byzantine, averaging.options)
    if isinstance(rule, DistanceRule):
        rule.require(training.neighbours + 1)
    return by_rule(rule)


def apply_shift(model: Vector, shift: Vector) -> None:
    """Adds the shift in place; the model stays finite."""
    for piece in slices(len(model)):
        with np.errstate(over="ignore"):
            model[piece] += shift[piece]
        np.clip(model[piece], -_LARGEST, _LARGEST, out=model[piece])


def length(vector: Vector) -> float:
    """Euclidean, in float64."""
    return float(np.sqrt(sum(np.square(vector[piece], dtype=np.float64).sum() for piece in slices(len(vector)))))


_LARGEST = np.finfo(np.float32).max


def _difference(own: Vector, other: Vector) -> Vector:
    """From the own model to the other; finite."""
    difference = np.empty_like(own)
    for piece in slices(len(own)):
        with np.errstate(over="ignore"):
            np.subtract(other[piece], own[piece], out=difference[piece])
        np.clip(difference[piece], -_LARGEST, _LARGEST, out=difference[piece])
    return difference
