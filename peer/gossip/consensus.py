"""How far apart the swarm's models are, as one peer sees it from its exchanges.

The consensus distance is the root mean square distance of the models from their mean. Of two independent ones it is
their distance divided by √2, so the exchanges of a peer are samples of it.
"""

import math
from collections import deque

REMEMBERED = 8
"""Exchanges. Sixteen were two fifths of a run of 300 short epochs, and its end was not to be seen in them."""


class ConsensusDistance:
    def __init__(self) -> None:
        self._measured: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        """Squared distance of two models and squared length of ours, of the last exchanges."""

    def measure(self, distance: float, own_length: float) -> None:
        self._measured.append((distance**2, own_length**2))

    @property
    def absolute(self) -> float | None:
        """In the parameters' unit; None before the first exchange."""
        return self._rms(0) / math.sqrt(2) if self._measured else None

    @property
    def relative(self) -> float | None:
        """As a fraction of the models' length."""
        if not self._measured or not (size := self._rms(1)):
            return None
        return self._rms(0) / math.sqrt(2) / size

    def _rms(self, column: int) -> float:
        return math.sqrt(sum(pair[column] for pair in self._measured) / len(self._measured))
