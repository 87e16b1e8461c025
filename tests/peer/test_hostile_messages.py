"""Participants in mid-training, and an attacker with a valid identity that sends them whatever it likes.

What is bad is refused, counted under its reason and charged to its sender; training goes on to the end, and the honest
have the same bits after every epoch.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from dht.interfaces import MAX_STREAMS_PER_PEER, Frame, Unreachable
from peer.contents import BLOCKS_KIND
from peer.rounds.exchange import PART_KIND
from peer.rounds.post import ROUND_KIND
from peer.rounds.results import FETCH_KIND
from peer.rounds.sessions import EARLY_MESSAGES_OF_ONE
from protocols.identity import Identity
from protocols.rejection import Reason
from protocols.round.messages import Wait
from tests.peer.attacks import (
    BAD_REQUESTS,
    BAD_STREAMS,
    FORGED,
    Attacker,
    BadRequest,
    BadStream,
    Situation,
    messages_of_another_round,
)
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, data_parallel, identity, simulate

EPOCHS = 6
ATTACK_EPOCH = 2
ATTACKER = 99
STRANGER = Identity.from_seed(b"s" * 32)

Attack = Callable[[Attacker, SimulatedPeer, SimulatedSwarm], Awaitable[None]]


async def attacker_of(swarm: SimulatedSwarm, number: int = ATTACKER) -> Attacker:
    """Connected to everybody, and known to nobody as a member."""
    who = identity(number)
    transport = swarm.network.join(who.peer_id)
    for peer in swarm.running:
        await transport.connect(peer.peer, peer.transport.addresses)
    return Attacker(who, transport, swarm.manifest.run_id)


def situation_of(attacker: Attacker, victim: SimulatedPeer) -> Situation:
    return Situation(attacker, STRANGER, victim.state.epoch, victim.state.digest)


def under(attack: Attack, caplog: pytest.LogCaptureFixture, epochs: int = EPOCHS) -> Counter[str]:
    """Three train, the first one is attacked; what it refused of the attacker, once all is well at the end."""

    async def scenario(swarm: SimulatedSwarm) -> Counter[str]:
        await swarm.start_all(3)
        await swarm.until(lambda: swarm.agree() and swarm.peers[0].state.epoch >= ATTACK_EPOCH, within=60)
        for peer in swarm.members:
            peer.rejections.by_peer.clear()  # who starts at once refuses the others until it has joined
        victim = swarm.peers[0]
        attacker = await attacker_of(swarm)
        await attack(attacker, victim, swarm)
        await swarm.finish(within=600)
        await attacker.transport.close()
        check_all_is_well(swarm, attacker)
        await swarm.network.clock.sleep(1)
        assert [name for task in asyncio.all_tasks() if attacker.peer in (name := task.get_name())] == []
        return Counter({reason: n for (peer, reason), n in victim.rejections.by_peer.items() if peer == attacker.peer})

    with caplog.at_level(logging.ERROR):
        refused = simulate(scenario, data_parallel(epochs), parameters=2048)
    assert caplog.records == []
    return refused


def check_all_is_well(swarm: SimulatedSwarm, attacker: Attacker) -> None:
    honest = [swarm.peers[number] for number in range(3)]
    for epoch in range(ATTACK_EPOCH, swarm.manifest.epochs + 1):
        assert len({peer.digests[epoch] for peer in honest if epoch in peer.digests}) == 1, f"epoch {epoch}"
    for peer in honest:
        assert peer.running
        assert peer.participant.samples_contributed > 0
        assert {sender for sender, _ in peer.rejections.by_peer} <= {attacker.peer}, peer.rejections.words
        assert peer.rejections.by_reason["handler_failed"] == 0


def check_nobody(attacker: Attacker, victim: SimulatedPeer) -> None:
    """The attacker has become nothing to its victim."""
    session = victim.participant._conversation.sessions.get(victim.state.epoch)
    assert attacker.peer not in session.machine.peers
    assert victim.participant.membership.roster.get(attacker.peer) is None


def in_batches(bad: Sequence[BadRequest | BadStream], size: int = 20) -> list[Sequence[BadRequest | BadStream]]:
    """Few enough that the sender is not suspended before the last one."""
    return [bad[start : start + size] for start in range(0, len(bad), size)]


@pytest.mark.parametrize("batch", in_batches(BAD_REQUESTS), ids=lambda batch: f"{batch[0].kind}-{batch[0].name}")
def test_bad_requests_are_refused_and_counted(batch: Sequence[BadRequest], caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        for bad in batch:
            body = bad.body(situation_of(attacker, victim))
            assert await attacker.ask(victim.peer, bad.kind, body) == bad.reason, (bad.kind, bad.name)
        check_nobody(attacker, victim)

    assert under(attack, caplog) == Counter(str(bad.reason) for bad in batch)


@pytest.mark.parametrize("batch", in_batches(BAD_STREAMS), ids=lambda batch: f"{batch[0].kind}-{batch[0].name}")
def test_bad_streams_are_broken_and_counted(batch: Sequence[BadStream], caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        for bad in batch:
            before = victim.rejections.by_peer[attacker.peer, bad.reason]
            await attacker.stream(victim.peer, bad.kind, bad.frames(situation_of(attacker, victim)))
            assert victim.rejections.by_peer[attacker.peer, bad.reason] == before + 1, (bad.kind, bad.name)
        check_nobody(attacker, victim)

    assert under(attack, caplog) == Counter(str(bad.reason) for bad in batch)


def test_oversized_request_is_refused_by_the_transport(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        assert await attacker.ask(victim.peer, ROUND_KIND, bytes(8 * 1024 * 1024)) == Reason.OVERSIZED

    assert under(attack, caplog) == {Reason.OVERSIZED: 1}


def test_what_a_member_said_cannot_be_said_again(caplog: pytest.LogCaptureFixture) -> None:
    """Captured from honest members, who take the attacker for one of them; and the attacker's own words, twice."""
    captured: list[bytes] = []

    async def capture(_peer: object, wire: bytes) -> bytes:
        captured.append(wire)
        return b""

    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        await attacker.transport.serve_requests(ROUND_KIND, capture)
        await attacker.pretend(swarm.members[0].participant)
        for peer in swarm.members:
            assert await attacker.hello(peer.peer) == ""
        await swarm.until(lambda: len(captured) >= 2, within=60)
        for wire in captured[:5]:
            assert await attacker.ask(victim.peer, ROUND_KIND, wire) in (Reason.WRONG_SENDER, "")  # a Done may be shown
        own = attacker.wire(Wait(term=0), victim.state.epoch)
        assert await attacker.ask(victim.peer, ROUND_KIND, own) == ""
        assert await attacker.ask(victim.peer, ROUND_KIND, own) == Reason.REPLAYED

    refused = under(attack, caplog)
    assert refused[Reason.REPLAYED] == 1
    assert refused[Reason.WRONG_SENDER] >= 1


@pytest.mark.parametrize("away", [-ATTACK_EPOCH, 3, 2**52])
def test_epochs_that_are_not_played_change_nothing(away: int, caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        epoch = max(0, victim.state.epoch + away)
        for body in messages_of_another_round():
            assert await attacker.say(victim.peer, body, epoch) == ""
        check_nobody(attacker, victim)

    assert under(attack, caplog) == {}


def test_messages_of_the_next_epoch_are_kept_only_so_many(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        situation = situation_of(attacker, victim)
        epoch = victim.state.epoch + 1
        async with asyncio.TaskGroup() as tasks:
            said = [tasks.create_task(attacker.say(victim.peer, situation.progress(), epoch)) for _ in range(40)]
        answers = Counter(task.result() for task in said)
        assert answers == {"": EARLY_MESSAGES_OF_ONE, Reason.BUSY: 40 - EARLY_MESSAGES_OF_ONE}

    assert under(attack, caplog) == {Reason.BUSY: 40 - EARLY_MESSAGES_OF_ONE}


@pytest.mark.parametrize("kind", [PART_KIND, FETCH_KIND, BLOCKS_KIND])
def test_streams_that_stay_silent_hold_up_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        for _ in range(MAX_STREAMS_PER_PEER):
            await attacker.transport.open_stream(victim.peer, kind)
        one_more = await attacker.transport.open_stream(victim.peer, kind)
        with pytest.raises(Unreachable):
            await one_more.receive()

    assert under(attack, caplog)[Reason.BUSY] == 1


def test_who_takes_us_for_the_owner_of_a_part_is_not_charged_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """Its leader may have told it so, of many parts, to have it suspended here."""
    streams = 40

    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        contribution = Frame(situation_of(attacker, victim).signed(situation_of(attacker, victim).contribution()))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(streams):
                tasks.create_task(attacker.stream(victim.peer, PART_KIND, [contribution]))

    assert under(attack, caplog) == {Reason.ABSENT: streams}


def test_thousands_of_requests_at_once_are_answered_or_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        situation = situation_of(attacker, victim)
        wires = [situation.signed(situation.progress(base=FORGED)) for _ in range(1000)]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(attacker.ask(victim.peer, ROUND_KIND, wire)) for wire in wires]
        answers = Counter(task.result() for task in asked)
        assert set(answers) <= {"", Reason.BUSY}
        assert answers[""] >= 1

    assert set(under(attack, caplog)) <= {Reason.BUSY}


def test_who_sends_too_much_rubbish_is_disconnected(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        for _ in range(32):
            assert await attacker.ask(victim.peer, ROUND_KIND, b"rubbish") == Reason.MALFORMED
        with pytest.raises(Unreachable):
            await attacker.ask(victim.peer, ROUND_KIND, b"rubbish")
        assert await attacker.say(victim.peer, Wait(term=0), victim.state.epoch) == Reason.BUSY

    assert under(attack, caplog) == {Reason.MALFORMED: 33, Reason.BUSY: 1}


def test_messages_of_another_history_make_their_sender_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither now nor when the epoch begins that they are for."""

    async def attack(attacker: Attacker, victim: SimulatedPeer, swarm: SimulatedSwarm) -> None:
        for ahead in (0, 1):
            for body in messages_of_another_round():
                assert await attacker.say(victim.peer, body, victim.state.epoch + ahead) == ""
        check_nobody(attacker, victim)
        await swarm.epoch(victim.state.epoch + 1)
        check_nobody(attacker, victim)

    assert under(attack, caplog) == {}
