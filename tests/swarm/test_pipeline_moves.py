"""Real daemons: where a stage loses all its peers, others move there, and training goes on."""

import re
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
    run_id = swarm.command("run", "create", str(recipe), "--home", str(daemons[0].home)).split()[0]
    for number, daemon in enumerate(daemons):
        daemon.start(run_id, *LISTEN, *(("--stage", str(LOST)) if number >= 4 else ()))
    for daemon in daemons:
        daemon.wait("training, in all stages", lambda status: served_beyond(status, 3))
    came_before = {daemon: times_come(daemon) for daemon in daemons}
    statuses = {daemon: daemon.wait("serving a stage", lambda s: s["self"]["stage"] is not None) for daemon in daemons}
    lost = [daemon for daemon, status in statuses.items() if status["self"]["stage"] == LOST]
    staying = [daemon for daemon in daemons if daemon not in lost]
    assert len(staying) >= STAGES, "one for each stage"
    for daemon in lost:
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
    beyond = max(status["run"]["epoch"] for status in statuses.values()) + 5
    for daemon in staying:
        daemon.wait("training again", lambda status: served_beyond(status, beyond), 200)
    assert sum(times_come(daemon) - came_before[daemon] for daemon in staying) > 0
    ends = [daemon.wait("at the run's end", finished, 300) for daemon in staying]
    states: dict[int, set[str]] = {}
    for end in ends:
        states.setdefault(end["self"]["stage"], set()).add(end["self"]["state_digest"])
    assert [len(states[stage]) for stage in range(STAGES)] == [1] * STAGES
    evaluations = [end["run"]["evaluation"] for end in ends]
    assert all(each["accuracy"] > 0.8 for each in evaluations if each)


def times_come(daemon: Daemon) -> int:
    """How often it has begun to serve the stage that is lost, as who has been told of no stage may do at first, too."""
    return len(re.findall(rf"serving another stage .*\bstage={LOST}\b", daemon.log.read_text(errors="replace")))
