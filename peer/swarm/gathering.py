"""The whole model out of its stages: all of them at one epoch, each as most of those sign it who serve the stage.

Stages step one after the other, so their newest states are seldom of one epoch; their peers remember and serve the last
ones, and the newest that all stages have is taken.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from dht.interfaces import Transport
from peer.content_fetch import ContentNotFound
from peer.contents import ContentStore
from peer.errors import PeerError
from peer.models.stages import join, stage_shape
from peer.sync import Heads, fetch_state, parse_state
from peer.tasks import first_of
from protocols.heads import Choice, History, choose, states_until
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.rejection import Rejected
from protocols.state import ModelState
from protocols.vectors import Vector

ATTEMPTS = 5
RETRY_SECONDS = 1.0
"""By then the stages have come to one epoch, or somebody serves the one that nobody did."""

log = structlog.get_logger()

Peers = Callable[[], Awaitable[Mapping[int, Iterable[PeerId]]]]
"""By stage, who serves it now."""


@dataclass(frozen=True)
class Own:
    """What a peer that serves a stage itself knows of it."""

    peer: PeerId
    stage: int
    history: History
    contents: ContentStore


@dataclass(frozen=True)
class Whole:
    state: ModelState
    """Of the run; without the optimizer's slots."""
    signers: frozenset[PeerId]
    """Who has signed one of its stages."""


class _NotYet(Exception):
    """The stages could not be had; the message says why."""


class Gathering:
    def __init__(
        self,
        transport: Transport,
        manifest: Manifest,
        heads: Heads,
        peers: Peers,
        own: Callable[[], Own | None] = lambda: None,
    ) -> None:
        """`own`: our stage, if we serve one and have its state."""
        assert isinstance(manifest.training, Pipeline)
        self._transport, self._manifest, self._stages = transport, manifest, manifest.training.stages
        self._heads, self._peers, self._own = heads, peers, own

    async def gather(self) -> Whole:
        """Takes as much memory as all stages' states. Raises PeerError."""
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._transport.clock.sleep(RETRY_SECONDS)
            try:
                return await self._once()
            except _NotYet as error:
                why = str(error)
                log.info("the stages cannot be gathered yet", reason=why)
        raise PeerError(why)

    async def _once(self) -> Whole:
        told = await self._told()
        common = set.intersection(*(set(states) for states in told))
        if not common:
            at = ", ".join(f"{stage} at {max(states)}" for stage, states in enumerate(told))
            raise _NotYet(f"the stages are at no common epoch ({at}); try again in a moment")
        epoch = max(common)
        chosen = [states[epoch] for states in told]
        try:
            async with asyncio.TaskGroup() as tasks:
                taken = [tasks.create_task(self._take(stage, choice)) for stage, choice in enumerate(chosen)]
        except BaseExceptionGroup as group:
            raise first_of(group) from group
        parameters = await self._transport.in_thread(join, [task.result() for task in taken])
        signers = frozenset(peer for choice in chosen for peer in choice.holders)
        return Whole(ModelState(self._manifest.run_id, epoch, parameters, {}), signers)

    async def _told(self) -> list[dict[int, Choice]]:
        """Of each stage: what its peers sign, by epoch."""
        by_stage = await self._peers()
        asked = {stage: list(by_stage.get(stage, ())) for stage in range(self._stages)}
        answers = await self._heads.ask([peer for peers in asked.values() for peer in peers])
        states = []
        for stage, peers in asked.items():
            histories = {peer: answers[peer] for peer in peers if peer in answers}
            if (own := self._own()) is not None and own.stage == stage:
                histories[own.peer] = dict(own.history)
            choice = choose(histories)
            if choice is None:
                raise _NotYet(self._nobody(stage, len(peers)))
            states.append(states_until(choice, histories))
        return states

    def _nobody(self, stage: int, listed: int) -> str:
        serve = f"peer join --run-id {self._manifest.run_id} --stage {stage}"
        told = f"none of its {listed} peers answers" if listed else "nobody serves it"
        return f"stage {stage} of {self._stages} cannot be had, for {told}; somebody has to serve it: {serve}"

    async def _take(self, stage: int, choice: Choice) -> Vector:
        """The stage's parameters alone, so that the optimizer's slots take no memory any more."""
        like: ModelState = await self._transport.in_thread(stage_shape, self._manifest, stage)
        try:
            state = await self._own_state(stage, choice, like) or await fetch_state(self._transport, like, choice)
        except (ContentNotFound, Rejected) as error:
            raise _NotYet(f"stage {stage} of epoch {choice.epoch} could not be had: {error}; try again") from error
        parameters: Vector = await self._transport.in_thread(state.parameters.copy)
        return parameters

    async def _own_state(self, stage: int, choice: Choice, like: ModelState) -> ModelState | None:
        own = self._own()
        if own is None or own.stage != stage:
            return None
        content: memoryview | None = await self._transport.in_thread(own.contents.whole, choice.digest)
        if content is None:
            return None
        state: ModelState = await self._transport.in_thread(parse_state, content, like)
        return state
