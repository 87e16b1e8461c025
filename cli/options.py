"""Options that several commands share. Values stay text here: `peer.settings` checks them, whatever their source."""

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
ClientMode = Annotated[bool, typer.Option("--client-mode", help="Accept no inbound connections.")]
Relay = Annotated[
    list[str] | None,
    typer.Option(metavar="MADDR", help="With --client-mode: a member that passes connections on to us; repeatable."),
]
ServeRelay = Annotated[bool, typer.Option("--serve-relay", help="Pass connections on to members in client mode.")]
Threads = Annotated[str | None, typer.Option(metavar="N", help="Threads to train with; half the cores.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
