"""The command `peer`. Commands import what they need when they run, so that help and completion answer at once."""

import os
import sys
from typing import Annotated

import typer

from cli import direct, doctor, export, identity, join, logs, observe, run, simulate
from cli.errors import run_reporting_errors

app = typer.Typer(
    name="peer",
    help="Train one model together with other volunteers over the internet.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"peer {version('peer')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _peer(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(join.join)
app.command()(observe.status)
app.command()(observe.peers)
app.command()(observe.watch)
app.command()(observe.leave)
app.command()(logs.logs)
run.app.command()(direct.ban)
run.app.command()(direct.pause)
run.app.command()(direct.resume)
run.app.command("set")(direct.set_fields)
run.app.command()(direct.directives)
app.add_typer(run.app, name="run")
app.command()(export.export)
app.command("id")(identity.identity)
app.command()(doctor.doctor)
app.command()(simulate.simulate)


def main() -> None:
    _open_closed_streams()
    sys.exit(run_reporting_errors(lambda: app(standalone_mode=False, prog_name="peer")))


def _open_closed_streams() -> None:
    """Where the caller closed stdout or stderr (`>&-`), Python has None, on which every `isatty` and `write` fails."""
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


if __name__ == "__main__":
    main()
