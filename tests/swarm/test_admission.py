"""A run whose organiser admits each member by a token."""

from pathlib import Path

from tests.swarm.processes import LISTEN, Swarm

RECIPE = """
name = "private"
epochs = 100000

[model]
architecture = "mlp"

[data]
dataset = "digits"

[training]
mode = "data_parallel"
target_batch = 1024
optimizer = { algorithm = "sgd", learning_rate = 0.1 }

[admission]
policy = "token"
"""


def test_only_who_has_a_token_of_the_organiser_takes_part(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "private.toml"
    recipe.write_text(RECIPE)
    organiser, member, stranger = (swarm.daemon(name) for name in ("organiser", "member", "stranger"))
    run_id = swarm.command("run", "create", str(recipe), "--home", str(organiser.home)).split()[0]
    identity = swarm.command("id", "--home", str(member.home)).strip()
    token = swarm.command("run", "admit", run_id, identity, "--home", str(organiser.home)).strip()
    organiser.start(run_id, *LISTEN)
    member.start(run_id, *LISTEN, "--token", token)
    for daemon in (organiser, member):
        daemon.wait("in a round of two", lambda status: (status["last_round"] or {}).get("group_size") == 2)
    here = ("--run-id", run_id, "--home", str(stranger.home), *LISTEN)
    for options, sentence in [((), "admits by token"), (("--token", token), f"is {identity}'s")]:
        refused = swarm.command("join", *here, *options, code=1)
        assert sentence in refused
        assert f"peer run admit {run_id} 12D3" in refused
    assert "is no token" in swarm.command("join", *here, "--token", "!", code=2)
    elsewhere = (identity, "--home", str(member.home))
    assert f"the organiser of {run_id}, admits" in swarm.command("run", "admit", run_id, *elsewhere, code=2)
    assert "'open', without tokens" in swarm.command("run", "admit", "demo", *elsewhere, code=2)
