import subprocess
import sys

import pytest

MEMBER = "/ip4/203.0.113.7/tcp/31337/p2p/12D3KooWQmwSiQhS7pKGX7bPbMLTQpLSHDTMUH8vTXXKcx1AmtL2"
PROGRAM = """
import sys
from cli.errors import run_reporting_errors
from cli.main import app
code = run_reporting_errors(lambda: app(sys.argv[1:], standalone_mode=False, prog_name="peer"))
heavy = {"torch", "hivemind", "aiohttp", "sklearn", "structlog", "uvloop"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["join", "--help"], 0),
        (["join", "--run-id", "dmeo"], 2),
        (["doctor", "--help"], 0),
        (["status"], 3),
        (["status", "--json", "--run-id", "demo"], 3),
        (["peers"], 3),
        (["leave"], 3),
        (["watch"], 3),
        (["logs"], 3),
        (["id"], 0),
        (["run", "list"], 0),
        (["run", "show", "demo"], 0),
    ],
)
def test_what_answers_at_once_loads_nothing_heavy(arguments, exit_code):
    """Timing on a shared machine says little; the libraries that take the time are what can be checked."""
    process = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == exit_code, process.stderr
    assert "Traceback" not in process.stderr


def test_completion_loads_nothing_heavy(monkeypatch):
    monkeypatch.setenv("_PEER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "peer jo")
    monkeypatch.setenv("COMP_CWORD", "1")
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert process.stdout.split() == ["join"]
    assert process.returncode == 0, process.stderr


def test_the_installed_command_says_its_version():
    process = subprocess.run(
        [sys.executable, "-m", "cli.main", "--version"], capture_output=True, text=True, check=False
    )
    assert process.stdout.startswith("peer ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_caller_has_closed_are_no_error(tmp_path, closed):
    command = f'"$0" -m cli.main run list --home "$1" {closed}'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0
    assert process.stderr == ""


def test_without_a_command_it_helps(peer):
    outcome = peer()
    assert outcome.exit_code == 0
    for command in ("join", "status", "peers", "watch", "leave", "run", "export", "id", "doctor", "logs"):
        assert f"\n  {command} " in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["jion"], "no such command 'jion'; did you mean 'join'? See `peer --help`"),
        (["run", "crate"], "no such command 'crate'; did you mean 'create'? See `peer run --help`"),
        (["run"], "missing command; see `peer run --help`"),
        (["join", "--run", "demo"], "no such option --run; did you mean --run-id? See `peer join --help`"),
        (["join", "--untildone"], "no such option --untildone; did you mean --until-done?"),
        (["status", "--jsno"], "no such option --jsno; did you mean --json?"),
        (["peers", "-z"], "no such option -z; see `peer peers --help`"),
        (["leave", "now"], "got unexpected extra argument"),
        (["id", "--home", ""], "--home: is empty; give a value, or leave it out"),
        (["join", "--run-id", "demo", "--listen", ""], "--listen: is empty; give a value, or leave it out"),
        (["join", "--no-until"], "no such option --no-until; did you mean --no-until-done?"),
        (["watch", "--home"], "option '--home' requires an argument"),
        (["logs", "-n", "many"], "--lines: must be a whole number, not 'many'"),
        (["id", "x"], "got unexpected extra argument"),
        (["run", "create"], "missing argument"),
        (["run", "show"], "missing argument"),
        (["export"], "--output is missing; give it, or set PEER_OUTPUT"),
        (["join"], "--run-id is missing; give it, or set PEER_RUN_ID, or put run_id into"),
        (
            ["join", "--run-id", "demo", "--role", "king"],
            "--role: must be 'trainer', 'aggregator', 'monitor', 'stage' or 'both'",
        ),
        (["join", "--run-id", "demo", "--initial-peers", "/ip4/1.2.3.4/tcp/5"], "must end in its PeerID"),
        (["status", "--initial-peers", MEMBER], "--run-id is missing; from outside, say which run"),
        (["export", "--output", "m", "--run-id", "dmeo", "--initial-peers", MEMBER], "did you mean 'demo'?"),
        (["join", "--run-id", "dmeo"], "'dmeo' is neither a run id nor a run known in"),
        (["status", "--run-id", "dmeo"], "did you mean 'demo'?"),
        (["run", "show", "dmeo"], "did you mean 'demo'?"),
        (["run", "create", "dmeo"], "there is no recipe dmeo"),
        (["run", "create", "text", "--data", "nowhere.txt"], "nowhere.txt: no such file"),
        (["run", "create", "text", "--data", ""], "--data: is empty; give a path"),
        (
            ["run", "create", "text", "--data", "~nobody-here/a.txt"],
            "--data: ~nobody-here/a.txt is in the home of a user",
        ),
        (["run", "create", ""], "the recipe: is empty; give a path"),
        (
            ["run", "create", "~nobody-here/a.toml"],
            "the recipe: ~nobody-here/a.toml is in the home of a user who is not",
        ),
        (["simulate", "~nobody-here/a.toml"], "the scenario: ~nobody-here/a.toml is in the home of a user who is not"),
        (["id", "--home", "~nobody-here/peer"], "--home: ~nobody-here/peer is in the home of a user who is not here"),
        (["export", "--output", "~nobody-here/m"], "--output: ~nobody-here/m is in the home of a user who is not here"),
        (["join", "--run-id", "demo", "--data", "~nobody-here"], "--data: ~nobody-here is in the home of a user who"),
    ],
)
def test_a_slip_is_answered_in_a_sentence(refuses, arguments, sentence):
    assert sentence in refuses(2, *arguments)


@pytest.mark.parametrize("command", [["join", "--run-id", "demo"], ["doctor"]])
@pytest.mark.parametrize("name", ["initial_peers", "listen", "announce", "relay"])
def test_what_may_be_repeated_is_read_from_a_variable_and_the_file_too(refuses, monkeypatch, home, command, name):
    monkeypatch.setattr("peer.daemon.run_daemon", lambda *_: pytest.fail("joins as if nothing were set"))
    monkeypatch.setattr("peer.doctor.examination.examine", lambda *_: pytest.fail("examines as if nothing were set"))
    home.path.mkdir()
    (home.path / "config.toml").write_text(f'{name} = ["here"]')
    assert f"config.toml: {name}: 'here' is not a multiaddr" in refuses(2, *command)
    monkeypatch.setenv(f"PEER_{name.upper()}", "there")
    assert f"PEER_{name.upper()}: 'there' is not a multiaddr" in refuses(2, *command)


def test_a_wrong_variable_is_named(refuses, monkeypatch):
    monkeypatch.setenv("PEER_JSON", "maybe")
    assert "PEER_JSON: must be true or false, not 'maybe'" in refuses(2, "status")


def test_a_user_without_a_home_directory_is_asked_for_one(refuses, monkeypatch):
    for name in ("PEER_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    assert "--home is missing, and this user has no home directory" in refuses(2, "id")


def test_a_home_that_cannot_be_used_fails(refuses, tmp_path):
    (tmp_path / "file").write_text("")
    assert "give another --home" in refuses(1, "id", "--home", str(tmp_path / "file"))


def test_an_interrupt_is_no_traceback(peer, monkeypatch):
    def interrupted(_home):
        raise KeyboardInterrupt

    monkeypatch.setattr("peer.home.Home.identity", interrupted)
    outcome = peer("id")
    assert (outcome.exit_code, outcome.stderr) == (1, "peer: interrupted\n")


def test_an_error_of_ours_is_a_sentence_unless_one_wants_to_see_it(refuses, peer, monkeypatch):
    monkeypatch.setattr("peer.home.Home.identity", lambda _home: 1 / 0)
    assert "internal error, ZeroDivisionError: division by zero; PEER_DEBUG=1 shows where" in refuses(1, "id")
    monkeypatch.setenv("PEER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        peer("id")


def test_id_is_the_peer_id_of_the_home(peer, home):
    assert peer("id").stdout == f"{home.identity().peer_id}\n"
