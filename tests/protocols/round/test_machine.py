"""The promises of a round, under simulation."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from dht.interfaces import MAX_REQUEST_BYTES
from protocols.identity import Identity
from protocols.round.machine import Phase
from protocols.round.messages import MAX_OBSERVERS, Observed, Weigh
from protocols.round.order import order
from protocols.round.weighing import pack
from protocols.signed import Signer
from tests.protocols.round.simulation import RUN, Node, Swarm, Weather

LIMIT = 300.0
CALM = Weather()
STORM = Weather(longest_delay=0.8, loss=0.15, doubling=0.2, broken_streams=0.05)
SILENT_STORM = Weather(longest_delay=0.8, loss=0.15, doubling=0.2, broken_streams=0.05, told=False)
WEATHERS = {"calm": CALM, "storm": STORM, "silent": SILENT_STORM}
PHASES = [Phase.GATHERING, Phase.READY, Phase.EXCHANGING, Phase.PREPARED, Phase.FETCHING, Phase.APPLIED]
LONGEST_WAIT_SECONDS = dict.fromkeys(PHASES, 0.1) | {Phase.GATHERING: 0.4, Phase.FETCHING: 0.9, Phase.APPLIED: 2.0}
"""In a phase, before the blow; most last longer."""
LATE_SECONDS = 3.0
BLOCKS = 20


def check_agreement(swarm: Swarm) -> None:
    """Nobody hangs; all who applied anything applied the same (with a majority alive, the dead too); a survivor is
    without the result only where no survivor has it. Where the rule looks at distances, all parts are made of the same
    members."""
    hanging = [n.machine.phase for n in swarm.survivors if n.machine.phase not in (Phase.APPLIED, Phase.LOST)]
    assert not hanging, f"still {hanging} after {swarm.now} s"
    majority_lives = 2 * len(swarm.survivors) > len(swarm.nodes)
    witnesses = list(swarm.nodes.values()) if majority_lives else swarm.survivors
    outcomes = {node.outcome for node in witnesses if node.outcome is not None}
    assert len(outcomes) <= 1
    if swarm.weighs:
        assert all(len({tuple(swarm.made_of[result]) for result in outcome}) == 1 for outcome in outcomes)
    if not outcomes:
        assert len(swarm.survivors) < len(swarm.nodes)
    living = {result for node in swarm.survivors for result in node.content}
    for node in swarm.survivors:
        if node.machine.phase is Phase.LOST:
            assert node.machine.done is not None
            assert not set(node.machine.done.body.results) <= living


WEIGHS = pytest.mark.parametrize("weighs", [False, True], ids=["coordinate-wise", "distances"])


@WEIGHS
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("target", [100, None])
def test_a_calm_round_takes_everybody_and_is_quick(count: int, target: int | None, weighs: bool) -> None:
    swarm = Swarm(seed=count, count=count, target=target, weighs=weighs)
    swarm.run(LIMIT)
    check_agreement(swarm)
    for node in swarm.nodes.values():
        assert node.outcome is not None
        assert len(node.machine.done.body.members) == count
        assert node.machine.term == 0
    assert swarm.now < 12


def test_what_all_owners_observe_fits_into_one_message() -> None:
    swarm = Swarm(seed=1, count=48, weighs=True, chunks=64)
    swarm.run(LIMIT)
    check_agreement(swarm)
    (results,) = {node.outcome for node in swarm.nodes.values()}
    assert results is not None
    assert len(results) == MAX_OBSERVERS
    statement = Signer(Identity.generate(), RUN, 1).sign(
        Observed(term=0, part=0, attempt=0, begin=bytes(32), included=2**64 - 1, gram=pack(np.ones((65, 65)))), 1
    )
    largest = Weigh(term=0, observed=(statement.wire,) * MAX_OBSERVERS)
    assert len(Signer(Identity.generate(), RUN, 1).sign(largest, 1).wire) < MAX_REQUEST_BYTES


@dataclass
class Strike:
    """What befalls one member, a while after it has come to a phase."""

    swarm: Swarm
    victim: Node
    phase: Phase
    """In which it shall be struck."""
    blow: Callable[[Node], None]
    struck_in: Phase | None = None
    """None: it never came to that phase."""

    def __post_init__(self) -> None:
        if self.phase is Phase.FETCHING:  # nobody stays there who holds all results when `Done` comes
            self.victim.results_late_seconds = LATE_SECONDS
        self.swarm.when(self.victim, self.phase, self._come)

    def _come(self) -> None:
        at_once = self.phase is not Phase.GATHERING and self.swarm.random.random() < 0.5
        if at_once:  # in the middle of its actions
            self._strike()
        else:
            self.swarm.after(self.swarm.random.uniform(0, LONGEST_WAIT_SECONDS[self.phase]), self._strike)

    def _strike(self) -> None:
        if self.victim.alive:
            self.struck_in = self.victim.machine.phase
            self.blow(self.victim)


def member(swarm: Swarm, place: int) -> Node:
    """`place` 0 is the leader of the first term, 1 stands by."""
    return swarm.nodes[order(RUN, 7, swarm.nodes)[place]]


@WEIGHS
@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_any_member_killed_in_any_phase(phase: Phase, place: int, weather: Weather, weighs: bool) -> None:
    killed = 0
    for seed in range(20):
        swarm = Swarm(seed, count=4, weather=weather, weighs=weighs)
        strike = Strike(swarm, member(swarm, place), phase, swarm.kill)
        swarm.run(LIMIT)
        check_agreement(swarm)
        assert any(node.outcome for node in swarm.survivors)
        killed += not strike.victim.alive and strike.struck_in is phase
        if killed == 4:
            return
    pytest.fail(f"killed in {phase} only {killed} times")


@pytest.mark.parametrize("longest_delay", [0.05, 2.0])
@pytest.mark.parametrize("seconds", [3.0, 20.0, 60.0])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_any_member_frozen_in_any_phase_wakes_up_to_what_the_others_decided(
    phase: Phase, place: int, seconds: float, longest_delay: float
) -> None:
    frozen = 0
    for seed in range(30):
        swarm = Swarm(seed, count=4, weather=Weather(longest_delay))
        strike = Strike(swarm, member(swarm, place), phase, lambda node, swarm=swarm: swarm.freeze(node, seconds))
        swarm.run(LIMIT)
        check_agreement(swarm)
        assert all(node.outcome for node in swarm.nodes.values() if node is not strike.victim)
        frozen += strike.struck_in is phase
        if frozen == 8:
            return
    pytest.fail(f"frozen in {phase} only {frozen} times")


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize(("count", "survivors"), [(3, 1), (4, 1), (5, 2), (7, 3)])
def test_a_result_that_died_with_all_who_held_it_is_lost_to_every_survivor(
    count: int, survivors: int, weather: Weather
) -> None:
    lost = 0
    for seed in range(30):
        swarm = Swarm(seed, count, weather)
        nodes = swarm.random.sample(list(swarm.nodes.values()), count)
        late, holders = nodes[:survivors], nodes[survivors:]
        for node in late:
            node.results_late_seconds = LIMIT
            swarm.when(node, Phase.FETCHING, lambda swarm=swarm, holders=holders: kill_all(swarm, holders))
        swarm.run(LIMIT)
        check_agreement(swarm)
        if holders[0].alive or held_by(late):
            continue
        for node in late:
            assert node.machine.phase is Phase.LOST
            assert node.resynced
            assert node.outcome is None
        lost += 1
        if lost == 5:
            return
    pytest.fail(f"lost only {lost} times")


def kill_all(swarm: Swarm, nodes: list[Node]) -> None:
    for node in nodes:
        if node.alive:
            swarm.kill(node)


def held_by(nodes: list[Node]) -> bool:
    """Whether these hold among them all that was decided: parts that were late may have become theirs to reduce."""
    done = next(node.machine.done for node in nodes if node.machine.done is not None)
    return set(done.body.results) <= {result for node in nodes for result in node.content}


@WEIGHS
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_thousand_seeds_of_kills_and_bad_weather(block: int, weighs: bool) -> None:
    """Of `BLOCKS` times 60 seeds, 1000 have a member that is killed before it has applied the result."""
    kills: Counter[Phase | None] = Counter()
    seeds_with_kill = 0
    for seed in range(block * 60, block * 60 + 60):
        swarm, strikes = random_swarm(seed, weighs)
        swarm.run(LIMIT)
        check_agreement(swarm)
        phases = [strike.struck_in for strike in strikes if not strike.victim.alive]
        kills.update(phases)
        seeds_with_kill += any(phase is not Phase.APPLIED for phase in phases)
    assert BLOCKS * seeds_with_kill >= 1000
    assert all(kills[phase] >= 5 for phase in PHASES if phase is not Phase.APPLIED), kills


def random_swarm(seed: int, weighs: bool = False) -> tuple[Swarm, list[Strike]]:
    """Two to seven members, up to all but one of them killed at any moment, in any weather.

    The first of them before it has applied the result, if it comes to the phase that is its turn.
    """
    weather = [CALM, STORM, SILENT_STORM][seed % 3]
    count = 2 + seed % 6
    client_modes = (seed // 6) % 2
    target = [100, None][(seed // 12) % 2]
    swarm = Swarm(seed, count, weather, target, client_modes, weighs=weighs)
    victims = swarm.random.sample(list(swarm.nodes.values()), swarm.random.randrange(1, count))
    phases = [PHASES[seed // 6 % 5], *swarm.random.choices(PHASES, k=count)]
    return swarm, [Strike(swarm, victim, phase, swarm.kill) for victim, phase in zip(victims, phases, strict=False)]


def test_the_same_seed_gives_the_same_trace() -> None:
    (first, _), (second, _) = random_swarm(11), random_swarm(11)
    first.run(LIMIT)
    second.run(LIMIT)
    assert first.now == second.now
    assert [n.outcome for n in first.nodes.values()] == [n.outcome for n in second.nodes.values()]
