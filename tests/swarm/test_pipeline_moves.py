"""Real daemons: where a stage loses all its peers, others move there, and training goes on."""

from pathlib import Path
from typing import Any

import pytest

from tests.swarm.processes import LISTEN, Daemon, Swarm, finished

STAGES = 3
EPOCHS = 60
LOST = STAGES - 1
RECIPE = f"""
name = "moving"
epochs = {EPOCHS}

[model]
architecture = "mlp"
options = {{ inputs = 64, width = 32, layers = 4 }}

[data]
dataset = "digits"

[training]
protocol = "swarm"
stages = {STAGES}
batch_size = 16
target_batch = 256
optimizer = {{ algorithm = "adamw", learning_rate = 0.01 }}

[evaluation]
every_epochs = {EPOCHS}
samples = 256
"""


def served_beyond(status: dict[str, Any], epoch: int) -> bool:
    """Whether somebody serves each stage, and the run has come further."""
    return all(stage["peers"] for stage in status["stages"]) and status["run"]["epoch"] > epoch


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stage_that_loses_all_its_peers_is_taken_over(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "moving.toml"
    recipe.write_text(RECIPE)
    daemons = [swarm.daemon(f"peer-{number}") for number in range(6)]
    staying, lost = daemons[:4], daemons[4:]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(staying[0].home)).split()[0]
    for daemon in daemons:
        daemon.start(run_id, *LISTEN, *(("--stage", str(LOST)) if daemon in lost else ()))
    epochs = [
        daemon.wait("training, in all stages", lambda status: served_beyond(status, 3))["run"]["epoch"]
        for daemon in staying
    ]
    moved_before = sum(map(moves, staying))
    for daemon in lost:
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
    for daemon in staying:
        daemon.wait("training again", lambda status: served_beyond(status, max(epochs) + 5), 200)
    assert sum(map(moves, staying)) > moved_before
    ends = [daemon.wait("at the run's end", finished, 300) for daemon in staying]
    states: dict[int, set[str]] = {}
    for end in ends:
        states.setdefault(end["self"]["stage"], set()).add(end["self"]["state_digest"])
    assert [len(states[stage]) for stage in range(STAGES)] == [1] * STAGES
    evaluations = [end["run"]["evaluation"] for end in ends]
    assert all(each["accuracy"] > 0.8 for each in evaluations if each)


def moves(daemon: Daemon) -> int:
    return daemon.log.read_text(errors="replace").count("moving to another stage")
