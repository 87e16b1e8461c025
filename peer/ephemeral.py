"""A node of the network for who does not take part: it comes and goes with its identity."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dht.interfaces import OnRejected
from dht.node import Node, count_nothing
from dht.temporary_identity import temporary_identity
from protocols.identity import Identity


@asynccontextmanager
async def ephemeral_node(
    *,
    initial_peers: Sequence[str] = (),
    listen: Sequence[str] = (),
    announce: Sequence[str] = (),
    relays: Sequence[str] = (),
    serve_relay: bool = False,
    on_rejected: OnRejected = count_nothing,
) -> AsyncIterator[tuple[Node, Identity]]:
    """A node that lasts as long as the context; without `listen` in client mode. Raises P2pdError."""
    with temporary_identity() as (identity, path):
        node = await Node.start(
            path,
            initial_peers=initial_peers,
            listen=listen,
            announce=announce,
            client_mode=not listen,
            relays=relays,
            serve_relay=serve_relay,
            on_rejected=on_rejected,
        )
        try:
            yield node, identity
        finally:
            await node.close()
