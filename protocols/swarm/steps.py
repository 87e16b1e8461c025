"""How far a stage is, by what its peers say of themselves."""

from collections.abc import Collection

from protocols.reached import reached_by


def come_to(epochs: Collection[int]) -> int:
    """The epoch that at least half of a stage's peers say to have come to; of one peer at least.

    Who has a round's result first is soon followed. Of three one liar changes nothing, ahead or behind; of two one that
    says to be ahead is believed, for one that lags behind would hold up the other.
    """
    return reached_by((len(epochs) + 1) // 2, epochs)
