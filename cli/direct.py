"""`peer run ban`, `pause`, `resume`, `set` and `directives`: what an organiser changes while its run lives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Home, Json

if TYPE_CHECKING:
    from peer.direct import Channel
    from peer.home import Home as HomeDirectory
    from protocols.directives import Order

Run = Annotated[str, typer.Argument(metavar="ID", help="The run: its id, or a name or beginning of one.")]
Through = Annotated[
    list[str] | None,
    typer.Option("--initial-peers", metavar="MADDR", help="Through this member, where no daemon runs; repeatable."),
]
AtEpoch = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="From this epoch on; else from the first that all members know of before."),
]


def ban(
    context: typer.Context,
    run_id: Run,
    peer_id: Annotated[str, typer.Argument(metavar="PEER", help="Who takes no part any more: its PeerID.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="What members are told.")] = "",
    initial_peers: Through = None,
    home: Home = None,
) -> None:
    """Ban a peer from a run of yours, at once."""
    from peer.direct import ban_of

    _issue(context, ban_of(peer_id, why))


def pause(
    context: typer.Context, run_id: Run, at_epoch: AtEpoch = None, initial_peers: Through = None, home: Home = None
) -> None:
    """Stop a run of yours; its members stay, and train on when you resume it."""
    from protocols.directives import Pause

    _issue(context, Pause())


def resume(context: typer.Context, run_id: Run, initial_peers: Through = None, home: Home = None) -> None:
    """Go on with a paused run of yours, at once."""
    from protocols.directives import Resume

    _issue(context, Resume())


def set_fields(
    context: typer.Context,
    run_id: Run,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE…",
            help="learning_rate, final_learning_rate, weight_decay or momentum of the outer optimizer; target_batch.",
        ),
    ],
    at_epoch: AtEpoch = None,
    initial_peers: Through = None,
    home: Home = None,
) -> None:
    """Change how a run of yours is trained, from one epoch on, for all members alike."""
    from peer.direct import change_of

    _issue(context, change_of(changes))


def directives(
    context: typer.Context, run_id: Run, initial_peers: Through = None, home: Home = None, json_output: Json = None
) -> None:
    """List what the organiser of a run has directed."""
    from peer.direct import status_here
    from peer.home import Home as HomeDirectory
    from peer.settings import ObserveSettings

    settings = ObserveSettings.load(home=home, json_output=json_output, initial_peers=initial_peers)
    directory = HomeDirectory(settings.home)
    run = directory.resolve_run(run_id)
    if initial_peers:
        with _channel(directory, run, settings.initial_peers) as channel:
            known = channel.directives()
    else:
        known = status_here(directory, run)
    if settings.json_output:
        typer.echo(known.to_json())
    else:
        from cli.render import console, directives_view

        console().print(directives_view(known))


def _issue(context: typer.Context, order: "Order") -> None:
    """Signs the order and hands it over, through the daemon here or the members that --initial-peers names."""
    from cli.render import directive_text
    from peer.direct import issue, organised, status_of
    from peer.home import Home as HomeDirectory
    from peer.settings import ObserveSettings

    given = context.params
    settings = ObserveSettings.load(home=given["home"], initial_peers=given["initial_peers"])
    directory = HomeDirectory(settings.home)
    run = directory.resolve_run(given["run_id"])
    organised(directory, run)  # before anything is started for it
    through = settings.initial_peers if given["initial_peers"] else ()
    with _channel(directory, run, through) as channel:
        directive, seen = issue(directory, run, channel, order, given.get("at_epoch"))
    told = directive_text(status_of(directive, holds=True))
    typer.echo(f"directive {directive.body.number}: {told} (the run is at epoch {seen.epoch})")


@contextmanager
def _channel(home: "HomeDirectory", run: str, initial_peers: tuple[str, ...]) -> "Iterator[Channel]":
    """Raises NoDaemon, UsageError."""
    from peer.control_client import ControlClient
    from peer.errors import NoDaemon
    from peer.hints import command

    if initial_peers:
        from cli.daemons import view_from_outside

        with view_from_outside(home, run, initial_peers) as view:
            yield view
        return
    daemon = ControlClient(home, run)
    if not daemon.listens():
        start = command(home.path, "join", "--run-id", run)
        raise NoDaemon(
            f"no daemon of {home.path} is in run {run}; start one with: {start} (or name a member by --initial-peers)"
        )
    yield daemon
