"""What somebody sees, and takes, of a run from a machine that is not in it."""

import json
import os
import signal
import subprocess
from pathlib import Path

from safetensors import safe_open

from protocols.identity import Identity
from tests.swarm.processes import LISTEN, PEER, Daemon, Swarm, run_command
from tests.swarm.test_journey import RECIPE


def test_a_run_is_seen_and_taken_from_outside(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    first, second = swarm.daemon("first"), swarm.daemon("second")
    run_id = swarm.command("run", "create", str(recipe), "--home", str(first.home)).split()[0]
    first.start(run_id, *LISTEN)
    second.start(run_id, *LISTEN)
    status = first.wait("in a round of two", lambda s: (s["last_round"] or {}).get("group_size") == 2)
    through = ("--run-id", run_id, "--initial-peers", status["self"]["addresses"][0])
    elsewhere = {"PEER_HOME": str(tmp_path / "elsewhere"), "PEER_RUNTIME_DIR": str(tmp_path / "runtime")}

    seen = json.loads(run_command("status", "--json", *through, environment=elsewhere))
    assert (seen["schema"], seen["self"], seen["last_round"]) == (1, None, None)
    assert (seen["run"]["id"], seen["run"]["name"], seen["run"]["total_epochs"]) == (run_id, "small", 400)
    assert seen["run"]["state"] == "training"
    assert seen["run"]["epoch"] >= status["run"]["epoch"]
    assert [member["name"] for member in seen["peers"]] == ["first", "second"]
    assert "2 members" in run_command("status", *through, environment=elsewhere)
    assert len(run_command("peers", *through, environment=elsewhere).splitlines()) == 3
    assert "small epoch" in first_line_watched(through, elsewhere)

    model = tmp_path / "model.safetensors"
    told = run_command("export", "--output", str(model), *through, environment=elsewhere)
    assert "as signed by 2 members" in told
    with safe_open(model, "numpy") as file:
        assert file.metadata()["run"] == run_id
        assert int(file.metadata()["epoch"]) >= seen["run"]["epoch"]

    assert not (tmp_path / "elsewhere").exists()
    assert known_to(first) == ["second"]
    assert known_to(second) == ["first"]


NOBODY = f"/ip4/127.0.0.1/tcp/9/p2p/{Identity.from_seed(bytes(32)).peer_id}"


def test_initial_peers_in_the_environment_do_not_hide_that_no_daemon_runs(tmp_path: Path) -> None:
    environment = {"PEER_HOME": str(tmp_path / "elsewhere"), "PEER_INITIAL_PEERS": NOBODY, "PEER_RUN_ID": "demo"}
    assert "start one with" in run_command("status", environment=environment, code=3)


def test_a_daemon_dials_back_for_a_doctor_elsewhere(swarm: Swarm, tmp_path: Path) -> None:
    daemon = swarm.daemon("member").start("demo", *LISTEN)
    address = daemon.wait("up", lambda s: bool(s["self"]["addresses"]))["self"]["addresses"][0]
    elsewhere = {"PEER_HOME": str(tmp_path / "elsewhere"), "PEER_RUNTIME_DIR": str(tmp_path / "runtime")}
    told = run_command("doctor", "--json", *LISTEN[:2], "--initial-peers", address, environment=elsewhere)
    findings = {finding["check"]: finding for finding in json.loads(told)["findings"]}
    assert "a member dialled back at /ip4/127.0.0.1/tcp/" in findings["reachability"]["detail"]
    assert findings["upload"]["detail"].endswith(f" Mbit/s to {address.rpartition('/')[2]}")


def test_initial_peers_that_do_not_answer_are_told() -> None:
    told = run_command("status", "--run-id", "demo", "--initial-peers", NOBODY, code=1)
    assert "find out why with: " in told
    assert told.endswith(f"peer doctor --initial-peers {NOBODY}\n")


def first_line_watched(through: tuple[str, ...], environment: dict[str, str]) -> str:
    process = subprocess.Popen(
        [PEER, "watch", *through], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert process.stdout is not None
        return process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def known_to(daemon: Daemon) -> list[str]:
    status = daemon.status()
    assert status is not None
    return [member["name"] for member in status["peers"]]
