"""A trainer's word with the keeper of the board: what it is at work on, and how much more it wants."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from dht.interfaces import Transport, TransportError
from peer.swarm.keeper import CLAIM_KIND, BoardKeeper
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.rejection import Rejected
from protocols.swarm.coverage import to_bytes
from protocols.swarm.keepers import Keepers
from protocols.swarm.messages import OPEN_EPOCHS, Claim, Grant, OpenEpoch

ANSWER_SECONDS = 2.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Surroundings:
    """What the members say of themselves."""

    servers: Callable[[], Collection[PeerId]]
    """Who serves a stage and can be dialled; the keeper of the board is one of them."""
    trainers: Callable[[], Collection[PeerId]]
    """Who begins microbatches, as we do."""
    epoch: Callable[[], int]
    """That some stage has still to step."""
    paused: Callable[[int], bool]
    """Whether no epoch is stepped after that one, for now."""


class Claims:
    def __init__(self, transport: Transport, manifest: Manifest, own: BoardKeeper, run: Surroundings) -> None:
        """`own`: the board that we keep when it is our turn."""
        self._transport, self._manifest, self._own, self._run = transport, manifest, own, run
        self._keepers = Keepers(manifest.run_id, transport.clock.monotonic())

    def choose_keeper(self, *, working: bool) -> PeerId | None:
        """Whom to claim from now; None: nobody serves a stage. `working`: we have something to do."""
        now, epoch = self._transport.clock.monotonic(), self._run.epoch()
        keeper = self._keepers.choose(self._run.servers(), now)
        over = epoch >= self._manifest.epochs or self._run.paused(epoch)
        self._keepers.look(keeper, epoch, working=working, over=over, now=now)
        return keeper

    async def claim(self, keeper: PeerId, held: Mapping[int, int], wanted: int) -> Grant | None:
        """`held`: epoch → mask of the microbatches that we are at work on.

        Where that keeper does not answer, the next one hears of them, before it hands them out in its place.
        """
        grant = await self._ask(keeper, held, wanted)
        if grant is None:
            others = set(self._run.servers()) - {keeper}
            if (following := self._keepers.choose(others, self._transport.clock.monotonic())) is not None:
                await self._ask(following, held, wanted=0)
        return grant

    def pass_over(self, keeper: PeerId) -> None:
        """It hands out what is no work, or says to be missing what is not."""
        self._keepers.pass_over(keeper, self._transport.clock.monotonic())

    def forgive(self, keeper: PeerId) -> None:
        """It was right."""
        self._keepers.forgive(keeper)

    async def _ask(self, keeper: PeerId, held: Mapping[int, int], wanted: int) -> Grant | None:
        newest = sorted(held)[-OPEN_EPOCHS:]
        claim = Claim(
            held=tuple(OpenEpoch(epoch=epoch, covered=to_bytes(held[epoch])) for epoch in newest),
            wanted=max(0, wanted),
        )
        if keeper == self._transport.peer_id:
            return self._own.claim(keeper, claim)
        try:
            answer = await self._transport.request(keeper, CLAIM_KIND, claim.to_bytes(), ANSWER_SECONDS)
            return Grant.from_bytes(answer)
        except TransportError as error:
            log.debug("the keeper of the board does not answer", keeper=keeper, error=str(error))
        except Rejected as error:
            self._transport.reject(keeper, error.reason, str(error))
        return None
