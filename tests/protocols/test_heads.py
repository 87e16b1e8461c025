"""The choice of the swarm's state."""

import time

from hypothesis import given
from hypothesis import strategies as st

from peer.roster import MAX_MEMBERS
from protocols.encoding import digest
from protocols.heads import agree, choose, choose_from, states_until
from protocols.identity import PeerId
from tests.protocols.round.simulation import PEERS


def history(newest: int, branch: str = "main", since: int = 0, length: int = 16) -> dict[int, bytes]:
    epochs = range(max(0, newest - length + 1), newest + 1)
    return {e: digest(f"{branch if e >= since else 'main'} {e}".encode()) for e in epochs}


def test_peers_one_epoch_apart_tell_one_history() -> None:
    heads = {PEERS[0]: history(11), PEERS[1]: history(10), PEERS[2]: history(10), PEERS[3]: history(11)}
    chosen = choose(heads)
    assert (chosen.epoch, chosen.digest) == (10, history(10)[10])
    assert set(chosen.holders) == set(PEERS[:4])


def test_a_forger_far_ahead_loses_against_two() -> None:
    heads = {PEERS[0]: history(5), PEERS[1]: history(5), PEERS[2]: history(10**9, "forged", since=1)}
    assert choose(heads).epoch == 5


def test_of_two_forks_the_larger_wins_even_when_it_is_behind() -> None:
    heads = {p: history(9, "left", since=6) for p in PEERS[:3]} | {p: history(14, "right", since=6) for p in PEERS[3:5]}
    chosen = choose(heads)
    assert (chosen.epoch, set(chosen.holders)) == (9, set(PEERS[:3]))


def test_of_equal_forks_the_one_that_is_further_wins() -> None:
    heads = {PEERS[0]: history(3, "left", since=1), PEERS[1]: history(5, "right", since=1)}
    assert choose(heads).epoch == 5


def test_who_is_behind_on_another_fork_tells_another_history() -> None:
    ahead, behind = history(9, "left", since=6), history(8, "right", since=6)
    assert choose({PEERS[0]: ahead, PEERS[1]: behind}).tellers == {PEERS[0]}
    assert choose({PEERS[0]: ahead, PEERS[1]: history(7, "left", since=6)}).tellers == set(PEERS[:2])


def test_the_states_before_the_chosen_one_are_those_that_most_of_its_tellers_remember() -> None:
    forged = history(12) | {8: digest(b"forged")}
    heads = {PEERS[0]: history(12, length=3), PEERS[1]: history(11, length=6), PEERS[2]: forged}
    states = states_until(choose(heads), heads)
    assert sorted(states) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]  # of 8 two tell different things
    assert states[9].digest == history(9)[9]
    assert set(states[9].holders) == {PEERS[1], PEERS[2]}
    assert set(states[11].holders) == set(PEERS[:3])
    assert set(states[12].holders) == {PEERS[0], PEERS[2]}


def test_nobody_has_a_state() -> None:
    assert choose({}) is None


@given(
    st.dictionaries(st.sampled_from(PEERS), st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(0, 9)))
)
def test_all_choose_alike_and_the_holders_hold(told: dict) -> None:
    heads = {peer: history(newest, branch, since) for peer, (newest, branch, since) in told.items()}
    chosen = choose(heads)
    assert chosen == choose(dict(reversed(heads.items())))
    if chosen is not None:
        assert chosen.holders
        assert all(heads[holder][chosen.epoch] == chosen.digest for holder in chosen.holders)
        states = states_until(chosen, heads)
        assert max(states) == chosen.epoch
        assert states[chosen.epoch] == chosen
        for epoch, state in states.items():
            assert state.holders
            assert all(heads[holder][epoch] == state.digest for holder in state.holders)


def test_who_has_just_fetched_the_state_has_not_made_it() -> None:
    chosen = choose({PEERS[0]: history(9), PEERS[1]: history(9, length=1), PEERS[2]: history(9, length=2)})
    assert set(chosen.holders) == set(PEERS[:3])
    assert set(chosen.makers) == {PEERS[0], PEERS[2]}


def test_a_snapshot_counts_as_much_as_one_newcomer() -> None:
    snapshot = {40: history(40)[40]}
    chosen = choose_from({PEERS[0]: history(3, "blank", since=1)}, PEERS[9], snapshot)
    assert (chosen.epoch, chosen.tellers) == (40, {PEERS[9]})
    assert choose_from({}, PEERS[9], snapshot).epoch == 40


def test_a_snapshot_of_an_abandoned_history_loses_against_two() -> None:
    two = {peer: history(9) for peer in PEERS[:2]}
    assert choose_from(two, PEERS[9], {40: history(40, "abandoned", since=5)[40]}).epoch == 9


def test_how_far_the_history_of_a_snapshot_has_come_is_for_the_others_to_say() -> None:
    chosen = choose_from({PEERS[0]: history(50)}, PEERS[9], {40: history(50)[40]})
    assert (chosen.epoch, chosen.holders) == (50, (PEERS[0],))


def test_as_many_histories_as_a_roster_holds_are_compared_in_a_moment() -> None:
    """Each identity may tell one of its own: pair by pair that took the event loop half a minute."""
    heads = {PeerId(f"peer {number}"): history(20, str(number), since=5) for number in range(MAX_MEMBERS)}
    began = time.process_time()
    assert len(choose(heads).tellers) == 1
    assert time.process_time() - began < 3


@given(
    st.dictionaries(
        st.sampled_from(PEERS),
        st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(0, 40), st.integers(1, 16)),
        min_size=1,
    )
)
def test_the_history_that_most_tell_is_chosen(told: dict) -> None:
    heads = {peer: history(*said) for peer, said in told.items()}
    most = max(sum(agree(one, other) for other in heads.values()) for one in heads.values())
    assert len(choose(heads).tellers) == most
