"""What is left of a round once it is decided: to have all of the results that stand, and to apply them.

Those that we have not read ourselves are fetched from those who voted. If none of them has one any more, the round is
lost to us, and the swarm's state is taken instead.
"""

from protocols.round.events import Action, Apply, Fetch, FetchFailed, Resync
from protocols.round.holdings import Holdings
from protocols.round.messages import Done, PartResult
from protocols.round.order import place
from protocols.round.setting import Setting
from protocols.signed import Signed


class Decision:
    def __init__(self, setting: Setting, done: Signed[Done], holdings: Holdings, fetch_at: float) -> None:
        """`fetch_at`: when to fetch what has not come by itself until then."""
        self.done = done
        self.is_applied = self.is_lost = False
        self._setting, self._holdings = setting, holdings
        self._fetch_at: float | None = fetch_at
        self._fetching: set[PartResult] = set()
        """Those that are on their way."""

    @property
    def is_open(self) -> bool:
        return not (self.is_applied or self.is_lost)

    def apply_if_whole(self) -> list[Action]:
        """To be asked whenever a result has come."""
        results = self.done.body.results
        if not self.is_open or self._holdings.missing(results):
            return []
        self.is_applied = True
        return [Apply(results)]

    def tick(self, now: float) -> list[Action]:
        due = self.is_open and self._fetch_at is not None and now >= self._fetch_at
        return self._fetch_missing() if due else []

    def fetch_at(self, now: float) -> None:
        """What was on its way breaks off."""
        self._fetch_at = now

    def fetch_failed(self, event: FetchFailed) -> list[Action]:
        if not self.is_open or event.term is not None or event.result in self._holdings.results:
            return []
        self.is_lost = True
        return [Resync()]

    def _fetch_missing(self) -> list[Action]:
        self._fetch_at = None
        setting, done = self._setting, self.done.body
        holders = tuple(peer for peer in done.members if peer != setting.me)
        missing = [result for result in self._holdings.missing(done.results) if result not in self._fetching]
        self._fetching.update(missing)
        ours = int.from_bytes(place(setting.run, setting.epoch, setting.me)[:4])
        actions: list[Action] = []
        for turn, result in enumerate(missing, ours):  # else all who lack it would ask the same holder first
            first = turn % max(1, len(holders))
            actions.append(Fetch(result, holders[first:] + holders[:first]))
        return actions
