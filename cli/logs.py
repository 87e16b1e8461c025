"""`peer logs`: what a daemon in the background has said."""

from typing import Annotated

import typer

from cli.options import Home, RunId


def logs(
    context: typer.Context,
    *,
    run_id: RunId = None,
    follow: Annotated[
        bool | None, typer.Option("--follow/--no-follow", "-f", help="Go on until the daemon stops, or Ctrl-C.")
    ] = None,
    lines: Annotated[str | None, typer.Option("--lines", "-n", metavar="N", help="The last N lines only.")] = None,
    home: Home = None,
) -> None:
    """Print the log of the daemon that was started with --detach, or of the last one."""
    from cli.daemons import run_with_log
    from peer.home import Home as HomeDirectory
    from peer.log_file import read_log
    from peer.settings import LogsSettings

    settings = LogsSettings.load(**context.params)
    directory = HomeDirectory(settings.home)
    run = run_with_log(directory, settings.run_id)

    def follows() -> bool:
        return settings.follow and directory.is_locked(run)

    try:
        for line in read_log(directory.log_path(run), settings.lines, follows):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        return
