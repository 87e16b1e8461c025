"""Peers go where the pipeline needs them, and stop going when it does not."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.identity import PeerId
from protocols.swarm.rebalance import (
    COOL_DOWN_SECONDS,
    FASTEST,
    Load,
    Move,
    best_division,
    neediest_stage,
    next_move,
    rates,
)

SPEEDS = st.floats(0.1, 10.0)


def swarm(*stages: list[float]) -> list[Load]:
    """Peers of these rates on each stage."""
    return [
        Load(PeerId(f"{stage}-{number}"), stage, rate)
        for stage, members in enumerate(stages)
        for number, rate in enumerate(members)
    ]


def moved(loads: list[Load], move: Move) -> list[Load]:
    return [replace(load, stage=move.target) if load.peer == move.peer else load for load in loads]


def balance(loads: list[Load], stages: int) -> tuple[list[Load], int]:
    """After all moves, and how many there were."""
    count = 0
    while (move := next_move(loads, stages)) is not None:
        before = {load.place for load in loads}
        loads = moved(loads, move)
        assert before <= {load.place for load in loads}, "a stage was left empty"
        count += 1
        assert count <= len(loads), "more moves than peers"
    return loads, count


def best(speeds: list[float], stages: int) -> float:
    """By trying all divisions."""
    found = 0.0
    for places in product(range(stages), repeat=len(speeds)):
        sums = [0.0] * stages
        for place, speed in zip(places, speeds, strict=True):
            sums[place] += speed
        found = max(found, min(sums))
    return found


@given(st.integers(2, 3).flatmap(lambda n: st.tuples(st.just(n), st.lists(SPEEDS, min_size=n, max_size=7))), st.data())
@settings(max_examples=150, deadline=None)
def test_small_swarms_come_within_five_percent_of_the_best_division(
    drawn: tuple[int, list[float]], data: st.DataObject
) -> None:
    stages, speeds = drawn
    middle = sorted(speeds)[len(speeds) // 2]
    speeds = [min(speed, FASTEST * middle / 2) for speed in speeds]
    places = data.draw(st.lists(st.integers(0, stages - 1), min_size=len(speeds), max_size=len(speeds)))
    loads = [Load(PeerId(f"peer {n}"), place, rate) for n, (place, rate) in enumerate(zip(places, speeds, strict=True))]
    after, _ = balance(loads, stages)
    assert min(rates(after, stages)) >= best(speeds, stages) / 1.05 * (1 - 1e-9)


@given(st.integers(2, 8), st.lists(st.floats(1.0, 4.0), min_size=24, max_size=64), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_large_swarms_come_within_five_percent_of_equal_shares(
    stages: int, speeds: list[float], random: object
) -> None:
    places = [random.randrange(stages) for _ in speeds]  # type: ignore[attr-defined]
    loads = [Load(PeerId(f"peer {n}"), place, rate) for n, (place, rate) in enumerate(zip(places, speeds, strict=True))]
    after, _ = balance(loads, stages)
    division = best_division(tuple(speeds), stages)
    reachable = min(sum(s for s, place in zip(speeds, division, strict=True) if place == n) for n in range(stages))
    assert min(rates(after, stages)) >= reachable / 1.05 * (1 - 1e-9)
    assert reachable >= sum(speeds) / stages - max(speeds)


def test_all_in_two_stages_spread_over_four() -> None:
    loads, moves = balance(swarm([1.0] * 4, [1.0] * 4, [], []), 4)
    assert rates(loads, 4) == [2.0] * 4
    assert moves == 4


def test_half_of_a_stage_is_replaced() -> None:
    loads, moves = balance(swarm([1.0] * 4, [1.0] * 4, [1.0] * 1), 3)
    assert sorted(rates(loads, 3)) == [3.0] * 3
    assert moves == 2


def test_an_even_swarm_stays_as_it_is() -> None:
    assert next_move(swarm([1.0, 1.0], [2.0], [1.5, 0.5]), 3) is None
    assert next_move(swarm([1.0, 1.0], [1.0]), 2) is None, "nothing is gained by one that goes round in circles"


def test_two_change_places_where_no_single_move_helps() -> None:
    loads, moves = balance(swarm([5.0, 5.0], [1.0, 1.0]), 2)
    assert rates(loads, 2) == [6.0, 6.0]
    assert moves == 2


def test_an_empty_stage_is_repaired_at_once_by_who_has_just_moved_too() -> None:
    loads = [Load(PeerId("a"), 0, 1.0, since=0.0), Load(PeerId("b"), 0, 2.0, since=0.0)]
    assert next_move(loads, 2) == Move(PeerId("b"), 0, 1) or next_move(loads, 2) == Move(PeerId("a"), 0, 1)
    assert next_move([Load(PeerId("a"), 0, 1.0)], 2) is None, "the last of its stage stays"


def test_who_has_just_moved_rests() -> None:
    uneven = swarm([1.0] * 4, [1.0])
    assert next_move(uneven, 2) is not None
    tired = [Load(load.peer, load.stage, load.rate, since=COOL_DOWN_SECONDS / 2) for load in uneven]
    assert next_move(tired, 2) is None


def test_an_empty_stage_is_repaired_by_who_does_not_stay_where_it_is() -> None:
    told = [Load(PeerId(name), 1, 1.0, stays=True) for name in "ab"]
    free = [Load(PeerId(name), 0, 1.0) for name in "cd"]
    assert next_move([*told, *free], 3) == Move(PeerId("c"), 0, 2)
    assert next_move(told, 3) is None


@given(st.integers(2, 4), st.lists(st.tuples(st.floats(1.0, 4.0), st.booleans()), min_size=4, max_size=12), st.data())
@settings(max_examples=150, deadline=None)
def test_who_stays_is_never_called_and_the_others_make_the_best_of_it(
    stages: int, peers: list[tuple[float, bool]], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, stages - 1), min_size=len(peers), max_size=len(peers)))
    loads = [
        Load(PeerId(f"peer {n:2}"), place, rate, stays=stays)
        for n, (place, (rate, stays)) in enumerate(zip(places, peers, strict=True))
    ]
    staying = tuple(load.stage if load.stays else None for load in loads)
    after, _ = balance(loads, stages)
    assert [load for load in after if load.stays] == [load for load in loads if load.stays]
    division = best_division(tuple(load.rate for load in loads), stages, staying)
    assert all(stage in (None, place) for stage, place in zip(staying, division, strict=True))
    reachable = min(sum(load.rate for load, at in zip(loads, division, strict=True) if at == n) for n in range(stages))
    assert min(rates(after, stages)) >= reachable / 1.05 * (1 - 1e-9)


def test_one_moves_at_a_time_and_counts_where_it_goes() -> None:
    loads = swarm([1.0] * 6, [1.0])
    under_way = [Load(loads[0].peer, 0, 1.0, moving_to=1), *loads[1:]]
    assert next_move(under_way, 2) is None
    assert rates(under_way, 2) == [5.0, 2.0]
    assert neediest_stage(under_way, 2) == 1


def test_the_order_in_which_records_come_does_not_matter() -> None:
    loads = swarm([3.0, 1.0, 2.0], [1.0], [0.5, 0.2])
    assert next_move(loads, 3) == next_move(loads[::-1], 3) is not None


def test_who_claims_to_be_very_fast_draws_nobody_away() -> None:
    honest = swarm([1.0, 1.0], [1.0, 1.0])
    boasting = [*honest, Load(PeerId("liar"), 0, 1e12)]
    assert rates(boasting, 2)[0] == pytest.approx(2 + FASTEST)
    move = next_move(boasting, 2)
    assert move is None or move.target == 1


def test_a_newcomer_goes_where_least_is_done() -> None:
    assert neediest_stage(swarm([1.0], [], [1.0]), 3) == 1
    assert neediest_stage(swarm([1.0, 1.0], [1.0], [3.0]), 3) == 1
    queued = [Load(PeerId("a"), 0, 1.0, queue=1), Load(PeerId("b"), 1, 1.0, queue=9)]
    assert neediest_stage(queued, 2) == 1
    assert neediest_stage([], 4) == 0


def test_records_of_stages_that_there_are_not_are_ignored() -> None:
    assert next_move([*swarm([1.0], [1.0]), Load(PeerId("x"), 9, 1.0)], 2) is None
