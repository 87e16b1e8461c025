"""`peer join --detach`: the daemon goes into the background, and whoever started it hears whether it came up."""

import os
import signal
import sys
import time
from pathlib import Path

from peer.control_client import ControlClient
from peer.errors import PeerError
from peer.home import Home
from peer.log_file import open_new_log

JOINING_SECONDS = 45.0
"""A daemon that answers, but is still joining after so long, has much to fetch: it is not waited for any more."""
_POLL_SECONDS = 0.1


class DaemonFailed(Exception):
    """The daemon ended instead of coming up; the message is what it said last."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def detach(home: Home, run_id: str) -> int | None:
    """Forks. In the daemon, which logs to its file from now on, returns None; in the other, its process id.

    Call it before there are threads. Raises PeerError when a daemon of this home is in the run already.
    """
    with home.lock(run_id):
        log = open_new_log(home.log_path(run_id))
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.setsid()  # no terminal's signals reach it any more
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, target)
        os.close(nothing)
    os.close(log)
    return process or None


def wait_until_up(home: Home, run_id: str, process: int) -> None:
    """Returns when the daemon takes part in the run, or is still joining after a while.

    Raises DaemonFailed. An interrupt stops the daemon too.
    """
    daemon = ControlClient(home, run_id)
    start = time.monotonic()
    try:
        while not _is_up(daemon, patient=time.monotonic() - start < JOINING_SECONDS):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                raise DaemonFailed(_last_words(home.log_path(run_id), code), code if code > 0 else 1)
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        raise


def _is_up(daemon: ControlClient, *, patient: bool) -> bool:
    try:
        status = daemon.status()
    except PeerError:
        return False
    return not patient or (status.self_ is not None and status.self_.state != "joining")


def _last_words(log: Path, exit_code: int) -> str:
    """The sentence with which a command fails."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("peer: ")]
    return lines[-1] if lines else f"peer: the daemon has ended with exit code {exit_code}; see {log}"
