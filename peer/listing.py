"""A member's record in the DHT: what it says of itself, for who comes from elsewhere."""

import asyncio
import random
from contextlib import suppress

import structlog

from dht.border import Border
from dht.interfaces import Records
from peer.word import Word
from protocols.identity import PeerId
from protocols.records import RosterEntry
from protocols.signed import Signed

PUBLISH_SECONDS = 20.0

log = structlog.get_logger()


class Listing:
    def __init__(self, records: Records, word: Word, run: str, me: PeerId, border: Border) -> None:
        self._records, self._word, self._run, self._me, self._border = records, word, run, me, border
        self._published, self._outdated = asyncio.Event(), asyncio.Event()
        self._random = random.Random(me)  # noqa: S311  (jitter)

    async def run(self) -> None:
        """Keeps our record up to date, until cancelled."""
        while True:
            self._outdated.clear()
            await self.store(self._word.say())
            self._published.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_SECONDS * self._random.uniform(0.8, 1.2)):
                    await self._outdated.wait()

    async def published(self) -> None:
        """Returns when the DHT has had a record of us."""
        await self._published.wait()

    def republish(self) -> None:
        """What the DHT has of us misleads."""
        self._outdated.set()

    async def store(self, statement: Signed[RosterEntry]) -> None:
        async with self._border.around("publishing a roster record"):
            if not await self._records.publish(statement, statement.body.expires):
                log.debug("the DHT took no roster record")

    async def others(self) -> list[Signed[RosterEntry]]:
        """What it has of everybody else."""
        found = await self._records.lookup(self._run, RosterEntry.kind)
        return [record for record in found if record.sender != self._me]
