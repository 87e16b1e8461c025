import json
import threading

import pytest

from peer.control_client import ControlClient
from peer.demo import demo_manifest
from peer.roster import Roster
from peer.status import Status
from tests.peer.scripted_daemon import (
    OTHER,
    SELF,
    ScriptedDaemon,
    make_pipeline_status,
    make_status,
    running_daemon,
)

RUN = demo_manifest().run_id
OTHER_RUN = "text-" + "b" * 26


@pytest.fixture
def daemon(home):
    with running_daemon(home, RUN) as thread:
        yield thread


def test_status_as_json_is_the_object_of_the_api(peer, daemon):
    outcome = peer("status", "--json")
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == json.loads(make_status(RUN).to_json())


def test_status_tells_a_person_what_matters(peer, daemon):
    text = peer("status").stdout
    for part in (
        RUN, SELF, "3 of 10", "accuracy 96.4 %", "12,345 samples", "2 members", "1.5 MB sent", "900 B received",
        "1 part recovered", "mean / int8", "stale 2",
    ):  # fmt: skip
        assert part in text


def test_status_of_a_run_may_be_asked_by_name_and_by_variable(peer, daemon, monkeypatch):
    assert peer("status", "--run-id", "demo", "--json").exit_code == 0
    monkeypatch.setenv("PEER_RUN_ID", RUN[:10])
    assert peer("status").exit_code == 0


def test_status_of_another_home(peer, daemon, home, monkeypatch, tmp_path):
    monkeypatch.setenv("PEER_HOME", str(tmp_path / "other"))
    assert peer("status").exit_code == 3
    assert peer("status", "--home", str(home.path)).exit_code == 0


def test_without_a_daemon_every_command_says_how_to_start_one(refuses, home):
    for command in ("status", "peers", "watch", "leave"):
        assert f"no daemon runs in {home.path}; start one with: peer join --run-id" in refuses(3, command)
        assert f"start one with: peer join --run-id {RUN}" in refuses(3, command, "--run-id", "demo")


def test_several_daemons_of_a_home_are_told_apart(peer, refuses, daemon, home):
    with running_daemon(home, OTHER_RUN):
        sentence = refuses(2, "status")
        assert "say which with --run-id" in sentence
        assert RUN in sentence
        assert OTHER_RUN in sentence
        assert OTHER_RUN in peer("status", "--run-id", "text").stdout


def test_peers_lists_all_members_and_what_they_gave(peer, daemon):
    lines = peer("peers").stdout.splitlines()
    assert len(lines) == 3
    assert SELF in lines[1]
    assert "here" in lines[1]
    assert OTHER in lines[2]
    assert "54,321" in lines[2]
    assert [member["peer_id"] for member in json.loads(peer("peers", "--json").stdout)] == [OTHER]


def test_who_is_banned_is_not_said_to_be_seen(peer, daemon):
    roster = Roster(SELF)
    roster.banish(OTHER, "its answer is not what its stage makes of the work")
    daemon.call(ScriptedDaemon.become, make_status(RUN).model_copy(update={"peers": roster.status(100.0)}))
    line = peer("peers").stdout.splitlines()[2]
    assert "banned: its answer" in line
    assert "ago" not in line


def test_status_of_a_pipeline_shows_its_stages(peer, daemon):
    daemon.call(ScriptedDaemon.become, make_pipeline_status(RUN, moving_to=1))
    text = peer("status").stdout
    assert "both, training, stage 1" in text
    assert "4,321 trained, 7 parts of them done again; here 12.5 a second, 3 waiting, 2 not finite" in text
    stages = [line.split() for line in text.splitlines()[-3:]]
    assert stages[0] == ["stage", "peers", "epoch", "a", "second", "waiting", "moves"]
    assert stages[1] == ["0", "1", "3", "12.5", "4", "other", "→", "1"]
    assert stages[2] == ["1", "1", "3", "12.5", "3"]


def test_peers_of_a_pipeline_are_listed_with_their_stage_and_share(peer, daemon):
    daemon.call(ScriptedDaemon.become, make_pipeline_status(RUN, moving_to=1))
    _, mine, other = (line.split() for line in peer("peers").stdout.splitlines())
    assert mine[:4] == ["mine", "both", "1", "3"]
    assert other[:8] == ["other", "trainer", "0", "→", "1", "100", "%", "3"]
    [member] = json.loads(peer("peers", "--json").stdout)
    assert (member["stage"], member["moving_to"]) == (0, 1)


def test_a_move_is_a_line_of_watch(peer, daemon, monkeypatch):
    def moving(_client):
        yield make_pipeline_status(RUN, moving_to=1, other="[red]\x1b[2Jx")

    monkeypatch.setattr(ControlClient, "events", moving)
    assert peer("watch").stdout.endswith("2 members, 1/1 at the stages, [red]�[2Jx: stage 0 → 1\n")


def test_what_a_peer_calls_itself_cannot_steer_the_terminal(peer, daemon, home):
    daemon.call(ScriptedDaemon.become, make_status(RUN, other_name="[red]\x1b[2Jx\ny"))
    text = peer("peers").stdout
    assert "\x1b" not in text
    assert "[red]�[2Jx�y" in text


def test_metrics_are_had_by_a_program_as_the_daemon_gives_them(daemon, home):
    assert ControlClient(home, RUN).metrics() == "peer_epoch 3.0\n"


def test_watch_prints_a_line_a_change_until_the_daemon_stops(peer, daemon, home):
    def go_on():
        events = ControlClient(home, RUN).events()
        next(events)
        daemon.call(ScriptedDaemon.become, make_status(RUN, epoch=4))
        next(events)
        daemon.call(ScriptedDaemon.leave)
        for _ in events:
            pass

    other = threading.Thread(target=go_on)
    other.start()
    outcome = peer("watch")
    other.join(timeout=10)
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[-1].startswith("demo epoch 4/10 training, loss 0.2500, accuracy 96.4 %, 2 members")
    assert "has stopped" in outcome.stderr


def test_watch_ends_well_at_ctrl_c(peer, daemon, monkeypatch):
    def interrupted(_client):
        yield make_status(RUN)
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlClient, "events", interrupted)
    assert peer("watch").exit_code == 0


def test_leave_returns_when_the_daemon_is_gone(peer, refuses, daemon, home):
    outcome = peer("leave")
    assert outcome.exit_code == 0
    assert outcome.stdout == f"the daemon has left run {RUN}\n"
    assert not home.is_locked(RUN)
    assert not home.control_socket(RUN).exists()
    refuses(3, "status")


def test_a_status_of_a_newer_daemon_with_more_fields_is_still_read():
    newer = json.loads(make_status(RUN).to_json())
    newer["more"] = newer["self"]["more"] = 1
    assert Status.model_validate_json(json.dumps(newer)) == make_status(RUN)
    assert Status.model_validate_json(make_pipeline_status(RUN).to_json()) == make_pipeline_status(RUN)
