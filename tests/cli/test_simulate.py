import json
import logging

import pytest
import structlog

from tests.peer.simulation.scenarios import SMALL, write


@pytest.fixture(autouse=True)
def only_errors():
    """Are logged, as where the command runs in a process of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
def scenario(tmp_path):
    return write(tmp_path, SMALL)


def test_a_simulation_says_what_came_of_it(peer, scenario):
    outcome = peer("simulate", scenario, "--seed", "3")
    assert outcome.exit_code == 0
    assert "4 peers, seed 3, all came to the end" in outcome.stdout
    assert "epoch 4; distance" in outcome.stdout


def test_as_json_and_with_a_trace(peer, scenario, tmp_path):
    outcome = peer("simulate", scenario, "--peers", "2", "--json", "--trace", str(tmp_path / "trace"))
    report = json.loads(outcome.stdout)
    assert (report["peers"], report["epoch"], report["violation"]) == (2, 4, None)
    events = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert events[-1]["event"] == "end"
    assert {event["peer"] for event in events} == {0, 1, None}


def test_a_violation_is_named_with_the_command_that_shows_it_again(peer, tmp_path):
    path = write(tmp_path, SMALL.replace("epochs = 4", "epochs = 400").replace("seconds = 60", "seconds = 5"))
    outcome = peer("simulate", path, "--seed", "7", "--peers", "3")
    assert outcome.exit_code == 1
    assert "at 5.000 s peer" in outcome.stderr
    assert "has not come to the end of the run" in outcome.stderr
    assert f"peer simulate {path} --seed 7 --peers 3" in outcome.stderr


def test_a_wrong_scenario_is_refused(refuses, tmp_path):
    assert "seconds: missing" in refuses(2, "simulate", write(tmp_path, SMALL.replace("seconds = 60", "")))
    unknown = SMALL + 'misbehave = "sign_flop"\n'
    assert "did you mean 'sign_flip'?" in refuses(2, "simulate", write(tmp_path, unknown))
