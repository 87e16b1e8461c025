"""Of two peers of a stage who have counted the same microbatch one does its own again: who comes later by its PeerID.

It happens when a trainer that was thought dead goes on with what was given to another meanwhile.
"""

from collections.abc import Callable, Iterable

import structlog

from dht.border import Border
from dht.interfaces import Transport, TransportError
from peer.swarm.server import ask_coverage
from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.swarm.coverage import from_bytes
from protocols.swarm.messages import Coverage

COMPARE_SECONDS = 1.0
ANSWER_SECONDS = 2.0

log = structlog.get_logger()


class Overlaps:
    def __init__(
        self,
        transport: Transport,
        peers_at: Callable[[int], Iterable[PeerId]],
        held: Callable[[], Stage | None],
        border: Border,
    ) -> None:
        """`peers_at`: the others who serve a stage; `held`: ours."""
        self._transport, self._peers_at, self._held, self._border = transport, peers_at, held, border

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._transport.clock.sleep(COMPARE_SECONDS)
            async with self._border.around("comparing what is counted"):
                await self._compare()

    async def _compare(self) -> None:
        stage = self._held()
        if stage is None or not stage.open_epochs.get(stage.epoch):
            return
        for peer in self._peers_at(stage.number):
            word = await self._ask(peer) if peer < self._transport.peer_id else None
            if stage is not self._held():
                return
            if word is None or word.stage != stage.number:
                continue
            theirs = {each.epoch: from_bytes(each.covered) for each in word.counted}
            for epoch, ours in stage.open_epochs.items():
                if ours & theirs.get(epoch, 0):
                    log.info("counted twice, doing ours again", epoch=epoch, with_peer=peer)
                    await stage.discard(epoch)

    async def _ask(self, peer: PeerId) -> Coverage | None:
        try:
            return await ask_coverage(self._transport, peer, ANSWER_SECONDS)
        except (TransportError, Rejected) as error:
            log.debug("a fellow does not say what it has counted", peer=peer, error=str(error))
        return None
