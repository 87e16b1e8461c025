"""A peer may ask for much at once, and for less in the long run; and no peer for what another does."""

from dht.rates import MAX_PEERS, Rates
from protocols.identity import PeerId

ONE, OTHER = PeerId("one"), PeerId("other")


def test_a_burst_and_then_so_much_a_second() -> None:
    rates = Rates(per_second=10, burst=20)
    assert [rates.take(ONE, 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert [rates.take(ONE, 0.5) for _ in range(6)] == [True] * 5 + [False]
    assert sum(rates.take(ONE, 100.0) for _ in range(100)) == 20


def test_peers_have_buckets_of_their_own() -> None:
    rates = Rates(per_second=1, burst=1)
    assert rates.take(ONE, 0.0)
    assert not rates.take(ONE, 0.0)
    assert rates.take(OTHER, 0.0)


def test_what_is_refused_costs_nothing() -> None:
    rates = Rates(per_second=1, burst=10)
    assert not rates.take(ONE, 0.0, cost=11)
    assert rates.take(ONE, 0.0, cost=10)


def test_memory_is_bounded() -> None:
    rates = Rates(per_second=1, burst=1)
    for number in range(2 * MAX_PEERS):
        rates.take(PeerId(str(number)), 0.0)
    assert len(rates._buckets) == MAX_PEERS
