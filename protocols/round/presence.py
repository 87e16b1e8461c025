"""Who is there in an epoch, as far as we can tell, and who of them should lead.

Whoever says nothing for too long is `suspected`: dead to us until it is heard from. Of the others leads who comes first
in the order (`order.py`), of the electorate alone as long as any of it can (`electorate.py`), and nobody whom we have
given up (`patience.py`). A leader whose group leaves out half of the electorate is doubted: whom it leaves out is asked
whether it lives, and if it does the leader has made a group of its own.
"""

from collections.abc import Collection, Iterable, Mapping

from protocols.identity import PeerId
from protocols.round.electorate import Electorate
from protocols.round.messages import PartResult
from protocols.round.order import first, place
from protocols.round.patience import Patience
from protocols.round.setting import Setting
from protocols.round.tally import PeerView
from protocols.suspension import Fault

DOUBT = 1.5
"""So many times `Timing.failure` a leader whose group leaves out half of the electorate is doubted, then given up."""


class Presence:
    def __init__(
        self,
        setting: Setting,
        peers: Mapping[PeerId, PeerView],
        audience: Iterable[PeerId],
        electorate: Electorate,
        patience: Patience,
    ) -> None:
        """`peers`: the members that are waited for; `audience` as in `Round`."""
        self.peers, self.electorate = peers, electorate
        self.audience = set(audience)
        self.suspected: set[PeerId] = set()
        self.elsewhere: set[PeerId] = set()
        """Those of the suspected who live, but in another epoch or history."""
        self._setting, self._patience = setting, patience
        self._heard_at: dict[PeerId, float] = {}
        self._followed: dict[PeerId, tuple[PartResult, ...]] = {}
        """What those of the electorate and of the elders who have told us of a decision go on with."""
        self._doubted_at: float | None = None
        """Since when our leader's group lacks those of the electorate who live, for all we know."""

    # -- who is there -------------------------------------------------------------------------------------------------

    def hear(self, peer: PeerId, now: float) -> None:
        self._heard_at[peer] = now
        self.clear([peer])

    def clear(self, peers: Iterable[PeerId]) -> None:
        """They are not suspected any more."""
        self.suspected.difference_update(peers)
        self.elsewhere.difference_update(peers)

    def turn_away(self, peer: PeerId) -> None:
        """It lives, but has gone another way."""
        self.elsewhere.add(peer)
        self.audience.discard(peer)

    def depart(self, peer: PeerId) -> None:
        """It has left in order."""
        self.audience.discard(peer)
        self.electorate.peers.discard(peer)

    def blame(self, peer: PeerId, fault: Fault) -> None:
        """Not who plays another epoch or history: it is not to be waited for."""
        if peer != self._setting.me and peer not in self.elsewhere:
            self._patience.faults[peer] = fault

    def misses(self, peer: PeerId, since: float, now: float) -> bool:
        """Whether it is to be suspected, and to blame: it has said nothing for too long, `since` then at least."""
        if peer in self.suspected or peer == self._setting.me or not self._is_silent(peer, since, now):
            return False
        self.blame(peer, Fault.ABSENT)
        return True

    def _is_silent(self, peer: PeerId, since: float, now: float) -> bool:
        return now - max(self._heard_at.get(peer, since), since) > self._setting.timing.failure

    def heir_of(self, peer: PeerId) -> PeerId | None:
        """In the round of cells: who may speak for its cell in its place, if it represented one that is not ours."""
        setting = self._setting
        cell = setting.cell_of(peer) if setting.is_of_cells else None
        if cell is None or cell == setting.cell_of(setting.me):
            return None
        if any(setting.cell_of(other) == cell for other in self.peers.keys() - self.suspected):
            return None  # it has one that we know of
        heirs = {heir for heir in self.electorate.peers if setting.cell_of(heir) == cell} - self.suspected
        return first(setting.draw, setting.epoch, heirs) if heirs else None

    # -- who leads ----------------------------------------------------------------------------------------------------

    def favourite(self) -> PeerId:
        """Who should lead: of those who may, can be dialled and are not suspected, the first in the order."""
        return first(self._setting.draw, self._setting.epoch, self._leaders())

    def may_lead(self, peer: PeerId) -> bool:
        return peer in self.electorate.peers or not self.electorate.peers.issuperset(self._leaders())

    def _leaders(self) -> set[PeerId]:
        out = self.out()
        able = {peer for peer, view in self.peers.items() if not view.client_mode and peer not in out}
        if not self._setting.client_mode or not able:
            able.add(self._setting.me)
        return self.electorate.leaders(able)

    def out(self) -> set[PeerId]:
        """Who does not lead us now."""
        return self.suspected | self._patience.given_up

    def precedes(self, one: PeerId, other: PeerId) -> bool:
        """In the order."""
        draw, epoch = self._setting.draw, self._setting.epoch
        return place(draw, epoch, one) < place(draw, epoch, other)

    def give_up(self, leader: PeerId) -> None:
        """It leads us no more in this epoch."""
        self.blame(leader, Fault.ASTRAY)
        self._patience.give_up(leader)
        self.suspected.add(leader)

    # -- for whom a group stands --------------------------------------------------------------------------------------

    def follows(self, peers: Iterable[PeerId], results: tuple[PartResult, ...]) -> None:
        """These tell us that this is decided: they go on with it, members of the group that has done so or not."""
        self._followed |= dict.fromkeys(self.electorate.with_elders(peers), results)

    def followers(self, results: tuple[PartResult, ...]) -> list[PeerId]:
        """Who has said to go on with these."""
        return [peer for peer, followed in self._followed.items() if followed == results]

    def stands_for_half(self, members: Collection[PeerId]) -> bool:
        """Whether half of the living electorate is in the group."""
        return self.electorate.half_in(members, self._living())

    def stands_for_most_others(self, members: Collection[PeerId]) -> bool:
        """Whether most of the living electorate but us is in the group, wherever it plays; or most elders are."""
        living = self.electorate.peers - (self.suspected - self.elsewhere) - {self._setting.me}
        return self.electorate.most_elders_in(members) or self.electorate.most_in(members, living)

    def left_out(self, members: Collection[PeerId], now: float) -> list[PeerId]:
        """Those of the living electorate who are not in our leader's group; who does not answer is dead to us, too."""
        if self._doubted_at is None:
            self._doubted_at = now
        since, absent = self._doubted_at, sorted(self._living().difference(members))
        self.suspected.update(peer for peer in absent if self._is_silent(peer, since, now))
        return [peer for peer in absent if peer not in self.suspected]

    def doubts_for_too_long(self, now: float) -> bool:
        return self._doubted_at is not None and now - self._doubted_at > DOUBT * self._setting.timing.failure

    def trust(self) -> None:
        """It is another leader now."""
        self._doubted_at = None

    def _living(self) -> set[PeerId]:
        return self.electorate.peers - self.suspected
