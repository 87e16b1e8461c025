"""Whose counts make up a stage's epoch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identity import PeerId
from protocols.round.contributors import MOST_QUARRELS, Contributors
from protocols.round.electorate import Electorate
from protocols.round.setting import Setting
from protocols.swarm.coverage import everything

MICROBATCHES = 8
ALL = everything(MICROBATCHES)
ME, *OTHERS = PEERS = [PeerId(name) for name in "abcde"]
MASKS = st.dictionaries(st.sampled_from(PEERS), st.integers(0, ALL), min_size=1)


def contributors(*suspended: PeerId) -> Contributors:
    setting = Setting("run", 3, b"b" * 32, ME, 64, 12, microbatches=MICROBATCHES, suspended=frozenset(suspended))
    return Contributors(setting, Electorate(PEERS, 64, quorum=2, is_open=False))


@given(st.lists(MASKS, max_size=20))
def test_what_counts_counts_once_and_who_leads_never_goes(said: list[dict[PeerId, int]]) -> None:
    made = contributors()
    for masks in said:
        kept = made.choose(masks)
        assert all(masks[peer] == mask for peer, mask in kept.items())
        assert sum(mask.bit_count() for mask in kept.values()) == sum(kept.values()).bit_count()
        assert ME not in made.out
        left_out = masks.keys() - kept.keys()
        assert left_out <= made.out | made.giving_way


@given(st.permutations(range(MICROBATCHES)), st.lists(st.sampled_from(PEERS), min_size=8, max_size=8))
def test_all_of_those_who_have_nothing_in_common_count(numbers: list[int], of: list[PeerId]) -> None:
    made, masks = contributors(), dict.fromkeys(PEERS, 0)
    for number, peer in zip(numbers, of, strict=True):
        masks[peer] |= 1 << number
        assert made.choose(masks) == masks
    assert not made.out | made.giving_way


@pytest.mark.parametrize("liar", PEERS)
def test_who_claims_everything_displaces_nobody(liar: PeerId) -> None:
    made = contributors()
    honest = {peer: 1 << number for number, peer in enumerate(PEERS) if peer != liar}
    assert made.choose(honest | {liar: 1 << MICROBATCHES - 1}) == honest | {liar: 1 << MICROBATCHES - 1}
    assert made.choose({liar: ALL} | honest) == honest
    assert made.giving_way == {liar}
    grown = {peer: mask | mask << 5 & ALL for peer, mask in honest.items()}
    assert made.choose({liar: ALL} | grown) == grown


def test_who_counts_what_counts_for_another_gives_way_and_not_the_other() -> None:
    made = contributors()
    made.choose({PEERS[1]: 0b1, PEERS[2]: 0b1110})
    assert made.choose({PEERS[1]: 0b11, PEERS[2]: 0b1110}) == {PEERS[2]: 0b1110}
    assert made.giving_way == {PEERS[1]}
    assert made.choose({PEERS[1]: 0, PEERS[2]: 0b1110}) == {PEERS[1]: 0, PEERS[2]: 0b1110}


def test_who_has_given_way_counts_again() -> None:
    made = contributors()
    made.choose({PEERS[1]: 0b11, PEERS[2]: 0b1110})
    assert made.giving_way == {PEERS[2]}
    assert made.choose({PEERS[1]: 0b11, PEERS[2]: 0b1100}) == {PEERS[1]: 0b11, PEERS[2]: 0b1100}
    assert not made.giving_way


def test_who_claims_what_others_have_again_and_again_goes() -> None:
    """Each time it gives way at once, or the other does; it picks another one each time."""
    made, liar = contributors(), PEERS[4]
    honest = {peer: 0b11 << 2 * number for number, peer in enumerate(PEERS[:4])}
    for times in range(MOST_QUARRELS + 1):
        assert liar not in made.out
        victim = PEERS[times % 4]
        made.choose(honest | {liar: honest[victim] & -honest[victim]})
        made.choose(honest | {liar: 0})
    assert made.out == {liar}
    assert not made.at_fault, "nobody can tell which of two is"
    assert made.choose(honest | {liar: ALL}) == honest


def test_of_two_who_quarrel_for_ever_one_goes() -> None:
    made, (one, other) = contributors(), OTHERS[:2]
    for _ in range(MOST_QUARRELS + 1):
        made.choose({one: 0b1, other: 0b11})
        made.choose({one: 0b1, other: 0b10})
    assert len(made.out) == 1
    assert made.out < {one, other}


def test_who_has_counted_what_no_epoch_has_goes() -> None:
    made = contributors()
    assert made.choose({PEERS[1]: ALL + 1, PEERS[2]: 0b1}) == {PEERS[2]: 0b1}
    assert made.out == {PEERS[1]}


def test_who_is_not_ready_with_what_it_said_goes_and_is_at_fault() -> None:
    made = contributors()
    for _ in range(MOST_QUARRELS + 1):
        assert not made.at_fault
        made.break_word(PEERS[1])
    assert made.out == made.at_fault == {PEERS[1]}


def test_who_is_not_ready_for_too_long_goes_however_many_terms_begin() -> None:
    made, slow = contributors(), PEERS[3]
    for opened in (0.0, 8.0, 16.0):
        made.wait_for([slow], opened, too_long_since=opened + 3 - 20)
        assert not made.out
    made.wait_for([slow], 24.0, too_long_since=24.0 - 20)
    assert made.out == {slow}


def test_who_was_ready_meanwhile_is_waited_for_anew() -> None:
    made, slow = contributors(), PEERS[3]
    made.wait_for([slow], 0.0, too_long_since=-10.0)
    made.wait_for([], 10.0, too_long_since=-5.0)
    made.wait_for([slow], 20.0, too_long_since=5.0)
    assert not made.out


def test_the_suspended_do_not_count_and_are_not_at_fault_again() -> None:
    made = contributors(PEERS[2])
    assert made.choose({PEERS[1]: 0b1, PEERS[2]: 0b10}) == {PEERS[1]: 0b1}
    assert not made.at_fault


def test_who_suspends_too_many_counts_them_all() -> None:
    masks = {peer: 1 << number for number, peer in enumerate(PEERS)}
    assert contributors(*PEERS[1:4]).choose(masks) == masks
