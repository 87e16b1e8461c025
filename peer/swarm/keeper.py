"""Keeps the board for whoever asks: hears from all stages what they have counted, and hands out what is missing."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.swarm.server import ask_coverage
from protocols.identity import PeerId
from protocols.manifest import Pipeline
from protocols.rejection import Rejected
from protocols.swarm.board import Board, Word
from protocols.swarm.coverage import everything, from_bytes, to_bytes
from protocols.swarm.messages import OPEN_EPOCHS, Claim, Coverage, Grant, Lacking

CLAIM_KIND = "swarm-claim"
ASK_SECONDS = 0.3
HUNGRY_SECONDS = 0.05
"""How often the stages are asked; the second as long as a trainer wants more than there is, as at an epoch's end."""
ANSWER_SECONDS = 5.0
FORGOTTEN_SECONDS = 5.0
"""A board of which nobody has claimed for so long is laid down."""

log = structlog.get_logger()


class BoardKeeper:
    def __init__(
        self,
        transport: Transport,
        training: Pipeline,
        peers: Callable[[], Iterable[PeerId]],
        trainers: Callable[[], Iterable[PeerId]],
        own: Callable[[], Coverage | None],
        admit: Callable[[PeerId], None],
        border: Border,
    ) -> None:
        """`peers`: the others who serve a stage; `trainers`: who may have work.

        `own`: what our stage has counted, if we serve one.
        """
        self._transport, self._training = transport, training
        self._peers, self._trainers, self._own, self._admit = peers, trainers, own, admit
        self._border = border
        self._board: Board | None = None
        self._claimed_at = float("-inf")
        self._claimed = asyncio.Event()
        self._hungry = False
        self._asked: set[PeerId] = set()
        """Whose answers are awaited: who is slow holds up nobody else's."""

    async def serve(self) -> None:
        await self._transport.serve_requests(CLAIM_KIND, self._answer)

    async def run(self) -> None:
        """Asks the stages as long as somebody claims, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                if self._now() - self._claimed_at > FORGOTTEN_SECONDS:
                    self._board = None
                    self._claimed.clear()
                    await self._claimed.wait()
                async with self._border.around("asking the stages what they have counted"):
                    self._ask_all(tasks)
                hungry, self._hungry = self._hungry, False
                await self._transport.clock.sleep(HUNGRY_SECONDS if hungry else ASK_SECONDS)

    def claim(self, trainer: PeerId, claim: Claim) -> Grant:
        now = self._now()
        self._claimed_at = now
        self._claimed.set()
        if self._board is None:
            self._board = Board(self._training.stages, self._training.microbatches, now)
        most = everything(self._training.microbatches)
        held = {each.epoch: from_bytes(each.covered) & most for each in claim.held}
        epoch, granted = self._board.claim(trainer, held, claim.wanted, now)
        self._hungry |= claim.wanted > 0 and not granted
        standings = tuple(
            Lacking(epoch=standing.epoch, missing=tuple(map(to_bytes, standing.missing)))
            for standing in self._board.standings()[:OPEN_EPOCHS]
        )
        return Grant(epoch=epoch, granted=to_bytes(granted), standings=standings)

    async def _answer(self, trainer: PeerId, body: bytes) -> bytes:
        self._admit(trainer)
        return self.claim(trainer, Claim.from_bytes(body)).to_bytes()

    def _ask_all(self, tasks: asyncio.TaskGroup) -> None:
        board = self._board
        if board is None:
            return
        peers = set(self._peers())
        servers = set(peers)
        if (own := self._own()) is not None:
            servers.add(self._transport.peer_id)
            self._hear(board, self._transport.peer_id, own)
        board.keep_only(servers, self._trainers(), self._now())
        for peer in peers - self._asked:
            self._asked.add(peer)
            tasks.create_task(self._ask(board, peer))

    async def _ask(self, board: Board, peer: PeerId) -> None:
        async with self._border.around("asking a stage's peer what it has counted"):
            try:
                if (word := await ask_coverage(self._transport, peer, ANSWER_SECONDS)) is not None:
                    self._hear(board, peer, word)
            except TransportError as error:
                log.debug("a stage's peer does not say what it has counted", peer=peer, error=str(error))
            except Rejected as error:
                self._transport.reject(peer, error.reason, str(error))
            finally:
                self._asked.discard(peer)

    def _hear(self, board: Board, peer: PeerId, word: Coverage) -> None:
        if word.stage < self._training.stages:
            counted = {each.epoch: from_bytes(each.covered) for each in word.counted}
            known = None if word.known is None else from_bytes(word.known)
            board.hear(peer, Word(word.stage, counted, word.epoch, known))

    def _now(self) -> float:
        return self._transport.clock.monotonic()
