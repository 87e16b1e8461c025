"""How far a swarm is, by what so many of its members say of themselves that no few of them can make it up."""

from collections.abc import Iterable


def reached_by(count: int, said: Iterable[int]) -> int:
    """The newest epoch that `count` members say to have come to, of those who say one; they are as many at least."""
    return sorted(said, reverse=True)[count - 1]
