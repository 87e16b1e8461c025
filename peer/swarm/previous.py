"""The parameters of the epoch before: stages step one after the other, and a late one needs the others as they were.

Peers that come to a stage in between take them from those who were there; where nobody was, as when all have been down
at once, from their own disk.
"""

from collections.abc import Callable, Iterable

import numpy as np
import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.content_fetch import ContentNotFound, fetch_content
from peer.contents import ContentStore, MemoryContent
from peer.swarm.stage import Stage
from protocols.blocks import BlockIndex
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer, open_signed
from protocols.state import ModelState
from protocols.swarm.messages import Previous
from protocols.vectors import Vector, all_finite

PREVIOUS_KIND = "swarm-previous"
ASK_SECONDS = 5.0
LOOK_SECONDS = 0.5

Saved = Callable[[int, int], ModelState | None]
"""Stage, epoch → its state. Blocking."""

log = structlog.get_logger()


class PreviousParameters:
    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        contents: ContentStore,
        peers_at: Callable[[int], Iterable[PeerId]],
        held: Callable[[], Stage | None],
        saved: Saved,
        border: Border,
    ) -> None:
        """`peers_at`: who serves a stage; `held`: ours; `saved`: a stage's state of an epoch on this disk."""
        self._transport, self._signer, self._contents = transport, signer, contents
        self._peers_at, self._held, self._saved, self._border = peers_at, held, saved, border
        self._read_for: tuple[Stage, int] | None = None
        """For which stage and epoch the disk has been looked at."""
        self._shown: tuple[Vector, bytes] | None = None
        """What is served here, and its address."""

    async def serve(self) -> None:
        await self._transport.serve_requests(PREVIOUS_KIND, self._answer)

    async def keep_fetched(self) -> None:
        """Fetches those that our stage lacks, until cancelled."""
        while True:
            stage = self._held()
            if stage is not None and stage.ready.is_set() and stage.lacking:
                async with self._border.around("fetching the parameters of the epoch before"):
                    if stage.previous is None:
                        await self._fetch(stage)
                    if self._read_for != (stage, stage.epoch):
                        self._read_for = stage, stage.epoch
                        await self._read(stage)
            await self._transport.clock.sleep(LOOK_SECONDS)

    async def _fetch(self, stage: Stage) -> None:
        """Those that most of the stage's peers name."""
        epoch = stage.epoch - 1
        named = await self.named(stage.number, epoch)
        if not named:
            return
        address = max(named, key=lambda each: (len(named[each]), each))
        parameters = await self.fetch(address, named[address], stage.parameter_count)
        if parameters is not None:
            stage.remember(epoch, parameters)

    async def _read(self, stage: Stage) -> None:
        """Those that we have saved ourselves."""
        for epoch in stage.lacking:
            state: ModelState | None = await self._transport.in_thread(self._saved, stage.number, epoch)
            if state is not None:
                stage.remember(epoch, state.parameters)

    async def named(self, stage: int, epoch: int) -> dict[bytes, list[PeerId]]:
        """By address: which of the stage's peers say that these are the parameters before they stepped `epoch`."""
        holders: dict[bytes, list[PeerId]] = {}
        for peer in self._peers_at(stage):
            if (address := await self._ask(peer, stage, epoch)) is not None:
                holders.setdefault(address, []).append(peer)
        return holders

    async def fetch(self, address: bytes, holders: list[PeerId], parameter_count: int) -> Vector | None:
        """None where they cannot be had, or are none."""
        size = 4 * parameter_count
        try:
            content = await fetch_content(self._transport, address, holders, size, self._transport.reject)
        except (ContentNotFound, Rejected) as error:
            log.debug("the parameters of the epoch before could not be fetched", error=str(error))
            return None
        if len(content) != size:
            return None
        parameters: Vector = np.frombuffer(content, "<f4").astype(np.float32, copy=False)
        return parameters if await self._transport.in_thread(all_finite, parameters) else None

    async def _ask(self, peer: PeerId, stage: int, epoch: int) -> bytes | None:
        try:
            wire = await self._transport.request(peer, PREVIOUS_KIND, b"", ASK_SECONDS)
            word = open_signed(wire, Previous, run=self._signer.run, sender=peer)
            return word.body.parameters if (word.body.stage, word.epoch) == (stage, epoch) else None
        except TransportError as error:
            log.debug("no parameters of the epoch before", peer=peer, error=str(error))
        except Rejected as error:
            self._transport.reject(peer, error.reason, str(error))
        return None

    async def _answer(self, _peer: PeerId, _body: bytes) -> bytes:
        stage = self._held()
        parameters = stage.previous if stage is not None else None
        if stage is None or parameters is None:
            raise Rejected(Reason.BUSY, "the parameters of the epoch before are not here")
        epoch = stage.epoch - 1
        return self._signer.sign(Previous(stage=stage.number, parameters=await self._show(parameters)), epoch).wire

    async def _show(self, parameters: Vector) -> bytes:
        """Has them served; their address."""
        if self._shown is not None and self._shown[0] is parameters:
            return self._shown[1]
        buffers = [memoryview(parameters.astype("<f4", copy=False).view(np.uint8).data)]
        index = await self._transport.in_thread(BlockIndex.of, buffers)
        if self._shown is not None:
            self._contents.unpin(self._shown[1])
        self._contents.pin(index.digest, MemoryContent(index, buffers))
        address: bytes = index.digest
        self._shown = parameters, address
        return address
