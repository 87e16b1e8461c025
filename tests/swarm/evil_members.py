"""Members of a run of real daemons whose chunks and results nobody can take: what they encode is spoiled."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from dht.interfaces import Clock
from peer.learner import IdleLearner
from peer.models.flat import initial_state
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.tasks import beside
from protocols.codecs import Codec
from protocols.identity import Identity, PeerId
from protocols.manifest import Manifest
from protocols.round.events import Trained
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector
from tests.dht.worlds import running_node
from tests.peer.evil_codecs import encoding_badly

STEP_SECONDS = 0.1
STEP_SAMPLES = 16


class Pretender(IdleLearner):
    """Says that it trains, and has an update of the right length."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = self._samples = 0

    async def begin(self, state: ModelState) -> None:
        self._count, self._samples = state.parameter_count, 0

    async def step(self) -> Trained:
        await self._clock.sleep(STEP_SECONDS)
        self._samples += STEP_SAMPLES
        return Trained(self._samples, False, STEP_SAMPLES / STEP_SECONDS)

    async def update(self) -> tuple[Vector, int]:  # type: ignore[override]
        return np.ones(self._count, np.float32), self._samples


@asynccontextmanager
async def evil_member(
    directory: Path,
    who: Identity,
    manifest: Manifest,
    others: Sequence[tuple[PeerId, Sequence[str]]],
    spoil: Callable[[Codec], Codec],
) -> AsyncIterator[Participant]:
    """`others`: the members that it meets, and their addresses."""
    async with running_node(directory, who) as node:
        participant = encoding_badly(
            spoil,
            transport=node.transport,
            records=node.records,
            signer=Signer(who, manifest.run_id, int(node.transport.clock.wall() * 1e9)),
            manifest=manifest,
            profile=Profile("mallory", addresses=node.addresses),
            state=initial_state(manifest),
            learner=Pretender(node.transport.clock),
            rejections=Rejections(),
        )
        await participant.start()
        for peer, addresses in others:
            await participant.membership.meet(peer, addresses)
        async with beside(participant.run()):
            yield participant
