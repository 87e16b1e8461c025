"""What somebody sees who sits at a terminal: a live view instead of lines."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from peer.demo import demo_manifest
from tests.peer.scripted_daemon import ScriptedDaemon, make_status, running_daemon
from tests.swarm.processes import PEER

RUN = demo_manifest().run_id
ROWS, COLUMNS = 24, 120
BAR = "━"
SECONDS = 90.0


class Terminal:
    """The other end of a pseudo-terminal: what a program has written so far."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def wait_for(self, pattern: str) -> str:
        """Everything seen, once `pattern` is in it."""
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, self.text):
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} within {SECONDS:.0f} s in {self.text!r}"
            self._seen += os.read(self._descriptor, 65536)
        return self.text

    def press_ctrl_c(self) -> None:
        os.write(self._descriptor, b"\x03")

    @property
    def text(self) -> str:
        """Without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._seen.decode(errors="replace"))


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """`peer` with these arguments, on a terminal that controls it."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    command = ["setsid", "--ctty", PEER, *arguments]  # so that Ctrl-C there reaches it
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_draws_the_run_anew_in_its_place(home):
    with running_daemon(home, RUN) as daemon, terminal("watch") as (screen, process):
        screen.wait_for(rf"demo {BAR}+.* epoch 3/10")
        daemon.call(ScriptedDaemon.become, make_status(RUN, epoch=4))
        seen = screen.wait_for(r"epoch 4/10")
        assert "\x1b[1A" in seen  # back up, over the last picture
        assert "accuracy 96.4 %" in seen
        screen.press_ctrl_c()
        assert process.wait(30) == 0


def test_join_shows_how_far_the_run_is():
    listen = ("--listen", "/ip4/127.0.0.1/tcp/0", "--no-local-discovery")
    with terminal("join", "--run-id", "demo", "--threads", "1", *listen) as (screen, process):
        seen = screen.wait_for(rf"demo {BAR}+.* epoch [1-9][0-9]*/100")
        assert "training" in seen
        assert "joining" in seen
        screen.press_ctrl_c()
        screen.wait_for("leaving; once more to stop at once")
        assert process.wait(30) == 0
