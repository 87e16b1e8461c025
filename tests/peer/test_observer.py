"""Looking at a simulated swarm without being in it."""

import asyncio

import pytest

from dht.simulated_link import Link
from peer.errors import PeerError
from peer.observer import Observer
from peer.rejections import Rejections
from protocols.identity import Identity
from protocols.signed import Signer
from tests.peer.attacks import Attacker
from tests.peer.simulated_swarm import SimulatedSwarm, data_parallel, simulate

MANIFEST = data_parallel(epochs=20)
OBSERVER = Identity.from_seed(b"o" * 32)


def observer_of(swarm: SimulatedSwarm, *, manifest=None) -> Observer:
    transport = swarm.network.join(OBSERVER.peer_id, client_mode=True)
    signer = Signer(OBSERVER, swarm.manifest.run_id, 0)
    return Observer(transport, swarm.network.records(OBSERVER.peer_id), signer, manifest, Rejections())


def test_an_observer_sees_what_the_members_sign():
    async def scenario(swarm):
        await swarm.start_all(3)
        await swarm.start(3, role="monitor")
        await swarm.epoch(5)
        await swarm.network.clock.sleep(25)  # by then every record has been published again
        status = await observer_of(swarm).look()
        assert status.self_ is None
        assert status.run.id == swarm.manifest.run_id
        assert status.run.name == "simulated"
        assert status.run.total_epochs == 20
        assert [member.name for member in status.peers] == ["peer 0", "peer 1", "peer 2", "peer 3"]
        trainers = [member for member in status.peers if member.role == "trainer"]
        assert all(abs(member.epoch - status.run.epoch) <= 1 for member in trainers)
        assert all(member.state_digest == swarm.peers[0].digests[member.epoch].hex() for member in trainers)
        await swarm.finish(300)
        assert (await observer_of_again(swarm)).run.state == "finished"

    async def observer_of_again(swarm):
        other = Identity.from_seed(b"p" * 32)
        transport = swarm.network.join(other.peer_id, client_mode=True)
        signer = Signer(other, swarm.manifest.run_id, 0)
        records = swarm.network.records(other.peer_id)
        return await Observer(transport, records, signer, swarm.manifest, Rejections()).look()

    simulate(scenario, MANIFEST)


def test_an_observer_is_no_member():
    async def scenario(swarm):
        await swarm.start_all(2)
        observer = observer_of(swarm)
        await swarm.epoch(3)
        for _ in range(5):
            await observer.look()
            await swarm.network.clock.sleep(1)
        assert all(len(peer.participant.membership.roster) == 1 for peer in swarm.running)
        assert OBSERVER.peer_id not in {member.peer_id for member in (await observer.look()).peers}

    simulate(scenario, MANIFEST)


def test_an_observer_takes_the_state_that_members_sign():
    async def scenario(swarm):
        await swarm.start_all(3)
        await swarm.finish(300)
        state, choice = await observer_of(swarm).take_state(swarm.initial)
        assert state.digest == swarm.peers[0].state.digest
        assert len(choice.holders) == 3

    simulate(scenario, MANIFEST)


def test_a_run_without_members_is_told():
    async def scenario(swarm):
        with pytest.raises(PeerError, match=r"nobody is in run simulated-.*; check the run id"):
            await observer_of(swarm).look()

    simulate(scenario, MANIFEST)


def test_members_that_cannot_be_reached_are_shown_by_their_records():
    async def scenario(swarm):
        await swarm.start_all(2)
        await swarm.epoch(2)
        for peer in swarm.running:
            await swarm.crash(peer)
        observer = observer_of(swarm, manifest=swarm.manifest)
        status = await observer.look()
        assert len(status.peers) == 2
        assert status.run.epoch == 0
        with pytest.raises(PeerError, match="has a state yet"):
            await observer.take_state(swarm.initial)
        async with asyncio.timeout(200):
            while True:
                try:
                    await observer.look()
                except PeerError:
                    return
                await swarm.network.clock.sleep(5)

    simulate(scenario, MANIFEST)


def test_records_of_members_that_are_nowhere_do_not_keep_an_observer_for_minutes():
    """Anybody can plant some hundred of them; dialled a few at a time, each for as long as a dial may take."""

    async def scenario(swarm):
        await swarm.start_all(3)
        await swarm.epoch(3)
        nowhere = [Identity.from_seed(f"nowhere {number}".encode().ljust(32)) for number in range(200)]
        for who in nowhere:
            transport = swarm.network.join(who.peer_id, link=Link(latency_seconds=60))
            attacker = Attacker(who, transport, swarm.manifest.run_id)
            entry = attacker.roster_entry(None, addresses=transport.addresses)
            record = attacker.signer.sign(entry, 0)
            assert await swarm.network.records(swarm.peers[0].peer).publish(record, entry.expires)
        began = swarm.now
        status = await observer_of(swarm).look()
        assert swarm.now - began < 60
        assert len(status.peers) > 200
        assert status.run.epoch >= 3

    simulate(scenario, data_parallel(epochs=100_000))
