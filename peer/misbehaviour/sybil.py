"""One that joins under several names: identities cost nothing, and each repeats the update of the first."""

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from dht.interfaces import Clock
from dht.node import DEFAULT_LISTEN, Node
from peer.learner import Learner
from peer.misbehaviour.wrapped_learner import WrappedLearner, with_learner
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.tasks import beside
from protocols.identity import Identity
from protocols.manifest import DataParallel, Manifest
from protocols.round.events import Trained
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector

SYBIL = "sybil"
IDENTITIES = 4
"""Beside the first."""
STEP_SECONDS = 0.25


class LastUpdate:
    """What the first identity has trained last."""

    made: tuple[Vector, int] | None = None


class Overheard(WrappedLearner):
    """The learner of the first identity: honest, and heard by the others."""

    def __init__(self, honest: Learner, last: LastUpdate) -> None:
        super().__init__(honest)
        self.last = last

    async def update(self) -> tuple[Vector, int] | None:
        self.last.made = made = await super().update()
        return made


class Echo(Learner):
    """Of the others: trains nothing, says that it does, and contributes what the first has trained last."""

    def __init__(self, last: LastUpdate, manifest: Manifest, clock: Clock) -> None:
        self._last, self._clock, self._training = last, clock, manifest.training
        self._steps = 0

    async def begin(self, state: ModelState) -> None:
        self._steps = 0

    async def step(self) -> Trained:
        await self._clock.sleep(STEP_SECONDS)
        self._steps += 1
        return Trained(self._samples, not isinstance(self._training, DataParallel), self.samples_per_second)

    @property
    def _samples(self) -> int:
        return self._steps * self._training.batch_size

    async def update(self) -> tuple[Vector, int] | None:
        return None if self._last.made is None else (self._last.made[0], max(1, self._samples))

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return {}


class Sybil(Participant):
    """The first identity; `last` is for those beside it."""

    def __init__(self, **given: Any) -> None:
        self.last = LastUpdate()
        super().__init__(**with_learner(given, lambda learner: Overheard(learner, self.last)))


def another(first: Sybil, **given: Any) -> Participant:
    """A participant under another identity; `given` as for `Participant`, but for manifest and learner."""
    learner = Echo(first.last, first.manifest, given["transport"].clock)
    return Participant(**(given | {"manifest": first.manifest, "learner": learner}))


@asynccontextmanager
async def identities_beside(
    first: Sybil, initial: ModelState, addresses: Sequence[str], listen: Sequence[str], count: int = IDENTITIES
) -> AsyncIterator[None]:
    """As long as the body runs, `count` others take part, each with a libp2p node of its own in this process.

    `addresses`: of the first one's node. `listen`: where that listens; the others do so at any port.
    """
    anywhere = tuple(re.sub(r"/(tcp|udp)/\d+", r"/\1/0", address) for address in listen) or (DEFAULT_LISTEN,)
    async with AsyncExitStack() as resources:
        directory = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="peer-sybil-")))
        for number in range(count):
            identity = Identity.generate()
            path = directory / f"identity-{number}"
            path.write_bytes(identity.to_libp2p())
            path.chmod(0o600)
            node = await Node.start(path, initial_peers=addresses, listen=anywhere, run=first.manifest.run_id)
            resources.push_async_callback(node.close)
            participant = another(
                first,
                transport=node.transport,
                records=node.records,
                signer=Signer(identity, first.manifest.run_id, int(node.transport.clock.wall() * 1e9)),
                profile=Profile(f"{first.profile.name}-{number + 1}", addresses=node.addresses),
                state=initial,
                rejections=Rejections(),
            )
            await participant.start()
            await resources.enter_async_context(beside(participant.run()))
        yield
