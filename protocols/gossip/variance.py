"""Averaging that keeps the spread of each layer's weights (Tian et al. 2024, "Vanishing Variance Problem in Fully
Decentralized Neural-Network Systems", Algorithm 1: variance-corrected averaging).

The mean of n models that know nothing of each other has a n-th of their variance, layer by layer, and signals fade in
it. The correction stretches each layer about its mean, until its variance is the mean of those that went in.
"""

from collections.abc import Sequence

import numpy as np

from protocols.vectors import Vector

LONGEST_STRETCH = 4.0
"""Of 16 unrelated models; more can only come from models that cancel each other."""


def correct_variance(
    mixed: Vector, models: Sequence[Vector], weights: Sequence[float], layers: Sequence[slice]
) -> Vector:
    """`mixed` (d float32), stretched in each of `layers` to the weighted mean of the `models`' variances there.

    A layer that is constant in `mixed`, as one of a single element, stays as it is.
    """
    corrected = mixed.copy()
    total = sum(weights)
    for layer in layers:
        values = mixed[layer].astype(np.float64)
        variance = values.var()
        wanted = sum(
            weight / total * model[layer].var(dtype=np.float64)
            for model, weight in zip(models, weights, strict=True)
            if weight
        )
        if variance > 0 and wanted > variance:
            mean = values.mean()
            stretch = min(LONGEST_STRETCH, float(np.sqrt(wanted / variance)))
            corrected[layer] = mean + (values - mean) * stretch
    return corrected
