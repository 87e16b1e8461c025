"""A board hands out what the stages lack, each microbatch to one trainer at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identity import PeerId
from protocols.swarm.board import (
    FIRST_HELD_SECONDS,
    HELD_SECONDS,
    LEASE_SECONDS,
    UNHEEDED_SECONDS,
    UNKNOWN_SECONDS,
    Board,
    Word,
)
from protocols.swarm.coverage import everything
from protocols.swarm.steps import come_to

MICROBATCHES = 8
ALL = everything(MICROBATCHES)
SERVERS = (PeerId("first stage"), PeerId("second stage"))
A, B = PeerId("a"), PeerId("b")


def board(*counted: int, epoch: int = 0) -> Board:
    """Of two stages, which have counted these; it has listened long enough."""
    made = Board(len(SERVERS), MICROBATCHES, now=-LEASE_SECONDS)
    for stage, (server, mask) in enumerate(zip(SERVERS, counted or (0, 0), strict=True)):
        made.hear(server, Word(stage, {epoch: mask}, epoch))
    made.keep_only(SERVERS, (), now=0.0)
    return made


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, MICROBATCHES)), max_size=12))
def test_what_one_trainer_has_no_other_gets(claims: list[tuple[str, int]]) -> None:
    """Also where none of them serves a stage."""
    made, held = board(), dict.fromkeys("abcd", 0)
    for name, wanted in claims:
        made.keep_only(SERVERS, (), now=0.0)
        epoch, granted = made.claim(PeerId(name), {0: held[name]}, wanted, now=0.0)
        assert epoch == 0
        assert granted.bit_count() <= wanted
        assert not any(granted & mask for mask in held.values())
        held[name] |= granted
    free = MICROBATCHES - sum(mask.bit_count() for mask in held.values())
    assert made.claim(PeerId("e"), {}, MICROBATCHES, now=0.0)[1].bit_count() == free


def test_who_claims_nothing_for_long_has_lost_its_microbatches() -> None:
    made = board()
    assert made.claim(A, {}, MICROBATCHES, now=0.0) == (0, ALL)
    assert made.claim(B, {}, MICROBATCHES, now=LEASE_SECONDS - 0.01) == (0, 0)
    made.claim(A, {0: ALL}, 0, now=LEASE_SECONDS - 0.01)
    assert made.claim(B, {}, MICROBATCHES, now=LEASE_SECONDS + 0.01) == (0, 0)
    assert made.claim(B, {}, MICROBATCHES, now=2 * LEASE_SECONDS) == (0, ALL)


def test_a_microbatch_is_open_as_long_as_one_stage_lacks_it() -> None:
    made = board(0b1111_1111, 0b0000_0111)
    [standing] = made.standings()
    assert standing.missing == (0, 0b1111_1000)
    assert made.claim(A, {}, MICROBATCHES, now=0.0) == (0, 0b1111_1000)


def test_what_a_server_had_counted_is_lost_with_it() -> None:
    made = board(ALL, ALL)
    other = PeerId("second stage, too")
    made.hear(other, Word(1, {0: 0b1}, 0))
    assert made.claim(A, {}, MICROBATCHES, now=0.0) == (0, 0)
    made.keep_only([SERVERS[0], other], (), now=0.0)
    assert made.claim(A, {}, MICROBATCHES, now=0.0) == (0, ALL & ~0b1)


def test_nothing_is_handed_out_while_a_stage_is_not_heard() -> None:
    made = Board(len(SERVERS), MICROBATCHES, now=-LEASE_SECONDS)
    made.hear(SERVERS[0], Word(0, {0: 0}, 0))
    made.keep_only(SERVERS, (), now=0.0)
    assert made.claim(A, {}, 1, now=0.0) == (0, 0)
    made.hear(SERVERS[1], Word(1, {0: 0}, 0))
    assert made.claim(A, {}, 1, now=0.0) == (0, 1)


def new_board(*counted: int) -> Board:
    made = Board(len(SERVERS), MICROBATCHES, now=0.0)
    for stage, (server, mask) in enumerate(zip(SERVERS, counted, strict=True)):
        made.hear(server, Word(stage, {0: mask}, 0))
    return made


def test_a_new_board_hands_out_nothing_before_all_trainers_have_said_what_they_have() -> None:
    made = new_board(0, 0)
    assert made.claim(A, {0: 0b1}, 1, now=0.0) == (0, 0)
    made.keep_only(SERVERS, (A, B), now=0.0)
    assert made.claim(A, {0: 0b1}, 1, now=0.1) == (0, 0)
    assert made.claim(B, {0: 0b10}, 1, now=0.1) == (0, 0)
    assert not made.standings()
    made.keep_only(SERVERS, (A, B), now=0.1)
    assert made.claim(B, {0: 0b10}, 1, now=0.1) == (0, 0b100)


def test_a_new_board_waits_for_nobody_longer_than_for_a_lease() -> None:
    made = new_board(0, 0)
    silent = PeerId("first stage, too")
    made.keep_only((*SERVERS, silent), (A, B), now=LEASE_SECONDS - 0.1)
    assert made.claim(A, {0: 0b1}, 1, now=LEASE_SECONDS - 0.1) == (0, 0)
    made.keep_only((*SERVERS, silent), (A, B), now=LEASE_SECONDS)
    assert made.claim(A, {0: 0b1}, 1, now=LEASE_SECONDS) == (0, 0b10)


def test_of_two_open_epochs_the_older_is_handed_out_first() -> None:
    made = Board(len(SERVERS), MICROBATCHES, now=-LEASE_SECONDS)
    for stage, server in enumerate(SERVERS):
        made.hear(server, Word(stage, {4: ALL & ~0b11, 5: 0}, 4))
    made.keep_only(SERVERS, (), now=0.0)
    assert made.claim(A, {}, MICROBATCHES, now=0.0) == (4, 0b11)
    assert made.claim(A, {4: 0b11}, 1, now=0.0) == (5, 0b1)


def test_a_stage_that_has_stepped_an_epoch_lacks_nothing_of_it() -> None:
    made = Board(len(SERVERS), MICROBATCHES, now=-LEASE_SECONDS)
    made.hear(SERVERS[0], Word(0, {5: 0}, 5))
    made.hear(SERVERS[1], Word(1, {4: 0b1}, 4))
    made.keep_only(SERVERS, (), now=0.0)
    assert made.epoch == 4
    assert made.standings()[0].missing == (0, ALL & ~0b1)


@pytest.mark.parametrize("lie", [0, 2**40], ids=["behind", "ahead"])
def test_of_three_peers_of_a_stage_one_liar_changes_nothing(lie: int) -> None:
    made, liar, fellow = board(ALL, 0b111, epoch=4), PeerId("liar"), PeerId("second stage, too")
    made.hear(fellow, Word(1, {4: 0b11000}, 4))
    made.hear(liar, Word(1, {}, lie))
    assert made.epoch == 4
    assert [standing.missing for standing in made.standings()] == [(0, 0b11100000)]


def test_what_the_first_to_step_had_counted_is_not_missing() -> None:
    """Its fellows still wait for the round's results."""
    made, first, fellow = board(ALL, 0b111, epoch=4), PeerId("first"), PeerId("second stage, too")
    made.hear(first, Word(1, {4: 0b11000}, 4))
    made.hear(fellow, Word(1, {4: 0b11100000}, 4))
    made.hear(first, Word(1, {5: 0}, 5))
    assert made.epoch == 4
    assert made.standings()[0].missing == (0, 0)
    made.hear(fellow, Word(1, {5: 0}, 5))
    assert made.standings()[0].missing == (0, 0)
    made.hear(SERVERS[0], Word(0, {5: 0}, 5))
    assert made.epoch == 5
    assert made.standings()[0].missing == (ALL, ALL)


@given(st.lists(st.integers(0, 20), min_size=1))
def test_at_least_half_have_come_to_where_a_stage_is(epochs: list[int]) -> None:
    at = come_to(epochs)
    assert 2 * sum(epoch >= at for epoch in epochs) >= len(epochs)
    assert 2 * sum(epoch > at for epoch in epochs) < len(epochs) + (len(epochs) == 1)


# -- who keeps microbatches to itself ---------------------------------------------------------------------------------


def hold(made: Board, trainer: PeerId, mask: int, start: float, end: float, epoch: int = 0) -> float:
    """It says to be at work on them all the time; returns when it last did."""
    now = start
    while now < end:
        made.claim(trainer, {epoch: mask}, 0, now)
        now += LEASE_SECONDS / 2
    return now


def test_what_a_trainer_has_had_for_long_goes_to_one_that_has_nothing_to_do() -> None:
    made = board()
    now = hold(made, A, ALL, 0.0, FIRST_HELD_SECONDS)
    assert made.claim(B, {}, 2, FIRST_HELD_SECONDS) == (0, 0)
    assert made.claim(B, {}, 2, now) == (0, 0b11)
    assert made.claim(B, {0: 0b11}, 2, now) == (0, 0), "it has something to do"
    assert made.claim(PeerId("c"), {}, 2, now) == (0, 0b1100), "and what B has is B's"


def test_to_let_go_for_a_moment_of_what_one_has_keeps_it_no_longer() -> None:
    made = board()
    now = 0.0
    while now <= FIRST_HELD_SECONDS:
        now = hold(made, A, ALL, now, now + 5.0)
        made.claim(A, {}, 0, now)  # and at once everything again
    made.claim(A, {0: ALL}, 0, now)
    assert made.claim(B, {}, MICROBATCHES, now) == (0, ALL)


def test_what_is_handed_out_anew_is_its_trainers_as_long_as_any() -> None:
    made = board()
    now = hold(made, A, ALL, 0.0, FIRST_HELD_SECONDS - 1.0)
    made.claim(A, {}, 0, now)
    assert made.claim(B, {}, MICROBATCHES, now) == (0, ALL)
    assert made.claim(A, {}, MICROBATCHES, hold(made, B, ALL, now, now + FIRST_HELD_SECONDS - 1.0)) == (0, 0)


def test_who_has_kept_others_waiting_does_so_for_a_while_no_more_and_then_only_once() -> None:
    made = board()
    kept_waiting = hold(made, A, ALL, 0.0, FIRST_HELD_SECONDS)
    made.claim(B, {}, MICROBATCHES, kept_waiting)
    for server, stage in ((SERVERS[0], 0), (SERVERS[1], 1)):
        made.hear(server, Word(stage, {1: 0}, 1))
    made.claim(A, {1: ALL}, 0, kept_waiting + 1)
    assert made.claim(B, {}, MICROBATCHES, kept_waiting + 1) == (1, ALL), "at once"
    again = hold(made, A, ALL, kept_waiting + UNHEEDED_SECONDS, kept_waiting + UNHEEDED_SECONDS + 1, epoch=1)
    made.claim(A, {1: ALL}, 0, again)
    assert made.claim(B, {}, MICROBATCHES, again) == (1, 0), "its word counts again"
    again = hold(made, A, ALL, again, again + made.held_seconds, epoch=1)
    assert made.claim(B, {}, MICROBATCHES, again) == (1, ALL)
    later = hold(made, A, ALL, again, again + 1.5 * UNHEEDED_SECONDS, epoch=1)
    assert made.claim(PeerId("c"), {}, MICROBATCHES, later) == (1, ALL), "for twice as long"


def test_where_a_stage_stands_still_trainers_keep_what_they_have() -> None:
    """As long as it has not been repaired: each has something that is not done."""
    made = board()
    for moment in range(int(10 * FIRST_HELD_SECONDS)):
        assert made.claim(A, {0: 0b1111}, MICROBATCHES, moment) == (0, ALL & ~0b1111 if moment == 0 else 0)
        assert made.claim(B, {0: ALL & ~0b1111}, MICROBATCHES, moment) == (0, 0)


def test_a_microbatch_that_was_counted_and_is_lost_again_is_its_trainers_as_if_it_were_new() -> None:
    made = board(ALL, ALL & ~0b1)
    made.claim(A, {0: ALL}, 0, 0.0)
    now = hold(made, A, ALL, 0.0, FIRST_HELD_SECONDS + LEASE_SECONDS)
    made.hear(SERVERS[1], Word(1, {0: 0}, 0))  # as by a restart
    later = hold(made, A, ALL, now, now + HELD_SECONDS)
    assert made.claim(B, {}, MICROBATCHES, later) == (0, 0b1), "not what it has lost just now"


STAGE = tuple(PeerId(name) for name in "xyz")
"""Of one stage, the only one."""


def stage_of(words: dict[PeerId, Word], now: float = 0.0, made: Board | None = None) -> Board:
    """What they say goes on until `now`."""
    made = made or Board(1, MICROBATCHES, now=-LEASE_SECONDS)
    for peer, word in words.items():
        made.hear(peer, word)
    made.keep_only(words, (), now)
    return made


def missing(made: Board) -> int:
    [standing] = made.standings()
    return standing.missing[0]


def lying(mask: int, known: int | None) -> dict[PeerId, Word]:
    """The first says to have counted everything, of which its stage knows nothing."""
    return {
        STAGE[0]: Word(0, {0: ALL}, 0, ALL),
        STAGE[1]: Word(0, {0: mask}, 0, known),
        STAGE[2]: Word(0, {0: 0}, 0, known),
    }


def test_what_half_of_a_stage_do_not_know_of_is_missing_after_a_while() -> None:
    made = stage_of(lying(0b1, 0b1))
    assert missing(made) == 0
    stage_of(lying(0b1, 0b1), UNKNOWN_SECONDS, made)
    assert missing(made) == 0
    stage_of(lying(0b1, 0b1), UNKNOWN_SECONDS + 0.1, made)
    assert missing(made) == ALL & ~0b1
    assert made.claim(A, {}, MICROBATCHES, now=UNKNOWN_SECONDS + 0.1) == (0, ALL & ~0b1)


def test_who_was_not_believed_is_not_in_the_next_epoch_either() -> None:
    made = stage_of(lying(0b1, 0b1))
    stage_of(lying(0b1, 0b1), UNKNOWN_SECONDS + 0.1, made)
    words = {peer: Word(0, {1: 0b11 if peer == STAGE[0] else 0}, 1, 0b1) for peer in STAGE}
    stage_of(words, UNKNOWN_SECONDS + 0.2, made)
    assert missing(made) == ALL & ~0b1
    stage_of(words, UNKNOWN_SECONDS + UNHEEDED_SECONDS, made)
    assert missing(made) == ALL & ~0b1


def test_what_a_stage_hears_of_late_is_believed_all_the_while() -> None:
    """Each is known to the others some seconds after it is counted."""
    made = stage_of({peer: Word(0, {0: 0}, 0, 0) for peer in STAGE})
    for number in range(MICROBATCHES):
        counted, known = (1 << number + 1) - 1, (1 << number) - 1
        words = {peer: Word(0, {0: counted if peer == STAGE[0] else 0}, 0, known) for peer in STAGE}
        stage_of(words, (number + 1) * (UNKNOWN_SECONDS - 1), made)
        assert missing(made) == ALL & ~counted


@pytest.mark.parametrize(
    "others",
    [[None, None], [ALL, 0], [None, 0]],
    ids=["nobody knows", "one of three denies it", "one denies it, one does not know"],
)
def test_fewer_than_half_take_nothing_from_who_has_counted_it(others: list[int | None]) -> None:
    words = {STAGE[0]: Word(0, {0: ALL}, 0, ALL)}
    words |= {peer: Word(0, {0: 0}, 0, known) for peer, known in zip(STAGE[1:], others, strict=True)}
    made = stage_of(words)
    stage_of(words, 100 * UNKNOWN_SECONDS, made)
    assert missing(made) == 0


def test_of_two_who_say_different_things_neither_is_believed() -> None:
    """Else one of two could stop the run."""
    words = {STAGE[0]: Word(0, {0: 0b1111_0000}, 0, 0b1111_0000), STAGE[1]: Word(0, {0: 0b1111}, 0, 0b1111)}
    made = stage_of(words)
    stage_of(words, UNKNOWN_SECONDS + 0.1, made)
    assert missing(made) == ALL
