"""Forward passes wait for their backward passes within a budget, and not for ever."""

from dataclasses import replace

import pytest
import torch

from peer.swarm import kept_passes
from peer.swarm.kept_passes import MOST_OVERTAKEN, ForwardPass, KeptPasses, Passage, kept_bytes
from protocols.activations import TensorHeader
from protocols.identity import PeerId

TRAINER, OTHER = PeerId("trainer"), PeerId("other")
HEADER = TensorHeader(encoding="none", shape=(1,))


def passage(microbatch: int, trainer: PeerId = TRAINER, inputs: bytes = b"inputs") -> Passage:
    return Passage(trainer, 0, microbatch, HEADER, inputs)


def forward(size: int) -> ForwardPass:
    return ForwardPass(torch.zeros(1), torch.zeros(1), size)


@pytest.mark.parametrize(
    ("said", "free", "expected"),
    [
        (0.0, 8e9, 0),
        (1.5, 8e9, 1_500_000),
        (None, 8e9, 1_000_000_000),
        (None, 0.0, 0),
        (None, None, 256_000_000),
    ],
)
def test_the_budget_is_what_the_user_says_or_a_share_of_what_is_free(
    said: float | None, free: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_passes, "available_memory_bytes", lambda: free)
    assert kept_bytes(said) == expected


def test_those_that_came_first_stay_and_more_have_room_when_they_are_taken() -> None:
    kept = KeptPasses(budget_bytes=100)
    for number in range(5):
        kept.keep(passage(number), forward(40))
    assert kept.used_bytes == 80
    assert not kept.has_room
    assert kept.take(passage(2)) is None
    assert kept.take(passage(0)) is not None
    assert kept.has_room
    assert kept.take(passage(0)) is None
    assert kept.used_bytes == 40
    kept.clear()
    assert (kept.used_bytes, kept.take(passage(1))) == (0, None)


def test_one_that_comes_again_takes_its_place() -> None:
    kept = KeptPasses(budget_bytes=100)
    kept.keep(passage(0), forward(40))
    again = forward(60)
    kept.keep(passage(0), again)
    assert kept.used_bytes == 60
    assert kept.take(passage(0)) is again


def test_other_inputs_are_another_passage() -> None:
    kept = KeptPasses(budget_bytes=100)
    kept.keep(passage(0), forward(40))
    other_shape = replace(passage(0), header=TensorHeader(encoding="none", shape=(1, 1)))
    for other in (passage(0, inputs=b"others"), passage(0, OTHER), other_shape):
        assert other not in kept
        assert kept.take(other) is None
    assert passage(0) in kept


def test_nothing_is_kept_without_a_budget_or_beyond_it() -> None:
    for budget in (0, 39):
        kept = KeptPasses(budget)
        kept.keep(passage(0), forward(40))
        assert not kept.has_room
        assert kept.take(passage(0)) is None


def test_who_does_not_come_back_makes_room_for_others() -> None:
    """A trainer that only ever asks for forward passes, or whose backward passes go elsewhere."""
    kept = KeptPasses(budget_bytes=100)
    for number in range(3):
        kept.keep(passage(number, OTHER), forward(40))
    for number in range(MOST_OVERTAKEN):
        assert not kept.has_room
        kept.take(passage(number))
    assert not kept.has_room
    kept.take(passage(MOST_OVERTAKEN))
    assert kept.has_room
    assert kept.used_bytes == 0
