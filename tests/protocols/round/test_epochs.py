"""Epoch after epoch in swarms that do not fit into one group: those who are left out follow, and their turn comes."""

from collections.abc import Iterable

import pytest

from protocols.encoding import digest, encode
from protocols.identity import PeerId
from tests.protocols.round.simulation import BASE, Swarm, Weather

LIMIT_SECONDS = 60.0


def play(count: int, group_limit: int, epochs: int, weather: Weather) -> list[tuple[PeerId, ...]]:
    """The groups of all epochs; each is decided alike, within seconds, for all who are there."""
    groups: list[tuple[PeerId, ...]] = []
    base, electorate = BASE, None
    for epoch in range(epochs):
        swarm = Swarm(epoch, count, weather, epoch=epoch, base=base, electorate=electorate, group_limit=group_limit)
        swarm.run(LIMIT_SECONDS)
        (outcome,) = {node.outcome for node in swarm.nodes.values()}
        assert outcome is not None
        (electorate,) = {node.machine.done.body.members for node in swarm.nodes.values()}
        base = digest(encode([base, *(result.digest for result in outcome)]))
        groups.append(electorate)
    return groups


def everybody(groups: Iterable[tuple[PeerId, ...]]) -> set[PeerId]:
    return {peer for group in groups for peer in group}


@pytest.mark.parametrize("weather", [Weather(), Weather(longest_delay=0.8, loss=0.1)], ids=["calm", "storm"])
def test_twelve_in_groups_of_four_have_one_history(weather: Weather) -> None:
    groups = play(count=12, group_limit=4, epochs=40, weather=weather)
    assert {len(group) for group in groups} == {4}
    assert len(everybody(groups)) == 12


def test_a_hundred_and_thirty_in_groups_of_sixty_four_have_one_history() -> None:
    groups = play(count=130, group_limit=64, epochs=4, weather=Weather())
    assert {len(group) for group in groups} == {64}
    assert len(everybody(groups)) > 90
