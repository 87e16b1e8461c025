"""Now and then a trainer has a work done by a second peer of the stage, too, and compares.

Which works is drawn from the trainer's own secret, so neither of the two can know. Nothing tells the second from a
first: its answer is compared, and its gradient, which waits to be counted, never is. A work that is checked is used
once it has passed, so what is found out does no harm.
"""

import asyncio
from collections.abc import Sequence

from peer.swarm.arbiter import Arbiter, Given
from peer.swarm.client import Reply
from peer.swarm.inspector import AnswerInspector
from peer.swarm.microbatch import Tensor
from peer.swarm.recomputation import Assignment
from peer.swarm.router import Router, Untimely
from protocols.activations import TensorBounds
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.messages import Work


class SpotChecks:
    def __init__(
        self, router: Router, arbiter: Arbiter, inspector: AnswerInspector, signer: Signer, rate: float
    ) -> None:
        """`rate`: of all works, 0 … 1."""
        self.checked = self.differences = 0
        """Works that two have done, and those of them of which they made different things."""
        self._router, self._arbiter, self._inspector = router, arbiter, inspector
        self._secret, self._rate = signer.secret("spot checks"), rate

    async def ask(
        self,
        work: Work,
        tensors: Sequence[Tensor],
        accepted: Sequence[TensorBounds],
        *,
        wanted: PeerId | None = None,
    ) -> tuple[PeerId, Reply]:
        """As `Router.ask`; of what was checked, an answer that was found right."""
        assignment = Assignment(work, tuple(tensors))
        while True:
            peer, reply = await self._router.ask(work, tensors, accepted, wanted=wanted)
            if not self._is_drawn(work):
                return peer, reply
            first = await self._arbiter.given(reply, assignment)
            second = await self._second(assignment, accepted, first) if first.product.is_something else None
            if second is None:
                return peer, reply
            self.checked += 1
            if self._arbiter.agree(first.product, second.product):
                return peer, reply
            self.differences += 1
            verdict = await self._inspector.look_into(assignment, first, second)
            if verdict is None:
                return peer, reply
            if verdict.right:
                return verdict.right[0].peer, verdict.right[0].reply
            wanted = None

    async def ask_again(
        self, work: Work, tensors: Sequence[Tensor], accepted: Sequence[TensorBounds]
    ) -> tuple[PeerId, Reply]:
        """As `Router.ask`, for a work whose answer we have: what is wanted is the stage's own gradient.

        No check sees that. And a gradient does not wait long to be counted: of works that all were checked again, each
        would be crowded out by the others before it has passed, and none ever count.
        """
        return await self._router.ask(work, tensors, accepted)

    def serving(self, stage: int) -> list[PeerId]:
        """Who serves the stage."""
        return self._router.others(stage, but=())

    def blame(self, stage: int, peer: PeerId) -> None:
        """As `Router.blame`."""
        self._router.blame(stage, peer)

    def _is_drawn(self, work: Work) -> bool:
        drawn = int.from_bytes(digest(self._secret, work.to_bytes())[:8], "big")
        return drawn < self._rate * 2**64

    async def _second(self, assignment: Assignment, accepted: Sequence[TensorBounds], first: Given) -> Given | None:
        """None where nobody else serves the stage, or nobody else works."""
        exclude = {first.peer}
        if not self._router.others(assignment.work.stage, exclude):
            return None
        try:
            async with asyncio.timeout(self._router.patience(assignment.work)):
                _, reply = await self._router.ask(assignment.work, assignment.tensors, accepted, exclude=exclude)
        except (TimeoutError, Untimely):
            return None
        return await self._arbiter.given(reply, assignment)
