"""What an organiser changes while its run lives: by its own daemon, and without one through a member."""

import json
from pathlib import Path
from typing import Any

from peer.home import Home
from tests.swarm.processes import LISTEN, Daemon, Swarm

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
    organiser, member, noisy = daemons = [swarm.daemon(name) for name in ("organiser", "member", "noisy")]
    run_id, mine = create(swarm, tmp_path, organiser)
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


def test_an_organiser_without_a_daemon_directs_through_a_member(swarm: Swarm, tmp_path: Path) -> None:
    organiser, member, joiner = (swarm.daemon(name) for name in ("organiser", "member", "joiner"))
    run_id, mine = create(swarm, tmp_path, organiser)
    manifest = Home(organiser.home).manifest(run_id)
    assert manifest is not None
    Home(member.home).store_manifest(manifest)  # else it would look for a member that has it
    member.start(run_id, *LISTEN)
    address = member.wait("up", lambda status: bool(status["self"]["addresses"]))["self"]["addresses"][0]
    through = ("--initial-peers", address)
    told = swarm.command("run", "set", run_id, "learning_rate=0.05", *mine, *through)
    assert "directive 1: set learning_rate = 0.05" in told
    swarm.command("run", "pause", run_id, *mine, *through)
    member.wait("paused", paused)
    seen = json.loads(swarm.command("status", "--json", "--run-id", run_id, *through, *mine))
    assert seen["run"]["state"] == "paused"
    elsewhere = ("--home", str(member.home))
    for place in (elsewhere, mine):
        listed = json.loads(swarm.command("run", "directives", run_id, "--json", *place))
        assert [one["action"] for one in listed["directives"]] == ["set", "pause"]
    assert "directs it; you are" in swarm.command("run", "resume", run_id, *elsewhere, code=2)

    joiner.start(run_id, *LISTEN, *through)
    joiner.wait("paused too", paused)
    member.stop()
    member.start_again()
    member.wait("paused after a restart", paused)


def create(swarm: Swarm, directory: Path, organiser: Daemon) -> tuple[str, tuple[str, str]]:
    """The run, and the options of its organiser's commands."""
    recipe = directory / "directed.toml"
    recipe.write_text(RECIPE)
    mine = ("--home", str(organiser.home))
    return swarm.command("run", "create", str(recipe), *mine).split()[0], mine
