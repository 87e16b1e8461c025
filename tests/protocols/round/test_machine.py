"""The promises of a round, under simulation."""

import pytest

from protocols.round.machine import Phase
from protocols.round.order import order
from tests.protocols.round.simulation import PEERS, RUN, Node, Swarm, Weather

LIMIT = 300.0
CALM = Weather()
STORM = Weather(longest_delay=0.8, loss=0.15, doubling=0.2, broken_streams=0.05)
SILENT_STORM = Weather(longest_delay=0.8, loss=0.15, doubling=0.2, broken_streams=0.05, told=False)
PHASES = [Phase.GATHERING, Phase.READY, Phase.EXCHANGING, Phase.PREPARED, Phase.FETCHING, Phase.APPLIED]


def check_agreement(swarm: Swarm) -> None:
    """Nobody hangs; all who applied anything applied the same (with a majority alive, the dead too); a survivor is
    without the result only where no survivor has it."""
    hanging = [n.machine.phase for n in swarm.survivors if n.machine.phase not in (Phase.APPLIED, Phase.LOST)]
    assert not hanging, f"still {hanging} after {swarm.now} s"
    majority_lives = 2 * len(swarm.survivors) > len(swarm.nodes)
    witnesses = list(swarm.nodes.values()) if majority_lives else swarm.survivors
    outcomes = {node.outcome for node in witnesses if node.outcome is not None}
    assert len(outcomes) <= 1
    if not outcomes:
        assert len(swarm.survivors) < len(swarm.nodes)
    living = {result for node in swarm.survivors for result in node.content}
    for node in swarm.survivors:
        if node.machine.phase is Phase.LOST:
            assert node.machine.done is not None
            assert not set(node.machine.done.body.results) <= living


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("target", [100, None])
def test_a_calm_round_takes_everybody_and_is_quick(count: int, target: int | None) -> None:
    swarm = Swarm(seed=count, count=count, target=target)
    swarm.run(LIMIT)
    check_agreement(swarm)
    for node in swarm.nodes.values():
        assert node.outcome is not None
        assert len(node.machine.done.body.members) == count
        assert node.machine.term == 0
    assert swarm.now < 12


@pytest.mark.parametrize("weather", [CALM, STORM, SILENT_STORM], ids=["calm", "storm", "silent"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_any_member_killed_in_any_phase(phase: Phase, place: int, weather: Weather) -> None:
    """`place` 0 is the leader of the first term, 1 stands by."""
    for seed in range(4):
        swarm = Swarm(seed, count=4, weather=weather)
        victim = swarm.nodes[order(RUN, 7, PEERS[:4])[place]]

        def kill(node: Node, reached: Phase, victim: Node = victim, swarm: Swarm = swarm) -> None:
            if node is victim and reached is phase:
                swarm.kill(node)

        swarm.on_phase = kill
        if phase is Phase.GATHERING:
            swarm.after(0.1 * seed, lambda v=victim, s=swarm: s.kill(v))
        swarm.run(LIMIT)
        check_agreement(swarm)
        assert any(node.outcome for node in swarm.survivors)


@pytest.mark.parametrize("longest_delay", [0.05, 2.0])
@pytest.mark.parametrize("seconds", [3.0, 20.0, 60.0])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_any_member_frozen_in_any_phase_wakes_up_to_what_the_others_decided(
    phase: Phase, place: int, seconds: float, longest_delay: float
) -> None:
    for seed in range(8):
        swarm = Swarm(seed, count=4, weather=Weather(longest_delay))
        victim = swarm.nodes[order(RUN, 7, PEERS[:4])[place]]

        def freeze(node: Node, reached: Phase, victim: Node = victim, swarm: Swarm = swarm) -> None:
            if node is victim and reached is phase and not node.wakes_at:
                swarm.freeze(node, seconds)

        swarm.on_phase = freeze
        if phase is Phase.GATHERING:
            swarm.after(0.1 * seed, lambda v=victim, s=swarm: s.freeze(v, seconds))
        swarm.run(LIMIT)
        check_agreement(swarm)
        assert all(node.outcome for node in swarm.nodes.values() if node is not victim)


@pytest.mark.parametrize("block", range(20))
def test_a_thousand_seeds_of_kills_and_bad_weather(block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        swarm = random_swarm(seed)
        swarm.run(LIMIT)
        check_agreement(swarm)


def random_swarm(seed: int) -> Swarm:
    """Two to seven members, up to all but one of them killed at any moment, in any weather."""
    weather = [CALM, STORM, SILENT_STORM][seed % 3]
    count = 2 + seed % 6
    client_modes = (seed // 6) % 2
    target = [100, None][(seed // 12) % 2]
    swarm = Swarm(seed, count, weather, target, client_modes)
    victims = swarm.random.sample(list(swarm.nodes.values()), swarm.random.randrange(count))
    for victim in victims:
        swarm.after(swarm.random.uniform(0, 6), lambda victim=victim: swarm.kill(victim))
    return swarm


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second = random_swarm(11), random_swarm(11)
    first.run(LIMIT)
    second.run(LIMIT)
    assert first.now == second.now
    assert [n.outcome for n in first.nodes.values()] == [n.outcome for n in second.nodes.values()]
