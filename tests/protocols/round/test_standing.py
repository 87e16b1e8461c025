"""Newcomers and suspended members in a round, and what it remembers of those who kept it waiting."""

import random
from typing import Any

import pytest

from protocols.identity import PeerId
from protocols.round.events import Left, Needed
from protocols.round.machine import Phase
from protocols.round.order import order
from protocols.suspension import Fault
from tests.protocols.round.simulation import PEERS, RUN, Swarm
from tests.protocols.round.test_machine import LIMIT, STORM, WEATHERS, WEIGHS, Strike, check_agreement

SENIORS = frozenset(PEERS[:4])
WAITED = 60.0
"""Seconds: longer than any round takes for which enough are there."""


def probation(_peer: PeerId) -> dict[str, Any]:
    return {"seniors": SENIORS, "electorate": SENIORS}


def groups(swarm: Swarm) -> list[tuple[PeerId, ...]]:
    return list({node.machine.done.body.members for node in swarm.survivors if node.machine.done is not None})


@WEIGHS
@pytest.mark.parametrize("target", [100, None])
@pytest.mark.parametrize("count", [5, 6, 16, 40])
def test_newcomers_make_up_their_share_of_the_group_and_all_get_the_result(
    count: int, target: int | None, weighs: bool
) -> None:
    swarm = Swarm(count, count, target=target, views=probation, weighs=weighs)
    swarm.run(LIMIT)
    check_agreement(swarm)
    (group,) = groups(swarm)
    assert set(group) > SENIORS
    assert len(group) == 5
    assert all(node.outcome is not None for node in swarm.nodes.values())
    assert {node.machine.leader for node in swarm.nodes.values() if node.peer in SENIORS} <= SENIORS
    assert swarm.now < 12


def test_silent_newcomers_are_not_waited_for_longer_than_one() -> None:
    """However many they are: the seniors are always most of those who are waited for."""
    swarm = Swarm(1, 40, views=probation)
    for node in swarm.nodes.values():
        node.mute = node.peer not in SENIORS
    swarm.run(8)
    assert all(swarm.nodes[peer].outcome is not None for peer in SENIORS)
    assert groups(swarm) == [tuple(order(RUN, 7, SENIORS))]


def test_the_quorum_is_made_up_of_newcomers_where_seniors_are_too_few() -> None:
    swarm = Swarm(2, 12, views=probation, quorum=8)
    swarm.run(LIMIT)
    check_agreement(swarm)
    assert [len(group) for group in groups(swarm)] == [8]


def test_newcomers_lead_where_no_senior_is_left() -> None:
    swarm = Swarm(3, 7, views=probation)
    for peer in SENIORS:
        swarm.kill(swarm.nodes[peer])
    swarm.run(LIMIT)
    check_agreement(swarm)
    assert all(node.outcome is not None for node in swarm.survivors)


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize("block", range(4))
def test_members_that_have_suspended_whom_they_like_agree_all_the_same(block: int, weather: Any) -> None:
    for seed in range(40 * block, 40 * block + 40):
        chance = random.Random(seed)
        members = PEERS[: 5 + seed % 4]

        def view(peer: PeerId, chance: random.Random = chance, members: list[PeerId] = members) -> dict[str, Any]:
            suspended = frozenset(chance.sample(members, chance.choice([0, 1, 2, 4]))) - {peer}
            return probation(peer) | {"suspended": suspended, "not_owning": suspended}

        swarm = Swarm(seed, len(members), weather, [100, None][seed % 2], views=view)
        swarm.run(LIMIT)
        check_agreement(swarm)


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize("block", range(4))
def test_members_of_whom_some_take_a_newcomer_for_a_senior_agree_all_the_same(block: int, weather: Any) -> None:
    """They have seen another number of its rounds."""
    for seed in range(40 * block, 40 * block + 40):
        chance = random.Random(seed)
        promoted = SENIORS | {PEERS[4]}

        def view(
            _peer: PeerId, chance: random.Random = chance, promoted: frozenset[PeerId] = promoted
        ) -> dict[str, Any]:
            seniors = chance.choice([SENIORS, promoted])
            return {"seniors": seniors, "electorate": seniors}

        swarm = Swarm(seed, 5 + seed % 4, weather, [100, None][seed % 2], views=view)
        swarm.run(LIMIT)
        check_agreement(swarm)


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.LOST])
def test_any_senior_or_newcomer_killed_in_any_phase(phase: Phase, weather: Any) -> None:
    for seed in range(24):
        swarm = Swarm(seed, 7, weather, [100, None][seed % 2], views=probation)
        Strike(swarm, swarm.nodes[PEERS[seed % 7]], phase, swarm.kill)
        swarm.run(LIMIT)
        check_agreement(swarm)
        assert any(node.outcome for node in swarm.survivors)


def suspending(*peers: PeerId, by: PeerId | None = None) -> Any:
    def view(peer: PeerId) -> dict[str, Any]:
        suspended = frozenset(peers) - {peer} if by in (None, peer) else frozenset()
        return {"suspended": suspended, "not_owning": suspended}

    return view


def test_who_is_suspended_is_not_waited_for_and_gets_the_result() -> None:
    swarm = Swarm(4, 5, electorate=PEERS[:5], views=suspending(PEERS[0]))
    swarm.nodes[PEERS[0]].mute = True
    swarm.run(LIMIT)
    assert PEERS[0] not in groups(swarm)[0]
    assert all(swarm.nodes[peer].finished_after < 3 for peer in PEERS[1:5])
    assert swarm.nodes[PEERS[0]].machine.done is not None


@pytest.mark.parametrize("out", [2, 3])
def test_a_leader_that_would_suspend_half_of_the_electorate_takes_all(out: int) -> None:
    members = order(RUN, 7, PEERS[:4])
    swarm = Swarm(5, 4, electorate=members, views=suspending(*members[1 : out + 1], by=members[0]))
    swarm.run(LIMIT)
    check_agreement(swarm)
    assert groups(swarm) == [tuple(members)]


def test_a_quorum_is_made_up_with_the_suspended() -> None:
    swarm = Swarm(6, 4, electorate=PEERS[:4], views=suspending(PEERS[1]), quorum=4)
    swarm.run(LIMIT)
    check_agreement(swarm)
    assert [len(group) for group in groups(swarm)] == [4]
    begin = swarm.nodes[PEERS[0]].begin
    assert begin is not None
    assert PEERS[1] not in {part.owner for part in begin.parts}


def test_a_quorum_is_waited_for_until_one_of_it_is_banned() -> None:
    swarm = Swarm(6, 4, quorum=4)
    banned = swarm.nodes[PEERS[2]]
    swarm.kill(banned)
    swarm.run(WAITED)
    assert {node.machine.phase for node in swarm.survivors} == {Phase.GATHERING}
    for node in swarm.survivors:
        swarm.event(node, Left(banned.peer))
        swarm.event(node, Needed(3))
    swarm.run(LIMIT)
    check_agreement(swarm)
    assert [len(group) for group in groups(swarm)] == [3]


def test_an_owner_that_keeps_its_part_is_at_fault_for_all_whom_it_kept_waiting() -> None:
    members = order(RUN, 7, PEERS[:4])
    swarm = Swarm(7, 4)
    swarm.nodes[members[2]].withholds = True
    swarm.run(LIMIT)
    check_agreement(swarm)
    for peer in members:
        expected = {} if peer == members[2] else {members[2]: Fault.WITHHELD}
        assert swarm.nodes[peer].machine.faults == expected


def test_who_is_awaited_and_does_not_come_is_at_fault_for_the_leader() -> None:
    members = order(RUN, 7, PEERS[:4])
    swarm = Swarm(8, 4)
    swarm.nodes[members[3]].mute = True
    swarm.run(LIMIT)
    assert swarm.nodes[members[0]].machine.faults == {members[3]: Fault.ABSENT}
    assert not swarm.nodes[members[1]].machine.faults


def test_a_leader_that_says_nothing_is_at_fault_for_all() -> None:
    members = order(RUN, 7, PEERS[:4])
    swarm = Swarm(9, 4)
    swarm.nodes[members[0]].mute = True
    swarm.run(60)
    for peer in members[1:]:
        assert swarm.nodes[peer].machine.faults == {members[0]: Fault.ABSENT}


def test_in_a_calm_round_nobody_is_at_fault() -> None:
    for seed in range(20):
        swarm = Swarm(seed, 2 + seed % 6, target=[100, None][seed % 2])
        swarm.run(LIMIT)
        assert not any(node.machine.faults for node in swarm.nodes.values())


def test_bad_weather_makes_nobody_the_culprit_of_all() -> None:
    """What a storm costs is spread: hardly anybody is at fault in two rounds in a row."""
    rounds, faults = 0, 0
    for seed in range(60):
        swarm = Swarm(seed, 5, STORM)
        swarm.run(LIMIT)
        rounds += 20
        faults += sum(len(node.machine.faults) for node in swarm.nodes.values())
    assert faults < 0.1 * rounds
