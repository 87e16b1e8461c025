"""What only real libp2p takes badly, sent to a participant that trains. All other bad input: `tests/swarm`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from dht.node import Node
from peer.membership import HELLO_KIND
from peer.participant import Participant
from peer.profile import Profile
from peer.tasks import beside
from protocols.identity import Identity
from protocols.signed import Signer
from tests.dht.worlds import identity, run_real, running_node
from tests.peer.attacks import Attacker
from tests.peer.simulated_swarm import CountedRejections, QuadraticLearner, data_parallel, initial_state

MANIFEST = data_parallel(epochs=12)
SPEED = 400.0
"""Samples per second: an epoch of 400 takes half a second."""
STRANGER = identity(77)


class Member:
    def __init__(self, node: Node, who: Identity, rejections: CountedRejections, number: int) -> None:
        self.node, self.rejections = node, rejections
        self.participant = Participant(
            transport=node.transport,
            records=node.records,
            signer=Signer(who, MANIFEST.run_id, int(node.transport.clock.wall() * 1e9)),
            manifest=MANIFEST,
            profile=Profile(f"peer {number}", addresses=node.addresses),
            state=initial_state(MANIFEST),
            learner=QuadraticLearner(MANIFEST, node.peer_id, node.transport.clock, SPEED),
            rejections=rejections,
        )

    async def until_epoch(self, epoch: int) -> None:
        while self.participant.state.epoch < epoch:
            await self.participant.changed.wait()


@asynccontextmanager
async def member(directory: Path, number: int, *others: Member) -> AsyncIterator[Member]:
    who, rejections = identity(number), CountedRejections()
    async with running_node(directory, who, on_rejected=rejections) as node:
        new = Member(node, who, rejections, number)
        await new.participant.start()
        for other in others:
            await new.participant.membership.meet(other.node.peer_id, other.node.addresses())
        async with beside(new.participant.run()):
            yield new


def test_hello_with_addresses_that_cannot_be_encoded_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a record in the DHT: whoever hears of a member dials it, and must not fail on the way."""

    async def scenario() -> None:
        async with AsyncExitStack() as resources:
            enter = resources.enter_async_context
            victim = await enter(member(tmp_path, 1))
            node = await enter(running_node(tmp_path, identity(8)))
            await node.transport.connect(victim.node.peer_id, victim.node.addresses())
            attacker = Attacker(identity(8), node.transport, MANIFEST.run_id)
            addresses = (
                f"/p2p/{STRANGER.peer_id}/p2p-circuit",
                f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER.peer_id}/p2p-circuit/ip4/127.0.0.1/tcp/1/p2p/{attacker.peer}",
                f"/dns4/{'a' * 64}/tcp/1",
            )
            entry = attacker.roster_entry(None, addresses=addresses)
            assert await node.records.publish(attacker.signer.sign(entry, 0), entry.expires)
            hellos = asyncio.Queue[bytes]()
            await attacker.note_hellos(hellos)
            assert await attacker.ask(victim.node.peer_id, HELLO_KIND, attacker.wire(entry, 0)) == ""
            async with asyncio.timeout(30):
                await hellos.get()  # the victim has used what it was told
                await victim.until_epoch(MANIFEST.epochs)
            assert victim.node.transport._addresses[attacker.peer] == addresses

    with caplog.at_level(logging.ERROR):
        run_real(scenario())
    assert caplog.records == []
