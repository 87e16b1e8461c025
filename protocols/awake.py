"""Time that passes only while this process runs: a process that was stopped has heard nobody, but nobody was silent.

A machine that slept, or a process that got no processor, would otherwise wake up, find that everybody has been silent
for too long, take all of them for dead, and decide alone.
"""


class AwakeTime:
    def __init__(self, now: float, longest_gap_seconds: float) -> None:
        """It is read at least every `longest_gap_seconds`, or this process has not run in between."""
        self._read_at = now
        self._longest_gap_seconds = longest_gap_seconds
        self._asleep_seconds = 0.0

    def at(self, now: float) -> float:
        """Seconds on a clock that equals `now` (monotonic), less all the time that we were asleep."""
        gap = now - self._read_at
        if gap > self._longest_gap_seconds:
            self._asleep_seconds += gap
        self._read_at = now
        return now - self._asleep_seconds
