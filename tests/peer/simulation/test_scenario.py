"""Scenarios: every mistake gets one sentence that names the field; a scenario can be made larger and smaller."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import UsageError
from peer.simulation.scenario import World, read_scenario
from tests.peer.simulation.scenarios import EXAMPLES, SMALL, write

FIRST_PEER = 'name = "all"\ncount = 4\n'
LOCAL_SGD = """mode = "local_sgd"
inner_steps = 5
inner = { algorithm = "adamw", learning_rate = 0.1 }
"""


def test_what_is_no_table_of_the_world_is_a_recipe(tmp_path: Path) -> None:
    scenario = read_scenario(write(tmp_path, SMALL))
    manifest = scenario.manifest(seed=7)
    assert (manifest.name, manifest.epochs, manifest.seed) == ("small", 4, 7)
    assert manifest.model.architecture == "quadratic"
    assert manifest.model.options == {"parameters": 512}
    assert scenario.world.count == 4
    assert scenario.manifest(seed=8).run_id != manifest.run_id


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_is_one(example: str) -> None:
    assert read_scenario(str(EXAMPLES / example)).world.count > 1


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("seconds = 60", "", "seconds: missing"),
        ("seconds = 60", 'seconds = "long"', "seconds: must be a number, not 'long'"),
        ("seconds = 60", "seconds = 60\npartition = 3", "partition: unknown; did you mean 'partitions'?"),
        ("seconds = 60", "seconds = 60\nversion = 1", "version: unknown"),
        ("epochs = 4", "epochs = 0", "epochs: "),
        ("target_batch = 400", "target_bach = 400", "training.target_bach: unknown; did you mean 'target_batch'?"),
        ('mode = "data_parallel"', 'mode = "guess"', "training.mode: must be one of"),
        ('kind = "quadratic"', 'kind = "cubic"', "problem.kind: must be one of"),
        ('problem = { kind = "quadratic", parameters = 512 }', "", "problem: missing"),
        ("[training]", '[model]\narchitecture = "mlp"\n[training]', "model: the run trains on its problem"),
        (FIRST_PEER, FIRST_PEER + "upload = [3]", "peers.0.upload: must be a number, or [least, most], not [3]"),
        (FIRST_PEER, FIRST_PEER + "upload = [3, 2]", "peers.0.upload: [least, most] are in the wrong order"),
        (FIRST_PEER, FIRST_PEER + "upload = 0", "peers.0.upload: must be greater than 0, not 0"),
        (FIRST_PEER, FIRST_PEER + "latency = [-1, 2]", "peers.0.latency: must not be negative, not -1"),
        (FIRST_PEER, FIRST_PEER + "loss = 1.5", "peers.0.loss: must be at most 1, not 1.5"),
        (FIRST_PEER, FIRST_PEER + "loss = [-1, 1]", "peers.0.loss: must not be negative, not -1"),
        (FIRST_PEER, FIRST_PEER + "clock_offset = [-1e18, 2]", "peers.0.clock_offset: must be at most 1e+09 seconds"),
        (
            FIRST_PEER,
            FIRST_PEER + 'session = { kind = "weibull", shape = 0.001, scale = 1 }',
            "peers.0.session.shape: must be greater than or equal to 0.05, not 0.001",
        ),
        (
            FIRST_PEER,
            FIRST_PEER + 'session = { kind = "exponential", mean = 1e-9 }',
            "peers.0.session.mean: must be greater than or equal to 0.001, not 1e-09",
        ),
        (
            FIRST_PEER,
            FIRST_PEER + "samples_per_second = 1e300",
            "peers.0.samples_per_second: must be from 1e-09 to 1e+09",
        ),
        (FIRST_PEER, FIRST_PEER + "compute_jitter = 400", "peers.0.compute_jitter: must be at most 10, not 400"),
        (FIRST_PEER, FIRST_PEER + "speed = 3", "peers.0.speed: unknown; "),
        (FIRST_PEER, FIRST_PEER + 'session = { kind = "weibull", shape = 1 }', "peers.0.session.scale: missing"),
        (FIRST_PEER, FIRST_PEER + f"[[peers]]\n{FIRST_PEER}", "peers.1.name: there is another group 'all'"),
        (
            FIRST_PEER,
            FIRST_PEER + "[latency]\nhere = { thre = 1 }",
            "latency: there is no 'thre'; did you mean 'here'?",
        ),
        (FIRST_PEER, FIRST_PEER + "[[partitions]]\nat = 1\nseconds = 2", "partitions.0: has either sides or a share"),
        (
            FIRST_PEER,
            FIRST_PEER + "[[partitions]]\nat = 1\nseconds = 2\nshare = 0.5\n" * 2,
            "partitions: one begins at 1 while another lasts",
        ),
        (FIRST_PEER, FIRST_PEER + "[[crashes]]\nat = 1", "crashes.0: has either a count or a share"),
        (
            FIRST_PEER,
            FIRST_PEER + '[[crashes]]\nat = 1\ncount = 1\npeers = ["al"]',
            "crashes.0.peers: there is no 'al'; did you mean 'all'?",
        ),
        ("[training]", '[averaging]\nrule = "krumm"\n[training]', "averaging: "),
    ],
)
def test_a_mistake_gets_one_sentence(tmp_path: Path, written: str, instead: str, says: str) -> None:
    assert written in SMALL
    path = write(tmp_path, SMALL.replace(written, instead))
    with pytest.raises(UsageError) as refused:
        read_scenario(path)
    assert f"{path}: {says}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_local_steps_on_a_problem_are_plain_ones(tmp_path: Path) -> None:
    training = SMALL[SMALL.index("mode =") : SMALL.index("[[peers]]")]
    with pytest.raises(UsageError, match=r"training\.inner: on a problem it must be sgd without momentum"):
        read_scenario(write(tmp_path, SMALL.replace(training, LOCAL_SGD)))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('role = "aggregator"', "peers.0.role: a run without rounds has nothing to aggregate; remove it"),
    ],
)
def test_what_a_run_without_rounds_does_not_have(tmp_path: Path, more: str, says: str) -> None:
    text = SMALL.replace('mode = "data_parallel"', 'protocol = "gossip"').replace("target_batch = 400\n", "")
    with pytest.raises(UsageError, match=re.escape(says)):
        read_scenario(write(tmp_path, text + more))


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario"):
        read_scenario(str(tmp_path / "none.toml"))


@given(counts=st.lists(st.integers(1, 500), min_size=1, max_size=6), wanted=st.integers(1, 5000))
def test_a_scaled_world_has_as_many_peers_in_groups_as_large_beside_each_other(counts: list[int], wanted: int) -> None:
    groups = [{"name": f"g{number}", "count": count} for number, count in enumerate(counts)]
    world = World.model_validate({"seconds": 1.0, "peers": groups})
    scaled = world.scaled(wanted)
    assert scaled.count == max(wanted, len(counts)) or min(group.count for group in scaled.peers) == 1
    for before, after in zip(world.peers, scaled.peers, strict=True):
        assert after.count == 1 or abs(after.count - before.count * wanted / world.count) <= 1
