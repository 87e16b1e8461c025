"""Both sides of an exchange shift their models or neither does, wherever it breaks off.

Nobody learns here, and all count alike: as long as both or neither shift, the sum of the models stays what it was.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Frame, Stream, StreamHandler, Transport
from dht.simulated_link import Link
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.gossip.doubts import ASK_AGAIN_SECONDS
from peer.gossip.exchanges import GOSSIP_KIND
from peer.gossip.models import BUSY
from peer.gossip.participant import GossipParticipant
from peer.gossip.patience import FIRST_SILENCE_SECONDS
from peer.roster import LIVE_SECONDS
from protocols.identity import PeerId
from protocols.manifest import Gossip
from protocols.signed import signed_run_and_kind
from tests.peer.gossip.gossiping import QuadraticGossipLearner, gossip, simulate_gossip, start, weights_of
from tests.peer.simulated_swarm import SimulatedSwarm

POINTS = (
    ("caller", "gossip_offer"),
    ("callee", "gossip_model"),
    ("callee", "chunks"),
    ("caller", "gossip_model"),
    ("caller", "chunks"),
    ("callee", "gossip_prepared"),
    ("caller", "gossip_commit"),
)
"""Who sends what, in the order of an exchange."""
PARAMETERS = 1000
OnFrame = Callable[[PeerId, PeerId, tuple[str, str]], None]
"""(sender, receiver, point)."""


class IdleTrainer(QuadraticGossipLearner):
    """Takes its time and learns nothing."""

    async def step(self, epoch: int, number: int, training: Gossip) -> int:
        await self._clock.sleep(training.batch_size / self.samples_per_second)
        self.steps += 1
        return training.batch_size


class AlikeInWeight(GossipParticipant):
    samples = 1  # type: ignore[assignment]


class TellingStream(WrappedStream):
    """Tells of each frame of an exchange before it is sent."""

    def __init__(self, stream: Stream, me: PeerId, role: str, on_frame: OnFrame) -> None:
        super().__init__(stream)
        self._me, self._role, self._on_frame = me, role, on_frame

    async def send(self, frame: Frame) -> None:
        kind = "chunks" if frame.payload else signed_run_and_kind(frame.header, 10**6)[1] if frame != BUSY else "busy"
        self._on_frame(self._me, self.peer, (self._role, kind))
        await super().send(frame)


class TellingTransport(WrappedTransport):
    def __init__(self, transport: Transport, on_stream: Callable[[], OnFrame]) -> None:
        super().__init__(transport)
        self._on_stream = on_stream

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        return self._telling(stream, "caller") if kind == GOSSIP_KIND else stream

    async def serve_streams(self, kind: str, handler: StreamHandler, *limits: int) -> None:
        async def serve(stream: Stream) -> None:
            await handler(self._telling(stream, "callee") if kind == GOSSIP_KIND else stream)

        await super().serve_streams(kind, serve, *limits)

    def _telling(self, stream: Stream, role: str) -> TellingStream:
        return TellingStream(stream, self.peer_id, role, self._on_stream())


async def start_apart(
    swarm: SimulatedSwarm, count: int, on_stream: Callable[[], OnFrame] = lambda: _quiet
) -> list[Any]:
    """Members with models that differ: number k has k everywhere."""

    def make(**given: Any) -> GossipParticipant:
        return AlikeInWeight(**given | {"transport": TellingTransport(given["transport"], on_stream)})

    peers = [await start(swarm, number, make=make, learns=IdleTrainer) for number in range(count)]
    await swarm.until(lambda: all(peer.participant._own.is_there for peer in peers), within=30)
    for peer in peers:
        peer.participant.learner.weights[:] = peer.number
    return peers


def _quiet(_sender: PeerId, _receiver: PeerId, _point: tuple[str, str]) -> None:
    pass


class Strike:
    """Does something once, at that point of the first exchange that begins after it was armed and comes so far."""

    def __init__(self, point: tuple[str, str], do: Callable[[PeerId, PeerId], None]) -> None:
        self.armed = self.struck = False
        self._point, self._do = point, do

    def on_stream(self) -> OnFrame:
        return self._on_frame if self.armed else _quiet

    def _on_frame(self, sender: PeerId, receiver: PeerId, point: tuple[str, str]) -> None:
        if point == self._point and not self.struck:
            self.struck = True
            self._do(sender, receiver)


async def nothing_prepared(swarm: SimulatedSwarm, peer: Any) -> None:
    """Nothing is in doubt for ever; for a moment, in an exchange that is under way, a shift may be."""
    shifts = peer.participant.exchanges.doubts._prepared._shifts
    for _ in range(100):
        if not shifts:
            return
        await swarm.network.clock.sleep(0.01)
    raise AssertionError(f"{len(shifts)} shifts are in doubt for ever")


any_point = pytest.mark.parametrize("point", POINTS, ids=" ".join)


@any_point
def test_two_that_are_cut_off_from_each_other_at_any_point_both_shift_or_neither(
    point: tuple[str, str],
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        strike = Strike(point, lambda sender, _receiver: swarm.network.partition([sender]))
        peers = await start_apart(swarm, 2, strike.on_stream)
        strike.armed = True
        await swarm.until(lambda: strike.struck, within=60)
        await swarm.network.clock.sleep(FIRST_SILENCE_SECONDS + 2)
        swarm.network.heal()
        await swarm.network.clock.sleep(30)
        weights = weights_of(peers)
        assert np.allclose(weights.sum(axis=0), 1)
        assert np.allclose(weights[0], weights[1], atol=0.05), "they have met since"
        for peer in peers:
            assert not peer.participant.exchanges.doubts.too_many
            await nothing_prepared(swarm, peer)

    simulate_gossip(scenario, gossip(epochs=100_000), parameters=PARAMETERS)


@pytest.mark.parametrize("dies", ["sender", "receiver"])
@any_point
def test_who_survives_a_kill_at_any_point_has_shifted_by_the_whole_or_by_nothing_and_trains_on(
    point: tuple[str, str], dies: str
) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        victims: list[PeerId] = []

        def kill(sender: PeerId, receiver: PeerId) -> None:
            victims.append(sender if dies == "sender" else receiver)
            swarm.strike(next(peer for peer in swarm.running if peer.peer == victims[0]))

        strike = Strike(point, kill)
        peers = await start_apart(swarm, 2, strike.on_stream)
        strike.armed = True
        await swarm.until(lambda: strike.struck, within=60)
        (survivor,) = [peer for peer in peers if peer.peer != victims[0]]
        await swarm.bury(next(peer for peer in peers if peer is not survivor))
        steps = survivor.participant.learner.steps
        await swarm.network.clock.sleep(5)
        assert survivor.participant.learner.steps >= steps + 90
        await swarm.network.clock.sleep(LIVE_SECONDS + 10 * ASK_AGAIN_SECONDS)
        weights = survivor.participant.learner.weights
        assert (weights == weights[0]).all()
        assert weights[0] in (survivor.number, 0.5)
        await nothing_prepared(swarm, survivor)

    simulate_gossip(scenario, gossip(epochs=100_000), parameters=PARAMETERS)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_lost_the_sum_of_all_models_stays(seed: int) -> None:
    """On lines that break one stream in ten, with a partition now and then."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        peers = await start_apart(swarm, 6)
        total = weights_of(peers).sum()
        for part in range(4):
            await swarm.network.clock.sleep(5)
            swarm.network.partition([peers[part].peer, peers[part + 1].peer])
            await swarm.network.clock.sleep(7)
            swarm.network.heal()
        for peer in peers:
            peer.participant._mixer.stop()
        await swarm.network.clock.sleep(LIVE_SECONDS)
        weights = weights_of(peers)
        assert weights.sum() == pytest.approx(total, rel=1e-5)
        failed = sum(peer.participant.exchanges.counts.failed for peer in peers)
        completed = sum(peer.participant.exchanges.counts.completed for peer in peers)
        assert failed > 10
        assert completed > 10 * failed / 10
        assert np.ptp(weights) < 0.5, "and they have met"

    link = Link(latency_seconds=0.005, loss=0.01)
    simulate_gossip(scenario, gossip(epochs=100_000), seed=seed, link=link, parameters=PARAMETERS)
