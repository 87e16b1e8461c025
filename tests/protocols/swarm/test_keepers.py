"""A trainer claims from the first in the order, and from the next when it gets nothing while the run stands still."""

import pytest

from protocols.identity import Identity
from protocols.round.order import order
from protocols.swarm.keepers import (
    FIRST_PATIENCE_SECONDS,
    FIRST_STANDSTILL_SECONDS,
    PASSED_OVER_SECONDS,
    PATIENCE_EPOCHS,
    PATIENCE_SECONDS,
    STANDSTILL_SECONDS,
    Keepers,
)

RUN = "pipeline-" + "a" * 26
PEERS = order(RUN, 0, [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(4)])


def wait(
    keepers: Keepers, start: float, seconds: float, *, working: bool = False, over: bool = False, epoch: int = 0
) -> float:
    """Without a step of the run; returns when."""
    now = start
    while now < start + seconds:
        now += 0.25
        keepers.look(keepers.choose(PEERS, now), epoch, working=working, over=over, now=now)
    return now


def test_all_claim_from_the_first_in_the_order() -> None:
    assert Keepers(RUN, 0.0).choose(reversed(PEERS), 5.0) == PEERS[0]
    assert Keepers(RUN, 0.0).choose(PEERS[2:], 5.0) == PEERS[2]
    assert Keepers(RUN, 0.0).choose([], 5.0) is None


def test_who_gets_nothing_turns_to_the_next_and_comes_back_later_and_later() -> None:
    keepers = Keepers(RUN, 0.0)
    now = wait(keepers, 0.0, FIRST_PATIENCE_SECONDS)
    assert keepers.choose(PEERS, now) == PEERS[0]
    now = wait(keepers, now, 0.5)
    assert keepers.choose(PEERS, now) == PEERS[1]
    now = wait(keepers, now, PASSED_OVER_SECONDS, working=True)
    assert keepers.choose(PEERS, now) == PEERS[0]
    now = wait(keepers, now, FIRST_PATIENCE_SECONDS + 0.5)
    assert keepers.choose(PEERS, now) == PEERS[1]
    now = wait(keepers, now, 1.9 * PASSED_OVER_SECONDS, working=True)
    assert keepers.choose(PEERS, now) == PEERS[1]


def test_who_is_to_have_no_work_waits_for_ever() -> None:
    keepers = Keepers(RUN, 0.0)
    assert keepers.choose(PEERS, wait(keepers, 0.0, 1000.0, over=True)) == PEERS[0]


def test_who_works_and_sees_no_step_turns_to_the_next_later() -> None:
    """Its keeper may hand out what has been done."""
    keepers = Keepers(RUN, 0.0)
    now = wait(keepers, 0.0, FIRST_STANDSTILL_SECONDS, working=True)
    assert keepers.choose(PEERS, now) == PEERS[0]
    assert keepers.choose(PEERS, wait(keepers, now, 0.5, working=True)) == PEERS[1]
    keepers = Keepers(RUN, 0.0)
    now = wait(keepers, wait(keepers, 0.0, 1.0), STANDSTILL_SECONDS, working=True, epoch=1)
    assert keepers.choose(PEERS, now) == PEERS[0]
    assert keepers.choose(PEERS, wait(keepers, now, 0.5, working=True, epoch=1)) == PEERS[1]


def test_who_has_seen_the_run_step_waits_less_long() -> None:
    keepers = Keepers(RUN, 0.0)
    now = wait(keepers, 0.0, 2.0, working=True)
    keepers.look(PEERS[0], 1, working=True, over=False, now=now)
    now = wait(keepers, now, PATIENCE_SECONDS, epoch=1)
    assert keepers.choose(PEERS, now) == PEERS[0]
    assert keepers.choose(PEERS, wait(keepers, now, 0.5, epoch=1)) == PEERS[1]


def test_where_epochs_take_long_so_does_patience() -> None:
    keepers, now, epoch_seconds = Keepers(RUN, 0.0), 0.0, 100.0
    keepers.look(PEERS[0], 0, working=True, over=False, now=now)
    for epoch in range(1, 20):
        for _ in range(100):
            now += epoch_seconds / 100
            keepers.look(PEERS[0], epoch - 1, working=epoch == 1, over=False, now=now)  # the others have all the work
        keepers.look(PEERS[0], epoch, working=False, over=False, now=now)
    assert keepers.choose(PEERS, now) == PEERS[0]
    assert keepers.patience == pytest.approx(PATIENCE_EPOCHS * epoch_seconds)


def test_a_keeper_whose_work_is_none_is_passed_over_at_once() -> None:
    keepers = Keepers(RUN, 0.0)
    for number in range(4):
        assert keepers.choose(PEERS, 1.0) == PEERS[number]
        keepers.pass_over(PEERS[number], 1.0)
    assert keepers.choose(PEERS, 1.0) == PEERS[0]


def test_a_keeper_that_was_right_is_turned_to_again() -> None:
    keepers = Keepers(RUN, 0.0)
    keepers.pass_over(PEERS[0], 1.0)
    keepers.forgive(PEERS[0])
    keepers.forgive(PEERS[1])
    assert keepers.choose(PEERS, 1.0) == PEERS[0]
