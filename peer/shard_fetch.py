"""Shards that are not on this machine: fetched from the members that hold them, verified, resumed after a break.

A member that is still fetching serves what it has already, so that those who start together draw on each other. While
nobody is there who has more, the fetcher waits, and asks less and less often, for as long as it takes.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import structlog

from dht.interfaces import OnRejected, Transport
from peer.block_file import BlockFile
from peer.content_fetch import ContentNotFound, Members, fetch_blocks, fetch_index
from peer.contents import ContentStore
from peer.errors import PeerError
from peer.shard_store import ShardStore
from protocols.blocks import BlockIndex
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Shard
from protocols.rejection import Rejected

RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0
"""The pause before the next attempt is RETRY_SECONDS after one that brought something, and doubles after a vain one."""
VAIN_UNTIL_TOLD = 4
"""So many vain attempts until the user is told: whoever has just come up knows nobody yet."""

T = TypeVar("T")

log = structlog.get_logger()


class ShardFetcher:
    def __init__(
        self,
        store: ShardStore,
        contents: ContentStore,
        transport: Transport,
        members: Members,
        on_rejected: OnRejected,
    ) -> None:
        """`contents`: where others fetch what we have; `members`: who may hold shards, connected."""
        self._store, self._contents, self._transport = store, contents, transport
        self._members, self._on_rejected = members, on_rejected

    async def fetch(self, shards: Sequence[Shard], located: Sequence[BlockFile | None]) -> list[BlockFile]:
        """The files of all shards: those that are None in `located` are found in the store, or fetched into it.

        All are served to others from now on. Raises PeerError.
        """
        files = {shard.digest: file for shard, file in zip(shards, located, strict=True) if file is not None}
        for shard in shards:
            if shard.digest not in files and (found := await self._transport.in_thread(self._store.find, shard)):
                files[shard.digest] = found
        for address, file in files.items():
            self._contents.pin(address, file)
        missing = list({shard.digest: shard for shard in shards if shard.digest not in files}.values())
        if missing:
            await self._transport.in_thread(self._store.make_room, shards, missing)
            log.info("fetching data", shards=len(missing), size_bytes=sum(shard.size_bytes for shard in missing))
        for shard in self._in_our_order(missing):
            files[shard.digest] = await self._fetch_one(shard)
        return [files[shard.digest] for shard in shards]

    def _in_our_order(self, shards: Sequence[Shard]) -> list[Shard]:
        """Another one on every peer, so that those who start together have shards for each other."""
        me = self._transport.peer_id.encode()
        return sorted(shards, key=lambda shard: digest(me, shard.digest))

    async def _fetch_one(self, shard: Shard) -> BlockFile:
        with ExitStack() as resources:
            waited = await self._claim(shard, resources)
            if waited and (found := await self._transport.in_thread(self._store.find, shard)):
                return self._share(shard, found)
            index = await self._persist(shard, lambda holders: self._fetch_index(shard, holders), lambda: 0)
            file: BlockFile = await self._transport.in_thread(self._store.open_partial, shard, index)
            blocks = len(index.blocks)
            log.info("fetching a shard", shard=shard.name, missing_blocks=blocks - len(file.held), of=blocks)
            self._share(shard, file)
            await self._persist(shard, lambda holders: self._fill(file, holders), lambda: len(file.held))
            await self._transport.in_thread(self._store.finish, shard, file)
            return file

    def _share(self, shard: Shard, file: BlockFile) -> BlockFile:
        self._contents.pin(shard.digest, file)
        return file

    async def _claim(self, shard: Shard, resources: ExitStack) -> bool:
        """Whether another daemon of this home was fetching the shard until now."""
        waited = False
        while True:
            try:
                resources.enter_context(self._store.claim(shard))
                return waited
            except BlockingIOError:
                if not waited:
                    log.info("another daemon of this home is fetching the shard; waiting for it", shard=shard.name)
                waited = True
                await self._transport.clock.sleep(RETRY_SECONDS)

    async def _fetch_index(self, shard: Shard, holders: Sequence[PeerId]) -> BlockIndex:
        index = await fetch_index(self._transport, shard.digest, holders, shard.size_bytes, self._on_rejected)
        if index.size_bytes != shard.size_bytes:
            raise PeerError(f"the manifest is wrong: {shard.name} has {index.size_bytes} bytes, not {shard.size_bytes}")
        return index

    async def _fill(self, file: BlockFile, holders: Sequence[PeerId]) -> None:
        await fetch_blocks(self._transport, file.index, file, holders, self._on_rejected, self._members)

    async def _persist(
        self, shard: Shard, attempt: Callable[[Sequence[PeerId]], Awaitable[T]], progress: Callable[[], int]
    ) -> T:
        """Attempts until it is done, with longer and longer pauses as long as `progress` does not grow."""
        pause, before, vain = RETRY_SECONDS, progress(), 0
        while True:
            try:
                return await attempt(await self._members())
            except Rejected as error:
                raise PeerError(f"the manifest is wrong about {shard.name}: {error}") from error
            except ContentNotFound as error:
                if progress() > before:
                    pause, before, vain = RETRY_SECONDS, progress(), 0
                vain += 1
                if vain == VAIN_UNTIL_TOLD:
                    log.warning(
                        "no member that is up has more of the data; waiting for one. You may also get the file from "
                        "the organiser, and join with --data PATH",
                        shard=shard.name,
                        why=str(error),
                    )
            await self._transport.clock.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
