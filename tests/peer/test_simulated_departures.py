"""Members that leave, are cut off, or come back with a snapshot: nobody hangs, and no history is lost by it."""

import asyncio
from typing import Any

import pytest

from dht.simulated_link import Link
from peer.participant import Participant
from peer.rounds.session import NeedsResync
from protocols.heads import HISTORY, Choice
from protocols.identity import PeerId
from protocols.manifest import Averaging
from protocols.round.machine import Phase
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, data_parallel, simulate

MEGABIT = 125_000.0


def phase_of(peer: SimulatedPeer) -> Phase | None:
    session = peer.participant._conversation.sessions.get(peer.state.epoch)
    return session and session.machine.phase


def test_who_is_cut_off_does_not_go_on_alone_at_once() -> None:
    """Though it hears nobody any more, the others keep their say in what it does."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {4}, within=60)
        cut_off = swarm.peers[0]
        swarm.network.partition([cut_off.peer])
        epoch = cut_off.state.epoch
        await swarm.until(lambda: not len(cut_off.participant.membership.roster), within=60)
        await swarm.network.clock.sleep(5)  # as a leader it would go on alone after MINORITY_PATIENCE
        assert cut_off.state.epoch <= epoch + 1
        swarm.network.heal()
        await swarm.until(lambda: cut_off.state.epoch > epoch + 10 and swarm.agree(), within=60)
        assert cut_off.digests.items() <= swarm.peers[1].digests.items()

    simulate(scenario, data_parallel(epochs=1000), seed=1)


def test_who_leaves_is_not_kept_by_a_round_that_cannot_end() -> None:
    """Two must be there, and the other dies after it has closed the epoch, or has been told to."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        await swarm.epoch(3)
        stays, dies = swarm.peers[0], swarm.peers[1]
        await swarm.until(lambda: phase_of(stays) not in (None, Phase.GATHERING), within=60)
        await swarm.crash(dies)
        epoch = stays.state.epoch
        await swarm.network.clock.sleep(60)
        assert stays.state.epoch <= epoch + 1
        began = swarm.now
        await swarm.leave(stays)
        assert swarm.now - began < 20

    manifest = data_parallel(epochs=1000)
    simulate(scenario, manifest.model_copy(update={"averaging": Averaging(quorum=2)}), seed=1)


def test_who_leaves_does_not_fetch_the_whole_state_first() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        await swarm.epoch(2)
        joiner = await swarm.start(2, link=Link(MEGABIT / 100, MEGABIT / 100))
        await swarm.until(lambda: joiner.participant.phase == "syncing", within=10)
        await swarm.network.clock.sleep(5)
        began = swarm.now
        await swarm.leave(joiner)
        assert not joiner.participant.joined
        assert swarm.now - began < 5

    simulate(scenario, data_parallel(epochs=1000), parameters=150_000)


def test_a_blank_newcomer_does_not_throw_a_restarted_swarm_back() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(8)
        states = [peer.state for peer in swarm.members]
        for peer in swarm.members:
            await swarm.crash(peer)
        await swarm.start(3)
        await swarm.until(lambda: swarm.peers[3].participant.joined, within=30)
        for number, state in enumerate(states):
            await swarm.start(number, state=state)
            await swarm.network.clock.sleep(1)
        await swarm.until(lambda: swarm.agree() and len(swarm.peers[0].participant.fellows.group) == 4, within=120)
        assert min(peer.state.epoch for peer in swarm.members) >= 7
        for peer in swarm.members[:3]:
            assert min(peer.digests) >= 7

    simulate(scenario, data_parallel(epochs=1000), seed=4)


def test_who_did_not_run_catches_up_before_it_takes_the_whole_state_anew() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        loop: Any = asyncio.get_running_loop()
        await swarm.start_all(1)
        peer = swarm.peers[0]
        await swarm.until(lambda: peer.participant.joined, within=10)
        ahead = Choice(peer.state.epoch + 2, b"\x01" * 32, (), (), frozenset([peer.peer]))
        await swarm.network.clock.sleep(1)
        loop._now += 20
        peer.participant._compare(ahead)
        await swarm.network.clock.sleep(10)
        with pytest.raises(NeedsResync):
            peer.participant._compare(ahead)

    simulate(scenario, data_parallel(target_batch=1_000_000))


@pytest.mark.parametrize("seed", range(4))
def test_those_who_are_left_stay_together_while_one_does_not_answer(seed: int) -> None:
    """Epochs are so short that a word is outdated before a request to who has vanished is given up."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, speed=1500.0)
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {3}, within=60)
        await swarm.network.clock.sleep(3 + 0.1 * seed)
        vanished = swarm.peers[seed % 3]
        left = [peer for peer in swarm.members if peer is not vanished]
        swarm.network.partition([vanished.peer])
        epoch = max(peer.state.epoch for peer in left)
        await swarm.until(lambda: min(peer.state.epoch for peer in left) > epoch + 60, within=120)
        one, other = (peer.digests for peer in left)
        assert all(one[both] == other[both] for both in one.keys() & other.keys())
        assert not any(peer.resyncs for peer in left)

    simulate(scenario, data_parallel(epochs=10_000), seed=seed, link=Link(latency_seconds=0.001))


def test_who_answers_at_once_tells_our_history_though_another_never_answers() -> None:
    """When the last one is given up, the first answer is older than all that we then remember."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, speed=1500.0)
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {3}, within=60)
        we, another, vanished = (swarm.peers[number] for number in range(3))
        swarm.network.partition([vanished.peer])
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in (we, another)} == {2}, within=60)
        asked_at = we.state.epoch
        choice = await we.participant._heads.choose([another.peer, vanished.peer])
        assert we.state.epoch > asked_at + 2 * HISTORY
        assert choice is not None
        assert choice.tellers == {we.peer, another.peer}

    simulate(scenario, data_parallel(epochs=10_000, target_batch=100), seed=1, link=Link(latency_seconds=0.001))


class Silent(Participant):
    """Tells nobody where its history stands, once it is told to."""

    is_silent = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        answer = self._heads.answer

        async def answer_unless_silent(peer: PeerId, nonce: bytes) -> bytes:
            return await (asyncio.Future() if self.is_silent else answer(peer, nonce))

        self._heads.answer = answer_unless_silent  # type: ignore[method-assign]


def test_who_made_our_state_with_us_tells_our_history_while_it_does_not_say_so() -> None:
    """One comes back from far ahead with a history of its own: against us alone it would win."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        we = await swarm.start(0, speed=500.0)
        busy = await swarm.start(1, speed=500.0, make=Silent)
        away = await swarm.start(2, speed=4000.0)
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {3}, within=60)
        swarm.network.partition([away.peer])
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {1, 2}, within=60)
        await swarm.until(lambda: away.state.epoch > we.state.epoch + 20, within=30)
        busy.participant.is_silent = True
        swarm.network.heal()
        await swarm.until(lambda: len(we.participant.membership.roster) == 2, within=60)
        await swarm.network.clock.sleep(10)
        assert we.resyncs == busy.resyncs == 0
        busy.participant.is_silent = False
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {3}, within=60)
        assert we.resyncs == busy.resyncs == 0
        assert away.resyncs > 0

    simulate(scenario, data_parallel(epochs=100_000), seed=1, link=Link(latency_seconds=0.001))
