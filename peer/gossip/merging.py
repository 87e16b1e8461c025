"""The run's last epoch: all models become one.

Who has trained to the end shows its last state, and waits for the others until all have, or MERGE_SECONDS have passed;
then it fetches theirs and makes the merged state (`peer.gossip.states.merge`). Only states that everybody can fetch are
merged, those of members who can be dialled. Of two that have seen the same last states both end with the same bits; who
has missed one of them, or comes when most have merged already, takes what most have.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import structlog

from dht.interfaces import Transport
from peer.content_fetch import ContentNotFound
from peer.contents import ContentStore, MemoryContent
from peer.gossip.states import fetch_one, merge
from peer.membership import Membership
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

log = structlog.get_logger()


class Merging:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        heads: Heads,
        membership: Membership,
        mix: Neighbourhood | None,
        can_be_dialled: Callable[[], bool],
    ) -> None:
        """`mix`: how models are mixed of which some may be anything; None: as their mean.

        `can_be_dialled`: whether this peer has addresses.
        """
        assert isinstance(manifest.training, Gossip)
        self.merges = manifest.training.merges_at_end and manifest.training.committee is None
        self.epoch = manifest.epochs - self.merges
        """Training ends when it is reached; the merge leads to the next one, the run's last."""
        self._transport, self._heads, self._membership, self._mix = transport, heads, membership, mix
        self._can_be_dialled = can_be_dialled
        self._last: dict[PeerId, bytes] = {}
        """The digests of others' last states, as far as they have said them."""

    def hear(self, peer: PeerId) -> None:
        """`peer` has said where it is."""
        member = self._membership.roster.get(peer)
        if member is None or member.epoch != self.epoch or not member.entry.addresses:
            return
        if member.entry.state_digest is not None and len(self._last) < MAX_MEMBERS:
            self._last[peer] = member.entry.state_digest

    async def merge(self, own: ModelState, contents: ContentStore) -> ModelState:
        """The merged state; `own` is our last one, which others fetch from `contents`."""
        contents.pin(own.digest, MemoryContent(own.index, own.buffers()))
        with suppress(TimeoutError):
            async with asyncio.timeout(MERGE_SECONDS):
                while self._behind():
                    await self._membership.heard.wait()
        if (merged := await self._of_most(own)) is not None:
            return merged
        last = self._last | ({self._transport.peer_id: own.digest} if self._can_be_dialled() else {})
        state, members = await merge(self._transport, own, last, self._mix)
        log.info("merged all models", members=members, digest=state.digest.hex()[:16])
        return state

    async def differing(self, own: ModelState) -> ModelState:
        """Returns when more than half of all who train have another merged state than `own`: theirs."""
        while True:
            merged = Counter(m.entry.state_digest for m in self._others() if m.epoch == own.epoch)
            digest, tellers = max(merged.items(), key=lambda told: told[1], default=(None, 0))
            if digest not in (None, own.digest) and 2 * tellers > len(self._others()) + 1:
                state = await self._of_most(own)
                if state is not None:
                    return state
                await self._transport.clock.sleep(ASK_AGAIN_SECONDS)
            await self._membership.heard.wait()

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

    def _behind(self) -> list[PeerId]:
        """Who still trains."""
        return [
            member.peer
            for member in self._membership.roster
            if member.entry.role == "trainer" and member.epoch < self.epoch and member.entry.state_digest is not None
        ]

    def _others(self) -> list[Member]:
        return [member for member in self._membership.roster if member.entry.role == "trainer"]

    async def _of_most(self, own: ModelState) -> ModelState | None:
        """What most others have merged already; None when most have not."""
        others = self._others()
        merged = [member.peer for member in others if member.epoch > self.epoch]
        if 2 * len(merged) <= len(others):
            return None
        choice = await self._heads.choose(merged)
        if choice is None or choice.epoch <= self.epoch or choice.digest == own.digest:
            return None
        try:
            return await fetch_state(self._transport, own, choice)
        except (ContentNotFound, Rejected) as error:
            log.info("the merged state could not be fetched", error=str(error))
            return None
