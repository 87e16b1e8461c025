"""Members of a simulated swarm that crash, pause, leave, are cut off, or have wrong clocks: the survivors agree."""

import asyncio
import random
from typing import Any

import pytest

from dht.interfaces import Frame, Stream
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer.listing import PUBLISH_SECONDS
from peer.membership import LOOKUP_SECONDS
from peer.participant import Participant
from peer.rounds.exchange import PART_KIND
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.round.machine import Phase, Round
from tests.peer.simulated_swarm import (
    MODES,
    ManifestOf,
    SimulatedSwarm,
    check_nobody_was_charged,
    data_parallel,
    local_sgd,
    simulate,
)

# -- crashing, pausing, leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_members_crash_pause_leave_and_come_back_at_any_moment(seed: int) -> None:
    chance = random.Random(seed)

    async def disturb(swarm: SimulatedSwarm) -> None:
        victim = chance.choice(swarm.running)
        what = chance.choice(["crash", "restart", "restart from the beginning", "pause", "leave"])
        if what == "pause":
            swarm.network.partition([victim.peer])
            await swarm.network.clock.sleep(20)
            swarm.network.heal()
        elif len(swarm.running) > 1:
            await (swarm.leave(victim) if what == "leave" else swarm.crash(victim))
            await swarm.network.clock.sleep(chance.uniform(0, 5))
            if what != "crash":
                await swarm.restart(victim, state=None if "beginning" in what else victim.state)

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(5):
            await swarm.start(number, speed=chance.choice([50, 100, 200, 400]))
            await swarm.network.clock.sleep(chance.choice([0, 0, 2]))
        for _ in range(3):
            await swarm.network.clock.sleep(chance.uniform(0, 6))
            await disturb(swarm)
        await swarm.finish(within=200)
        check_nobody_was_charged(swarm)

    simulate(scenario, [data_parallel, local_sgd][seed % 2](epochs=20), seed)


@MODES
def test_all_but_one_die(manifest_of: ManifestOf) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(5)
        for peer in swarm.running[1:]:
            await swarm.crash(peer)
        await swarm.finish(within=120)

    simulate(scenario, manifest_of(epochs=15), seed=2)


class DeafTransport(WrappedTransport):
    """While it is deaf, no owner's result comes: its member hears of the decision before it holds what was decided."""

    deaf = True

    async def open_stream(self, peer: PeerId, kind: str) -> Stream:
        stream = await super().open_stream(peer, kind)
        return DeafStream(stream) if self.deaf and kind == PART_KIND else stream


class DeafStream(WrappedStream):
    async def receive(self) -> Frame | None:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("come_back", [False, True])
@MODES
def test_a_result_that_died_with_all_who_held_it_makes_the_others_take_the_swarms_state_anew(
    manifest_of: ManifestOf, come_back: bool
) -> None:
    """Three of five hold the decided result and die; `come_back`: later, with the state that it made."""

    transports: list[DeafTransport] = []

    def deaf(**given: Any) -> Participant:
        transports.append(DeafTransport(given["transport"]))
        return Participant(**(given | {"transport": transports[-1]}))

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        late = [await swarm.start(number, make=deaf) for number in (3, 4)]
        holders = [swarm.peers[number] for number in range(3)]

        def machine() -> Round | None:
            sessions = [peer.participant._conversation.sessions.get(holders[0].state.epoch - 1) for peer in late]
            machines = [session.machine for session in sessions if session is not None]
            decided = [m for m in machines if m.phase is Phase.FETCHING and len(m.done.body.members) == 5]
            return decided[0] if len(decided) == 2 and len({p.state.digest for p in holders}) == 1 else None

        await swarm.until(machine, within=60)
        lost = machine()
        assert lost is not None
        base, made = late[0].state.digest, holders[0].state.digest
        for peer in holders:
            await swarm.crash(peer)
        for transport in transports:
            transport.deaf = False
        await swarm.until(lambda: all(peer.resyncs for peer in late), within=60)
        assert lost.phase is Phase.LOST
        assert {peer.state.digest for peer in late} == {base}
        if come_back:
            for peer in holders:
                assert peer.state.digest == made
                await swarm.restart(peer, state=peer.state)
        await swarm.finish(within=200)

    simulate(scenario, manifest_of(epochs=12), seed=4)


def test_who_leaves_finishes_the_round_and_is_not_waited_for() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(5)
        began = swarm.now
        await swarm.leave(swarm.peers[1])
        assert swarm.now - began < 10
        await swarm.finish(within=100)
        assert max(swarm.peers[0].epoch_times.values()) - began < 2 * 10 * swarm.pace(swarm.peers[0])

    simulate(scenario, data_parallel(epochs=15), seed=2)


# -- partitions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minority", "seconds"), [(1, 30), (2, 60), (3, 90)])
@MODES
def test_a_parted_swarm_becomes_one_again(manifest_of: ManifestOf, minority: int, seconds: float) -> None:
    """Six members; equal halves at last, where the further one wins."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(6)
        await swarm.until(lambda: max(p.participant.largest_group for p in swarm.members) == 6, within=60)
        swarm.network.partition([swarm.peers[number].peer for number in range(minority)])
        await swarm.network.clock.sleep(seconds)
        majority = swarm.peers[5]
        theirs = dict(majority.digests)
        swarm.network.heal()
        healed = swarm.now
        await swarm.until(
            lambda: swarm.agree() and max(p.participant.largest_group for p in swarm.members) == 6, within=60
        )
        if minority < 3:
            assert all(majority.digests[epoch] == digest for epoch, digest in theirs.items())
        await swarm.until(lambda: {len(p.participant.fellows.group) for p in swarm.members} == {6}, within=60)
        assert swarm.now - healed < 60
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=2000), seed=minority)


# -- clocks -----------------------------------------------------------------------------------------------------------

HOUR = 3600.0


@MODES
def test_clocks_that_jump_by_an_hour_stop_no_round(manifest_of: ManifestOf) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.until(lambda: all(len(p.participant.fellows.group) == 4 for p in swarm.members), within=60)
        for offsets in ([HOUR, -HOUR, HOUR, -HOUR], [-HOUR, HOUR, 0.0, 0.0]):
            jumped = max(peer.state.epoch for peer in swarm.members)
            for peer, offset in zip(swarm.members, offsets, strict=True):
                swarm.network.set_wall_clock(peer.peer, offset)
            await swarm.epoch(jumped + 10)
            assert all(len(peer.participant.fellows.group) == 4 for peer in swarm.members)
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=2000), seed=8)


def test_a_swarm_whose_clocks_were_wrong_is_found_once_they_are_right() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        for peer in swarm.members:
            swarm.network.set_wall_clock(peer.peer, HOUR)
        await swarm.network.clock.sleep(2 * RosterEntry.ttl_seconds)
        members = swarm.members
        newcomer = await swarm.start(2)
        await swarm.network.clock.sleep(LOOKUP_SECONDS)
        assert len(newcomer.participant.membership.roster) == 0  # what they say expires in an hour and a minute
        for peer in members:
            swarm.network.set_wall_clock(peer.peer, 0.0)
        await swarm.until(lambda: newcomer.participant.largest_group == 3, within=2 * PUBLISH_SECONDS)

    simulate(scenario, data_parallel(epochs=10_000), seed=9)
