"""Snapshots of stages beyond those who serve them: each peer keeps one of a foreign stage, too.

A stage that has lost all its peers goes on from the newest snapshot that anybody holds, on whatever disk it lies.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.content_fetch import ContentNotFound, fetch_content
from peer.contents import ContentStore, MemoryContent
from peer.models.stages import stage_shape
from peer.swarm.factory import StageFactory
from peer.sync import Heads, fetch_state, parse_state
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer, open_signed
from protocols.state import ModelState, state_size
from protocols.swarm.messages import Kept

KEPT_KIND = "swarm-kept"
ASK_SECONDS = 5.0
FOREIGN_SHARE = 0.02
"""Of the time goes into renewing the snapshot of a foreign stage: a small one is never many epochs old, …"""
FOREIGN_SECONDS = 5.0
"""… and is renewed no more often than that."""
SHOWN_SECONDS = 5.0
"""So long what was read of a stage is said to whoever asks."""
MOST_SHOWN = 2
"""Snapshots that are in memory for who asked for them, …"""
UNASKED_SECONDS = 300.0
"""… until nobody has asked for so long."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Others:
    """Of the run, as the roster knows them."""

    all: Callable[[], Iterable[PeerId]]
    at: Callable[[int], Iterable[PeerId]]
    """Who serves a stage."""


class Restorer:
    """Snapshots of all stages: keeps some of them, and finds the newest."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        factory: StageFactory,
        contents: ContentStore,
        others: Others,
        border: Border,
        quota_bytes: int,
        admit: Callable[[PeerId], None],
    ) -> None:
        """`quota_bytes`: a larger foreign state is not kept. `admit` raises Rejected for who may not take part."""
        self._transport, self._signer, self._factory = transport, signer, factory
        self._contents, self._others, self._border, self._quota = contents, others, border, quota_bytes
        self._stages, self._admit = factory.training.stages, admit
        self._reading = asyncio.Lock()
        self._shown: dict[int, tuple[float, bytes | None]] = {}
        """Stage → when its snapshot was read from the disk, and what is said of it."""
        self._served: OrderedDict[int, bytes] = OrderedDict()
        """Stage → the address of its snapshot, those that were read last at the end."""
        self._foreign: tuple[int, bytes] | None = None
        """What we have kept last: of which stage, and the state's digest."""

    async def serve(self) -> None:
        await self._transport.serve_requests(KEPT_KIND, self._answer)

    async def keep_foreign(self, own: Callable[[], int | None]) -> None:
        """Renews the snapshot of the stage after ours, until cancelled."""
        clock, took = self._transport.clock, 0.0
        while True:
            await clock.sleep(max(FOREIGN_SECONDS, took * (1 / FOREIGN_SHARE - 1)))
            self._forget_unasked()
            began, stage = clock.monotonic(), own()
            if stage is not None and self._factory.store(0) is not None:
                async with self._border.around("keeping a snapshot of a foreign stage"):
                    await self._keep((stage + 1) % self._stages)
            took = clock.monotonic() - began

    async def _keep(self, stage: int) -> None:
        peers = list(self._others.at(stage))
        like = await self._transport.in_thread(stage_shape, self._factory.manifest, stage)
        if not peers or state_size(like.parameter_count, len(like.slots)) > self._quota:
            return
        choice = await Heads(self._transport, self._signer, self._border).choose(peers)
        if choice is None or choice.epoch == 0 or (stage, choice.digest) == self._foreign:
            return
        try:
            state = await fetch_state(self._transport, like, choice)
        except (ContentNotFound, Rejected) as error:
            log.debug("a foreign stage's state could not be fetched", stage=stage, error=str(error))
            return
        if await self._factory.save(stage, state):
            self._foreign = stage, state.digest

    async def newest(self, stage: int) -> ModelState | None:
        """The newest snapshot of the stage that any member holds, or this disk.

        One that two members hold goes before one that only one speaks of, for that may be made up; nothing is older
        than what is on our own disk, which nobody makes up.
        """
        ours: ModelState | None = await self._transport.in_thread(self._factory.saved, stage)
        told: Counter[tuple[int, bytes]] = Counter()
        holders: dict[tuple[int, bytes], list[PeerId]] = {}
        async with asyncio.TaskGroup() as tasks:
            asked = {peer: tasks.create_task(self._ask(peer, stage)) for peer in self._others.all()}
        for peer, task in asked.items():
            if (kept := task.result()) is not None:
                told[kept] += 1
                holders.setdefault(kept, []).append(peer)
        if ours is not None:
            told[ours.epoch, ours.digest] += 1
            told = Counter({kept: number for kept, number in told.items() if kept[0] >= ours.epoch})
        like = await self._transport.in_thread(stage_shape, self._factory.manifest, stage)
        for epoch, digest in sorted(told, key=lambda kept: (min(told[kept], 2), kept[0]), reverse=True):
            if ours is not None and (epoch, digest) == (ours.epoch, ours.digest):
                break
            if (state := await self._fetch(like, epoch, digest, holders[epoch, digest])) is not None:
                return state
        return ours

    async def _fetch(self, like: ModelState, epoch: int, digest: bytes, holders: list[PeerId]) -> ModelState | None:
        size = state_size(like.parameter_count, len(like.slots))
        try:
            content = await fetch_content(self._transport, digest, holders, size, self._transport.reject)
            state: ModelState = await self._transport.in_thread(parse_state, content, like)
        except (ContentNotFound, Rejected) as error:
            log.info("a snapshot could not be fetched", epoch=epoch, error=str(error))
            return None
        return state if state.epoch == epoch else None

    async def _ask(self, peer: PeerId, stage: int) -> tuple[int, bytes] | None:
        async with self._border.around(f"asking {peer} for a snapshot"):
            try:
                wire = await self._transport.request(peer, KEPT_KIND, bytes([stage]), ASK_SECONDS)
                kept = open_signed(wire, Kept, run=self._signer.run, sender=peer)
                return (kept.epoch, kept.body.state) if kept.body.stage == stage else None
            except TransportError as error:
                log.debug("no snapshot", peer=peer, error=str(error))
            except Rejected as error:
                self._transport.reject(peer, error.reason, str(error))
        return None

    async def _answer(self, peer: PeerId, body: bytes) -> bytes:
        """What is kept here of a stage, ready to be fetched."""
        self._admit(peer)
        if len(body) != 1 or body[0] >= self._stages:
            raise Rejected(Reason.MALFORMED, "not the number of a stage")
        async with self._reading:  # a state is large, and anybody may ask
            said = await self._say(body[0])
        if said is None:
            raise Rejected(Reason.ABSENT, "no snapshot of that stage is kept here")
        return said

    async def _say(self, stage: int) -> bytes | None:
        read_at, said = self._shown.get(stage, (float("-inf"), None))
        now = self._transport.clock.monotonic()
        if now < read_at + SHOWN_SECONDS:
            if said is not None and stage not in self._served:
                raise Rejected(Reason.BUSY, "the snapshots of too many stages are asked for")
            return said
        state: ModelState | None = await self._transport.in_thread(self._factory.saved, stage)
        said = None
        if state is not None:
            index = await self._transport.in_thread(lambda: state.index)
            self._serve(stage, MemoryContent(index, state.buffers()))
            said = self._signer.sign(Kept(stage=stage, state=index.digest), state.epoch).wire
        self._shown[stage] = now, said
        return said

    def _serve(self, stage: int, content: MemoryContent) -> None:
        """Beside our own states, none of which gives way for it."""
        self._unserve(stage)
        self._served[stage] = content.index.digest
        self._contents.pin(content.index.digest, content)
        while len(self._served) > MOST_SHOWN:
            self._unserve(next(iter(self._served)))

    def _forget_unasked(self) -> None:
        now = self._transport.clock.monotonic()
        for stage in [each for each in self._served if self._shown[each][0] + UNASKED_SECONDS < now]:
            self._unserve(stage)

    def _unserve(self, stage: int) -> None:
        if (address := self._served.pop(stage, None)) is not None:
            self._contents.unpin(address)
