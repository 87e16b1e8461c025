"""Real daemons train a model in stages: what a user sees of them, and takes out of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from peer.home import Home
from peer.models.stages import whole_layout
from tests.swarm.processes import LISTEN, Daemon, Swarm, finished, run_command, wait_until

RECIPE = """
name = "staged"
epochs = 6

[model]
architecture = "mlp"
options = { inputs = 64, width = 32, layers = 4 }

[data]
dataset = "digits"

[training]
protocol = "swarm"
stages = 2
batch_size = 16
target_batch = 128
optimizer = { algorithm = "adamw", learning_rate = 0.01 }

[evaluation]
every_epochs = 3
samples = 128
"""


def create(swarm: Swarm, directory: Path, organiser: Daemon) -> str:
    recipe = directory / "staged.toml"
    recipe.write_text(RECIPE)
    return swarm.command("run", "create", str(recipe), "--home", str(organiser.home)).split()[0]


def at_the_end(status: dict[str, Any]) -> bool:
    """With the word of all others that they are there, too."""
    return finished(status) and all(stage["epoch"] == 6 and stage["peers"] == 2 for stage in status["stages"])


def contents(model: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    with safe_open(model, "numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_model_in_stages_is_seen_and_taken_whole(swarm: Swarm, tmp_path: Path) -> None:
    daemons = [swarm.daemon(f"peer-{number}") for number in range(4)]
    run_id = create(swarm, tmp_path, daemons[0])
    for number, daemon in enumerate(daemons):
        daemon.start(run_id, *LISTEN, "--stage", str(number % 2))
    statuses = [daemon.wait("at the end", at_the_end) for daemon in daemons]
    for number, status in enumerate(statuses):
        assert [stage["number"] for stage in status["stages"]] == [0, 1]
        assert status["self"]["stage"] == number % 2
        assert status["pipeline"]["dropped"] == 0
    assert sum(status["pipeline"]["microbatches_done"] for status in statuses) >= 6 * 8
    wait_until(lambda: any("accuracy" in shown["run"]["evaluation"] for shown in map(Daemon.status, daemons) if shown))
    assert "both, idle, stage 1" in swarm.command("status", "--home", str(daemons[1].home))

    through = ("--run-id", run_id, "--initial-peers", statuses[1]["self"]["addresses"][0])
    elsewhere = {"PEER_HOME": str(tmp_path / "elsewhere"), "PEER_RUNTIME_DIR": str(tmp_path / "runtime")}
    seen = json.loads(run_command("status", "--json", *through, environment=elsewhere))
    assert (seen["run"]["epoch"], seen["run"]["state"]) == (6, "finished")
    assert [stage["peers"] for stage in seen["stages"]] == [2, 2]

    here, outside = tmp_path / "here.safetensors", tmp_path / "outside.safetensors"
    told = swarm.command("export", "--output", str(here), "--home", str(daemons[0].home))
    assert "from its daemon here" in told
    told = run_command("export", "--output", str(outside), *through, environment=elsewhere)
    assert "of epoch 6, as signed by 4 members" in told
    metadata, model = contents(here)
    other_metadata, other_model = contents(outside)
    assert metadata == other_metadata
    assert metadata["epoch"] == "6"
    manifest = Home(daemons[0].home).manifest(run_id)
    assert manifest is not None
    assert {name: array.shape for name, array in model.items()} == {e.name: e.shape for e in whole_layout(manifest)}
    assert all(np.array_equal(model[name], other_model[name]) for name in model)


def test_who_serves_a_stage_and_who_only_trains_stop_when_the_run_is_done(swarm: Swarm, tmp_path: Path) -> None:
    first, second, trainer = (swarm.daemon(name) for name in ("first", "second", "trainer"))
    run_id = create(swarm, tmp_path, first)
    for number, daemon in enumerate((first, second)):
        daemon.start(run_id, *LISTEN, "--role", "stage", "--stage", str(number), "--until-done")
    trainer.start(run_id, *LISTEN, "--role", "trainer", "--until-done")
    for daemon in (trainer, first, second):
        assert daemon.wait_exit(90) == 0
    assert f"{run_id} is trained: accuracy" in trainer.tail()
    assert "after 6 epochs" in trainer.tail()
    assert f"a stage of the model lies in {first.home}" in first.tail()
    told = swarm.command("export", "--home", str(first.home), "--output", str(tmp_path / "model"), code=1)
    assert "is a pipeline, and this home has a part of its model" in told
