"""The command `peer`, whose trainer wires microbatches otherwise: `python wired_peer.py WIRING …/bin/peer ARGUMENTS`.

WIRING is `stochastic` (ours), `round_robin`, or one fixed pipeline: the PeerIDs of its stages, with commas between.
"""

import runpy
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import peer.swarm.pipeline
from protocols.identity import PeerId
from protocols.swarm.wiring import Task, Wiring


class RoundRobin(Wiring):
    """The peers of a stage in turn, as if all took equally long, whatever is under way."""

    def under_way(self, stage: int, peer: PeerId) -> AbstractContextManager[None]:
        return nullcontext()

    def done(self, stage: int, peer: PeerId, task: Task, seconds: float) -> None:
        super().done(stage, peer, task, task.size)


class FixedPipeline(Wiring):
    """Always the same peer of each stage."""

    chosen: frozenset[PeerId]

    def set_peers(self, stage: int, peers: Iterable[PeerId]) -> None:
        super().set_peers(stage, self.chosen.intersection(peers))


def wiring_of(name: str) -> type[Wiring]:
    """The class that stands for `peer.swarm.pipeline.Wiring`."""
    if name == "stochastic":
        return Wiring
    if name == "round_robin":
        return RoundRobin
    return type("FixedPipeline", (FixedPipeline,), {"chosen": frozenset(map(PeerId, name.split(",")))})


if __name__ == "__main__":
    _, wiring, *sys.argv = sys.argv
    peer.swarm.pipeline.Wiring = wiring_of(wiring)
    runpy.run_path(sys.argv[0], run_name="__main__")
