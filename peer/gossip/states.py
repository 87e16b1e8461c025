"""The states of other members: from whom a joiner takes its own, and how all models become one at a run's end.

Members of a run without groups have no state in common, so each shows its own (`Head`), and nobody can say what it
should be. Where some members may lie, a joiner takes 2f + 1 states and begins at their median, coordinate by
coordinate; else one neighbour's, with what its optimizer keeps.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import structlog

from dht.interfaces import Transport
from peer.content_fetch import ContentNotFound
from peer.sync import fetch_state
from protocols.gossip.mixing import Neighbourhood, apply_shift
from protocols.gossip.progress import epoch_of_most
from protocols.heads import Choice, History
from protocols.identity import PeerId
from protocols.rejection import Rejected
from protocols.round.order import order
from protocols.rules import Mean, Robust
from protocols.state import ModelState
from protocols.vectors import Vector

MOST_MERGED = 64
"""Models that become one, at most: those of the members that come first in an order that all know."""
AT_ONCE = 4

log = structlog.get_logger()


async def take_states(
    transport: Transport, like: ModelState, histories: Mapping[PeerId, History], byzantine: int
) -> ModelState | None:
    """What a joiner begins with, from members that are as far as most; None when too few could be had.

    `like`: any state of the run, for its shape. `histories`: what members say to have.
    """
    newest = {peer: max(history) for peer, history in histories.items()}
    epoch = epoch_of_most(newest.values())
    wanted = 2 * byzantine + 1
    taken: list[ModelState] = []
    for peer in order(like.run, epoch, [peer for peer in newest if newest[peer] >= epoch]):
        state = await fetch_one(transport, like, peer, newest[peer], histories[peer][newest[peer]])
        if state is not None:
            taken.append(state)
        if len(taken) == wanted:
            return taken[0] if wanted == 1 else await transport.in_thread(_median, taken, epoch, byzantine)
    return None


async def fetch_one(
    transport: Transport, like: ModelState, peer: PeerId, epoch: int, digest: bytes
) -> ModelState | None:
    """The state that `peer` says to have, verified; None when it does not give it."""
    choice = Choice(epoch, digest, (peer,), (peer,), frozenset((peer,)))
    try:
        return await fetch_state(transport, like, choice)
    except (ContentNotFound, Rejected) as error:
        log.info("a member's state could not be fetched", member=peer, epoch=epoch, error=str(error))
        return None


async def merge(
    transport: Transport, own: ModelState, last: Mapping[PeerId, bytes], mix: Neighbourhood | None
) -> tuple[ModelState, int]:
    """One state of members' last ones, an epoch later, and of how many it is made.

    A single merging at the end makes up for what was not mixed before (Zhu et al. 2025, "A Single Merging Suffices:
    Recovering Server-based Learning Performance in Decentralized Learning", section 4). The mean is taken in an order
    that all know, so that those who have the same models end with the same bits.

    `last`: whose, and their digests; `own` is one of them only if it is named. `mix`: how a neighbourhood with liars is
    mixed, None for the mean.
    """
    members = order(own.run, own.epoch, last)[:MOST_MERGED]
    gate = asyncio.Semaphore(AT_ONCE)

    async def parameters_of(peer: PeerId) -> Vector | None:
        if peer == transport.peer_id:
            return own.parameters
        async with gate:
            state = await fetch_one(transport, own, peer, own.epoch, last[peer])
        return state.parameters if state else None

    async with asyncio.TaskGroup() as tasks:
        fetching = [tasks.create_task(parameters_of(peer)) for peer in members]
    models = [model for task in fetching if (model := task.result()) is not None]
    merged = await transport.in_thread(_merged, own, models or [own.parameters], mix)
    slots = {name: np.zeros_like(slot) for name, slot in own.slots.items()}  # nobody steps from here
    return ModelState(own.run, own.epoch + 1, merged, slots), len(models)


def _merged(own: ModelState, models: Sequence[Vector], mix: Neighbourhood | None) -> Vector:
    if mix is None:
        return Mean().aggregate(models, [1.0] * len(models))
    merged = own.parameters.copy()
    apply_shift(merged, mix(own.parameters, [model for model in models if model is not own.parameters]))
    return merged


def _median(states: Sequence[ModelState], epoch: int, byzantine: int) -> ModelState:
    """Coordinate by coordinate, of the parameters and of each of the optimizer's vectors."""
    median = Robust("median", byzantine)

    def of(vectors: Iterable[Vector]) -> Vector:
        return median.aggregate(np.stack(list(vectors)), [1.0] * len(states))

    slots = {name: of(state.slots[name] for state in states) for name in states[0].slots}
    return ModelState(states[0].run, epoch, of(state.parameters for state in states), slots)
