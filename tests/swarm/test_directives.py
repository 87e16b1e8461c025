"""What an organiser changes while its run lives: by its own daemon, and without one through a member."""

import json
from pathlib import Path
from typing import Any

from tests.swarm.processes import LISTEN, Swarm

RECIPE = """
name = "directed"
epochs = 100000

[model]
architecture = "mlp"

[data]
dataset = "digits"

[training]
mode = "data_parallel"
target_batch = 2048
optimizer = { algorithm = "sgd", learning_rate = 0.1 }
"""


def in_a_round_of(size: int) -> Any:
    return lambda status: (status["last_round"] or {}).get("group_size") == size


def paused(status: dict[str, Any]) -> bool:
    return bool(status["run"]["state"] == "paused" and status["self"]["state"] == "paused")


def test_the_organiser_pauses_resumes_and_bans(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "directed.toml"
    recipe.write_text(RECIPE)
    organiser, member, noisy = daemons = [swarm.daemon(name) for name in ("organiser", "member", "noisy")]
    mine = ("--home", str(organiser.home))
    run_id = swarm.command("run", "create", str(recipe), *mine).split()[0]
    for daemon in daemons:
        daemon.start(run_id, *LISTEN)
    for daemon in daemons:
        daemon.wait("in a round of three", in_a_round_of(3))

    assert "directive 1: pause from epoch" in swarm.command("run", "pause", run_id, *mine)
    at = {daemon.wait("paused", paused)["run"]["epoch"] for daemon in daemons}
    assert len(at) == 1
    assert "2: resume" in swarm.command("run", "resume", run_id, *mine)
    for daemon in daemons:
        daemon.wait("going on", lambda status: status["run"]["epoch"] > min(at) + 1)

    identity = swarm.command("id", "--home", str(noisy.home)).strip()
    swarm.command("run", "ban", run_id, identity, "--why", "sends noise", *mine)
    assert noisy.wait_exit(60) == 0
    for daemon in (organiser, member):
        status = daemon.wait("in a round of two", in_a_round_of(2))
        assert [peer["banned"] for peer in status["peers"] if peer["peer_id"] == identity] == ["sends noise"]
    here = ("--run-id", run_id, "--home", str(noisy.home), *LISTEN)
    assert f"the organiser has banned this peer from {run_id}: sends noise" in swarm.command("join", *here, code=1)

    organiser.stop()
    address = member.wait("up", lambda status: bool(status["self"]["addresses"]))["self"]["addresses"][0]
    through = ("--initial-peers", address)
    assert "directive 4: set learning_rate = 0.05" in swarm.command(
        "run", "set", run_id, "learning_rate=0.05", *mine, *through
    )
    swarm.command("run", "pause", run_id, *mine, *through)
    member.wait("paused", paused)
    seen = json.loads(swarm.command("status", "--json", "--run-id", run_id, *through, *mine))
    assert seen["run"]["state"] == "paused"
    elsewhere = ("--home", str(member.home))
    for listed in (
        swarm.command("run", "directives", run_id, "--json", *elsewhere),
        swarm.command("run", "directives", run_id, "--json", *mine, *through),
        swarm.command("run", "directives", run_id, "--json", *mine),  # what was directed from here
    ):
        actions = [one["action"] for one in json.loads(listed)["directives"]]
        assert actions == ["pause", "resume", "ban", "set", "pause"]
    assert "is paused already" in swarm.command("run", "pause", run_id, *mine, *through, code=2)
    assert "directs it; you are" in swarm.command("run", "resume", run_id, *elsewhere, code=2)

    joiner = swarm.daemon("joiner").start(run_id, *LISTEN, *through)
    joiner.wait("paused too", paused)
    member.stop()
    member.start_again()
    member.wait("paused after a restart", paused)
