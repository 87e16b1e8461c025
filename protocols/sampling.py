"""Which samples a peer trains on: a pure function of (run, epoch, peer), so that anybody can recompute anybody's.

Each (run, epoch, peer, pass) has its own pseudo-random permutation of the training samples, and the peer takes them
in its order; after the last sample the next pass begins. So within a pass a peer never repeats a sample.

Overlap: two peers, and two epochs of one peer, draw independently. In one epoch, peers that take a and b of N samples
share a·b/N of them on average, and peers that take a₁ … aₙ ≤ N train on N·(1 − ∏(1 − aᵢ/N)) different ones, as if each
had drawn at random; so they may share samples by accident, but never a sequence. No function of (run, epoch, peer)
alone can do better: there are more possible peers (2²⁵⁶ keys) than samples, so some two of them begin with the same
sample, whatever the function (pigeonhole). Disjoint shares need the epoch's group, on which nobody has agreed yet when
training starts.
"""

from functools import lru_cache

import blake3
import numpy as np
from numpy.typing import NDArray

from protocols.encoding import encode
from protocols.identity import PeerId

Indices = NDArray[np.int64]

_DOMAIN = b"peer/1/samples\x00"
_ROUNDS = 8
_NOBODY = PeerId("")
"""The sequence that belongs to no peer."""


def sample_indices(run: str, epoch: int, peer: PeerId, *, start: int, count: int, population: int) -> Indices:
    """The samples (0 … population − 1) at positions start … start + count − 1 of the peer's sequence in `epoch`.

    Random access: microbatch k of size b is `start=k * b, count=b`.
    """
    if population < 1 or start < 0 or count < 0:
        raise ValueError(f"no samples {start} … {start + count} of a population of {population}")
    pieces = []
    stop = start + count
    while start < stop:
        pass_number, position = divmod(start, population)
        taken = min(stop - start, population - position)
        keys = _keys(run, epoch, peer, pass_number)
        pieces.append(_permute(np.arange(position, position + taken, dtype=np.uint64), keys, population))
        start += taken
    return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, np.int64)


def microbatch_indices(run: str, epoch: int, microbatch: int, size: int, population: int) -> Indices:
    """In a pipeline: the samples of a microbatch, whoever begins it. No two of a pass share one."""
    return sample_indices(run, epoch, _NOBODY, start=microbatch * size, count=size, population=population)


@lru_cache(maxsize=64)
def _keys(run: str, epoch: int, peer: PeerId, pass_number: int) -> tuple[np.uint64, ...]:
    stream = blake3.blake3(_DOMAIN + encode([run, epoch, peer, pass_number])).digest(length=8 * _ROUNDS)
    return tuple(np.frombuffer(stream, "<u8").astype(np.uint64))


def _permute(positions: NDArray[np.uint64], keys: tuple[np.uint64, ...], population: int) -> NDArray[np.uint64]:
    """The images of `positions` under a keyed permutation of 0 … population − 1.

    A Feistel network permutes the next power of two; what falls outside the population goes through it again until it
    falls inside ("cycle walking", Black & Rogaway 2002), less than once on average.
    """
    bits = max(2, (population - 1).bit_length())
    images = _feistel(positions, keys, bits)
    outside = np.flatnonzero(images >= population)
    while len(outside):
        images[outside] = _feistel(images[outside], keys, bits)
        outside = outside[images[outside] >= population]
    return images


def _feistel(values: NDArray[np.uint64], keys: tuple[np.uint64, ...], bits: int) -> NDArray[np.uint64]:
    """A keyed permutation of the integers of `bits` bits; its halves differ by one bit where `bits` is odd."""
    low_bits = np.uint64(bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(bits - bits // 2)) - np.uint64(1)
    high, low = values >> low_bits, values & low_mask
    for even_key, odd_key in zip(keys[::2], keys[1::2], strict=True):
        high = high ^ (_mix(low ^ even_key) & high_mask)
        low = low ^ (_mix(high ^ odd_key) & low_mask)
    return (high << low_bits) | low


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every input bit changes every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
