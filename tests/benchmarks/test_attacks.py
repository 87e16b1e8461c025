"""The attacks' benchmark: sixteen whole participants, of which some attack."""

import numpy as np
import pytest
from attack_swarm import PEERS, Case, Share, run, shares

from peer.data.digits import Digits
from peer.misbehaviour import FlippedLabels


def case(rule: str, attack: str | None, **changes: object) -> Case:
    settings = {"attackers": 3, "split": False, "epochs": 6, "seed": 1} | changes
    return Case(rule=rule, attack=attack, **settings)


@pytest.mark.parametrize("attack", ["sign_flip", "nan"])
def test_honest_peers_learn_together_whatever_is_sent(attack: str) -> None:
    course = run(case("trimmed_mean", attack), Digits())
    assert course.agree
    assert course.accuracy[5] > 0.25


def test_split_data_are_all_of_it_each_once_and_each_peers_are_of_few_labels() -> None:
    whole = Digits()
    own = shares(whole, case("mean", None, split=True))
    together = np.concatenate(own)
    assert len(set(together)) == len(together) > 0.99 * whole.train_size
    assert len(own) == PEERS
    for indices in own:
        _, labels = whole.batch(indices)
        counts = np.sort(np.bincount(labels.numpy(), minlength=10))
        assert counts[-3:].sum() > 0.55 * counts.sum()


def test_flipped_labels_are_those_of_training_alone() -> None:
    whole = Digits()
    indices = np.arange(10)
    flipped = Share(FlippedLabels(whole), np.arange(whole.train_size))
    assert (flipped.batch(indices)[1] == 9 - whole.batch(indices)[1]).all()
