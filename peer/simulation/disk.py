"""A member's disk: all that is left of it when it is killed."""

from dht.interfaces import Clock
from peer.member import Member
from protocols.state import ModelState


class Disk:
    """Keeps the newest state that was written to its end, as `peer.saving` does."""

    def __init__(self, clock: Clock, write_seconds: float) -> None:
        self.snapshot: ModelState | None = None
        self._clock, self._write_seconds = clock, write_seconds

    async def keep_saving(self, participant: Member) -> None:
        """Whenever the last is written, until cancelled; no state before it is the swarm's."""
        while True:
            while not participant.joined or participant.state is self.snapshot:
                await participant.changed.wait()
            state = participant.state
            await self._clock.sleep(self._write_seconds)
            self.snapshot = state
