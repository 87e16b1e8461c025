"""Finds out who is right, where two peers of a stage have answered one work differently.

By what is nearest: our own parameters, when we hold that stage at that epoch; others of the stage, when all who are
asked say the same; else the stage's parameters, fetched as more than half of its peers name them. So one liar is found
even in a stage of two, and several who help each other are, as long as they are not the most. Of a work of which honest
machines may make different things nobody is found wrong (`recomputation.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import structlog

from peer.swarm.client import Reply
from peer.swarm.recomputation import Assignment, IllConditioned, Recomputation
from peer.swarm.router import Router
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.agreement import Product, agree

JURORS = 3

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Given:
    """What a peer has answered."""

    reply: Reply
    product: Product

    @property
    def peer(self) -> PeerId:
        return self.reply.statement.sender


@dataclass(frozen=True, slots=True)
class Verdict:
    right: tuple[Given, ...]
    wrong: tuple[Given, ...]


class Arbiter:
    def __init__(self, router: Router, recomputation: Recomputation, signer: Signer, tolerance: float) -> None:
        """`tolerance`: as of `agree`."""
        self._router, self._recomputation, self._tolerance = router, recomputation, tolerance
        self._random = Random(signer.secret("jurors"))  # noqa: S311  (seeded by a secret)

    async def given(self, reply: Reply, assignment: Assignment) -> Given:
        """Raises Rejected."""
        return Given(reply, await self._recomputation.product(reply.answer, reply.tensor, assignment.work))

    def agree(self, one: Product, other: Product) -> bool:
        return agree(one, other, self._tolerance)

    async def settle(self, assignment: Assignment, given: Sequence[Given]) -> Verdict | None:
        """Of those that are given, and of any others who were asked; None where nobody can tell. Raises Rejected."""
        try:
            product = await self._recomputation.with_own(assignment)
            if product is None:
                jurors = await self._ask_others(assignment, {each.peer for each in given})
                product = await self._common(assignment, jurors, given)
                given = [*given, *jurors]
            if product is None:
                product = await self._recomputation.with_fetched(assignment)
        except IllConditioned:
            product = None
        if product is None:
            log.info("two peers of a stage differ, and nobody can tell who is right", stage=assignment.work.stage)
            return None
        right = tuple(each for each in given if self.agree(each.product, product))
        return Verdict(right, tuple(each for each in given if each not in right))

    async def _ask_others(self, assignment: Assignment, but: set[PeerId]) -> list[Given]:
        """One after the other: who differs ends it."""
        others = self._router.others(assignment.work.stage, but)
        jurors: list[Given] = []
        for peer in self._random.sample(others, min(JURORS, len(others))):
            if (juror := await self._ask(peer, assignment)) is not None:
                jurors.append(juror)
                if not self.agree(jurors[0].product, jurors[-1].product):
                    break
        return jurors

    async def _common(self, assignment: Assignment, jurors: Sequence[Given], given: Sequence[Given]) -> Product | None:
        """What all of them say, and one of those who differ; and the first juror again, of nudged inputs."""
        if not jurors:
            return None
        first = jurors[0].product
        unanimous = all(self.agree(first, each.product) for each in jurors)
        if not unanimous or not any(self.agree(first, each.product) for each in given):
            return None
        tensors = await self._recomputation.nudged(assignment)
        again = await self._ask(jurors[0].peer, Assignment(assignment.work, tuple(tensors)))
        return first if again is not None and self.agree(first, again.product) else None

    async def _ask(self, peer: PeerId, assignment: Assignment) -> Given | None:
        accepted = self._recomputation.outputs(assignment.work)
        reply = await self._router.ask_one(peer, assignment.work, assignment.tensors, accepted)
        return None if reply is None else await self.given(reply, assignment)
