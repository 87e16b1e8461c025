"""What an organiser, a volunteer and an observer type, from a recipe to a model file."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from peer.demo import demo_manifest
from tests.swarm.processes import LISTEN, PEER, Swarm

RECIPE = """
name = "small"
epochs = 400

[model]
architecture = "mlp"

[data]
dataset = "digits"

[training]
mode = "data_parallel"
batch_size = 16
target_batch = 1600
optimizer = { algorithm = "adamw", learning_rate = 0.003 }

[evaluation]
every_epochs = 5
"""


def test_from_a_recipe_to_a_model_file(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    organiser, volunteer = swarm.daemon("organiser"), swarm.daemon("volunteer")
    created = swarm.command("run", "create", str(recipe), "--home", str(organiser.home))
    run_id = created.split()[0]
    line = next(line for line in created.splitlines() if "peer join" in line).split()
    assert line[:4] == ["peer", "join", "--run-id", run_id]
    shown = json.loads(swarm.command("run", "show", run_id, "--home", str(organiser.home), "--json"))
    assert (shown["run_id"], shown["epochs"]) == (run_id, 400)
    assert run_id in swarm.command("run", "list", "--home", str(organiser.home))

    organiser.start(run_id, *LISTEN)
    organiser.wait("training", lambda status: status["run"]["epoch"] >= 1)
    volunteer.start(*line[3:], *LISTEN)
    both = volunteer.wait("in a round of two", lambda s: (s["last_round"] or {}).get("group_size") == 2)
    assert both["run"]["id"] == run_id
    assert run_id in swarm.command("run", "list", "--home", str(volunteer.home))

    home = ("--home", str(volunteer.home))
    text = swarm.command("status", *home)
    assert run_id in text
    assert "organiser" in swarm.command("peers", *home)
    watched = watch_some(swarm, volunteer.home, lines=3)
    assert all("epoch" in seen for seen in watched), watched

    model = tmp_path / "model.safetensors"
    swarm.command("export", "--output", str(model), *home)
    with safe_open(model, "numpy") as file:
        metadata = file.metadata()
        assert json.loads(metadata["manifest"])["name"] == "small"
        assert metadata["run"] == run_id
        assert all(file.get_tensor(name).dtype == "float32" for name in file.keys())  # noqa: SIM118

    swarm.command("leave", *home)
    assert volunteer.wait_exit(5) == 0
    organiser.wait("alone", lambda status: not status["peers"], 10)
    again = tmp_path / "again.safetensors"
    assert "snapshot" in swarm.command("export", "--output", str(again), *home)
    assert "start one with" in swarm.command("status", *home, code=3)


def test_a_restarted_daemon_resumes_from_its_snapshot(swarm: Swarm) -> None:
    daemon = swarm.daemon("alone").start("demo", *LISTEN, "--max-epochs", "5")
    assert daemon.wait_exit(60) == 0
    daemon.start("demo", *LISTEN)
    status = daemon.wait("training again", lambda s: s["self"]["samples_contributed"] > 0)
    assert first_epoch(status) >= 5 - 1
    before = status["run"]["epoch"]
    daemon.process.kill()
    daemon.process.wait()
    daemon.start("demo", *LISTEN)
    assert first_epoch(daemon.wait("training again", lambda s: s["self"]["samples_contributed"] > 0)) >= before - 2


def first_epoch(status: dict[str, Any]) -> int:
    """At which epoch a daemon that trains alone has begun since its start, or the one before.

    Every epoch takes as many samples, or a microbatch more; they are counted a moment before the epoch is.
    """
    return status["run"]["epoch"] - status["self"]["samples_contributed"] // demo_manifest().training.target_batch


def test_two_daemons_cannot_share_a_home_in_one_run(swarm: Swarm) -> None:
    first = swarm.daemon("shared").start("demo", *LISTEN)
    first.wait("up", lambda status: True)
    error = swarm.command("join", "--run-id", "demo", "--home", str(first.home), code=1)
    assert "another daemon" in error
    assert "Traceback" not in error
    assert first.status() is not None


def test_until_done_ends_with_one_line(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(RECIPE.replace("epochs = 400", "epochs = 6").replace("small", "short"))
    daemon = swarm.daemon("short")
    run_id = swarm.command("run", "create", str(recipe), "--home", str(daemon.home)).split()[0]
    output = swarm.command("join", "--run-id", run_id, "--home", str(daemon.home), *LISTEN, "--until-done")
    assert len(output.splitlines()) == 1
    assert "accuracy" in output
    assert "6 epochs" in output


def test_who_does_not_train_sees_the_run_end_too(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(RECIPE.replace("epochs = 400", "epochs = 6") + "[averaging]\nquorum = 2\n")
    trainer, monitor, aggregator = (swarm.daemon(name) for name in ("trainer", "monitor", "aggregator"))
    run_id = swarm.command("run", "create", str(recipe), "--home", str(trainer.home)).split()[0]
    trainer.start(run_id, *LISTEN, "--until-done")
    monitor.start(run_id, *LISTEN, "--until-done", "--role", "monitor")
    monitor.wait("looking on", lambda status: len(status["peers"]) == 1)
    refused = swarm.command("export", "--home", str(monitor.home), "--output", str(tmp_path / "model"), code=1)
    assert f"peer export --run-id {run_id} --initial-peers /ip4/" in refused
    aggregator.start(run_id, *LISTEN, "--until-done", "--role", "aggregator")
    assert [daemon.wait_exit(60) for daemon in (trainer, monitor, aggregator)] == [0, 0, 0]
    assert f"{run_id} is trained: 6 epochs in " in monitor.tail()
    assert f"{run_id} is trained: 6 epochs in " in aggregator.tail()


def test_a_run_that_nobody_knows_leaves_nothing_behind(swarm: Swarm) -> None:
    daemon = swarm.daemon("mistaken").start("nothing-" + "a" * 26, *LISTEN)
    daemon.wait("looking for the run", lambda status: status["self"]["state"] == "joining")
    swarm.command("leave", "--home", str(daemon.home))
    assert daemon.wait_exit(10) == 0
    assert "nothing" not in swarm.command("run", "list", "--home", str(daemon.home))


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["join", "--run-id", "demmo"], 2, "demo"),
        (["join", "--run-id", "demo", "--role", "trainor"], 2, "trainer"),
        (["join", "--run-id", "demo", "--initial-peers", "127.0.0.1:4001"], 2, "/ip4/"),
        (["joyn"], 2, "join"),
        (["status", "--jsn"], 2, "--json"),
        (["leave"], 3, "peer join"),
        (["watch"], 3, "peer join"),
        (["peers"], 3, "peer join"),
        (["run", "create", "absent.toml"], 2, "absent.toml"),
        (["run", "show", "nothing"], 2, "nothing"),
        (["export", "--output", "/nowhere/model.safetensors"], 2, "/nowhere"),
    ],
)
def test_a_typo_gets_one_clear_sentence(swarm: Swarm, arguments: list[str], code: int, hint: str) -> None:
    error = swarm.command(
        *arguments, *([] if arguments[0] == "joyn" else ["--home", str(swarm.directory / "x")]), code=code
    )
    assert hint in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def watch_some(swarm: Swarm, home: Path, lines: int) -> list[str]:
    process = subprocess.Popen(
        [PEER, "watch", "--home", str(home)], stdout=subprocess.PIPE, text=True, env=os.environ | swarm.environment
    )
    try:
        assert process.stdout is not None
        return [process.stdout.readline() for _ in range(lines)]
    finally:
        process.terminate()
        process.wait()
