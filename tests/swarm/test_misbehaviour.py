"""Members that attack on purpose: only where the run allows it, and with a robust rule to no avail."""

from pathlib import Path

from tests.swarm.processes import LISTEN, Swarm, finished

HONEST = 5
ATTACKS = ("sign_flip", "label_flip")
RECIPE = f"""
name = "attacked"
epochs = 60
test = true

[model]
architecture = "cnn"
options = {{ width = 24, halvings = 2 }}

[data]
dataset = "digits"

[training]
mode = "data_parallel"
batch_size = 16
target_batch = 640
optimizer = {{ algorithm = "adamw", learning_rate = 0.01, warmup_epochs = 5, final_learning_rate = 0.0 }}

[averaging]
rule = "nnm | trimmed_mean"
byzantine = {len(ATTACKS)}
quorum = {HONEST + len(ATTACKS)}

[evaluation]
every_epochs = 20
"""


def test_five_honest_daemons_learn_beside_two_that_attack(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "attacked.toml"
    recipe.write_text(RECIPE)
    honest = [swarm.daemon(f"honest-{number}") for number in range(HONEST)]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(honest[0].home)).split()[0]
    honest[0].start(run_id, *LISTEN)
    for attack in ATTACKS:
        swarm.daemon(attack.replace("_", "-")).start(run_id, *LISTEN, "--misbehave", attack)
    for daemon in honest[1:]:
        daemon.start(run_id, *LISTEN)
    ends = [daemon.wait("at the run's end", finished, 240) for daemon in honest]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    assert min(end["run"]["evaluation"]["accuracy"] for end in ends) >= 0.93


def test_nobody_attacks_a_run_that_was_not_made_for_tests(swarm: Swarm) -> None:
    home = str(swarm.directory / "attacker")
    options = ("--run-id", "demo", "--home", home, *LISTEN)
    assert "was not made for tests" in swarm.command("join", *options, "--misbehave", "sign_flip", code=1)
    assert "no misbehaviour 'sulk'; choose one of label_flip" in swarm.command(
        "join", *options, "--misbehave", "sulk", code=2
    )
