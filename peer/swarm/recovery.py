"""How a stage goes on that has nobody left who could tell its state: by a disk or a snapshot, whichever loses least.

The stage that is last to step may be an epoch behind the others, which remember the parameters of the epoch before:
a state that is no older is as good as none lost, for trainers do what was counted since once more.
"""

from collections.abc import Callable, Collection

import structlog

from dht.interfaces import Clock
from peer.swarm.restoring import Restorer
from protocols.state import ModelState
from protocols.swarm.messages import OPEN_EPOCHS

RETURN_SECONDS = 30.0
"""So long whoever had the stage last may take to come back with it, where all that is to be had is too old."""
AGAIN_SECONDS = 1.0

log = structlog.get_logger()


class Recovery:
    """Of one stage, by one peer that takes it."""

    def __init__(self, stage: int, restorer: Restorer, others: Callable[[], Collection[int]], clock: Clock) -> None:
        """`others`: the epochs that the other stages have come to."""
        self._stage, self._restorer, self._others, self._clock = stage, restorer, others, clock
        self._until: float | None = None

    async def __call__(self, ours: ModelState) -> ModelState | None:
        """Where the stage goes on, given what we have of it; None: to be asked again, with its peers before us."""
        others = self._others() or (0,)
        epoch = min(others)
        oldest = min(epoch, max(others) - 1)  # no honest stage is farther ahead than one
        if ours.epoch >= oldest:
            return ours
        newest = await self._restorer.newest(self._stage) or ours
        if oldest <= newest.epoch <= epoch or newest.epoch > epoch + OPEN_EPOCHS:  # others are to come, who are so far
            return newest
        now = self._clock.monotonic()
        if self._until is None:
            self._until = now + RETURN_SECONDS
            log.info("waiting for those who had the stage last", stage=self._stage, epoch=epoch, seconds=RETURN_SECONDS)
        if now < self._until:
            await self._clock.sleep(AGAIN_SECONDS)
            return None
        log.warning(
            "a stage has lost all its peers, and goes on from a snapshot of another epoch",
            stage=self._stage,
            epoch=epoch,
            snapshot_epoch=newest.epoch,
        )
        return ModelState(newest.run, epoch, newest.parameters, newest.slots)
