"""`peer join`: the daemon."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Announce, ClientMode, Home, InitialPeers, Listen, Relay, RunId, ServeRelay, Threads

if TYPE_CHECKING:
    from peer.home import Home as HomeDirectory


def join(
    context: typer.Context,
    *,
    run_id: RunId = None,
    initial_peers: InitialPeers = None,
    listen: Listen = None,
    announce: Announce = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What others see; by default this machine's name.")
    ] = None,
    home: Home = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="trainer|aggregator|monitor|stage|both",
            help="trainer unless you say otherwise; in a pipeline both: serve a stage, and train.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="N", help="Of a pipeline: serve this stage, not the one that needs it most.")
    ] = None,
    emulate: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="In a run made for tests: wait instead of computing a microbatch."),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            metavar="MB",
            help="Of a pipeline: memory for forward passes, not to compute them twice; an eighth of what is free.",
        ),
    ] = None,
    client_mode: ClientMode = None,
    relay: Relay = None,
    serve_relay: ServeRelay = None,
    no_local_discovery: Annotated[
        bool | None,
        typer.Option(
            "--no-local-discovery/--local-discovery", help="Do not look for members on this machine and network."
        ),
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(metavar="MBIT/S", help="Send no more than so many million bits a second.")
    ] = None,
    max_epochs: Annotated[str | None, typer.Option(metavar="N", help="Leave after this many epochs.")] = None,
    until_done: Annotated[
        bool | None,
        typer.Option(
            "--until-done/--no-until-done", help="Exit when the run's last epoch is reached; else stay and serve."
        ),
    ] = None,
    detach: Annotated[
        bool | None,
        typer.Option("--detach/--no-detach", help="Go into the background once it is up; see `peer logs`."),
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="text|json", help="How to log.")] = None,
    threads: Threads = None,
    data_quota: Annotated[
        str | None, typer.Option(metavar="GB", help="Data fetched from members and kept, at most; 20.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="By which the organiser has admitted this peer.")
    ] = None,
    misbehave: Annotated[
        str | None, typer.Option(metavar="NAME", help="Attack a run that was made for tests: sign_flip, alie, ...")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A file or directory with the run's text files; repeatable."),
    ] = None,
) -> int:
    """Join a run: train in it and share the work with its other members."""
    from peer.home import Home as HomeDirectory
    from peer.settings import JoinSettings

    settings = JoinSettings.load(**context.params)
    home_directory = HomeDirectory(settings.home)
    run = home_directory.resolve_run(settings.run_id)
    settings = settings.model_copy(update={"run_id": run})
    if settings.detach and (exit_code := _detach(home_directory, run)) is not None:
        return exit_code
    from cli.live import show_while_training  # after what may be refused: this, and more so the daemon, takes time

    with show_while_training(settings) as observe:
        from peer.daemon import run_daemon

        try:
            return run_daemon(settings, observe)
        finally:
            if not settings.detach:  # else whoever started it still reads the log
                home_directory.forget_unknown(run)


def _detach(home: "HomeDirectory", run: str) -> int | None:
    """None in the daemon, which goes on; elsewhere the exit code, when the daemon has come up or failed."""
    from peer.detach import DaemonFailed, detach, wait_until_up
    from peer.hints import command

    process = detach(home, run)
    if process is None:
        return None
    try:
        wait_until_up(home, run, process)
    except DaemonFailed as failure:
        home.forget_unknown(run)
        typer.echo(str(failure), err=True)
        return failure.exit_code
    typer.echo(f"the daemon in run {run} has process id {process} and logs to {home.log_path(run)}")
    see, follow, stop = (command(home.path, word, "--run-id", run) for word in ("status", "logs", "leave"))
    typer.echo(f"see it with: {see}\nread its log with: {follow}\nstop it with: {stop}", err=True)
    return 0
