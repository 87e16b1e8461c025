"""Microbatches find the peers that are there, in proportion to what these can do."""

import heapq
from collections import Counter
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
    under_way: list[tuple[float, PeerId, float]] = []
    done: Counter[PeerId] = Counter()

    def begin(now: float) -> None:
        peer = made.choose(STAGE, now, Task.FORWARD)
        assert peer is not None
        free[peer] = max(now, free[peer]) + seconds[peer]
        heapq.heappush(under_way, (free[peer], peer, now))

    for _ in range(in_flight):
        begin(0.0)
    while under_way[0][0] < until:
        now, peer, began = heapq.heappop(under_way)
        made.done(STAGE, peer, Task.FORWARD, now - began)
        done[peer] += 1
        begin(now)
    return done


@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=8), st.integers(0, 2**32), st.sampled_from([3, 4, 6]))
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
