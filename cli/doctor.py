"""`peer doctor`."""

import typer

from cli.options import Announce, ClientMode, Home, InitialPeers, Json, Listen, Relay, ServeRelay, Threads


def doctor(
    context: typer.Context,
    *,
    initial_peers: InitialPeers = None,
    listen: Listen = None,
    announce: Announce = None,
    client_mode: ClientMode = None,
    relay: Relay = None,
    serve_relay: ServeRelay = None,
    threads: Threads = None,
    home: Home = None,
    json_output: Json = None,
) -> int:
    """Examine this machine: what would stop it from taking part, and the mend. Exit 1 if something would."""
    from peer.settings import DoctorSettings

    settings = DoctorSettings.load(**context.params)
    from peer.doctor.examination import examine  # after what may be refused: this takes time

    report = examine(settings)
    if settings.json_output:
        typer.echo(report.to_json())
    else:
        from cli.render import console, report_view

        console().print(report_view(report))
    return 0 if report.able else 1
