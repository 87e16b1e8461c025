import subprocess
import sys

import pytest

from peer.hints import command


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("PEER_HOME", str(tmp_path / "usual"))
    return tmp_path / "usual"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """An executable `peer` in an environment, which is the program that runs."""
    program = tmp_path / "environment" / "bin" / "peer"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    return program


def test_the_home_is_named_unless_the_command_would_use_it_anyway(home, tmp_path):
    assert command(home, "leave") == "peer leave"
    assert command(tmp_path / "other", "leave") == f"peer leave --home {tmp_path}/other"


def test_a_program_that_the_shell_does_not_find_is_named_by_its_path(home, installed, monkeypatch, tmp_path):
    assert command(home, "leave") == f"{installed} leave"
    monkeypatch.chdir(tmp_path)
    assert command(home, "leave") == "./environment/bin/peer leave"
    monkeypatch.setenv("PATH", str(installed.parent))
    assert command(home, "leave") == "peer leave"


def test_a_shell_reads_the_command_as_it_was_meant(installed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = command(tmp_path / "a home; of mine", "export", "--output", "$x")
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == ["export", "--output", "$x", "--home", f"{tmp_path}/a home; of mine"]
