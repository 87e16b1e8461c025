"""The vectors that are averaged: the same for every implementation, made anew by whoever needs one."""

import numpy as np
from numpy.typing import NDArray


def vector(seed: int, size: int) -> NDArray[np.float32]:
    """`size` normal float32, as of a gradient."""
    return np.random.default_rng(seed).standard_normal(size, np.float32) * np.float32(0.01)


def relative_error(result: NDArray[np.float32], peers: int) -> float:
    """The root mean square of `result`'s distance to the mean of the vectors 0 … peers − 1, relative to the mean's."""
    mean = np.zeros(len(result), np.float64)
    for seed in range(peers):
        mean += vector(seed, len(result))
    mean /= peers
    return float(np.sqrt(np.mean((result - mean) ** 2) / np.mean(mean**2)))
