"""A run's manifest from its members; the run id authenticates it, so that it matters not who gives it."""

from collections.abc import Iterable

import structlog

from dht.interfaces import Transport, TransportError
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.rejection import Rejected

MANIFEST_KIND = "manifest"
REQUEST_SECONDS = 5.0

log = structlog.get_logger()


async def fetch_manifest(transport: Transport, run_id: str, members: Iterable[PeerId]) -> Manifest | None:
    """From the first of `members`, who must be connected, that gives it; None when nobody does."""
    for member in members:
        try:
            data = await transport.request(member, MANIFEST_KIND, run_id.encode(), REQUEST_SECONDS)
            return Manifest.from_bytes(data, run_id)
        except (TransportError, Rejected) as error:
            log.debug("no manifest from a member", member=member, error=str(error))
    return None
