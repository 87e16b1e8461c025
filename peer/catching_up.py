"""Whether a member that the others have left behind goes on by their results, or takes their state instead.

On a slow line the results of an epoch may take longer than the epoch: as long as they keep coming, they are waited for.
"""

BEHIND_SECONDS = 5.0
"""Members may be ahead for so long before we stop waiting for their results and take their state …"""
SILENCE_SECONDS = 20.0
"""… and, once we know what they have decided, for so long without a piece of it."""
CATCH_UP_EPOCHS = 6
"""So many epochs are caught up by fetching results; beyond, the state is fetched."""


class CatchingUp:
    def __init__(self, now: float) -> None:
        self._came: tuple[int, int | None] = 0, None
        self._came_at = now
        self._ahead_since: float | None = None

    def look(self, epoch: int, came: int | None, now: float, *, ahead: bool) -> None:
        """`came`: pieces of what the others have decided in our epoch; None as long as we do not know what that is.
        `ahead`: whether somebody says to be an epoch further."""
        if epoch != self._came[0] or not ahead:
            self._ahead_since = None
        if ahead and self._ahead_since is None:
            self._ahead_since = now
        if (epoch, came) != self._came:
            self._came, self._came_at = (epoch, came), now

    def is_left_behind(self, now: float) -> bool:
        """Whether somebody is ahead for so long that we should have what was decided: the run may end there, and then
        nobody ever comes further."""
        return self._ahead_since is not None and self._is_stuck(self._ahead_since, now)

    def is_lost(self, behind: int, began_at: float, now: float) -> bool:
        """Whether to take the state of the others, who are `behind` epochs ahead; our epoch began then."""
        return behind > CATCH_UP_EPOCHS or (behind > 0 and self._is_stuck(began_at, now))

    def _is_stuck(self, since: float, now: float) -> bool:
        _, came = self._came
        return now - max(since, self._came_at) > (BEHIND_SECONDS if came is None else SILENCE_SECONDS)
