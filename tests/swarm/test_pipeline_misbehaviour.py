"""Six real daemons train in two stages, and one of them lies or does harm: who lies is banned, and the run goes on."""

from pathlib import Path

import pytest

from peer.misbehaviour import PIPELINE_ATTACKS
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.test_verification import banned

PROVED = ("wrong_activations", "wrong_gradients")
"""By spot checks. Who gives rubbish or nothing is refused and passed by; nobody looks at what a trainer sends."""
EPOCHS = 20
RECIPE = f"""
name = "attacked"
epochs = {EPOCHS}
test = true

[model]
architecture = "mlp"
options = {{ inputs = 64, width = 32, layers = 4 }}

[data]
dataset = "digits"

[training]
protocol = "swarm"
stages = 2
batch_size = 16
target_batch = 256
optimizer = {{ algorithm = "adamw", learning_rate = 0.01 }}
spot_checks = 0.2
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("attack", PIPELINE_ATTACKS)
def test_five_honest_daemons_come_to_the_end_beside_one_that_attacks(attack: str, swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "attacked.toml"
    recipe.write_text(RECIPE)
    daemons = [swarm.daemon(f"peer-{number}") for number in range(6)]
    gives = 1 if attack == "wrong_gradients" else 0  # the last stage gives no outputs, the first no gradients
    attacker = daemons[gives]
    honest = [daemon for daemon in daemons if daemon is not attacker]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(honest[0].home)).split()[0]
    for number, daemon in enumerate(daemons):
        attacks = ("--misbehave", attack) if daemon is attacker else ()
        daemon.start(run_id, *LISTEN, "--stage", str(number % 2), *attacks)
    expected = {swarm.command("id", "--home", str(attacker.home)).strip()} if attack in PROVED else set()
    ends = [daemon.wait("at the run's end", finished, 300) for daemon in honest]
    for daemon in honest:
        daemon.wait("free of liars, and of nobody else", lambda status: banned(status) == expected)
    states = {(end["self"]["stage"], end["self"]["state_digest"]) for end in ends}
    assert len(states) == 2


def test_an_attack_on_rounds_is_none_on_a_pipeline(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "attacked.toml"
    recipe.write_text(RECIPE)
    home = str(swarm.directory / "attacker")
    run_id = swarm.command("run", "create", str(recipe), "--home", home).split()[0]
    told = swarm.command("join", "--run-id", run_id, "--home", home, *LISTEN, "--misbehave", "two_begins", code=2)
    assert f"--misbehave two_begins: {run_id} is a pipeline; choose one of wrong_activations" in told
