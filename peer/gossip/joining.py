"""With which state a member of a run without groups begins: that of members who are as far as most, or its own."""

import random

import structlog

from dht.interfaces import Transport
from peer.gossip.own_model import OwnModel
from peer.gossip.states import take_states
from peer.membership import Membership
from peer.sync import Heads
from protocols.gossip.progress import epoch_of_most
from protocols.identity import PeerId
from protocols.state import ModelState

RESUME_EPOCHS = 64
"""Who comes back goes on from its own state, unless most others are further ahead than that."""
ASKED = 16
"""Members that a newcomer asks how far they are, where all are honest."""
TAKE_ATTEMPTS = 4
"""At others' states, before a member goes on from its own."""
RETRY_SECONDS = 0.5

log = structlog.get_logger()


class Joining:
    def __init__(self, transport: Transport, heads: Heads, membership: Membership, byzantine: int) -> None:
        """`byzantine`: f, so many members may lie."""
        self._transport, self._heads, self._membership = transport, heads, membership
        self._byzantine = byzantine
        self._random = random.Random(transport.peer_id)  # noqa: S311  (whom to ask)

    async def choose(self, own: OwnModel) -> ModelState:
        """Others' state; ours, when it is nearly as far, or none of theirs can be had."""
        for _ in range(TAKE_ATTEMPTS):
            histories = await self._heads.ask(self._some_others())
            most = epoch_of_most(max(history) for history in histories.values())
            ours = own.epoch > 0 and not own.diverged and own.epoch + RESUME_EPOCHS >= most
            if most == 0 or ours:
                break
            state = await take_states(self._transport, own.state, histories, self._byzantine)
            if state is not None:
                log.info("took a state", epoch=state.epoch, members=len(histories))
                return state
            await self._transport.clock.sleep(RETRY_SECONDS)
        return own.state

    def _some_others(self) -> list[PeerId]:
        """Enough of those who train for most of them to be honest, with room for some who do not answer."""
        members = [member.peer for member in self._membership.roster if member.entry.role == "trainer"]
        wanted = min(len(members), ASKED + 4 * self._byzantine)
        return self._random.sample(members, wanted)
