"""The run's last epoch: all models become one.

Merged are the last states of members who can be dialled, MOST_MERGED at most: those who come first in an order that all
know. Each of them shows its last state, and waits for the others until all have, or MERGE_SECONDS have passed; then it
fetches theirs and makes the merged state (`peer.gossip.states.merge`). Of two that have seen the same last states both
end with the same bits. Everybody else, whoever has missed one of these states, and who comes later takes what most of
them have: so merging costs a member the same however large the swarm is. Where no state is that of most, as when one of
them has died half way, or shows its last state to some, they settle on one that many have, the same for all.
"""

import asyncio
from collections import Counter
from contextlib import suppress

import structlog

from dht.interfaces import Transport
from peer.content_fetch import ContentNotFound
from peer.contents import ContentStore, MemoryContent
from peer.gossip.states import MOST_MERGED, fetch_one, merge
from peer.membership import Membership
from peer.profile import Profile
from peer.roster import MAX_MEMBERS, Member
from peer.sync import Heads, fetch_state
from protocols.gossip.mixing import Neighbourhood
from protocols.identity import PeerId
from protocols.manifest import Gossip, Manifest
from protocols.rejection import Rejected
from protocols.round.order import order
from protocols.state import ModelState

MERGE_SECONDS = 15.0
ASK_AGAIN_SECONDS = 2.0
SETTLE_SECONDS = 20.0
"""Without a state that most have for so long, whoever has merged settles for one that many have."""
MANY = 0.5
"""So many, by those who have the state that the most have: a lie more or less decides nothing."""

log = structlog.get_logger()


class Merging:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        heads: Heads,
        membership: Membership,
        profile: Profile,
        mix: Neighbourhood | None,
    ) -> None:
        """`mix`: how models are mixed of which some may be anything; None: as their mean."""
        assert isinstance(manifest.training, Gossip)
        self.merges = manifest.training.merges_at_end and manifest.training.committee is None
        self.epoch = manifest.epochs - self.merges
        """Training ends when it is reached; the merge leads to the next one, the run's last."""
        self._transport, self._heads, self._membership, self._mix = transport, heads, membership, mix
        self._run, self._profile, self._byzantine = manifest.run_id, profile, manifest.averaging.byzantine
        self._last: dict[PeerId, bytes] = {}
        """The digests of others' last states, as far as they have said them."""

    def hear(self, peer: PeerId) -> None:
        """`peer` has said where it is."""
        member = self._membership.roster.get(peer)
        if member is None or member.epoch != self.epoch or member.entry.state_digest is None:
            return
        if peer in self._last or len(self._last) < MAX_MEMBERS:
            self._last[peer] = member.entry.state_digest

    async def merge(self, own: ModelState, contents: ContentStore) -> ModelState:
        """The merged state; `own` is our last one, which others fetch from `contents`."""
        contents.pin(own.digest, MemoryContent(own.index, own.buffers()))
        committee = self._committee()
        merges = self._transport.peer_id in committee or not committee
        with suppress(TimeoutError):
            async with asyncio.timeout(MERGE_SECONDS):
                await self._membership.greet_all(m.peer for m in self._members(committee))  # soon we have another one
                while not self._merged(committee) and not (merges and not self._behind(committee)):
                    await self._hear_of(committee)
        if (merged := await self._of_most(committee, own)) is not None:
            return merged
        last = {peer: self._last[peer] for peer in committee if peer in self._last}
        if self._transport.peer_id in committee:
            last[self._transport.peer_id] = own.digest
        state, members = await merge(self._transport, own, last, self._mix)
        log.info("merged all models", members=members, digest=state.digest.hex()[:16])
        return state

    async def differing(self, own: ModelState) -> ModelState:
        """Returns when most of those whose states are merged have another one than `own`: theirs.

        Or, when no state is that of most for SETTLE_SECONDS, when many have one with a smaller digest.
        """
        clock = self._transport.clock
        undecided_since = clock.monotonic()
        while True:
            committee = self._committee()
            digest = self._merged(committee)
            if digest is not None:
                undecided_since = clock.monotonic()
            if digest is None and clock.monotonic() - undecided_since >= SETTLE_SECONDS:
                if (state := await self._settle(committee, own)) is not None:
                    return state
                undecided_since = clock.monotonic()
            elif digest is None:
                await self._hear_of(committee)
            elif digest != own.digest and (state := await self._of_most(committee, own)) is not None:
                return state
            else:
                await self._transport.clock.sleep(ASK_AGAIN_SECONDS)

    async def take_one_of_last(self, own: ModelState) -> ModelState:
        """The state of the run's last epoch that all take: of the first in an order who holds one; else ours."""
        last = {m.peer: m.entry.state_digest for m in self._membership.roster if m.epoch == self.epoch}
        if own.epoch == self.epoch:
            last[self._transport.peer_id] = own.digest
        for peer in order(own.run, self.epoch, last):
            digest = last[peer]
            if digest == own.digest:
                return own
            if digest is not None and (state := await fetch_one(self._transport, own, peer, self.epoch, digest)):
                return state
        return own

    def _committee(self) -> list[PeerId]:
        """Whose last states are merged, this peer's perhaps."""
        members = [m.peer for m in self._membership.roster if _can_be_merged(m)]
        if self._profile.addresses():
            members.append(self._transport.peer_id)
        return order(self._run, self.epoch, members)[:MOST_MERGED]

    def _behind(self, committee: list[PeerId]) -> list[PeerId]:
        """Who of them still trains."""
        return [m.peer for m in self._members(committee) if m.epoch < self.epoch]

    def _merged(self, committee: list[PeerId]) -> bytes | None:
        """The merged state that more than half of them have, we not counted; None: no state."""
        told = Counter(m.entry.state_digest for m in self._members(committee) if m.epoch > self.epoch)
        digest, tellers = max(told.items(), key=lambda item: item[1], default=(None, 0))
        return digest if 2 * tellers > len(committee) else None

    async def _settle(self, committee: list[PeerId], own: ModelState) -> ModelState | None:
        """Of the merged states that many of them have, the one with the smallest digest; None: ours, or not to be had.

        All who hear the same come to the same, and whoever does makes it the state of more.
        """
        holders: dict[bytes, list[PeerId]] = {own.digest: [self._transport.peer_id]}
        for member in self._members(committee):
            if member.epoch > self.epoch and member.entry.state_digest is not None:
                holders.setdefault(member.entry.state_digest, []).append(member.peer)
        most = max(map(len, holders.values()))
        many = [digest for digest, by in holders.items() if len(by) > self._byzantine and len(by) >= MANY * most]
        digest = min(many, default=own.digest)
        if digest == own.digest:
            return None
        for peer in holders[digest]:
            if (state := await fetch_one(self._transport, own, peer, self.epoch + 1, digest)) is not None:
                members = len(holders[digest])
                log.info("settled for a merged state that many have", digest=digest.hex()[:16], members=members)
                return state
        return None

    def _members(self, committee: list[PeerId]) -> list[Member]:
        return [member for peer in committee if (member := self._membership.roster.get(peer)) is not None]

    async def _hear_of(self, committee: list[PeerId]) -> None:
        """Where those are of whom we do not know the merged state, as far as they answer, or soon say it themselves."""
        await self._membership.greet_all(m.peer for m in self._members(committee) if m.epoch <= self.epoch)
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_AGAIN_SECONDS):
                await self._membership.heard.wait()

    async def _of_most(self, committee: list[PeerId], own: ModelState) -> ModelState | None:
        """What most of them have merged already; None when most have not."""
        if self._merged(committee) is None:
            return None
        choice = await self._heads.choose(m.peer for m in self._members(committee) if m.epoch > self.epoch)
        if choice is None or choice.epoch <= self.epoch or choice.digest == own.digest:
            return None
        try:
            return await fetch_state(self._transport, own, choice)
        except (ContentNotFound, Rejected) as error:
            log.info("the merged state could not be fetched", error=str(error))
            return None


def _can_be_merged(member: Member) -> bool:
    """Whether all can fetch its state."""
    entry = member.entry
    return entry.role == "trainer" and entry.state_digest is not None and bool(entry.addresses)
