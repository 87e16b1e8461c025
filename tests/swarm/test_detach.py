"""A daemon in the background: it comes up or says why not, and its log can be read."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.swarm.processes import LISTEN, PEER, Swarm


@contextmanager
def in_background(swarm: Swarm, home: Path, *options: str) -> Iterator[str]:
    """What `peer join --detach` prints; the daemon is gone afterwards, whatever happens."""
    told = swarm.command("join", "--run-id", "demo", "--detach", "--home", str(home), "--threads", "1", *options)
    try:
        yield told
    finally:
        with suppress(AssertionError):
            swarm.command("leave", "--home", str(home))


def test_a_daemon_goes_into_the_background_and_can_be_followed(swarm: Swarm, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with in_background(swarm, home, *LISTEN) as told:
        process_id = int(re.search(r"process id (\d+)", told)[1])
        log = Path(re.search(r"logs to (.*)$", told, re.MULTILINE)[1])
        os.kill(process_id, 0)
        assert os.getsid(process_id) == process_id
        assert log.stat().st_mode & 0o077 == 0
        assert "joining" in swarm.command("logs", "--home", str(home))
        assert len(swarm.command("logs", "--home", str(home), "--lines", "1").splitlines()) == 1
        again = swarm.command("join", "--run-id", "demo", "--detach", "--home", str(home), code=1)
        assert f"another daemon (pid {process_id})" in again
        with following(swarm, home) as follower:
            assert swarm.command("leave", "--home", str(home)).startswith("the daemon has left")
            words, _ = follower.communicate(timeout=30)
        assert follower.returncode == 0
        assert "left" in words.splitlines()[-1]
    assert "left" in swarm.command("logs", "--home", str(home), "--lines", "1")


def test_a_daemon_that_does_not_come_up_says_why_where_it_was_started(swarm: Swarm, tmp_path: Path) -> None:
    home = tmp_path / "home"
    told = swarm.command(
        "join", "--run-id", "demo", "--detach", "--home", str(home), "--listen", "/ip4/203.0.113.9/tcp/4001", code=1
    )
    assert told.count("\n") == 1
    assert told.startswith("peer: --listen: this machine has no address 203.0.113.9:4001; ")
    assert told in swarm.command("logs", "--home", str(home))
    assert "start one with" in swarm.command("status", "--home", str(home), code=3)


@contextmanager
def following(swarm: Swarm, home: Path) -> Iterator[subprocess.Popen[str]]:
    """`peer logs --follow`, once it has said something."""
    command = [PEER, "logs", "--follow", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | swarm.environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()
