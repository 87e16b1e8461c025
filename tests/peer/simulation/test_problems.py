"""The problems have the optimum that they say, and a swarm comes to it."""

from pathlib import Path

import numpy as np
import pytest

from peer.simulation.problems import Logistic, Problem, Quadratic
from tests.peer.simulated_swarm import identity
from tests.peer.simulation.scenarios import SMALL, play

RUN = "small-" + "a" * 26
WHOLE = 4096
LOGISTIC = 'problem = { kind = "logistic", parameters = 32, samples = 1024 }'


@pytest.mark.parametrize("problem", [Logistic(16, WHOLE, 1e-2)])
def test_the_gradient_of_all_samples_vanishes_at_the_optimum(problem: Logistic) -> None:
    gradient = problem.gradient(problem._optimum, RUN, 0, identity(1).peer_id, 0, WHOLE)
    assert np.abs(gradient).max() < 1e-6
    assert problem.distance(problem._optimum) == 0
    assert problem.distance(problem.start()) > 0.1


@pytest.mark.parametrize("problem", [Logistic(16, WHOLE, 1e-2), Quadratic(64)])
def test_a_microbatch_has_the_same_gradient_each_time_and_another_for_others(problem: Problem) -> None:
    start = problem.start()
    one = problem.gradient(start, RUN, 3, identity(1).peer_id, 20, 10)
    assert np.array_equal(one, problem.gradient(start, RUN, 3, identity(1).peer_id, 20, 10))
    for other in (
        problem.gradient(start, RUN, 3, identity(1).peer_id, 30, 10),
        problem.gradient(start, RUN, 4, identity(1).peer_id, 20, 10),
        problem.gradient(start, RUN, 3, identity(2).peer_id, 20, 10),
    ):
        assert not np.array_equal(one, other)


def test_a_swarm_comes_close_to_the_optimum(tmp_path: Path) -> None:
    text = SMALL.replace('problem = { kind = "quadratic", parameters = 512 }', LOGISTIC)
    text = text.replace("learning_rate = 0.1", "learning_rate = 20.0").replace("epochs = 4", "epochs = 12")
    report = play(tmp_path, text)
    assert report.finished
    assert report.evaluation["distance"] < 0.5 * Logistic(32, 1024, 1e-3).distance(np.zeros(32, np.float32))
