"""The attacks' benchmark: sixteen participants, of which some attack."""

import attack_steps
import attack_swarm
import numpy as np
import pytest
from attack_case import PEERS, Case, Share, shares
from attacks_plot import results, table

from peer.compute_threads import use_threads
from peer.data.digits import Digits
from peer.misbehaviour import FlippedLabels

use_threads(1)  # several wait for each other where the machine is busy


def case(rule: str, attack: str | None, **changes: object) -> Case:
    settings = {"attackers": 3, "split": False, "epochs": 6, "seed": 1} | changes
    return Case(rule=rule, attack=attack, **settings)


@pytest.mark.parametrize(
    ("rule", "attack", "begin"),
    [("nnm | trimmed_mean", "alie", 0), ("mean", "noise", 1)],
)
def test_whole_participants_end_where_the_steps_alone_end(rule: str, attack: str, begin: int) -> None:
    tried = case(rule, attack, begin=begin, epochs=2)
    course, state = attack_swarm.play(tried, Digits())
    expected_course, expected_state = attack_steps.play(tried, Digits())
    assert course == expected_course
    assert np.allclose(state.parameters, expected_state.parameters, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ["sign_flip", "nan"])
def test_honest_peers_learn_together_whatever_is_sent(attack: str) -> None:
    course = attack_swarm.run(case("trimmed_mean", attack, epochs=4), Digits())
    assert course.agree
    assert course.accuracy[4] > 0.25


def test_what_is_beyond_training_ends_the_run() -> None:
    assert attack_steps.run(case("mean", "sign_flip"), Digits()).accuracy[6] < 0.2


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


def test_the_table_compares_an_attack_with_the_same_rule_and_seed_without_it() -> None:
    def run(attack: str | None, seed: int, accuracy: float) -> dict[str, object]:
        setting = {
            "rule": "median",
            "attackers": 3,
            "split": False,
            "epochs": 60,
            "whole": False,
            "begin": 0,
            "optimizer": "sgd",
        }
        return setting | {"attack": attack, "seed": seed, "accuracy": {"10": 0.1, "60": accuracy}}

    runs = [run(None, 1, 0.9), run(None, 2, 0.94), run("ipm", 1, 0.88), run("ipm", 2, 0.9), run("nan", 1, 0.9)]
    points, error = results(runs)[0].cost("median", "ipm")
    assert (points, error) == (pytest.approx(3), pytest.approx(1))
    assert "| median | 92.0 | 89.0 | 90.0 | 3.0 ± 1.0 (ipm) |" in table(runs)
