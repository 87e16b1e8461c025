"""What users of a swarm are promised, for whole participants over a simulated network: nobody hangs, the survivors end
with one state, bit for bit, and everybody who trains contributes."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pytest

from dht.interfaces import Frame, Stream, Transport, TransportError
from dht.simulated_link import Link
from dht.wrapped_transport import WrappedStream, WrappedTransport
from peer import joining
from peer.content_fetch import ContentNotFound
from peer.contents import BLOCKS_KIND, INDEX_KIND
from peer.listing import PUBLISH_SECONDS
from peer.membership import HELLO_KIND, LOOKUP_SECONDS
from peer.participant import GRACE_EVERY, Participant
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import ROUND_KIND
from peer.sync import HEAD_KIND
from protocols.heads import Choice, Head
from protocols.identity import PeerId
from protocols.manifest import AdamW, Averaging, Manifest
from protocols.records import RosterEntry
from protocols.rejection import Reason
from protocols.round.machine import Phase, Round
from protocols.round.messages import Progress, Standing
from protocols.signed import Signer
from protocols.state import ModelState
from tests.peer.block_counts import CountingTransport
from tests.peer.simulated_swarm import (
    SimulatedSwarm,
    data_parallel,
    distance,
    identity,
    local_sgd,
    simulate,
)

MODES = pytest.mark.parametrize("manifest_of", [data_parallel, local_sgd])
ManifestOf = Callable[..., Manifest]
MEGABIT = 125_000.0
HARMLESS = {Reason.BUSY, Reason.ABSENT}
"""Weighs nothing."""
RACES = {Reason.UNEXPECTED, Reason.STALE, Reason.REPLAYED}
"""What honest peers hear from each other when messages cross; a peer is suspended at 256 in a minute."""


def samples(swarm: SimulatedSwarm) -> list[int]:
    return [peer.participant.samples_contributed for peer in swarm.peers.values()]


def check_nobody_was_charged(swarm: SimulatedSwarm) -> None:
    for peer in swarm.peers.values():
        charges = {charge: count for charge, count in peer.rejections.by_peer.items() if charge[1] not in HARMLESS}
        assert {reason for _, reason in charges} <= RACES, peer.rejections.words
        assert max(charges.values(), default=0) <= 16, peer.rejections.words


# -- starting ---------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("count", "stagger", "codec"),
    [(1, 0.0, "none"), (2, 0.0, "int8"), (2, 0.7, "float16"), (4, 0.0, "none"), (4, 0.7, "int8"), (12, 0.1, "float16")],
)
def test_all_who_start_end_with_one_state(manifest_of: ManifestOf, count: int, stagger: float, codec: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(count, stagger)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        assert distance(swarm.peers[0].state) < (7 if count < 10 else 9)
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=20, codec=codec), seed=count)


def test_what_a_leader_says_to_all_is_signed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    signed, sign = Counter[str](), Signer.sign

    def count(signer: Signer, body: Any, epoch: int) -> Any:
        signed[body.kind] += 1
        return sign(signer, body, epoch)

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(8, 0.0)
        await swarm.finish(within=120)
        check_nobody_was_charged(swarm)

    epochs = 10
    monkeypatch.setattr(Signer, "sign", count)
    simulate(scenario, data_parallel(epochs=epochs), seed=3)
    assert epochs <= signed["done"] <= 2 * epochs
    assert signed["begin"] < 8 * epochs  # once more for who says again that it is ready
    assert signed["ready"] >= 8 * epochs


@pytest.mark.parametrize("stagger", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_who_starts_together_has_one_history_however_short_the_epochs(stagger: float, seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4, stagger, speed=8000.0)
        await swarm.epoch(20)
        for epoch in range(20):
            states = {peer.digests[epoch] for peer in swarm.members if epoch in peer.digests}
            assert len(states) <= 1, f"{len(states)} states at epoch {epoch}"

    simulate(scenario, data_parallel(epochs=1000), seed)


@pytest.mark.parametrize("block", range(4))
def test_who_comes_while_the_first_member_closes_its_first_epoch_has_its_history(block: int) -> None:
    async def scenario(swarm: SimulatedSwarm, delay: float) -> None:
        await swarm.start(0)  # closes it after 2.2 seconds, if it is alone
        await swarm.network.clock.sleep(delay)
        await swarm.start(1)
        await swarm.start(2)
        await swarm.epoch(5)
        for epoch in range(5):
            states = {peer.digests[epoch] for peer in swarm.members if epoch in peer.digests}
            assert len(states) <= 1, f"{len(states)} states at epoch {epoch}, after {delay} s"

    for number in range(10):
        delay = 1.8 + 0.012 * (10 * block + number)
        simulate(partial(scenario, delay=delay), data_parallel(epochs=1000), seed=number)


def test_who_makes_up_the_quorum_has_its_time_to_train() -> None:
    """However long the others have been done with their steps by then."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.network.clock.sleep(60)
        assert not any(peer.state.epoch for peer in swarm.members)
        await swarm.start(3)
        await swarm.finish(within=120)
        assert len(set(samples(swarm))) == 1

    manifest = local_sgd(epochs=4)
    simulate(scenario, manifest.model_copy(update={"averaging": Averaging(quorum=4)}), seed=1)


def test_thirty_two_peers() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(32, 0.05)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        assert max(peer.participant.largest_group for peer in swarm.members) == 32
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=3, codec="int8", target_batch=8000), parameters=16_384)


@MODES
def test_a_slow_peer_contributes_by_its_speed(manifest_of: ManifestOf) -> None:
    speeds = [50.0, 100.0, 200.0, 500.0]

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number, speed in enumerate(speeds):
            await swarm.start(number, speed=speed)
        await swarm.finish(within=200)
        counts = samples(swarm)
        if manifest_of is data_parallel:
            for count, speed in zip(counts, speeds, strict=True):
                assert 0.5 < (count / sum(counts)) / (speed / sum(speeds)) < 2
        else:  # as many steps as the others, or what it can do while they wait for it
            assert min(counts) > 0.5 * max(counts)

    simulate(scenario, manifest_of(epochs=20), seed=3)


@pytest.mark.parametrize("seed", range(3))
@MODES
def test_peers_that_find_each_other_late_become_one_swarm(manifest_of: ManifestOf, seed: int) -> None:
    """Everybody starts alone; for up to ten seconds nobody reaches anybody."""
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        swarm.network.partition(*([identity(number).peer_id] for number in range(4)))
        await swarm.start_all(4, chance.uniform(0, 1))
        await swarm.network.clock.sleep(chance.uniform(0.5, 10))
        swarm.network.heal()
        await swarm.until(lambda: max(p.participant.largest_group for p in swarm.members) == 4, within=60)
        await swarm.finish(within=120)
        assert all(samples(swarm))
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=60), seed)


# -- joining ----------------------------------------------------------------------------------------------------------


@MODES
def test_joiners_in_mid_run_delay_nobody(manifest_of: ManifestOf) -> None:
    def pace(joiners: int) -> float:
        async def scenario(swarm: SimulatedSwarm) -> float:
            await swarm.start_all(3)
            chance = random.Random(1)
            await swarm.epoch(5)
            for number in range(3, 3 + joiners):
                await swarm.network.clock.sleep(chance.uniform(0, 3))
                await swarm.start(number)
            await swarm.finish(within=200)
            assert all(samples(swarm))
            return swarm.pace(swarm.peers[0])

        return simulate(scenario, manifest_of(epochs=20), seed=1)

    assert pace(joiners=3) < 1.25 * pace(joiners=0)


def test_a_joiner_on_a_slow_link_catches_up() -> None:
    """Its state of 1.2 MB takes ten seconds, and the swarm goes on meanwhile."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(4)
        began = swarm.now
        joiner = await swarm.start(3, link=Link(1 * MEGABIT, 1 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=60)
        assert swarm.now - began > 2 * swarm.pace(swarm.peers[0])
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)
        assert joiner.participant.largest_group == 4, "it has trained on by itself"
        await swarm.finish(within=300)

    simulate(scenario, data_parallel(epochs=40, codec="int8", target_batch=1500), parameters=150_000)


def test_a_joiner_whose_state_takes_longer_than_two_epochs_catches_up_by_their_results() -> None:
    """5 Mbit/s: 38 s for AdamW's state of 24 MB and 13 s for a result, in epochs of 20 s.

    Memory has room for the results of two epochs. To fetch the state anew would give it one that is as old again.
    """
    manifest = data_parallel(epochs=1000, target_batch=6000)
    training = manifest.training.model_copy(update={"optimizer": AdamW(learning_rate=0.01)})

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, speed=100.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(2, within=400)
        joiner = await swarm.start(3, speed=50.0, link=Link(5 * MEGABIT, 5 * MEGABIT))
        await swarm.until(lambda: joiner.participant.samples_contributed, within=200)
        assert joiner.participant._joining._fetches <= 1
        assert joiner.participant.largest_group == 4, "it has trained on by itself"

    simulate(scenario, manifest.model_copy(update={"training": training}), parameters=2_000_000)


@pytest.mark.parametrize("seed", range(4))
def test_a_joiner_that_has_each_result_after_the_next_epoch_is_closed_is_waited_for(seed: int) -> None:
    """An epoch trains for 0.3 s and averages for 0.5 s, and its result takes the joiner another 0.5 s."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=3000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(5)
        await swarm.network.clock.sleep(random.Random(seed).uniform(0, 1))
        joiner = await swarm.start(2, speed=2000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=10)
        await swarm.until(lambda: joiner.participant.samples_contributed, within=10)

    simulate(scenario, data_parallel(epochs=2000, target_batch=2000), seed, parameters=620_000)


def test_who_is_too_slow_for_the_run_fetches_its_state_less_and_less() -> None:
    """A state takes it 12 seconds, in which the others go on by ten epochs."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=3000.0, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(5)
        slow = await swarm.start(2, speed=2000.0, link=Link(MEGABIT / 10, MEGABIT / 10))
        await swarm.until(lambda: slow.participant._joining._fetches == 4, within=120)
        await swarm.network.clock.sleep(4 * 12)  # as long as it rests, and fetches once more
        assert slow.participant._joining._fetches <= 5
        await swarm.until(lambda: slow.participant._joining._fetches == 7, within=400)  # but goes on doing so

    simulate(scenario, data_parallel(epochs=2000, target_batch=6000), parameters=18_000)


def test_a_joiner_that_could_not_fetch_the_state_for_a_while_is_not_alone_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its line has failed, not the others; and until it has their state, it plays no epochs of its own against them."""
    fetch, failures = joining.fetch_state, 2 * joining.EMPTY_CLAIMS

    async def fails_at_first(transport: Transport, like: ModelState, choice: Choice) -> ModelState:
        nonlocal failures
        if failures:
            failures -= 1
            raise ContentNotFound("nobody gives it")
        return await fetch(transport, like, choice)

    monkeypatch.setattr(joining, "fetch_state", fails_at_first)

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(4)
        joiner = await swarm.start(3)
        await swarm.until(lambda: not failures and joiner.participant.joined, within=400)
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=2000))


class Laggard(Participant):
    """Has the swarm's state, and stays where it is."""

    async def _play_round(self) -> None:
        await self._leaving.wait()

    async def _watch(self) -> None:
        await self._leaving.wait()


def test_who_is_always_late_costs_an_eighth() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await swarm.start(0)
        await swarm.start(1)
        await swarm.epoch(4)
        late = await swarm.start(2, make=Laggard)
        await swarm.until(lambda: late.participant.joined, within=60)
        await swarm.epoch(18)  # its state is remembered for 16 epochs
        times = [moment for _, moment in sorted(first.epoch_times.items())]
        seconds = dict(enumerate(np.diff(times)))
        ordinary = median(seconds[epoch] for epoch in range(8, 18) if epoch % GRACE_EVERY)
        assert 1.5 * ordinary < seconds[8] < 2.5 * ordinary
        assert all(seconds[epoch] < 1.2 * ordinary for epoch in range(9, 16))

    simulate(scenario, data_parallel(epochs=100))


@pytest.mark.parametrize("seed", range(16))
def test_a_joiner_that_runs_after_short_epochs_leaves_nobody_a_history_of_its_own(seed: int) -> None:
    """An epoch takes 0.2 s; the other closes it while the joiner still fetches the one before."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await swarm.start(0, speed=1000.0)
        await swarm.epoch(5)
        await swarm.network.clock.sleep(random.Random(seed).uniform(0, 1))
        joiner = await swarm.start(1, speed=1000.0)
        await swarm.until(lambda: joiner.participant.joined, within=60)
        await swarm.epoch(first.state.epoch + 12)
        assert (first.resyncs, joiner.resyncs) == (0, 0)
        assert all(first.digests.get(epoch, digest) == digest for epoch, digest in joiner.digests.items())

    simulate(scenario, data_parallel(epochs=200, target_batch=200), seed)


def test_a_joiner_is_served_by_several_members_at_once_while_rounds_go_on() -> None:
    """A state of six blocks, which takes the joiner four seconds; an epoch takes the others about one."""
    transports: list[CountingTransport] = []

    def counted(**given: Any) -> Participant:
        transports.append(CountingTransport(given["transport"]))
        return Participant(**(given | {"transport": transports[0]}))

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3, link=Link(100 * MEGABIT, 100 * MEGABIT))
        await swarm.epoch(3)
        await swarm.until(swarm.agree, within=30)
        joiner = await swarm.start(3, make=counted, link=Link(12 * MEGABIT, 12 * MEGABIT))
        await swarm.until(lambda: joiner.participant.joined, within=60)
        counts = transports[0].counts
        blocks = len(joiner.state.index.blocks)
        assert blocks == 6
        assert counts.by_holder.keys() == {swarm.peers[number].peer for number in range(3)}
        assert sum(counts.by_holder.values()) == blocks
        assert max(counts.by_holder.values()) <= blocks / 2
        assert counts.most_holders_at_once == 3
        meanwhile = [m for m in swarm.peers[0].epoch_times.values() if counts.began < m < counts.ended]
        assert len(meanwhile) >= 2
        await swarm.finish(within=300)

    simulate(scenario, data_parallel(epochs=8, codec="int8"), seed=9, parameters=750_000)


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


# -- lies -------------------------------------------------------------------------------------------------------------


class Forger(Participant):
    """Signs another digest than that of its state, wherever it is asked; `boast`: and a later epoch."""

    boast = 0

    async def start(self) -> None:
        await super().start()
        for kind in (HEAD_KIND, HELLO_KIND):
            del self._transport._services[kind]  # type: ignore[attr-defined]
        await self._transport.serve_requests(HEAD_KIND, self._forge_head)
        await self._transport.serve_requests(HELLO_KIND, self._forge_hello)

    async def _forge_head(self, _peer: PeerId, nonce: bytes) -> bytes:
        return self._signer.sign(Head(digests=(b"\x66" * 32,), nonce=nonce), self.state.epoch + self.boast).wire

    async def _forge_hello(self, _peer: PeerId, _wire: bytes) -> bytes:
        entry, epoch = self._entry()
        expires = self._transport.clock.wall() + entry.ttl_seconds
        forged = entry.model_copy(update={"state_digest": b"\x66" * 32, "expires": expires})
        return self._signer.sign(forged, epoch + self.boast).wire


class Boaster(Forger):
    boast = 10**9


class Corrupter(Participant):
    """Serves blocks with a flipped bit, and an index of nonsense."""

    async def start(self) -> None:
        await super().start()
        for kind in (INDEX_KIND, BLOCKS_KIND):
            del self._transport._services[kind]  # type: ignore[attr-defined]
        await self._transport.serve_requests(INDEX_KIND, self._corrupt_index)
        await self._transport.serve_streams(BLOCKS_KIND, self._corrupt_blocks)

    async def _corrupt_index(self, peer: PeerId, address: bytes) -> bytes:
        return (await self.contents.serve_index(peer, address))[:-1] + b"x"

    async def _corrupt_blocks(self, stream: Stream) -> None:
        await self.contents.serve_blocks(CorruptingStream(stream))


class CorruptingStream(Stream):
    def __init__(self, stream: Stream) -> None:
        self.peer, self._stream = stream.peer, stream
        self.receive, self.close, self.abort = stream.receive, stream.close, stream.abort  # type: ignore[method-assign]

    async def send(self, frame) -> None:
        payload = bytearray(frame.payload)
        payload[-1] ^= 1
        await self._stream.send(type(frame)(frame.header, payload))

    async def receive(self): ...
    async def close(self) -> None: ...
    def abort(self) -> None: ...


@pytest.mark.parametrize("liar", [Forger, Boaster, Corrupter])
def test_a_joiner_gets_the_right_state_in_spite_of_a_liar(liar: type[Participant]) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.start(3, make=liar)
        await swarm.epoch(5)
        joiner = await swarm.start(4)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert swarm.peers[0].digests[joiner.state.epoch] == joiner.state.digest
        if liar is Corrupter:
            assert joiner.rejections.by_peer[swarm.peers[3].peer, Reason.WRONG_DIGEST]
        await swarm.finish(within=200)
        assert all(samples(swarm)[:3])
        honest = [swarm.peers[number].peer for number in (0, 1, 2, 4)]
        blamed = {who for peer in swarm.running for who, reason in peer.rejections.by_peer if reason not in HARMLESS}
        assert blamed.isdisjoint(honest)

    parameters = 1_100_000 if liar is Corrupter else 300_000  # as many blocks as holders: each is asked for one
    simulate(scenario, data_parallel(epochs=10, target_batch=800), seed=5, parameters=parameters)


def test_a_flood_of_stale_and_repeated_messages_stops_nobody() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(3)
        who = identity(99)
        flooder = swarm.network.join(who.peer_id)
        signer = Signer(who, swarm.manifest.run_id, 1)
        target = swarm.peers[0]
        await flooder.connect(target.peer, target.transport.addresses)
        old = signer.sign(Standing(base=b"\x01" * 32, samples=1), 0).wire
        refused = 0
        for number in range(600):
            epoch = [0, 10**9, target.state.epoch][number % 3]
            progress = Progress(
                base=target.state.digest,
                samples=0,
                complete=True,
                client_mode=True,
                samples_per_second=0.0,
            )
            for wire in (old, signer.sign(progress, epoch).wire):
                try:
                    await flooder.request(target.peer, ROUND_KIND, wire, 5.0)
                except TransportError:
                    refused += 1
        assert refused
        assert len(target.participant._conversation.sessions) <= 8
        await flooder.close()
        await swarm.finish(within=100)
        assert all(samples(swarm))

    simulate(scenario, data_parallel(epochs=40), seed=6)


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


# -- roles and links --------------------------------------------------------------------------------------------------


@MODES
def test_every_role_does_its_part(manifest_of: ManifestOf) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        aggregator = await swarm.start(2, role="aggregator")
        clients = [await swarm.start(3, client_mode=True), await swarm.start(4, client_mode=True)]
        monitor = await swarm.start(5, role="monitor")
        await swarm.finish(within=200)
        assert all(client.participant.samples_contributed for client in clients)
        assert aggregator.participant.samples_contributed == 0
        assert aggregator.participant.last_round is not None
        assert aggregator.participant.last_round[1].bytes_received > 0
        assert aggregator.participant.last_round[1].bytes_sent > 0
        assert monitor.state.epoch == 0
        assert len(monitor.participant.membership.roster) == 5
        check_nobody_was_charged(swarm)

    simulate(scenario, manifest_of(epochs=15), seed=7)


@pytest.mark.parametrize("seed", range(4))
def test_bad_links(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(5):
            link = Link(
                upload_bytes_per_second=chance.uniform(1, 100) * MEGABIT,
                download_bytes_per_second=chance.uniform(1, 100) * MEGABIT,
                latency_seconds=chance.uniform(0.005, 0.1),
                jitter_seconds=chance.uniform(0, 0.1),
                loss=chance.choice([0, 0.002, 0.01]),
            )
            await swarm.start(number, speed=100.0, link=link)
        await swarm.finish(within=400)
        assert all(samples(swarm))
        check_nobody_was_charged(swarm)

    simulate(scenario, [data_parallel, local_sgd][seed % 2](epochs=12), seed)


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_a_member_with_a_slow_link_contributes(codec: str) -> None:
    """5 Mbit/s among 100 Mbit/s, and an update of 600 kB."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(4):
            rate = (5 if number == 3 else 100) * MEGABIT
            await swarm.start(number, link=Link(rate, rate))
        await swarm.finish(within=300)
        counts = samples(swarm)
        assert min(counts) > 0.1 * sum(counts)
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=10, codec=codec, target_batch=4000), parameters=150_000)


def test_a_slow_link_does_not_slow_the_rounds_by_half() -> None:
    """1.25 Mbit/s among 25 Mbit/s, and an update of 4 MB: 26 seconds of that link, two or three of the others'."""

    def seconds(slow_rate: float) -> float:
        rounds: list[float] = []

        async def scenario(swarm: SimulatedSwarm) -> None:
            for number in range(4):
                rate = slow_rate if number == 3 else 25 * MEGABIT
                await swarm.start(number, link=Link(rate, rate))
            for epoch in range(2, 9):
                await swarm.until(lambda epoch=epoch: swarm.peers[0].state.epoch >= epoch, within=200)
                last = swarm.peers[0].participant.last_round
                assert last is not None
                rounds.append(last[1].duration_seconds)
            check_nobody_was_charged(swarm)

        simulate(scenario, data_parallel(target_batch=8000), parameters=1_000_000)
        return median(rounds[2:])  # the first ones share the parts out as if all were equal

    assert seconds(1.25 * MEGABIT) <= 1.5 * seconds(25 * MEGABIT)


# -- for long ---------------------------------------------------------------------------------------------------------


def test_a_long_run_takes_no_more_memory_and_leaves_no_tasks() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2, speed=1000.0)
        await swarm.epoch(50)
        tasks = len(asyncio.all_tasks())
        await swarm.epoch(300, within=2000)
        assert len(asyncio.all_tasks()) < tasks + 20
        assert all(swarm.network.open_connections(peer.peer) < 250 for peer in swarm.members)
        for peer in swarm.members:
            participant = peer.participant
            assert len(participant._conversation.sessions) <= 8
            assert len(participant._results._epochs) <= 8
            assert len(participant._heads.history) <= 16
            assert len(participant.contents._contents) <= 32
            assert len(participant._conversation.sessions._early) < 10
            assert len(participant._conversation.outbox._pending) <= 1
        check_nobody_was_charged(swarm)

    simulate(scenario, data_parallel(epochs=100_000, target_batch=200))


def test_the_same_seed_gives_the_same_trace() -> None:
    async def scenario(swarm: SimulatedSwarm) -> str:
        await swarm.start_all(4, 0.3)
        await swarm.epoch(4)
        await swarm.crash(swarm.peers[1])
        await swarm.finish(within=100)
        return swarm.network.trace()

    link = Link(jitter_seconds=0.02, loss=0.002)
    first, second = (simulate(scenario, data_parallel(epochs=10), 8, link) for _ in range(2))
    assert first == second
