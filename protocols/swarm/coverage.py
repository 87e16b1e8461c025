"""Which microbatches of an epoch somebody has counted: a bit for each, in as many bytes as it takes.

A stage's epoch is complete when each microbatch is counted by exactly one of those who average.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import reduce
from operator import or_

from protocols.manifest import MAX_MICROBATCHES

MAX_COVERED_BYTES = MAX_MICROBATCHES // 8


def to_bytes(covered: int) -> bytes:
    """Bit i of the mask stands for microbatch i; without trailing zeros, so that one set has one form."""
    return covered.to_bytes((covered.bit_length() + 7) // 8, "little")


def from_bytes(data: bytes) -> int:
    return int.from_bytes(data, "little")


def everything(microbatches: int) -> int:
    return (1 << microbatches) - 1


def numbers(covered: int) -> Iterator[int]:
    """The microbatches of the mask, in order."""
    while covered:
        lowest = covered & -covered
        yield lowest.bit_length() - 1
        covered ^= lowest


def union(masks: Iterable[int]) -> int:
    """What is in any of them."""
    return reduce(or_, masks, 0)


def lacked_by_half(covered: int, known: Collection[int | None]) -> int:
    """Those of `covered` that at least half of the masks lack; None lacks nothing."""
    masks = [mask for mask in known if mask is not None]
    disputed = union(covered & ~mask for mask in masks)
    lacking = (
        number for number in numbers(disputed) if 2 * sum(not mask >> number & 1 for mask in masks) >= len(known)
    )
    return sum(1 << number for number in lacking)


def is_partition(masks: Iterable[bytes], microbatches: int) -> bool:
    """Whether each microbatch is in exactly one of them, and nothing else is in any."""
    seen = 0
    for mask in map(from_bytes, masks):
        if seen & mask:
            return False
        seen |= mask
    return seen == everything(microbatches)
