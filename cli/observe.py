"""`peer status`, `peers`, `watch`: what the daemon here says, or the members elsewhere; `leave`: how to stop it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from cli.options import Home, Json, RunId, ThroughPeers

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peer.control_client import ControlClient
    from peer.outside import OutsideView
    from peer.settings import ObserveSettings
    from peer.status import Status


def status(
    context: typer.Context,
    run_id: RunId = None,
    initial_peers: ThroughPeers = None,
    home: Home = None,
    json_output: Json = None,
) -> None:
    """Show the run and the swarm as the daemon here sees them, or from outside."""
    from cli.render import status_view

    _show(context, status_view, lambda current: current.to_json())


def peers(
    context: typer.Context,
    run_id: RunId = None,
    initial_peers: ThroughPeers = None,
    home: Home = None,
    json_output: Json = None,
) -> None:
    """List the members of the run; --json has the others, as the list `peers` of `peer status --json`."""
    from cli.render import peers_view

    _show(context, peers_view, lambda current: json.dumps([peer.model_dump(mode="json") for peer in current.peers]))


def watch(context: typer.Context, run_id: RunId = None, initial_peers: ThroughPeers = None, home: Home = None) -> None:
    """Watch the run until Ctrl-C."""
    from rich.live import Live

    from cli.render import console, live_view, status_line

    with _view(context) as (view, _):
        try:
            if sys.stdout.isatty():
                with Live(console=console(), refresh_per_second=4) as live:
                    for current in view.events():
                        live.update(live_view(current))
            else:
                for current in view.events():
                    print(status_line(current), flush=True)
        except KeyboardInterrupt:
            return
        typer.echo(f"the daemon in run {view.run_id} has stopped", err=True)


def leave(context: typer.Context, run_id: RunId = None, home: Home = None) -> None:
    """Let the daemon finish or hand over the round, tell the others, and stop."""
    from cli.daemons import find_daemon
    from peer.home import Home as HomeDirectory
    from peer.settings import ObserveSettings

    settings = ObserveSettings.load(**context.params)
    daemon = find_daemon(HomeDirectory(settings.home), settings.run_id)
    daemon.leave()
    typer.echo(f"the daemon has left run {daemon.run_id}")


def _show(
    context: typer.Context, for_person: "Callable[[Status], RenderableType]", for_program: "Callable[[Status], str]"
) -> None:
    """The status once, in one of its two forms."""
    with _view(context) as (view, settings):
        current = view.status()
    if settings.json_output:
        typer.echo(for_program(current))
    else:
        from cli.render import console

        console().print(for_person(current))


@contextmanager
def _view(context: typer.Context) -> "Iterator[tuple[ControlClient | OutsideView, ObserveSettings]]":
    """The daemon here, or the run from outside: when the flag --initial-peers asks for it.

    In the environment or config.toml, initial peers are for the daemon here: whether it runs must stay visible.
    """
    from cli.daemons import find_daemon, view_from_outside
    from peer.home import Home as HomeDirectory
    from peer.settings import ObserveSettings

    settings = ObserveSettings.load(**context.params)
    home = HomeDirectory(settings.home)
    if context.params["initial_peers"]:
        with view_from_outside(home, settings.run_id, settings.initial_peers) as view:
            yield view, settings
    else:
        yield find_daemon(home, settings.run_id), settings
