"""The run id names the manifest as it is; what follows from several of its fields."""

from protocols.manifest import Averaging, DataParallel, Manifest, Pipeline, Sgd
from tests.protocols.test_hostile_contents import MANIFEST


def test_a_copy_with_another_field_is_another_run() -> None:
    first = MANIFEST.run_id
    other = MANIFEST.model_copy(update={"epochs": MANIFEST.epochs + 1})
    assert MANIFEST.run_id == first != other.run_id
    assert Manifest.from_bytes(other.to_bytes(), other.run_id) == other


def test_who_is_banned_need_not_be_there_as_far_as_it_may_have_been_one_of_the_liars() -> None:
    averaging = Averaging(rule="median", byzantine=3, quorum=8)
    step = Sgd(learning_rate=0.1)
    rounds = MANIFEST.model_copy(
        update={"training": DataParallel(target_batch=64, optimizer=step), "averaging": averaging}
    )
    assert [rounds.quorum_without(banned) for banned in (0, 1, 3, 4, 100)] == [8, 7, 5, 5, 5]
    assert all(rounds.quorum_without(banned) > 2 * (3 - banned) for banned in range(4))
    cells = rounds.model_copy(update={"averaging": averaging.model_copy(update={"cells": 8})})
    stages = rounds.model_copy(update={"training": Pipeline(stages=2, target_batch=16, optimizer=step)})
    assert cells.quorum_without(3) == stages.quorum_without(3) == 8
