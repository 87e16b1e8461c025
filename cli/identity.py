"""`peer id`."""

import typer

from cli.options import Home


def identity(context: typer.Context, home: Home = None) -> None:
    """Print this home's PeerID."""
    from peer.home import Home as HomeDirectory
    from peer.settings import Settings

    typer.echo(HomeDirectory(Settings.load(**context.params).home).identity().peer_id)
