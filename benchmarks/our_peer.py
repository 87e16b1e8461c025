"""One of our peers in a benchmark's worker process: a libp2p node, a participant, and the members it is told of."""

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from reporting import Command, Reports, read_command
from resources import resident_bytes

from dht.node import Node
from peer.gossip.learner import GossipLearner
from peer.gossip.participant import GossipParticipant
from peer.heap import settle_heap
from peer.learner import Learner
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.tasks import beside
from protocols.identity import Identity, PeerId
from protocols.manifest import Manifest
from protocols.round.deadlines import Timing
from protocols.signed import Signer
from protocols.state import ModelState

MEET_SECONDS, MEET_AGAIN_SECONDS = 60.0, 0.1


@dataclass(frozen=True)
class Prepared:
    """What a worker brings: the run, its first state, and who trains."""

    manifest: Manifest
    state: ModelState
    learner: Learner | GossipLearner


Prepare = Callable[[PeerId, Node], Prepared]
InRounds = TypeVar("InRounds", bound=Participant)
AnyParticipant = TypeVar("AnyParticipant", Participant, GossipParticipant)


def in_rounds(settings: Command, kind: type[InRounds]) -> Callable[..., InRounds]:
    """A participant with the benchmark's patience."""
    return partial(kind, timing=Timing(failure=settings["patience_seconds"]))


@asynccontextmanager
async def our_peer(
    settings: Command, reports: Reports, prepare: Prepare, make: Callable[..., AnyParticipant]
) -> AsyncIterator[AnyParticipant]:
    """Runs as long as the body; says `up`, and takes the members to meet from the benchmark.

    `make`: a participant of what all take.
    """
    async with libp2p_node(settings["host"]) as (identity, node):
        gc.collect()
        baseline = resident_bytes(os.getpid())
        prepared = prepare(identity.peer_id, node)
        participant = make(
            transport=node.transport,
            records=node.records,
            signer=Signer(identity, prepared.manifest.run_id, time.time_ns()),
            manifest=prepared.manifest,
            profile=Profile(f"peer {settings['seed']}", addresses=node.addresses),
            state=prepared.state,
            learner=prepared.learner,
            rejections=Rejections(),
        )
        await participant.start()
        reports.send("up", peer=identity.peer_id, addresses=node.addresses(), baseline_bytes=baseline)
        for member, addresses in (await command())["members"].items():
            if member != identity.peer_id:
                await meet(participant, member, addresses)
        settle_heap()
        async with beside(participant.run()):
            yield participant


@asynccontextmanager
async def libp2p_node(host: str) -> AsyncIterator[tuple[Identity, Node]]:
    """A node with an identity of its own, at a free port of that address."""
    with tempfile.TemporaryDirectory() as directory:
        identity, key = Identity.generate(), Path(directory) / "identity.key"
        key.write_bytes(identity.to_libp2p())
        node = await Node.start(key, listen=[f"/ip4/{host}/tcp/0"])
        try:
            yield identity, node
        finally:
            await node.close()


async def meet(participant: AnyParticipant, member: PeerId, addresses: Sequence[str]) -> None:
    """Until it has answered: two that dial each other in the same instant may both fail, and no DHT helps them here."""
    async with asyncio.timeout(MEET_SECONDS):
        while participant.membership.roster.get(member) is None:
            await participant.membership.meet(member, addresses)
            await asyncio.sleep(MEET_AGAIN_SECONDS)


async def command() -> Command:
    """The next command of the benchmark."""
    received = await asyncio.to_thread(read_command)
    if received is None:
        sys.exit("the benchmark is gone")
    return received
