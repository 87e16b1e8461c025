"""Who says to be on its way to another stage is believed for a while, and so is who is to go and does not."""

from dataclasses import replace

import pytest

from protocols.identity import PeerId
from protocols.swarm.movers import CALLED_SECONDS, MOVING_SECONDS, REGAINED, Movers
from protocols.swarm.rebalance import Load, Move, next_move

STAYS = Load(PeerId("stays"), 0, 1.0)
HERE, AWAY = Load(PeerId("moves"), 0, 1.0), Load(PeerId("moves"), 0, 1.0, moving_to=1)


def test_who_moves_is_believed_for_as_long_as_a_move_takes() -> None:
    movers = Movers()
    for moment in range(int(MOVING_SECONDS)):
        assert movers.believed([STAYS, AWAY], moment) == [STAYS, AWAY]
    assert movers.believed([STAYS, AWAY], MOVING_SECONDS) == [STAYS]
    assert movers.believed([STAYS, HERE], MOVING_SECONDS) == [STAYS, HERE], "it serves where it is"


def test_who_says_so_again_and_again_is_not_believed_for_longer() -> None:
    movers, believed, moments = Movers(), 0, 20 * int(MOVING_SECONDS)
    for moment in range(moments):
        believed += AWAY in movers.believed([STAYS, AWAY if moment % 4 else HERE], moment)
    assert MOVING_SECONDS <= believed <= MOVING_SECONDS + REGAINED * moments


def test_who_has_gone_and_comes_back_is_new() -> None:
    movers = Movers()
    movers.believed([AWAY], 0.0)
    movers.believed([], 1000.0)
    assert movers.believed([AWAY], 2000.0) == [AWAY]


def test_who_does_not_go_when_it_is_its_turn_is_not_waited_for() -> None:
    movers = Movers()
    loads = [Load(PeerId(name), 0, 1.0) for name in "abc"]
    called, moment = [], 0
    while len(set(called)) < 3 and moment < 10 * CALLED_SECONDS:
        move = next_move(movers.believed(loads, moment), 2)
        movers.call(move.peer if move else None)
        called.append(move)
        moment += 1
    turns = [(move.peer if move else None) for move in dict.fromkeys(called)]
    assert turns == [PeerId("a"), PeerId("b"), PeerId("c")]
    assert called.count(called[0]) == pytest.approx(CALLED_SECONDS, abs=2), "nobody is passed over sooner"


def test_who_only_says_to_go_is_not_waited_for_either() -> None:
    movers, move, moment = Movers(), None, 0
    talks, works = Load(PeerId("a"), 0, 1.0), Load(PeerId("b"), 0, 1.0)
    while move != Move(works.peer, 0, 1):
        said = talks if moment % 10 else replace(talks, moving_to=1)
        move = next_move(movers.believed([said, works], moment), 2)
        movers.call(move.peer if move else None)
        moment += 1
        assert moment < 2 * CALLED_SECONDS


def test_who_goes_after_all_is_called_again() -> None:
    movers = Movers()
    here = Load(PeerId("a"), 0, 1.0)
    movers.call(here.peer)
    for moment in range(int(CALLED_SECONDS) + 1):
        [load] = movers.believed([here], moment)
    assert load.stays
    [load] = movers.believed([replace(here, stage=1)], CALLED_SECONDS + 1)
    assert not load.stays


def test_who_is_called_now_and_then_is_no_less_relied_upon() -> None:
    movers = Movers()
    here = Load(PeerId("a"), 0, 1.0)
    for moment in range(1000):
        movers.call(here.peer if moment % 20 == 0 else None)
        assert movers.believed([here], moment) == [here]
