"""Real daemons train a model in stages while one after the other is killed: nothing is lost, nothing counted twice."""

import threading
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from peer.data.registry import open_dataset
from peer.home import Home
from peer.models.stages import join, stage_shape, whole_model
from peer.snapshots import SnapshotStore
from peer.swarm.counts import counts_path, read_counts
from protocols.manifest import Manifest, Pipeline
from protocols.swarm.coverage import is_partition
from tests.peer.test_pipeline import in_one_process
from tests.swarm.processes import LISTEN, Daemon, Swarm, finished

RECIPE = """
name = "pipeline"
epochs = {epochs}
seed = 5

[model]
architecture = "gpt"
options = {{ context = 32, width = 32, layers = 4, heads = 4 }}

[data]
dataset = "text"
files = ["text.txt"]
options = {{ context = 32 }}

[training]
protocol = "swarm"
stages = 4
batch_size = 8
target_batch = 128
codec = "none"
optimizer = {{ algorithm = "adamw", learning_rate = 0.003 }}
"""
KILL_EVERY_SECONDS = 10.0
BACK_AFTER_SECONDS = 10.0


def create(swarm: Swarm, directory: Path, epochs: int) -> tuple[str, Manifest]:
    text = "".join(path.read_text() for path in sorted((Path(__file__).parents[2] / "docs").glob("*.md")))
    (directory / "text.txt").write_text(text)
    (directory / "recipe.toml").write_text(RECIPE.format(epochs=epochs))
    home = directory / "peer-0"
    swarm.command("run", "create", str(directory / "recipe.toml"), "--home", str(home))
    [run_id] = [path.name for path in (home / "runs").iterdir()]
    manifest = Home(home).manifest(run_id)
    assert manifest is not None
    return run_id, manifest


def stage_of(number: int) -> int:
    return number % 4


def start(swarm: Swarm, directory: Path, run_id: str) -> list[Daemon]:
    daemons = [swarm.daemon(f"peer-{number}") for number in range(8)]
    for number, daemon in enumerate(daemons):
        daemon.start(run_id, *LISTEN, "--stage", str(stage_of(number)), "--data", str(directory / "text.txt"))
    return daemons


def assert_each_counted_once(daemons: list[Daemon], manifest: Manifest) -> None:
    """By the signed words of all rounds' leaders, as the peers have written them down."""
    training = manifest.training
    assert isinstance(training, Pipeline)
    seen = set()
    for number, daemon in enumerate(daemons):
        path = counts_path(Home(daemon.home).run_directory(manifest.run_id) / "snapshots")
        for begin in read_counts(path):
            assert is_partition((member.covered for member in begin.body.members), training.microbatches)
            seen.add((stage_of(number), begin.epoch))
    assert seen == {(stage, epoch) for stage in range(training.stages) for epoch in range(manifest.epochs)}


def parameters(daemons: list[Daemon], manifest: Manifest) -> np.ndarray:
    """Of the whole model at the end of the run, from the peers' disks."""
    vectors = []
    for stage in range(4):
        states = []
        shape = stage_shape(manifest, stage)
        for daemon in (daemons[stage], daemons[stage + 4]):
            directory = Home(daemon.home).run_directory(manifest.run_id) / "snapshots" / f"stage-{stage}"
            state = SnapshotStore(directory).latest(
                run=shape.run, parameter_count=shape.parameter_count, slot_names=tuple(shape.slots)
            )
            assert state is not None
            assert state.epoch == manifest.epochs
            states.append(state)
        assert states[0].digest == states[1].digest
        vectors.append(states[0].parameters)
    return join(vectors)


def bits_per_byte(manifest: Manifest, vector: np.ndarray, directory: Path) -> float:
    model = whole_model(manifest)
    model.load(vector)
    return open_dataset(manifest.data, [directory / "text.txt"]).evaluate(model, 512)["bits_per_byte"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [180])
def test_killed_every_ten_seconds_no_microbatch_is_lost_or_counted_twice(
    swarm: Swarm, tmp_path: Path, seconds: float
) -> None:
    """A random peer is killed every ten seconds for three minutes, and comes back ten seconds later."""
    run_id, manifest = create(swarm, tmp_path, epochs=400)
    daemons, random = start(swarm, tmp_path, run_id), Random(1)
    for daemon in daemons:
        daemon.wait("training", lambda status: status["run"]["epoch"] > 0)
    began, kills = time.monotonic(), 0
    dead: list[tuple[float, Daemon]] = []
    while time.monotonic() < began + seconds:
        victim = random.choice([daemon for daemon in daemons if daemon.running])
        assert victim.process is not None
        victim.process.kill()
        victim.process.wait()
        kills += 1
        dead.append((time.monotonic() + BACK_AFTER_SECONDS, victim))
        threading.Event().wait(KILL_EVERY_SECONDS)
        while dead and dead[0][0] <= time.monotonic():
            dead.pop(0)[1].start_again()
    for _, daemon in dead:
        daemon.start_again()
    epochs = [
        daemon.wait("up", lambda status: bool(status["self"]["state_digest"]))["run"]["epoch"] for daemon in daemons
    ]
    print(f"\n{kills} kills in {seconds:.0f} s, then at epochs {epochs}")
    for daemon in daemons:
        daemon.wait("at the end", finished, seconds=600)
    for daemon in daemons:
        daemon.stop()
    assert_each_counted_once(daemons, manifest)
    trained = bits_per_byte(manifest, parameters(daemons, manifest), tmp_path)
    alone = bits_per_byte(manifest, in_one_process(manifest, [tmp_path / "text.txt"])[-1].parameters, tmp_path)
    print(f"{trained:.4f} bits a byte, in one process without faults {alone:.4f}")
    assert trained == pytest.approx(alone, rel=0.02)
