"""Finding the swarm's state and fetching it: what most members sign, from all who hold it at once."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.content_fetch import fetch_content
from protocols.heads import (
    HISTORY,
    MAX_BANNED,
    Banned,
    Choice,
    Head,
    History,
    banned_by_most,
    choose,
    choose_from,
    history_of,
    most_named,
)
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer, open_signed
from protocols.state import ModelState, state_size

HEAD_KIND = "head"
HEAD_SECONDS = 5.0
NONCE_BYTES = 16

log = structlog.get_logger()


class Heads:
    """Our own last epochs, shown to who asks; and the question to the others."""

    def __init__(
        self, transport: Transport, signer: Signer, border: Border, banned: Mapping[PeerId, str] = MappingProxyType({})
    ) -> None:
        """`banned`: whom we have banned, and why, the last ones last."""
        self.history: dict[int, bytes] = {}
        """Epoch → digest of our states, the newest last; empty as long as we have no say in what the swarm's is."""
        self.seniors: frozenset[PeerId] = frozenset()
        """Who has a say in our epoch, to be told to who asks; nobody where nobody serves a probation."""
        self._named: dict[PeerId, tuple[PeerId, ...]] = {}
        """By those whom we asked last: who has a say in theirs."""
        self._transport, self._signer, self._border, self._bans = transport, signer, border, banned
        self._told: dict[PeerId, tuple[Banned, ...]] = {}
        """Whom those asked last have banned."""

    def note(self, state: ModelState) -> None:
        self.history[state.epoch] = state.digest
        while len(self.history) > HISTORY:
            del self.history[min(self.history)]

    def restart(self) -> None:
        """What we had was not the swarm's."""
        self.history.clear()

    async def answer(self, _peer: PeerId, nonce: bytes) -> bytes:
        """Our head, signed for this asker. Raises Rejected."""
        if not self.history:
            raise Rejected(Reason.BUSY, "still joining")
        if len(nonce) > 2 * NONCE_BYTES:
            raise Rejected(Reason.OVERSIZED, "the nonce is too long")
        newest = max(self.history)
        digests: list[bytes] = []
        while newest - len(digests) in self.history:
            digests.append(self.history[newest - len(digests)])
        seniors = tuple(sorted(self.seniors))
        head = Head(digests=tuple(digests), banned=self._banned(), nonce=nonce, seniors=seniors)
        return self._signer.sign(head, newest).wire

    def _banned(self) -> tuple[Banned, ...]:
        return tuple(Banned(peer=peer, why=why) for peer, why in list(self._bans.items())[-MAX_BANNED:])

    async def ask(self, peers: Iterable[PeerId], on_answer: Callable[[], None] = lambda: None) -> dict[PeerId, History]:
        """The histories of those among `peers` who answer; `on_answer` is called after each."""

        async def ask_one(peer: PeerId) -> History | None:
            history = await self._ask_one(peer)
            on_answer()
            return history

        peers = list(peers)
        self._told.clear()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask_one(peer)) for peer in peers]
        answers = zip(peers, (task.result() for task in asked), strict=True)
        return {peer: history for peer, history in answers if history is not None}

    async def choose(
        self,
        peers: Iterable[PeerId],
        snapshot: ModelState | None = None,
        companions: Callable[[], Iterable[PeerId]] = tuple,
    ) -> Choice | None:
        """What the swarm's state is, by all of `peers` who answer and by ourselves.

        Ours is all that it was while they answered: until the last one has, the first answer may be older than all that
        we then remember, and would seem to tell another history.

        `companions`: those of our last round who live, as far as we know when all have answered. Until they say
        otherwise, ours is their history: else one stranger who is far ahead would win against us alone, whenever they
        are too busy to answer.

        `snapshot`: what we resume from; it tells for its history, and what the others make of that goes before it.
        """
        self._named.clear()
        ours = dict(self.history)
        histories: dict[PeerId, History] = dict(await self.ask(peers, lambda: ours.update(self.history)))
        if snapshot is not None:
            choice: Choice | None = choose_from(histories, self._transport.peer_id, {snapshot.epoch: snapshot.digest})
        else:
            if self.history:
                histories = dict.fromkeys(companions(), ours) | histories | {self._transport.peer_id: ours}
            choice = choose(histories)
        return replace(choice, banned=banned_by_most(choice.tellers, self._told)) if choice else None

    def seniors_of(self, choice: Choice) -> frozenset[PeerId]:
        """Whom most of those name who told of what was chosen last, but us."""
        return most_named([self._named[peer] for peer in choice.tellers if peer in self._named])

    async def _ask_one(self, peer: PeerId) -> History | None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        async with self._border.around(f"asking {peer} for its head"):
            try:
                wire = await self._transport.request(peer, HEAD_KIND, nonce, HEAD_SECONDS)
                head = open_signed(wire, Head, run=self._signer.run, sender=peer)
                if head.body.nonce != nonce:
                    raise Rejected(Reason.REPLAYED, "the head was signed for another question")
                self._told[peer] = head.body.banned
                self._named[peer] = head.body.seniors
                return history_of(head.epoch, head.body)
            except TransportError as error:
                log.debug("no head", peer=peer, error=str(error))
            except Rejected as error:
                self._transport.reject(peer, error.reason, str(error))
        return None


async def fetch_state(transport: Transport, like: ModelState, choice: Choice) -> ModelState:
    """The chosen state, from all its holders at once, verified against the digest they have signed.

    `like`: any state of the run, for its shape. Raises ContentNotFound, Rejected.
    """
    holders = [peer for peer in choice.holders if peer != transport.peer_id]
    size = state_size(like.parameter_count, len(like.slots))
    content = await fetch_content(transport, choice.digest, holders, size, transport.reject)
    state: ModelState = await transport.in_thread(parse_state, content, like)
    if state.epoch != choice.epoch:
        raise Rejected(Reason.MALFORMED, f"the state is of epoch {state.epoch}, not {choice.epoch} as signed")
    return state


def parse_state(content: memoryview, like: ModelState) -> ModelState:
    """Raises Rejected."""
    return ModelState.from_buffer(
        content, run=like.run, parameter_count=like.parameter_count, slot_names=tuple(like.slots)
    )
