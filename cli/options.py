"""Options that several commands share. Values stay text here: `peer.settings` checks them, whatever their source.

A switch is None when it is not given, and has a form for off, so that a flag can overrule a variable or the file.
"""

from typing import Annotated

import typer

Home = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where the identity and the runs are kept.", show_default=False),
]
RunId = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The run: its id, or a name or beginning of one known here.", show_default=False),
]
InitialPeers = Annotated[
    list[str] | None, typer.Option(metavar="MADDR", help="A member's address with its PeerID; repeatable.")
]
ThroughPeers = Annotated[
    list[str] | None,
    typer.Option("--initial-peers", metavar="MADDR", help="See the run from outside, through this member; repeatable."),
]
Listen = Annotated[list[str] | None, typer.Option(metavar="MADDR", help="Where to listen; repeatable.")]
Announce = Annotated[
    list[str] | None,
    typer.Option(metavar="MADDR", help="What to tell others instead of the addresses found; repeatable."),
]
ClientMode = Annotated[
    bool | None, typer.Option("--client-mode/--no-client-mode", help="Accept no inbound connections.")
]
Relay = Annotated[
    list[str] | None,
    typer.Option(metavar="MADDR", help="A member through which others reach us who cannot dial us; repeatable."),
]
ServeRelay = Annotated[
    bool | None,
    typer.Option("--serve-relay/--no-serve-relay", help="Pass connections on to members that cannot be dialled."),
]
Threads = Annotated[str | None, typer.Option(metavar="N", help="Threads to train with; half the cores.")]
Json = Annotated[bool | None, typer.Option("--json/--no-json", help="One JSON object, for programs.")]
