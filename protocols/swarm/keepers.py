"""Whom a trainer claims microbatches from: all go to the first in the run's order, as long as that keeps its board.

Who keeps the board can keep it to itself, or hand out what has been done. So a trainer that gets nothing while the run
stands still, by what the members say of themselves, turns to the next in the order, and one that works in vain later;
so do the others, each by what it sees. Where two boards hand out the same, work is done twice, and counted once. Pure:
time comes in as an argument.
"""

from collections.abc import Iterable

from protocols.identity import PeerId
from protocols.round.order import order
from protocols.swarm.pace import Pace

FIRST_PATIENCE_SECONDS = 30.0
"""So long a trainer without work waits for the first step of the run that it sees; for others …"""
PATIENCE_SECONDS = 10.0
"""… so long at least …"""
PATIENCE_EPOCHS = 3.0
"""… and as long as so many epochs usually take."""
PASSED_OVER_SECONDS = 60.0
"""Who was in vain waited for is passed over so long, each time twice as long."""
FIRST_STANDSTILL_SECONDS = 600.0
"""So long a trainer works for a keeper without that it sees the run's first step; for others …"""
STANDSTILL_SECONDS, STANDSTILL_EPOCHS = 60.0, 10.0
"""… so long at least, and as long as so many epochs usually take."""


class Keepers:
    def __init__(self, run: str, now: float) -> None:
        self._run = run
        self._pace = Pace(now)
        self._waiting_since = self._working_since = now
        """The first: for any work; the second: for a step."""
        self._passed_over: dict[PeerId, tuple[float, float]] = {}
        """Until when, and for how long."""

    def choose(self, servers: Iterable[PeerId], now: float) -> PeerId | None:
        """The one to claim from; where all are passed over, the first in the order."""
        ranked = order(self._run, 0, servers)
        patient = (peer for peer in ranked if now >= self._passed_over.get(peer, (now, 0.0))[0])
        return next(patient, next(iter(ranked), None))

    def look(self, keeper: PeerId | None, epoch: int, *, working: bool, over: bool, now: float) -> None:
        """`epoch`: of the run, by what its members say. `working`: we have something to do; `over`: nobody is to."""
        stepped = self._pace.look(epoch, now)
        if stepped or over:
            self._working_since = now
        if stepped or over or working:
            self._waiting_since = now
        if keeper is not None and (
            now - self._waiting_since > self.patience or now - self._working_since > self.standstill
        ):
            self.pass_over(keeper, now)

    @property
    def patience(self) -> float:
        """Seconds without work."""
        usual = self._pace.usual_seconds
        return max(PATIENCE_SECONDS, PATIENCE_EPOCHS * usual) if usual else FIRST_PATIENCE_SECONDS

    @property
    def standstill(self) -> float:
        """Seconds without a step."""
        usual = self._pace.usual_seconds
        return max(STANDSTILL_SECONDS, STANDSTILL_EPOCHS * usual) if usual else FIRST_STANDSTILL_SECONDS

    def pass_over(self, keeper: PeerId, now: float) -> None:
        """It hands out nothing, or what is no work."""
        until, seconds = self._passed_over.get(keeper, (now, PASSED_OVER_SECONDS / 2))
        if now >= until:
            self._passed_over[keeper] = now + 2 * seconds, 2 * seconds
        self._waiting_since = self._working_since = now

    def forgive(self, keeper: PeerId) -> None:
        """It was right: trainers that claim from different keepers do the same work twice."""
        self._passed_over.pop(keeper, None)
