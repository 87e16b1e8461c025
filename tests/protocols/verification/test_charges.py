"""What a charge shows is what was signed, and whether it is right is what anybody recomputes."""

from collections.abc import Callable

import numpy as np
import pytest

from protocols.encoding import digest
from protocols.rejection import Reason, Rejected
from protocols.rules import DistanceRule, Matrix, Rows
from protocols.vectors import Vector
from protocols.verification.charges import (
    Observation,
    ReducedPart,
    is_as_recomputed,
    is_reduced_right,
    open_begin,
    open_reduced,
    open_sent,
)
from tests.protocols.verification.rounds import PEERS, RUN, PlayedRound

TOLERANCE = 0.01
CODECS = ["none", "float16", "int8"]


def refusal(call: Callable[[], object]) -> Reason:
    with pytest.raises(Rejected) as refused:
        call()
    return refused.value.reason


# -- senders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
def test_the_same_work_on_another_machine_is_right_and_other_work_is_not(codec_name: str) -> None:
    played = PlayedRound(codec_name=codec_name)
    update, chunk = played.updates[2], 1
    sent = open_sent(
        played.begin, played.contributions[2].wire, chunk, played.encoded[2].chunks[chunk], played.codec, played.grid
    )
    assert (sent.sender, sent.weight) == (PEERS[2], 30)

    def right(recomputed: Vector) -> bool:
        return is_as_recomputed(sent, recomputed, played.codec, played.grid, TOLERANCE)

    noise = np.random.default_rng(2).standard_normal(len(update)).astype(np.float32)
    assert right(update)
    assert right(update + np.float32(1e-4) * noise)
    assert not right(update + np.float32(0.05) * noise)
    assert not right(-update)
    assert not right(np.float32(1.5) * update)
    assert not right(np.zeros_like(update))


def test_a_chunk_of_next_to_nothing_is_right_when_the_other_is() -> None:
    """Rounding is not small beside zero."""
    updates = PlayedRound().updates
    tiny = updates[0].copy()
    tiny[:256] = 1e-9
    played = PlayedRound(updates=[tiny, *updates[1:]])
    sent = open_sent(
        played.begin, played.contributions[0].wire, 0, played.encoded[0].chunks[0], played.codec, played.grid
    )
    recomputed = tiny.copy()
    recomputed[:256] = -2e-9
    assert is_as_recomputed(sent, recomputed, played.codec, played.grid, TOLERANCE)


def test_nobody_can_show_what_was_not_sent() -> None:
    played = PlayedRound()
    chunk = bytes(played.encoded[2].chunks[0])
    other = PlayedRound(updates=[np.float32(2) * update for update in played.updates])

    def shown(wire: bytes, payload: bytes = chunk, number: int = 0) -> Callable[[], object]:
        return lambda: open_sent(played.begin, wire, number, payload, played.codec, played.grid)

    good = played.contributions[2].wire
    assert refusal(shown(good, bytes(len(chunk)))) is Reason.WRONG_DIGEST
    assert refusal(shown(good, number=1)) is Reason.WRONG_DIGEST
    assert refusal(shown(good, number=10_000)) is Reason.WRONG_DIGEST
    assert refusal(shown(played.contributions[3].wire)) is Reason.WRONG_DIGEST
    assert refusal(shown(other.contributions[2].wire)) is Reason.UNEXPECTED
    assert refusal(shown(played.contribution(2, epoch=8).wire)) is Reason.UNEXPECTED
    assert refusal(shown(played.contribution(2, begin=digest(b"other")).wire)) is Reason.UNEXPECTED
    assert refusal(shown(played.contribution(2, chunks=played.encoded[1].digests).wire)) is Reason.WRONG_DIGEST
    assert refusal(shown(good[:-1] + bytes([good[-1] ^ 1]))) is Reason.BAD_SIGNATURE
    assert refusal(shown(b"")) is Reason.MALFORMED
    assert refusal(lambda: open_begin(played.begin.wire, "other-" + "b" * 26, played.grid.chunks)) is Reason.WRONG_RUN
    assert refusal(lambda: open_begin(played.begin.wire, RUN, played.grid.chunks + 1)) is Reason.MALFORMED


# -- owners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
@pytest.mark.parametrize("rule_name", ["mean", "median", "nnm | geometric_median"])
def test_what_the_rule_makes_of_the_chunks_is_right(rule_name: str, codec_name: str) -> None:
    played = PlayedRound(rule_name, codec_name)
    observed = [statement.wire for statement in played.observed]
    weighs = isinstance(played.rule, DistanceRule)
    reduced = open_reduced(played.begin, played.result.wire, observed, weighs=weighs)
    for chunk, payload in enumerate(played.chunks):

        def right(result: bytes, chunk: int = chunk) -> bool:
            return is_reduced_right(
                reduced, chunk, result, played.rows(chunk), played.rule, played.codec, played.grid, TOLERANCE
            )

        assert right(payload)
        values = played.codec.decode(payload, played.grid.size(chunk))
        assert not right(bytes(played.codec.encode(-values)))
        assert not right(bytes(played.codec.encode(values * np.float32(1.1))))


def test_a_result_is_held_against_what_its_owner_has_signed_and_nothing_else() -> None:
    played, other = PlayedRound(), PlayedRound(updates=[np.float32(2) * row for row in PlayedRound().updates])
    assert refusal(lambda: open_reduced(played.begin, other.result.wire, (), weighs=False)) is Reason.UNEXPECTED
    assert refusal(lambda: open_reduced(played.begin, b"noise", (), weighs=False)) is Reason.MALFORMED
    weighed = PlayedRound("nnm | geometric_median")
    wires = [statement.wire for statement in weighed.observed]
    assert refusal(lambda: open_reduced(weighed.begin, weighed.result.wire, [], weighs=True)) is Reason.UNEXPECTED
    twice = [*wires, *wires]
    assert refusal(lambda: open_reduced(weighed.begin, weighed.result.wire, twice, weighs=True)) is Reason.UNEXPECTED


def test_what_an_heir_gives_is_checked_as_well_and_so_is_what_was_observed_before() -> None:
    played = PlayedRound("nnm | geometric_median")
    assert isinstance(played.rule, DistanceRule)
    for by, seen_right in ((played.rule, True), (FarSecond(played.rule.name, 1, {}), False)):
        result, chunks, observed = played.reduce(by, heir=2)
        reduced = open_reduced(played.begin, result.wire, [one.wire for one in observed], weighs=True)
        assert (reduced.owner, reduced.observer) == (PEERS[2], PEERS[0])
        observation = Observation(reduced, played.rule, played.codec, played.grid)
        for chunk in range(played.grid.chunks):
            observation.add(chunk, played.rows(chunk))
        assert observation.is_right() is seen_right

        def right(payload: bytes, reduced: ReducedPart = reduced) -> bool:
            return is_reduced_right(
                reduced, 0, payload, played.rows(0), played.rule, played.codec, played.grid, TOLERANCE
            )

        assert right(chunks[0])
        values = played.codec.decode(chunks[0], played.grid.size(0))
        assert not right(bytes(played.codec.encode(-values)))


def test_what_somebody_has_observed_in_another_round_is_held_against_nobody() -> None:
    played = PlayedRound("nnm | geometric_median")
    result, _, observed = played.reduce(of=digest(b"another"))
    wires = [one.wire for one in observed]
    assert refusal(lambda: open_reduced(played.begin, result.wire, wires, weighs=True)) is Reason.UNEXPECTED


class FarSecond(DistanceRule):
    def observe(self, rows: Rows) -> Matrix:
        gram = super().observe(np.asarray(rows))
        gram[1, 1] *= 2
        return gram


class ThirdInTheMiddle(DistanceRule):
    def observe(self, rows: Rows) -> Matrix:
        gram = super().observe(np.asarray(rows))
        instead = np.eye(len(gram))
        instead[2] = np.array([1, 1, 0, 1, 0, 0]) / 3
        moved: Matrix = instead @ gram @ instead.T
        return moved


class FirstTwoTooAlike(DistanceRule):
    def observe(self, rows: Rows) -> Matrix:
        gram = super().observe(np.asarray(rows))
        gram[0, 1] = gram[1, 0] = 10 * gram.diagonal().max()
        return gram


class AboutAnother(DistanceRule):
    """The reference is the first row, as another processor may choose it."""

    def observe(self, rows: Rows) -> Matrix:
        gram = super().observe(np.asarray(rows))
        about: Matrix = gram - gram[0] - gram[:, [0]] + gram[0, 0]
        return about


def is_seen_as_right(played: PlayedRound, by: DistanceRule) -> bool:
    """What an owner observes who goes by this rule."""
    assert isinstance(played.rule, DistanceRule)
    result, _, observed = played.reduce(by)
    reduced = open_reduced(played.begin, result.wire, [one.wire for one in observed], weighs=True)
    observation = Observation(reduced, played.rule, played.codec, played.grid)
    for chunk in range(played.grid.chunks):
        observation.add(chunk, played.rows(chunk))
    return observation.is_right()


@pytest.mark.parametrize("alike", [0.0, 3.0, 100.0, 1e5])
def test_false_distances_are_told_from_true_ones(alike: float) -> None:
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((5, 1000)) + alike * generator.standard_normal(1000)
    rows[4] *= 1e4  # an attacker's
    played = PlayedRound("nnm | geometric_median", updates=list(rows.astype(np.float32)))
    name = played.rule_name
    assert is_seen_as_right(played, DistanceRule(name, 1, {}))
    assert is_seen_as_right(played, AboutAnother(name, 1, {}))
    assert not is_seen_as_right(played, FarSecond(name, 1, {}))
    assert not is_seen_as_right(played, ThirdInTheMiddle(name, 1, {}))


def test_no_two_are_closer_than_equal() -> None:
    rows = np.random.default_rng(2).standard_normal((5, 1000)).astype(np.float32)
    rows[1] = rows[0]
    played = PlayedRound("nnm | geometric_median", updates=list(rows))
    assert is_seen_as_right(played, DistanceRule(played.rule_name, 1, {}))
    assert not is_seen_as_right(played, FirstTwoTooAlike(played.rule_name, 1, {}))
