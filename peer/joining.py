"""How a member comes by the swarm's state: what most sign it to be, fetched from all who hold it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from dht.interfaces import Transport
from peer.company import Company
from peer.content_fetch import ContentNotFound
from peer.fellows import Fellows
from peer.profile import Profile
from peer.sync import Heads, fetch_state
from protocols.backoff import doubled
from protocols.heads import Choice
from protocols.identity import PeerId
from protocols.probation import Probation
from protocols.rejection import Rejected
from protocols.state import ModelState

RETRY_SECONDS = 0.25
EMPTY_CLAIMS = 3
"""Whose state could not be had so many times is not asked what the swarm's is for a while: who claims what nobody has
would keep all who start beside it from ever starting …"""
DISBELIEF_SECONDS, LONGEST_DISBELIEF_SECONDS = 30.0, 600.0
"""… for so long, then twice as long each time: it may have been our line, or theirs."""
FETCHES_IN_A_ROW = 3
"""So many states are fetched one after the other without a round in between before we rest …"""
LONGEST_REST_SECONDS = 300.0
"""… first as long as a fetch takes, then twice as long each time, up to here."""

Restore = Callable[[ModelState], Awaitable[ModelState | None]]
"""From what state to go on when nobody else tells of one; it is given ours. None: that is to be asked again later."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Found:
    """The swarm's state, and who has a say in what comes next."""

    state: ModelState
    group: dict[PeerId, bool]
    """Who has made it, and whether in client mode; with a probation, whom most of those name."""
    fetched: bool
    """Whether it is another one than we had."""
    elders: frozenset[PeerId] = field(default_factory=frozenset)
    """Who was there before us, where nobody has made the state that we start from."""


def _names(choice: Choice, state: ModelState) -> bool:
    return (choice.epoch, choice.digest) == (state.epoch, state.digest)


class Joining:
    def __init__(
        self,
        transport: Transport,
        company: Company,
        heads: Heads,
        profile: Profile,
        probation: Probation | None,
    ) -> None:
        """`probation`: None where the run has none."""
        self._transport, self._company, self._heads = transport, company, heads
        self._profile, self._probation = profile, probation
        self._empty_claims: Counter[PeerId] = Counter()
        """How often nobody gave the state that these said to hold, since we have fetched one."""
        self._disbelieved: dict[PeerId, float] = {}
        """Until when."""
        self._fetches, self._fetch_seconds = 0, 0.0
        """How often we have fetched the swarm's state since we were last in step, and how long that took last time."""

    def in_step(self) -> None:
        """A round has come to its end with us in it."""
        self._fetches = 0

    async def find(self, ours: ModelState, fellows: Fellows, restore: Restore | None = None) -> Found | None:
        """The state that the swarm has; ours, when nobody has another, or none that counts more.

        None: it could not be fetched; to be tried again.
        """
        await self._company.membership.introduce()
        await self._company.directives.catch_up()
        choice = await self._choose(ours, fellows)
        if choice is not None and not _names(choice, ours) and (pause := self._rest_seconds):
            await self._rest(pause)
            choice = await self._choose(ours, fellows)  # what it was before is a thing of the past
        if choice is None or choice.tellers <= {self._transport.peer_id}:
            if restore is None:
                return Found(ours, self._group(choice, ours.epoch), fetched=False)
            restored = await restore(ours)  # as its fellows may do in this moment, each with as much of a say
            return Found(restored, {}, fetched=False) if restored else None
        self._company.ban_all(choice.banned)
        if _names(choice, ours):
            return Found(ours, self._group(choice, ours.epoch), fetched=False, elders=choice.tellers)
        state = await self._fetch(choice, ours)
        return Found(state, self._group(choice, state.epoch), fetched=True) if state else None

    def believed(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Those who are asked what the swarm's state is."""
        now = self._transport.clock.monotonic()
        return [peer for peer in peers if self._disbelieved.get(peer, now) <= now]

    async def _choose(self, ours: ModelState, fellows: Fellows) -> Choice | None:
        return await self._heads.choose(self.believed(fellows.peers), snapshot=ours if ours.epoch else None)

    async def _fetch(self, choice: Choice, ours: ModelState) -> ModelState | None:
        began = self._transport.clock.monotonic()
        try:
            state = await fetch_state(self._transport, ours, choice)
        except (ContentNotFound, Rejected) as error:
            log.info("the swarm's state could not be fetched, trying again", epoch=choice.epoch, error=str(error))
            self._note_empty_claims(choice)
            await self._transport.clock.sleep(RETRY_SECONDS)
            return None
        self._empty_claims.clear()
        self._disbelieved.clear()
        self._fetches += 1
        self._fetch_seconds = self._transport.clock.monotonic() - began
        log.info("synced", epoch=state.epoch, digest=state.digest.hex()[:16], holders=len(choice.holders))
        return state

    def _note_empty_claims(self, choice: Choice) -> None:
        now = self._transport.clock.monotonic()
        self._empty_claims.update(choice.holders)
        for peer in choice.holders:
            if (again := self._empty_claims[peer] - EMPTY_CLAIMS) >= 0:
                self._disbelieved[peer] = now + doubled(DISBELIEF_SECONDS, again, LONGEST_DISBELIEF_SECONDS)

    @property
    def _rest_seconds(self) -> float:
        """Whose state is a thing of the past each time that it has fetched it asks the others for it less and less."""
        too_many = self._fetches - FETCHES_IN_A_ROW
        return doubled(self._fetch_seconds, too_many, LONGEST_REST_SECONDS) if too_many >= 0 else 0.0

    async def _rest(self, seconds: float) -> None:
        log.warning(
            "this line is too slow for the run: by the time that its state is here, the others are epochs ahead",
            state_seconds=round(self._fetch_seconds, 1),
            again_in_seconds=round(seconds),
        )
        await self._transport.clock.sleep(seconds)

    def _group(self, choice: Choice | None, epoch: int) -> dict[PeerId, bool]:
        """Nobody where the run starts; we alone when the state is our own snapshot, and nobody has another."""
        seniors: frozenset[PeerId] = frozenset()
        if self._probation is not None:
            seniors = self._heads.seniors_of(choice) if choice else seniors
            self._probation.resume(epoch, seniors)
        if group := self._members(sorted(seniors)):
            return group
        if epoch == 0:
            return {}
        makers = choice.makers if choice else ()
        us = self._transport.peer_id
        return self._members(makers if choice and us not in makers else (*makers, us))

    def _members(self, peers: Iterable[PeerId]) -> dict[PeerId, bool]:
        """Those of `peers` that are here, we too, and whether in client mode."""
        us, roster = self._transport.peer_id, self._company.membership.roster
        members = {peer: roster.get(peer) for peer in peers}
        group = {peer: member.entry.client_mode for peer, member in members.items() if member is not None}
        return group | {us: self._profile.client_mode} if us in members else group
