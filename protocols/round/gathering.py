"""The first phase of an epoch: all train until the swarm has its samples, and whoever should lead then closes it.

Each member tells how far it is to whom it takes for the leader, and hears how far the swarm is; if that one falls
silent, or does not close what seems enough, it is the next one's turn. What has been said is counted in `tally.py`.
"""

from protocols.identity import PeerId
from protocols.round.events import Action, Represent, Send
from protocols.round.patience import SLOWER, Patience
from protocols.round.presence import Presence
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from protocols.round.terms import Terms


class Gathering:
    def __init__(
        self, setting: Setting, tally: Tally, presence: Presence, patience: Patience, terms: Terms, now: float
    ) -> None:
        """`terms`: of which the first begins when the epoch is closed."""
        self._setting, self._tally = setting, tally
        self._presence, self._patience, self._terms = presence, patience, terms
        self._started = now
        self._favourite: PeerId | None = None
        """Whom we speak to, since `_waiting_since`."""
        self._waiting_since = now
        self._said_at = now - setting.timing.resend

    @property
    def is_over(self) -> bool:
        return self._terms.following is not None

    def trained(self, now: float, *, newly_complete: bool) -> list[Action]:
        """We have come further, and that is in the tally."""
        if self._presence.favourite() == self._setting.me:
            return self._close_when_enough(now)
        suspected, silent_seconds, elapsed = self._presence.suspected, now - self._said_at, now - self._started
        if newly_complete or self._tally.is_worth_telling(suspected, silent_seconds, elapsed):
            return self._say_progress(now)
        return []

    def answer(self, peer: PeerId, now: float) -> list[Action]:
        """It has told us how far it is."""
        actions: list[Action] = [*self._tally.standings(self._presence.suspected, [peer])]
        self._tally.answered.add(peer)
        voters = self._presence.electorate.peers
        if peer in voters:  # it takes us for its leader: we were one of them before we restarted
            voters.add(self._setting.me)
        if self._presence.favourite() == self._setting.me:
            actions += self._close_when_enough(now)
        return actions

    def speak_to(self, peer: PeerId, now: float) -> list[Action]:
        """If it is to lead: it has only just become known."""
        return self._say_progress(now) if self._presence.favourite() == peer else []

    def lose(self, peer: PeerId, now: float) -> list[Action]:
        """It cannot be reached."""
        if peer not in self._presence.peers or peer in self._presence.suspected:
            return []
        return self._suspect(peer, now)

    def tick(self, now: float) -> list[Action]:
        setting, presence = self._setting, self._presence
        favourite = presence.favourite()
        ours = favourite == setting.me
        if setting.follows and ours:
            return [Represent()] if setting.trains else []
        actions: list[Action] = []
        if now - self._said_at >= setting.timing.resend:
            self._said_at = now
            actions += self._tell_all() if ours else self._say_progress(now)
        if favourite != self._favourite:
            self._favourite, self._waiting_since = favourite, now
            self._patience.relax()
            self._tally.forget_leader()
        return actions + (self._lead(now) if ours else self._watch(favourite, now))

    def _lead(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for peer in list(self._presence.peers):
            if self._presence.misses(peer, self._waiting_since, now):
                actions += self.lose(peer, now)
                if self.is_over:  # without it the samples are enough
                    return actions
        return actions + self._close_when_enough(now)

    def _watch(self, favourite: PeerId, now: float) -> list[Action]:
        """Whether it is silent, or only talks."""
        if self._presence.misses(favourite, self._waiting_since, now):
            return self._suspect(favourite, now)
        if not self._tally.seems_enough(self._presence.suspected):
            if self._setting.microbatches:
                self._patience.relax()
            return []
        self._patience.wait(favourite, now, SLOWER * self._tally.own.complete_after)
        if not self._patience.ended(now):
            return []
        self._presence.give_up(favourite)
        return self._suspect(favourite, now)

    def _suspect(self, peer: PeerId, now: float) -> list[Action]:
        """Take `peer` for dead until heard from: fewer are waited for, and who is to lead may be another."""
        presence, tally = self._presence, self._tally
        presence.suspected.add(peer)
        actions: list[Action] = []
        if heir := presence.heir_of(peer):
            tally.know(heir)
            actions.append(Send(heir, tally.standing(presence.suspected)))
        ours = presence.favourite() == self._setting.me
        return actions + (self._close_when_enough(now) if ours else self._say_progress(now))

    def _close_when_enough(self, now: float) -> list[Action]:
        enough = self._tally.is_enough(self._presence.suspected, now - self._started)
        return self._terms.lead(self._terms.latest + 1, now) if enough else []

    def _say_progress(self, now: float) -> list[Action]:
        self._said_at = now
        return [Send(self._presence.favourite(), self._tally.tell())]

    def _tell_all(self) -> list[Action]:
        """How far the swarm is; but those who were answered just now."""
        peers = self._presence.peers
        all_others = [*peers, *sorted(self._presence.audience.difference(peers))]
        told = [peer for peer in all_others if peer not in self._tally.answered]
        self._tally.answered.clear()
        return [*self._tally.standings(self._presence.suspected, told)]
