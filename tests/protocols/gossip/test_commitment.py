"""Both sides of an exchange apply their shifts or neither does, whatever breaks when."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.commitment import MOST_IN_DOUBT, REMEMBERED, Decisions, Prepared
from protocols.identity import PeerId

CALLER, CALLEE, STRANGER = PeerId("caller"), PeerId("callee"), PeerId("stranger")
EXCHANGE = b"exchange"


def exchange(breaks_at: int, asked_at: int) -> tuple[bool, bool]:
    """One exchange whose stream breaks before step `breaks_at`, and whose callee in doubt is answered at step
    `asked_at` of the caller's; whether the caller and the callee have applied their shifts in the end."""
    decisions, prepared = Decisions(), Prepared[str]()
    applied_by_caller = applied_by_callee = False

    def caller() -> Iterator[None]:
        nonlocal applied_by_caller
        decisions.begin(EXCHANGE, CALLEE)
        yield
        if breaks_at <= 2:  # Prepared did not come
            decisions.give_up(EXCHANGE)
            yield
            return
        yield
        applied_by_caller = decisions.commit(EXCHANGE)
        yield

    steps = caller()
    next(steps)
    if breaks_at <= 1:  # the callee has not got the caller's model
        for _ in steps:
            pass
        return applied_by_caller, applied_by_callee
    prepared.prepare(EXCHANGE, "shift")
    answer: bool | None = None
    for number in range(4):
        if number == asked_at and breaks_at <= 3:  # Commit did not come: in doubt
            answer = decisions.answer(EXCHANGE, CALLEE)
        next(steps, None)
    if breaks_at > 3:
        answer = True
    elif answer is None:
        answer = decisions.answer(EXCHANGE, CALLEE)
    applied_by_callee = prepared.settle(EXCHANGE, committed=answer) is not None
    assert prepared.settle(EXCHANGE, committed=True) is None, "applied once"
    return applied_by_caller, applied_by_callee


@given(breaks_at=st.integers(1, 5), asked_at=st.integers(0, 5))
def test_both_apply_or_neither_wherever_the_stream_breaks_and_whenever_the_callee_asks(
    breaks_at: int, asked_at: int
) -> None:
    by_caller, by_callee = exchange(breaks_at, asked_at)
    assert by_caller == by_callee
    assert by_caller or breaks_at <= 3


def test_what_is_asked_before_it_is_decided_is_given_up_for_good() -> None:
    decisions = Decisions()
    decisions.begin(EXCHANGE, CALLEE)
    assert not decisions.answer(EXCHANGE, CALLEE)
    assert not decisions.commit(EXCHANGE)
    assert not decisions.answer(EXCHANGE, CALLEE)


def test_what_is_committed_stays_so() -> None:
    decisions = Decisions()
    decisions.begin(EXCHANGE, CALLEE)
    assert decisions.commit(EXCHANGE)
    decisions.give_up(EXCHANGE)
    assert decisions.answer(EXCHANGE, CALLEE)


def test_a_stranger_is_told_nothing_and_stops_nothing() -> None:
    decisions = Decisions()
    decisions.begin(EXCHANGE, CALLEE)
    assert not decisions.answer(EXCHANGE, STRANGER)
    assert not decisions.answer(b"never begun", STRANGER)
    assert decisions.commit(EXCHANGE)


def test_decisions_are_forgotten_in_their_order_and_never_by_being_asked() -> None:
    decisions = Decisions()
    for number in range(REMEMBERED + 1):
        decisions.begin(str(number).encode(), CALLEE)
        decisions.commit(str(number).encode())
    for number in range(3 * REMEMBERED):
        decisions.answer(f"made up {number}".encode(), CALLEE)
    assert not decisions.answer(b"0", CALLEE)
    assert decisions.answer(b"1", CALLEE)
    assert not decisions.commit(b"0")


def test_a_callee_says_when_it_is_prepared_for_as_much_as_it_may_be() -> None:
    prepared = Prepared[int]()
    for number in range(MOST_IN_DOUBT):
        assert not prepared.full
        prepared.prepare(str(number).encode(), number)
    assert prepared.full
    assert prepared.settle(b"0", committed=False) is None
    assert not prepared.full
    assert prepared.settle(b"1", committed=True) == 1
