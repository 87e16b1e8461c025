"""Strangers that make results up, and serve and sign them as an owner would: nobody applies what they made."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Frame, Stream
from peer.rounds.chunk_frames import chunk_header
from peer.rounds.exchange import PART_KIND
from peer.rounds.results import FETCH_KIND
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.messages import (
    ROUND_MESSAGES,
    Begin,
    Busy,
    Close,
    Contribution,
    Done,
    Member,
    Part,
    PartResult,
    Prepared,
    Progress,
    Ready,
    Result,
    Standing,
    commitment,
)
from protocols.signed import open_signed, signed_run_and_kind
from tests.peer.simulated_swarm import SimulatedSwarm
from tests.peer.under_attack import Liar, simulate_attack

CHUNKS = 8
CHUNK = np.full(256, 1e6, np.float32).tobytes()
"""Would throw the parameters far away."""
DIGESTS = (digest(CHUNK),) * CHUNKS
MADE_UP = (PartResult(start=0, stop=CHUNKS, digest=commitment(DIGESTS)),)


class Forger(Liar):
    """Gives what it has made up to whoever takes it for an owner, or for a holder."""

    def __init__(self, swarm: SimulatedSwarm) -> None:
        super().__init__(swarm, lambda _liar, _heard: [])
        self.asked: Counter[str] = Counter()
        self.followed = digest(b"begin")
        """What the last contribution followed."""

    async def enter(self) -> None:
        for kind in (PART_KIND, FETCH_KIND):
            await self.attacker.transport.serve_streams(kind, partial(self._give, kind))
        await super().enter()

    async def _give(self, kind: str, stream: Stream) -> None:
        asked = await stream.receive()
        self.asked[kind] += 1
        if kind == PART_KIND and asked is not None:
            contribution = open_signed(
                bytes(asked.header), Contribution, run=signed_run_and_kind(asked.header, 2**20)[0]
            )
            self.followed = contribution.body.begin
        for number in range(CHUNKS):
            await stream.send(Frame(chunk_header(number), CHUNK))
        result = Result(
            term=0, part=0, attempt=0, begin=self.followed, chunks=DIGESTS, included=(1,) * CHUNKS, weighed=None
        )
        await stream.send(Frame(b"", self.attacker.wire(result, self.epoch)))
        while await stream.receive() is not None:
            pass

    async def _hear(self, sender: Any, wire: bytes) -> bytes:
        run, kind = signed_run_and_kind(wire, 2**20)
        if kind in ROUND_MESSAGES:
            self._heard[self.epoch] += 1
            if self._heard[self.epoch] < 100:
                await self.answer(sender, open_signed(wire, ROUND_MESSAGES[kind], run=run).body, wire)
        return b""

    async def answer(self, sender: PeerId, body: Message, wire: bytes) -> None:
        raise NotImplementedError

    async def say(self, victim: PeerId, body: Message) -> None:
        await self.attacker.say(victim, body, self.epoch)

    def begin(self, others: tuple[Member, ...], term: int) -> Begin:
        members = (Member(peer=self.peer, weight=0, root=None), *others)
        return Begin(base=self.base, term=term, members=members, parts=(Part(owner=self.peer, start=0, stop=CHUNKS),))


class Usurper(Forger):
    """Closes every epoch at once, and names a group of itself and one other."""

    async def answer(self, sender: PeerId, body: Message, wire: bytes) -> None:
        match body:
            case Progress() | Standing():
                await self.say(sender, Close(base=self.base, term=0))
            case Ready(term=term, weight=weight, root=root):
                await self.say(sender, self.begin((Member(peer=sender, weight=weight, root=root),), term))
            case Prepared(term=term, results=results):
                ours = self.attacker.wire(Prepared(base=self.base, term=term, results=results), self.epoch)
                members = (self.peer, sender)
                done = Done(base=self.base, term=term, members=members, results=results, votes=(ours, wire))
                await self.say(sender, done)


class Claimant(Forger):
    """Moves the leader to another term, and claims to have voted in the one before."""

    async def answer(self, sender: PeerId, body: Message, wire: bytes) -> None:
        match body:
            case Close(term=0):
                await self.say(sender, Busy(term=1, leader=sender))
            case Close(term=term):
                origin = self.attacker.wire(self.begin((), 0), self.epoch)
                ready = Ready(
                    base=self.base,
                    term=term,
                    weight=0,
                    root=None,
                    client_mode=False,
                    speed=1.0,
                    held_term=0,
                    held=MADE_UP,
                    origin=(origin,),
                )
                await self.say(sender, ready)


@pytest.mark.parametrize(("make", "kind"), [(Usurper, PART_KIND), (Claimant, FETCH_KIND)])
def test_nobody_takes_what_a_stranger_made_up(
    make: Callable[[SimulatedSwarm], Forger], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    entered: list[Forger] = []

    async def enter(swarm: SimulatedSwarm) -> None:
        await swarm.until(lambda: swarm.agree() and swarm.members[0].state.epoch >= 1, within=60)
        entered.append(make(swarm))
        await entered[0].enter()

    simulate_attack(enter, caplog)
    assert entered[0].asked[kind] == 0
    assert entered[0]._heard.total() > 0
