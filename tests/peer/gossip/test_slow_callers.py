"""A stranger whose calls all succeed, as slowly as they may, or who asks and does not read: others hardly notice."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Frame, TransportError
from dht.simulated_link import Link
from peer.gossip.exchanges import GOSSIP_KIND
from peer.gossip.models import BUSY, Encoded
from peer.rounds.chunk_frames import chunk_frames
from protocols.codecs import codec
from protocols.gossip.messages import Commit, Model, Offer, Prepared, exchange_digest, offer_digest
from protocols.manifest import Averaging, Manifest
from protocols.signed import open_signed
from tests.peer.attacks import Attacker
from tests.peer.gossip.gossiping import gossip, simulate_gossip, start_all
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, identity

EVIL = 99
HONEST = 4
CALM_SECONDS, WATCHED_SECONDS = 20.0, 60.0
PARAMETERS = 2048
pytestmark = pytest.mark.usefixtures("every_chunk_in_a_frame_of_its_own")

Call = Callable[[Attacker, SimulatedPeer], Coroutine[Any, Any, None]]


def kept_up(manifest: Manifest, call: Call, at_once: int) -> float:
    """Exchanges of the honest while the stranger calls, of what they were before."""

    async def scenario(swarm: SimulatedSwarm) -> float:
        honest, clock = await start_all(swarm, HONEST), swarm.network.clock
        who = identity(EVIL)
        attacker = Attacker(who, swarm.network.join(who.peer_id), swarm.manifest.run_id)

        def completed() -> int:
            return sum(peer.participant.exchanges.counts.completed for peer in honest)

        await clock.sleep(CALM_SECONDS)
        calm = completed()
        await clock.sleep(CALM_SECONDS)
        calm = completed() - calm

        async def call_again_and_again(victim: SimulatedPeer) -> None:
            await attacker.transport.connect(victim.peer, victim.transport.addresses)
            while True:
                with suppress(TransportError):
                    await call(attacker, victim)
                await clock.sleep(0.5)

        async with asyncio.TaskGroup() as tasks:
            calling = [tasks.create_task(call_again_and_again(peer)) for peer in honest for _ in range(at_once)]
            await clock.sleep(CALM_SECONDS)
            attacked = completed()
            await clock.sleep(WATCHED_SECONDS)
            attacked = completed() - attacked
            for task in calling:
                task.cancel()
        await attacker.transport.close()
        return (attacked / WATCHED_SECONDS) / (calm / CALM_SECONDS)

    return simulate_gossip(scenario, manifest, link=Link(latency_seconds=0.002), parameters=PARAMETERS)


async def mix_as_slowly_as_it_may(attacker: Attacker, victim: SimulatedPeer) -> None:
    clock, patience = attacker.transport.clock, victim.participant.exchanges.patience
    async with await attacker.transport.open_stream(victim.peer, GOSSIP_KIND) as stream:
        offer = attacker.signer.sign(Offer(to=victim.peer, only_asks=False), 0)
        await stream.send(Frame(offer.wire))
        answer = await stream.receive()
        if answer is None or answer == BUSY:
            return
        theirs = open_signed(answer.header, Model, run=attacker.run, sender=victim.peer)
        model = Encoded.of(np.zeros(PARAMETERS, np.float32), codec("none"))
        ours = attacker.signer.sign(Model(offer=offer_digest(offer), samples=0, chunks=model.update.digests), 0)
        await stream.send(Frame(ours.wire))
        frames = list(chunk_frames(model.update.chunks, 0))
        pause = min(0.9 * patience.silence_seconds, 0.9 * patience.limit_seconds / len(frames))
        for frame in frames:
            await clock.sleep(pause)
            await stream.send(frame)
        while (frame := await stream.receive()) is not None:
            with suppress(Exception):  # chunks come before
                open_signed(frame.header, Prepared, run=attacker.run, sender=victim.peer)
                break
        await stream.send(Frame(attacker.wire(Commit(exchange=exchange_digest(theirs, ours)), 0)))


async def ask_and_not_read(attacker: Attacker, victim: SimulatedPeer) -> None:
    async with await attacker.transport.open_stream(victim.peer, GOSSIP_KIND) as stream:
        await stream.send(Frame(attacker.wire(Offer(to=victim.peer, only_asks=True), 0)))
        if await stream.receive() not in (None, BUSY):
            await attacker.transport.clock.sleep(10.0)


def test_who_calls_as_slowly_as_it_may_keeps_nobody_from_the_others() -> None:
    assert kept_up(gossip(epochs=100_000, steps=4), mix_as_slowly_as_it_may, at_once=1) > 0.6


def test_who_asks_and_does_not_read_takes_no_place_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.simulated_connection.WINDOW_BYTES", PARAMETERS)  # half of a model, or less
    robust = Averaging(rule="trimmed_mean", byzantine=1, quorum=3)
    manifest = gossip(100_000, robust, mixing="rule", steps=4, topology="regular", degree=4)
    assert kept_up(manifest, ask_and_not_read, at_once=12) > 0.8
