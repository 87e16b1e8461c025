"""No stage throws away what it has counted, whoever of its peers is banned, slow or killed."""

import asyncio
from random import Random

import pytest

from dht.simulated_link import Link
from peer.swarm.server import StageServer
from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.swarm.board import Taken
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate

FAR = Link(latency_seconds=0.1)
"""Epochs of seconds, in which a microbatch waits long enough to be taken for lost."""
PEERS = 6


@pytest.fixture
def discarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of which somebody has thrown away what it had counted, for another has counted it, too."""
    epochs: list[int] = []
    discard = Stage.discard

    async def noted(self: Stage, epoch: int) -> None:
        epochs.append(epoch)
        await discard(self, epoch)

    monkeypatch.setattr(Stage, "discard", noted)
    return epochs


def run_of(epochs: int) -> Manifest:
    return pipeline(epochs, stages=2, batch_size=8, target_batch=512)


async def start(swarm: PipelineSwarm) -> tuple[Peer, list[Peer]]:
    """The keeper of the board, and the others."""
    for number in range(PEERS):
        await swarm.start(number, stage=number % 2)
    await swarm.until(lambda: all(peer.state.epoch for peer in swarm.running), within=60)
    boards = [peer for peer in swarm.running if peer.pipeline.keeper._board is not None]
    assert len(boards) == 1
    return boards[0], [peer for peer in swarm.running if peer is not boards[0]]


def counted(peer: Peer) -> int:
    stage = peer.pipeline.server.stage
    return sum(mask.bit_count() for mask in stage.open_epochs.values()) if stage is not None else 0


async def finish(swarm: PipelineSwarm, peers: list[Peer]) -> None:
    await swarm.until(lambda: all(peer.state.epoch == swarm.manifest.epochs for peer in peers), within=300)


@pytest.mark.parametrize(("keeper", "apart_seconds"), [(True, 0.0), (True, 0.3), (False, 0.3), (False, 1.0)])
def test_what_a_banned_peer_has_counted_is_all_that_is_lost_with_it(
    keeper: bool, apart_seconds: float, discarded: list[int]
) -> None:
    """It goes on to say that it has counted it, and the others ban it one after the other."""

    async def scenario(swarm: PipelineSwarm) -> None:
        first, others = await start(swarm)
        banned = first if keeper else others[0]
        honest = [peer for peer in swarm.running if peer is not banned]
        await swarm.until(lambda: counted(banned) >= 4, within=60)
        for peer in honest:
            peer.participant.company.ban(banned.transport.peer_id, "a test")
            await swarm.network.clock.sleep(apart_seconds)
        await finish(swarm, honest)

    simulate(scenario, run_of(epochs=5), link=FAR)
    assert not discarded, discarded


def test_what_trainers_have_is_known_to_the_next_keeper_of_the_board(discarded: list[int]) -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        keeper, others = await start(swarm)
        await swarm.until(lambda: counted(keeper) >= 4, within=60)
        await swarm.crash(keeper)
        await finish(swarm, others)

    simulate(scenario, run_of(epochs=5), link=FAR)
    assert not discarded, discarded


def play_with_one_slow(slow: list[PeerId]) -> None:
    """A run of which one peer, which does not keep the board, is put on the list once all are there."""

    async def scenario(swarm: PipelineSwarm) -> None:
        _, others = await start(swarm)
        slow.append(others[0].transport.peer_id)
        await finish(swarm, swarm.running)

    simulate(scenario, run_of(epochs=4), link=FAR)


@pytest.mark.parametrize("seconds", [1.9, 3.0])
def test_who_is_slow_to_say_what_it_has_counted_turns_nobody_against_the_keeper(
    seconds: float, discarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: list[PeerId] = []
    cover = StageServer._cover

    async def late(self: StageServer, peer: PeerId, body: bytes) -> bytes:
        answer = await cover(self, peer, body)
        if self._transport.peer_id in slow:
            await asyncio.sleep(seconds)
        return answer

    monkeypatch.setattr(StageServer, "_cover", late)

    play_with_one_slow(slow)
    assert not discarded, discarded


def test_a_count_that_is_not_answered_is_said_again_before_another_does_the_work(
    discarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    random, slow = Random(0), list[PeerId]()
    count = StageServer._count

    async def late(self: StageServer, trainer: PeerId, wire: bytes) -> bytes:
        if self._transport.peer_id in slow and random.random() < 0.1:
            await asyncio.sleep(6.0)
        return await count(self, trainer, wire)

    monkeypatch.setattr(StageServer, "_count", late)

    play_with_one_slow(slow)
    assert not discarded, discarded


def test_where_everybody_does_everything_the_run_goes_on_and_nobody_is_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A board that gives each microbatch to all of its trainers."""
    monkeypatch.setattr(Taken, "note", lambda _self, _still_open, _held, _now: None)

    async def scenario(swarm: PipelineSwarm) -> None:
        await start(swarm)
        await finish(swarm, swarm.running)
        assert not any(peer.participant.suspended for peer in swarm.running)

    simulate(scenario, run_of(epochs=5), link=FAR)
