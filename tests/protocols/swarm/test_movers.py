"""Who says to be on its way to another stage is believed for a while."""

from protocols.identity import PeerId
from protocols.swarm.movers import MOVING_SECONDS, REGAINED, Movers
from protocols.swarm.rebalance import Load

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
