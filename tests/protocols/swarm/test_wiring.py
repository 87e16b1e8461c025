"""Microbatches find the peers that are there, in proportion to what these can do."""

import heapq
from collections import Counter, deque
from contextlib import AbstractContextManager, ExitStack
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identity import PeerId
from protocols.swarm.wiring import MOST_OUT_SECONDS, OUT_SECONDS, Task, Wiring

STAGE = 2
A, B, C = (PeerId(name) for name in "abc")


def wiring(*peers: PeerId) -> Wiring:
    made = Wiring(Random(0).random)
    made.set_peers(STAGE, peers)
    return made


def serve(made: Wiring, seconds: dict[PeerId, float], in_flight: int, until: float) -> Counter[PeerId]:
    """How many microbatches each peer has done, one after the other, when so many are always under way."""
    free = dict.fromkeys(seconds, 0.0)
    works: list[tuple[float, PeerId, float]] = []
    there = {peer: deque[AbstractContextManager[None]]() for peer in seconds}
    done: Counter[PeerId] = Counter()

    def begin(now: float) -> None:
        peer = made.choose(STAGE, now, Task.FORWARD)
        assert peer is not None
        there[peer].append(made.under_way(STAGE, peer))
        there[peer][-1].__enter__()
        free[peer] = max(now, free[peer]) + seconds[peer]
        heapq.heappush(works, (free[peer], peer, now))

    for _ in range(in_flight):
        begin(0.0)
    while works[0][0] < until:
        now, peer, began = heapq.heappop(works)
        there[peer].popleft().__exit__(None, None, None)
        made.done(STAGE, peer, Task.FORWARD, now - began)
        done[peer] += 1
        begin(now)
    return done


@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=8), st.integers(0, 2**32), st.sampled_from([2, 3, 4, 6]))
def test_peers_do_nearly_all_that_their_speeds_allow(speeds: list[float], seed: int, each: int) -> None:
    seconds = {PeerId(f"peer {number}"): second for number, second in enumerate(speeds)}
    made = Wiring(Random(seed).random)
    made.set_peers(STAGE, seconds)
    until = 200 * max(speeds)
    done = serve(made, seconds, each * len(speeds), until)
    assert sum(done.values()) >= 0.9 * sum(until / second for second in speeds)


def test_who_is_five_times_slower_gets_a_fifth() -> None:
    done = serve(wiring(A, B), {A: 0.1, B: 0.5}, in_flight=8, until=500)
    assert done[A] / done[B] == pytest.approx(5, rel=0.1)


def test_who_is_wanted_is_chosen_if_it_can() -> None:
    made = wiring(A, B, C)
    assert [made.choose(STAGE, 0.0, Task.BACKWARD, wanted=C) for _ in range(5)] == [C] * 5
    assert {made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(4)} == {A, B}  # C has been given the most
    with made.under_way(STAGE, C):
        assert made.choose(STAGE, 0.0, Task.BACKWARD, wanted=C) == C
        with made.under_way(STAGE, C):
            assert made.choose(STAGE, 0.0, Task.BACKWARD, wanted=C) in (A, B)  # it is slower, or has too much to do
    made.failed(STAGE, C, 0.0)
    assert made.choose(STAGE, 0.0, Task.BACKWARD, wanted=C) in (A, B)
    assert made.choose(STAGE, OUT_SECONDS + 1, Task.BACKWARD, wanted=C) == C
    assert made.choose(STAGE, OUT_SECONDS + 1, Task.BACKWARD, {C}, wanted=C) in (A, B)
    assert made.choose(STAGE, 0.0, Task.BACKWARD, wanted=PeerId("stranger")) in (A, B)


def test_a_peer_that_became_slow_does_not_hold_all_works() -> None:
    """Though what was known of it was better, and nothing else is known as long as it does not answer."""
    made = wiring(A, B)
    for peer, seconds in ((A, 0.1), (B, 1.0)):
        made.done(STAGE, peer, Task.FORWARD, seconds)
    with ExitStack() as there:
        given = Counter[PeerId]()
        for _ in range(8):
            peer = made.choose(STAGE, 0.0, Task.FORWARD)
            assert peer is not None
            there.enter_context(made.under_way(STAGE, peer))
            given[peer] += 1
        assert given == {A: 4, B: 4}
    assert Counter(made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(8))[A] >= 7  # they have all been answered


def test_who_is_busy_or_excluded_keeps_nobody_from_more() -> None:
    made = wiring(A, B, C)
    made.busy(STAGE, B, until=1.0)
    with made.under_way(STAGE, A), made.under_way(STAGE, A):
        assert made.choose(STAGE, 0.0, Task.FORWARD, exclude=[C]) == A


def test_works_of_who_has_left_and_come_again_do_not_count() -> None:
    made = wiring(A, B)
    with made.under_way(STAGE, A):
        made.set_peers(STAGE, [B])
        made.set_peers(STAGE, [A, B])
        with made.under_way(STAGE, B):
            assert made.choose(STAGE, 0.0, Task.FORWARD) == A
    with made.under_way(STAGE, A):
        assert made.choose(STAGE, 0.0, Task.FORWARD) == B


def test_what_is_usual_is_known_when_something_was_answered() -> None:
    made = wiring(A, B)
    assert made.usual(STAGE, A, Task.FORWARD) is None
    assert made.usual(STAGE, C, Task.FORWARD) is None
    made.done(STAGE, A, Task.FORWARD, 2.0)
    assert made.usual(STAGE, A, Task.FORWARD) == pytest.approx(2)
    assert made.usual(STAGE, A, Task.BACKWARD) == pytest.approx(5)  # two forward passes and a half
    assert made.usual(STAGE, B, Task.FORWARD) is None


def test_a_new_peer_comes_next_and_is_not_flooded() -> None:
    made = wiring(A, B)
    for _ in range(100):
        made.choose(STAGE, 0.0, Task.FORWARD)
    made.set_peers(STAGE, [A, B, C])
    chosen = Counter(made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(9))
    assert C in (made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(3))
    assert max(chosen.values()) <= 4


def test_who_fails_is_struck_out_longer_each_time_and_tried_again() -> None:
    made = wiring(A, B)
    made.failed(STAGE, A, 0.0)
    assert {made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(10)} == {B}
    assert A in {made.choose(STAGE, OUT_SECONDS, Task.FORWARD) for _ in range(10)}
    made.failed(STAGE, A, 1.0)
    assert {made.choose(STAGE, 1.0 + 1.5 * OUT_SECONDS, Task.FORWARD) for _ in range(10)} == {B}
    for _ in range(20):
        made.failed(STAGE, A, 10.0)
    assert A in {made.choose(STAGE, 10.0 + MOST_OUT_SECONDS, Task.FORWARD) for _ in range(10)}
    made.done(STAGE, A, Task.FORWARD, 0.1)
    made.failed(STAGE, A, 100.0)
    assert A in {made.choose(STAGE, 100.0 + OUT_SECONDS, Task.FORWARD) for _ in range(10)}


def test_who_comes_back_does_not_get_all_that_the_others_were_given_meanwhile() -> None:
    made = wiring(A, B, C)
    for number in range(300):
        made.busy(STAGE, A, until=number + 1.0)
        made.choose(STAGE, float(number), Task.FORWARD)
    chosen = Counter(made.choose(STAGE, 1000.0, Task.FORWARD) for _ in range(30))
    assert chosen[A] <= 12


def test_nobody_is_chosen_where_nobody_is_or_all_are_excluded_or_out() -> None:
    assert Wiring(Random(0).random).choose(STAGE, 0.0, Task.FORWARD) is None
    made = wiring(A, B)
    assert made.choose(STAGE, 0.0, Task.FORWARD, exclude=[A, B]) is None
    assert {made.choose(STAGE, 0.0, Task.BACKWARD, exclude=[A]) for _ in range(5)} == {B}
    for peer in (A, B):
        made.failed(STAGE, peer, 0.0)
    assert made.choose(STAGE, 0.0, Task.FORWARD) is None
    made.set_peers(STAGE, [])
    assert made.choose(STAGE, 1e9, Task.FORWARD) is None


def test_who_leaves_and_comes_again_begins_anew() -> None:
    made = wiring(A, B)
    for _ in range(20):
        made.failed(STAGE, A, 0.0)
    made.set_peers(STAGE, [B])
    made.set_peers(STAGE, [A, B])
    assert A in {made.choose(STAGE, 0.0, Task.FORWARD) for _ in range(4)}


def test_the_share_is_by_speed_and_a_backward_pass_counts_more() -> None:
    made = wiring(A, B)
    for _ in range(50):
        made.done(STAGE, A, Task.FORWARD, 0.1)
        made.done(STAGE, B, Task.BACKWARD, 0.5)  # 0.2 a forward pass
    share = made.share(STAGE)
    assert share[A] == pytest.approx(2 / 3)
    assert sum(share.values()) == pytest.approx(1)


def test_words_about_who_is_gone_change_nothing() -> None:
    made = wiring(A)
    made.done(STAGE, B, Task.FORWARD, 1.0)
    made.failed(STAGE, B, 0.0)
    made.busy(7, A, until=10.0)
    assert made.choose(STAGE, 0.0, Task.FORWARD) == A
    assert made.share(STAGE) == {A: 1.0}


def test_who_has_failed_and_answered_nothing_is_expected_to_be_as_the_others() -> None:
    wiring = Wiring(lambda: 0.0)
    fast, silent = PeerId("fast"), PeerId("silent")
    wiring.set_peers(0, [fast, silent])
    wiring.done(0, fast, Task.FORWARD, 0.2)
    assert wiring.usual(0, silent, Task.FORWARD) is None
    wiring.failed(0, silent, now=0.0)
    assert wiring.usual(0, silent, Task.FORWARD) == 0.2
