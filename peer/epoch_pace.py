"""How fast epochs go by, as one member sees it."""


class EpochPace:
    def __init__(self, now: float) -> None:
        self.began_at = now
        """When the epoch that is played began."""
        self.seconds = 0.0
        """How long the last epoch took; 0 before the first is over."""

    def advance(self, now: float, epochs: int = 1) -> None:
        """So many epochs have ended at once."""
        self.seconds, self.began_at = (now - self.began_at) / epochs, now

    def resume(self, now: float) -> None:
        """What has passed of this epoch was a pause, and does not count."""
        self.began_at = now

    @property
    def per_second(self) -> float:
        """By the last epoch; 1 as long as there was none."""
        return 1 / self.seconds if self.seconds > 0 else 1.0
