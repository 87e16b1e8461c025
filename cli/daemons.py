"""Which daemon of the home a command talks to, or which members elsewhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peer.control_client import ControlClient, running_daemons
from peer.errors import NoDaemon, UsageError
from peer.hints import command
from peer.home import Home

if TYPE_CHECKING:
    from peer.outside import OutsideView


def find_daemon(home: Home, run: str | None) -> ControlClient:
    """The daemon in `run` (as the user wrote it), or else the only one. Raises NoDaemon, UsageError."""
    if run is not None:
        return ControlClient(home, home.resolve_run(run))
    daemons = running_daemons(home)
    if not daemons:
        start = command(home.path, "join", "--run-id", run_to_join(home))
        raise NoDaemon(f"no daemon runs in {home.path}; start one with: {start}")
    if len(daemons) > 1:
        runs = ", ".join(daemon.run_id for daemon in daemons)
        raise UsageError(f"several daemons run in {home.path}; say which with --run-id: {runs}")
    return daemons[0]


def run_to_join(home: Home) -> str:
    """What a hint names: the only run that this home knows, or else the built-in one."""
    runs = home.runs()
    return runs[0] if len(runs) == 1 else "demo"


def view_from_outside(home: Home, run: str | None, initial_peers: Sequence[str]) -> "OutsideView":
    """`run` (as the user wrote it), seen through its members. Raises UsageError."""
    if run is None:
        raise UsageError("--run-id is missing; from outside, say which run to look at")
    run_id = home.resolve_run(run)
    from peer.outside import OutsideView  # after what may be refused: this takes time

    return OutsideView(home, run_id, initial_peers)


def run_with_log(home: Home, run: str | None) -> str:
    """The run, as the user wrote it or the only one, of which a log is kept. Raises NoDaemon, UsageError."""
    runs = [home.resolve_run(run)] if run is not None else home.runs()
    logged = [one for one in runs if home.log_path(one).exists()]
    if not logged:
        what = f"run {runs[0]}" if run is not None else "a daemon"
        start = command(home.path, "join", "--detach", "--run-id", runs[0] if run is not None else run_to_join(home))
        raise NoDaemon(f"no log of {what} is in {home.path}; daemons log there when they are started with: {start}")
    living = [one for one in logged if home.is_locked(one)] or logged
    if len(living) > 1:
        raise UsageError(f"{home.path} has the logs of several runs; say which with --run-id: {', '.join(living)}")
    return living[0]
