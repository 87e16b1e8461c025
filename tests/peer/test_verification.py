"""Members check each other: liars of every kind are found out and banned by all honest members, and nobody else is."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dht.interfaces import Refused, Unreachable
from dht.simulated_link import Link
from peer.misbehaviour import PROTOCOL_ATTACKS
from peer.misbehaviour.owners import WithheldPart
from peer.participant import Participant
from peer.verification.checks import WRONG_OBSERVATION, WRONG_PART, Checks
from peer.verification.inputs import INPUTS_KIND
from peer.verification.inspector import CHARGES_OF_ONE, VERIFY_KIND
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Averaging, Manifest, Verification
from protocols.message import Message
from protocols.rejection import Reason
from protocols.round.messages import PartResult, Prepared, Result
from protocols.rules import DistanceRule, Matrix
from protocols.signed import Signed, Signer
from protocols.verification.charges import OwnerCharge, SenderCharge
from protocols.verification.equivocation import Equivocation, Testimony
from protocols.verification.seed import Reveal, SeedWord
from tests.peer.simulated_swarm import (
    SimulatedPeer,
    SimulatedSwarm,
    data_parallel,
    distance,
    identity,
    local_sgd,
    simulate,
)
from tests.peer.test_robust_rounds import ATTACKS, HONEST, Liar

ATTACKERS = (HONEST, HONEST + 1)
EPOCHS_UNTIL_BANNED = 15
TURNS = 3
"""Some have to be leaders or validators first, in their turn."""
RULES = ["median", "nnm | trimmed_mean"]


def verified(rule: str = "median", make: Callable[..., Manifest] = data_parallel, codec: str = "none") -> Manifest:
    return make(epochs=200, codec=codec).model_copy(
        update={
            "averaging": Averaging(rule=rule, byzantine=2, quorum=5, codec=codec),
            "verification": Verification(validators=3),
        }
    )


def banned(peer: SimulatedPeer) -> set[str]:
    return set(peer.participant.company.admission.banned)


async def until_banned(swarm: SimulatedSwarm, liars: list[SimulatedPeer]) -> int:
    """All honest ban all liars and nobody else; returns how many epochs that took."""
    honest = [swarm.peers[number] for number in range(HONEST)]
    await swarm.until(lambda: all(peer.participant.joined for peer in honest), within=60)
    first = min(peer.state.epoch for peer in honest)
    expected = {liar.peer for liar in liars}
    await swarm.until(lambda: all(banned(peer) >= expected for peer in honest), within=600)
    epochs = max(peer.state.epoch for peer in honest) - first
    await swarm.epoch(max(peer.state.epoch for peer in honest) + 3)
    await swarm.until(lambda: len({peer.state.digest for peer in honest}) == 1, within=60)
    assert all(banned(peer) == expected for peer in honest)
    return epochs


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attack", ATTACKS, ids=["sign flip", "alie", "ipm", "delayed"])
def test_who_sends_something_else_than_its_work_is_banned_by_all(attack: Any, rule: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, learns=partial(Liar, attack())) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= EPOCHS_UNTIL_BANNED

    simulate(scenario, verified(rule), seed=1)


def test_a_quorum_that_the_liars_were_needed_for_is_one_without_them() -> None:
    manifest = verified("nnm | trimmed_mean")
    manifest = manifest.model_copy(update={"averaging": manifest.averaging.model_copy(update={"quorum": HONEST + 2})})

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, learns=partial(Liar, ATTACKS[0]())) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= EPOCHS_UNTIL_BANNED

    simulate(scenario, manifest, seed=1)


def test_one_who_finds_out_several_at_once_is_heard_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A charge that is refused does not come again; and whom only some have banned may get into no round any more, so
    that nobody else finds it out. But nobody fills the others' time."""
    judged = asyncio.Event()

    async def slow(_checks: Checks, _charge: Signed[Any], _group: frozenset[PeerId]) -> None:
        await judged.wait()

    monkeypatch.setattr(Checks, "judge", slow)

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        await swarm.epoch(3)
        accuser, judge = swarm.peers[0].participant, swarm.peers[1]
        answers = []
        for number in range(CHARGES_OF_ONE + 2):
            body = SenderCharge(begin=b"", contribution=b"", chunk=number, payload=b"")
            wire = accuser._signer.sign(body, judge.state.epoch - 1).wire
            try:
                await swarm.peers[0].transport.request(judge.peer, VERIFY_KIND, wire, 5.0)
                answers.append("")
            except Refused as error:
                answers.append(error.reason)
        judged.set()
        assert answers == [""] * CHARGES_OF_ONE + [Reason.BUSY] * 2

    simulate(scenario, verified(), seed=1)


@pytest.mark.parametrize("codec", ["none", "float16", "int8"])
@pytest.mark.parametrize("make", [data_parallel, local_sgd])
def test_nobody_is_banned_who_works(make: Callable[..., Manifest], codec: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        await swarm.epoch(12)
        assert all(not banned(peer) for peer in swarm.members)
        checked = [peer.participant.inspector.validated_samples for peer in swarm.members]
        assert sum(checked) > 0

    simulate(scenario, verified("nnm | trimmed_mean", make, codec), seed=2)


def test_members_whom_nobody_can_dial_check_the_others_as_often() -> None:
    """They hear from the few that they can dial what all others have revealed for the seed."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(9):
            await swarm.start(number, client_mode=number >= 2)
        await swarm.epoch(20)
        checked = [peer.participant.inspector.validated_samples for peer in swarm.members]
        assert all(checked)

    simulate(scenario, verified(), seed=1)


# -- owners -----------------------------------------------------------------------------------------------------------


class FalseDistances(DistanceRule):
    """Seems to see that the second member is far from everybody."""

    def observe(self, rows: NDArray[np.float32]) -> Matrix:
        gram = super().observe(rows)
        gram[1, 1] *= 100
        return gram


def with_false_distances(**given: Any) -> Participant:
    participant = Participant(**given)
    averaging = participant.manifest.averaging
    participant._plan = replace(participant._plan, rule=FalseDistances(averaging.rule, averaging.byzantine, {}))
    return participant


def with_false_distances_and_no_result(**given: Any) -> Participant:
    """Another owner gives the result in its stead, by the weights that it has falsified."""
    return with_false_distances(**(given | {"transport": WithheldPart(given["transport"], given["signer"])}))


class OtherObservations(Signer):
    """Says of its results that they follow from what nobody has observed, so that nobody could check them."""

    def sign(self, body: Message, epoch: int) -> Signed[Any]:
        if isinstance(body, Result):
            body = body.model_copy(update={"weighed": digest(b"nothing")})
        return super().sign(body, epoch)


def with_a_wrong_part_of_other_observations(**given: Any) -> Participant:
    honest = given["signer"]
    signer = OtherObservations(honest.identity, honest.run, 1)
    return PROTOCOL_ATTACKS["wrong_part"](**(given | {"signer": signer}))


@pytest.mark.parametrize(
    ("rule", "make", "why"),
    [
        ("median", PROTOCOL_ATTACKS["wrong_part"], WRONG_PART),
        ("nnm | trimmed_mean", PROTOCOL_ATTACKS["wrong_part"], WRONG_PART),
        ("nnm | trimmed_mean", with_false_distances, WRONG_OBSERVATION),
        ("nnm | trimmed_mean", with_false_distances_and_no_result, WRONG_OBSERVATION),
    ],
    ids=["coordinates", "weights", "distances", "distances for others"],
)
def test_who_reduces_something_else_than_it_was_sent_is_banned_by_all(rule: str, make: Any, why: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, make=make) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= EPOCHS_UNTIL_BANNED
        assert set(swarm.peers[0].participant.company.admission.banned.values()) == {why}

    simulate(scenario, verified(rule), seed=1)


def test_a_result_that_nobody_could_check_is_nobodys() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, make=with_a_wrong_part_of_other_observations) for number in ATTACKERS]
        await swarm.epoch(25)
        honest = [swarm.peers[number] for number in range(HONEST)]
        assert distance(honest[0].state) < 2
        for liar in liars:
            assert any((liar.peer, Reason.UNEXPECTED) in peer.rejections.by_peer for peer in honest)

    simulate(scenario, verified("nnm | trimmed_mean"), seed=1)


# -- stories ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["two_begins", "two_results", "two_commitments", "false_charge"])
def test_who_says_two_things_or_charges_the_innocent_is_banned_by_all(attack: str) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, make=PROTOCOL_ATTACKS[attack]) for number in ATTACKERS]
        assert await until_banned(swarm, liars) <= TURNS * EPOCHS_UNTIL_BANNED

    simulate(scenario, verified("nnm | trimmed_mean"), seed=1)


# -- those who come later ---------------------------------------------------------------------------------------------


def test_who_joins_later_takes_over_the_bans() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        liars = [await swarm.start(number, learns=partial(Liar, ATTACKS[0]())) for number in ATTACKERS]
        await until_banned(swarm, liars)
        joiner = await swarm.start(9)
        await swarm.until(lambda: joiner.participant.joined, within=60)
        assert banned(joiner) == {liar.peer for liar in liars}
        await swarm.until(lambda: joiner.participant.samples_contributed, within=60)

    simulate(scenario, verified(), seed=1)


# -- those who are not to blame ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_banned_who_crashes_or_is_slow(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(HONEST + 2):
            await swarm.start(number, link=Link(1.25e5, 1.25e5) if number == 0 else None)
        await swarm.epoch(2)
        for _ in range(6):
            await swarm.network.clock.sleep(chance.uniform(0.2, 3))
            victim = swarm.peers[chance.randrange(1, HONEST + 2)]
            await swarm.crash(victim)
            await swarm.network.clock.sleep(chance.uniform(0.2, 2))
            await swarm.restart(victim)
        first = max(peer.state.epoch for peer in swarm.members)
        await swarm.epoch(first + 8)
        assert all(not banned(peer) for peer in swarm.members)

    simulate(scenario, verified("nnm | trimmed_mean"), seed)


# -- strangers --------------------------------------------------------------------------------------------------------


def test_strangers_have_nobody_to_charge_and_nothing_to_say() -> None:
    """A stranger's own equivocation is proof enough, and bans nobody: of strangers there are any number."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(HONEST)
        await swarm.epoch(3)
        victim = swarm.peers[0]
        who = identity(77)
        stranger = swarm.network.join(who.peer_id)
        await stranger.connect(victim.peer, victim.transport.addresses)
        signer = Signer(who, swarm.manifest.run_id, 1000)
        epoch = victim.state.epoch - 1
        first, second = (signer.sign(Prepared(base=digest(b"b"), term=0, results=(made_up(n),)), epoch) for n in (1, 2))
        words: list[tuple[Message, str]] = [
            (Equivocation(first=first.wire, second=second.wire), ""),
            (Equivocation(first=first.wire, second=first.wire), Reason.UNEXPECTED),
            (Testimony(statement=first.wire), ""),
            (Testimony(statement=b"noise"), Reason.MALFORMED),
            (SeedWord(done=digest(b"done"), reveal=reveal()), Reason.UNEXPECTED),
            (SenderCharge(begin=b"", contribution=b"", chunk=0, payload=b""), Reason.UNEXPECTED),
            (OwnerCharge(begin=b"", result=b"", observed=(), chunk=None, payload=b""), Reason.UNEXPECTED),
        ]
        for body, expected in words:
            answered = ""
            try:
                await stranger.request(victim.peer, VERIFY_KIND, signer.sign(body, epoch).wire, 5.0)
            except Refused as error:
                answered = error.reason
            assert answered == expected, body.kind
        stream = await stranger.open_stream(victim.peer, INPUTS_KIND)
        with pytest.raises(Unreachable):
            await stream.receive()
        assert not banned(victim)
        await swarm.epoch(victim.state.epoch + 2)

    simulate(scenario, verified(), seed=1)


def made_up(number: int) -> PartResult:
    return PartResult(start=0, stop=1, digest=digest(bytes([number])))


def reveal() -> Reveal:
    return Reveal(base=digest(b"base"), secret=digest(b"secret"), secrets=(), shares=(), key=None, asks=())
