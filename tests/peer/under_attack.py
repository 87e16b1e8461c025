"""A swarm of honest members with an attacker in it: what must hold in spite of it, and an attacker that talks."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from peer.rounds.post import ROUND_KIND
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.messages import ROUND_MESSAGES, Progress, Ready
from protocols.signed import Signed, open_signed, signed_run_and_kind
from tests.peer.attacks import Attacker
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, data_parallel, distance, identity, simulate

EPOCHS = 5
TOGETHER = 2
"""The epoch at which all have found each other."""
HONEST = 3
HEARD_PER_EPOCH = 25
"""So many messages a liar answers; every answer makes the honest speak again, and a flood is another test."""
EVIL = 50
WITHIN = 1200.0
"""Virtual seconds: what an attacker that leads may cost at each epoch are some deadlines, no more."""
UNHARMED = 0.1
"""What is left to learn may differ so much by who was in which round; the state starts at 10, and ends at 0.3."""


def simulate_attack(
    enter: Callable[[SimulatedSwarm], Any],
    caplog: pytest.LogCaptureFixture,
    codec: str = "none",
    epochs: int = EPOCHS,
) -> Counter[str]:
    """What the honest have refused, all in all, once they have come to the end in spite of `enter`.

    They have learned there what they would have learned without it: no attacker here sends a well-formed update that
    differs from an honest one.
    """
    calm = distance_without_attack(epochs, codec)

    async def scenario(swarm: SimulatedSwarm) -> Counter[str]:
        await swarm.start_all(HONEST)
        honest = list(swarm.members)
        await enter(swarm)
        last = swarm.manifest.epochs

        def at_the_end() -> bool:
            return all(peer.state.epoch == last and peer.participant.activity == "idle" for peer in honest)

        await swarm.until(at_the_end, WITHIN)
        for epoch in range(TOGETHER, last + 1):
            assert len({p.digests[epoch] for p in honest if epoch in p.digests}) == 1, f"epoch {epoch}\n{swarm}"
        for peer in honest:
            assert abs(distance(peer.state) - calm) < UNHARMED, f"{distance(peer.state)}, not {calm}"
            assert peer.running
            assert np.isfinite(peer.state.parameters).all()
            assert peer.rejections.by_reason["handler_failed"] == 0
        return swarm.rejected(honest)

    with caplog.at_level(logging.ERROR):
        refused = simulate(scenario, data_parallel(epochs, codec), parameters=2048)
    assert caplog.records == []
    return refused


@lru_cache
def distance_without_attack(epochs: int, codec: str) -> float:
    async def scenario(swarm: SimulatedSwarm) -> float:
        await swarm.start_all(HONEST)
        await swarm.finish(WITHIN)
        return distance(swarm.peers[0].state)

    return simulate(scenario, data_parallel(epochs, codec), parameters=2048)


class Liar:
    """Answers every message of a round as its script says."""

    def __init__(self, swarm: SimulatedSwarm, script: Callable[["Liar", Message], list[Message]]) -> None:
        who = identity(EVIL)
        self.victims: list[SimulatedPeer] = list(swarm.members)
        self.attacker = Attacker(who, swarm.network.join(who.peer_id), swarm.manifest.run_id)
        self.peer = who.peer_id
        self.ready: dict[PeerId, Signed[Ready]] = {}
        self._script = script
        self._heard: Counter[int] = Counter()

    @property
    def epoch(self) -> int:
        return max(victim.state.epoch for victim in self.victims)

    @property
    def base(self) -> bytes:
        return next(victim.state.digest for victim in self.victims if victim.state.epoch == self.epoch)

    async def enter(self) -> None:
        transport = self.attacker.transport
        await transport.serve_requests(ROUND_KIND, self._hear)
        await self.attacker.pretend(self.victims[0].participant)
        for victim in self.victims:
            await transport.connect(victim.peer, victim.transport.addresses)
            assert await self.attacker.hello(victim.peer) == ""
        await self.tell(Progress(base=self.base, samples=1, complete=False, client_mode=False, samples_per_second=1.0))

    async def tell(self, *bodies: Message) -> None:
        async with asyncio.TaskGroup() as tasks:
            for victim in self.victims:
                for body in bodies:
                    tasks.create_task(self.attacker.say(victim.peer, body, self.epoch))

    async def _hear(self, _sender: object, wire: bytes) -> bytes:
        run, kind = signed_run_and_kind(wire, 2**20)
        if kind in ROUND_MESSAGES and self._heard[self.epoch] < HEARD_PER_EPOCH:
            self._heard[self.epoch] += 1
            heard = open_signed(wire, ROUND_MESSAGES[kind], run=run)
            if isinstance(heard.body, Ready):
                self.ready[heard.sender] = heard
            answers = self._script(self, heard.body)
            for answer in answers:
                await self.tell(answer)
        return b""
