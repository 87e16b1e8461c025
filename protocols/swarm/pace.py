"""How fast a run's epochs are stepped, as one of its members sees it. Pure: time comes in as an argument."""

SMOOTHING = 0.2
"""Weight of the newest epoch."""


class Pace:
    def __init__(self, now: float) -> None:
        self.epoch: int | None = None
        """The newest seen."""
        self.advanced_at = now
        """When it was seen first."""
        self.usual_seconds = 0.0
        """Of an epoch; 0 as long as none was seen to be stepped."""

    def look(self, epoch: int, now: float) -> bool:
        """Whether the run has stepped since the last look."""
        before = self.epoch
        if before is not None and epoch <= before:
            return False
        if before is not None:
            seconds = (now - self.advanced_at) / (epoch - before)
            self.usual_seconds += (seconds - self.usual_seconds) * (SMOOTHING if self.usual_seconds else 1.0)
        self.epoch, self.advanced_at = epoch, now
        return before is not None
