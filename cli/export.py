"""`peer export`: the model as a file."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Home, RunId, ThroughPeers
from peer.errors import NoDaemon, UsageError

if TYPE_CHECKING:
    from peer.home import Home as HomeDirectory
    from peer.settings import ExportSettings


def export(
    context: typer.Context,
    *,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Where to write it, in safetensors.")] = None,
    run_id: RunId = None,
    initial_peers: ThroughPeers = None,
    home: Home = None,
    force: Annotated[bool | None, typer.Option("--force/--no-force", help="Replace FILE when it exists.")] = None,
) -> None:
    """Write the model, with the manifest in its metadata: from the daemon here, its last snapshot, or from outside."""
    from peer.control_client import ControlClient
    from peer.home import Home as HomeDirectory
    from peer.settings import ExportSettings

    settings = ExportSettings.load(**context.params)
    _check_output(settings)
    directory = HomeDirectory(settings.home)
    if initial_peers:
        from cli.daemons import view_from_outside

        with view_from_outside(directory, settings.run_id, settings.initial_peers) as view:
            epoch, signers = view.export(settings.output)
        told = f"{signers} member{'' if signers == 1 else 's'}"
        typer.echo(f"{settings.output} holds the model of {view.run_id}, of epoch {epoch}, as signed by {told}")
        return
    run = directory.resolve_run(settings.run_id) if settings.run_id is not None else _only_run(directory)
    daemon = ControlClient(directory, run)
    if daemon.listens():
        daemon.export(settings.output)
        source = "its daemon here"
    else:
        from peer.export import export_last_snapshot

        source = f"its snapshot of epoch {export_last_snapshot(directory, run, settings.output)}"
    typer.echo(f"{settings.output} holds the model of {run}, from {source}")


def _check_output(settings: "ExportSettings") -> None:
    output = settings.output
    if output.is_dir():
        raise UsageError(f"--output: {output} is a directory; add the name of a file")
    if output.exists() and not output.is_file():
        raise UsageError(f"--output: {output} is a device or a pipe, which a file would replace; choose a file")
    if os.path.lexists(output) and not settings.force:  # a link that leads nowhere would be replaced, too
        raise UsageError(f"--output: {output} exists; choose another file, or replace it with --force")
    if not output.parent.is_dir():
        if output.parent.exists():
            raise UsageError(f"--output: {output.parent} is no directory; choose another place")
        raise UsageError(f"--output: the directory {output.parent} does not exist; make it first")


def _only_run(home: "HomeDirectory") -> str:
    """The run that a daemon is in, or else the one that has snapshots."""
    from cli.daemons import run_to_join
    from peer.control_client import running_daemons
    from peer.hints import command

    runs = [daemon.run_id for daemon in running_daemons(home)] or [
        run for run in home.runs() if home.snapshots_path(run).is_dir()
    ]
    if not runs:
        start = command(home.path, "join", "--run-id", run_to_join(home))
        raise NoDaemon(f"no daemon runs in {home.path} and no snapshot lies there; start one with: {start}")
    if len(runs) > 1:
        raise UsageError(f"{home.path} has the models of several runs; say which with --run-id: {', '.join(runs)}")
    return runs[0]
