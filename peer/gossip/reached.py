"""Which round a run with committees has come to, by so many that no single member leads anybody past rounds."""

from collections.abc import Callable, Mapping

from peer.signal import Signal
from protocols.gossip.committee import newest_round
from protocols.identity import PeerId


class Reached:
    """By members' hellos, which say what they hold, and by the heads of their models, which are here sooner."""

    def __init__(self, holders: Callable[[], Mapping[PeerId, int]], aggregators: int) -> None:
        """`holders`: the members, and the newest rounds of which they hold the states."""
        self._holders, self._aggregators = holders, aggregators
        self._heads: dict[PeerId, int] = {}
        """The newest round that a member must have come to, as it has sent a model."""
        self._newest: int | None = None
        """As far as it is known since somebody said something new."""
        self._changed = Signal()

    @property
    def newest(self) -> int:
        """The round that most of a committee have come to."""
        if self._newest is None:
            holders = self._holders()
            self._heads = {peer: number for peer, number in self._heads.items() if peer in holders}
            come = [max(held, self._heads.get(peer, 0)) for peer, held in holders.items()]
            self._newest = newest_round(come, self._aggregators)
        return self._newest

    def hear_head(self, peer: PeerId, number: int) -> None:
        """It has sent a model that it can only have once it has come to round `number`."""
        if number > self._heads.get(peer, -1):
            self._heads[peer] = number
            self.look_again()

    def look_again(self) -> None:
        """A member has said something of itself."""
        self._newest = None
        self._changed.notify()

    async def wait_for(self, number: int) -> None:
        """Until round `number` is reached."""
        while self.newest < number:
            await self._changed.wait()
