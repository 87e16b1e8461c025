"""Averages that keep the spread of their layers."""

import numpy as np
import pytest

from protocols.gossip.variance import LONGEST_STRETCH, correct_variance

LAYERS = [slice(0, 4000), slice(4000, 5000), slice(5000, 5001)]


def test_the_mean_of_unrelated_models_gets_their_variance_back_layer_by_layer() -> None:
    random = np.random.default_rng(0)
    models = [
        np.concatenate([random.normal(0, 0.1, 4000), random.normal(1, 2.0, 1000), [3.0]]).astype(np.float32)
        for _ in range(4)
    ]
    mean = np.mean(models, axis=0)
    assert mean[LAYERS[0]].std() == pytest.approx(0.05, rel=0.1)
    corrected = correct_variance(mean, models, [1, 1, 1, 1], LAYERS)
    assert corrected[LAYERS[0]].std() == pytest.approx(0.1, rel=0.05)
    assert corrected[LAYERS[1]].std() == pytest.approx(2.0, rel=0.05)
    assert corrected[LAYERS[1]].mean() == pytest.approx(mean[LAYERS[1]].mean(), rel=1e-4)
    assert corrected[5000] == mean[5000]


def test_models_that_agree_are_not_stretched() -> None:
    model = np.random.default_rng(1).standard_normal(5001).astype(np.float32)
    assert np.allclose(correct_variance(model, [model, model], [3, 1], LAYERS), model, atol=1e-5)


def test_models_that_cancel_each_other_are_stretched_no_further_than_there_is_sense_in() -> None:
    model = np.random.default_rng(2).standard_normal(5001).astype(np.float32)
    nearly = -model + np.float32(1e-6) * np.arange(5001, dtype=np.float32)
    mean = (model + nearly) / 2
    corrected = correct_variance(mean, [model, nearly], [1, 1], LAYERS)
    assert corrected[LAYERS[0]].std() == pytest.approx(LONGEST_STRETCH * mean[LAYERS[0]].std(), rel=1e-3)
    constant = np.ones(5001, np.float32)
    assert (correct_variance(constant, [model, model], [1, 1], LAYERS) == constant).all()
