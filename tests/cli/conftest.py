import os
from dataclasses import dataclass

import pytest

from cli.errors import run_reporting_errors
from cli.main import app
from peer.home import Home


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path, runtime_directory):
    """A home and a runtime directory of the test's own, and no other setting.

    `peer simulate` sets up the logging of its process, which here is that of all tests.
    """
    monkeypatch.setattr("peer.logs.only_errors", lambda: None)
    for name in os.environ:
        if name.startswith("PEER_") and name != "PEER_RUNTIME_DIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PEER_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def peer(capsys):
    """Runs a command line as `peer` does, in this process."""

    def run(*arguments):
        capsys.readouterr()
        exit_code = run_reporting_errors(lambda: app(list(arguments), standalone_mode=False, prog_name="peer"))
        return Outcome(exit_code, *capsys.readouterr())

    return run


@pytest.fixture
def refuses(peer):
    """Runs a command line that must fail: with this code, nothing on stdout and one sentence on stderr."""

    def run(exit_code, *arguments):
        outcome = peer(*arguments)
        assert outcome.exit_code == exit_code
        assert outcome.stdout == ""
        assert outcome.stderr.startswith("peer: ")
        assert outcome.stderr.count("\n") == 1
        return outcome.stderr

    return run
