"""A run's manifest from its members; the run id authenticates it, so that it matters not who gives it."""

import asyncio
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
    """From whichever of `members` gives it first, for some may be gone or stopped; None when nobody does.

    The transport must know where they are.
    """
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(transport, run_id, member)) for member in members]
        for answer in asyncio.as_completed(asked):
            if (manifest := await answer) is not None:
                for task in asked:
                    task.cancel()
                return manifest
    return None


async def _ask(transport: Transport, run_id: str, member: PeerId) -> Manifest | None:
    try:
        data = await transport.request(member, MANIFEST_KIND, run_id.encode(), REQUEST_SECONDS)
        return Manifest.from_bytes(data, run_id)
    except (TransportError, Rejected) as error:
        if isinstance(error, Rejected):
            transport.reject(member, error.reason, str(error))
        log.debug("no manifest from a member", member=member, error=str(error))
        return None
