"""Sampled committees beside full gossip, in virtual time: bytes of models that a node sends until the same accuracy.

    python benchmarks/committees.py                         # 32 and 64 nodes
    python benchmarks/committees.py --nodes 64 --json
    python benchmarks/committees.py --unresponsive          # the share of nodes that answer nothing: 0, 50, 80 %

What MoDeST claims (de Vos et al. 2023, section 4): a fraction of the traffic of D-SGD, where every node trains and
sends its model in each round, for the same accuracy; and progress with 80 % of the nodes unresponsive.

All train the digits with the same steps between two exchanges. Full gossip is on the one-peer exponential graph, as
the paper's D-SGD. Accuracy is that of one node's model in gossip (the mean of eight nodes), and of the newest aggregate
with committees. Unresponsive nodes say hello, so nobody forgets them, and are silent to all that committees ask.
"""

import argparse
import json
from typing import Any

import numpy as np
from gossip_swarm import accuracy, digits, learns_digits, simulate, start_gossiping

from dht.interfaces import Stream
from dht.simulated_link import Link
from peer.gossip.participant import GossipParticipant
from peer.simulation.swarm import SimulatedSwarm
from protocols.manifest import Averaging, Committee, Manifest

GOAL = 0.93
LOOK_SECONDS = 0.5
LONGEST_SECONDS = 300.0
LOOKED_AT = 8
SPEED = 400.0
"""Samples a second: the four steps of an epoch take 160 ms."""
COMMITTEE = Committee(trainers=8, aggregators=2, fraction=0.75)
SMALL = Committee(trainers=3, aggregators=2, fraction=0.6)
"""For swarms of which few answer."""
NEAR = Link(latency_seconds=0.005)
SILENT_SECONDS = 1e6
UNRESPONSIVE = (0.0, 0.5, 0.8)


class Unresponsive(GossipParticipant):
    """A member that says hello and answers nothing that a committee asks."""

    async def start(self) -> None:
        assert self._committees is not None
        self._committees._answer_ping = self._say_nothing  # type: ignore[method-assign]
        self._committees._serve = self._hear_nothing  # type: ignore[method-assign]
        await super().start()

    async def _take_turns(self, _committees: object) -> None:
        await self._transport.clock.sleep(SILENT_SECONDS)

    async def _say_nothing(self, _peer: str, _body: bytes) -> bytes:
        await self._transport.clock.sleep(SILENT_SECONDS)
        return b""

    async def _hear_nothing(self, _stream: Stream) -> None:
        await self._transport.clock.sleep(SILENT_SECONDS)


def manifest_of(way: str, nodes: int, committee: Committee) -> Manifest:
    averaging = Averaging(codec="float16", quorum=min(nodes, 64))
    if way == "gossip":
        return digits(10**6, averaging, topology="exponential")
    return digits(10**6, averaging, committee=committee)


def until_goal(way: str, nodes: int, silent: int = 0, committee: Committee = COMMITTEE) -> dict[str, Any]:
    """What it takes until the goal, with the first `silent` nodes unresponsive."""
    manifest = manifest_of(way, nodes, committee)

    async def scenario(swarm: SimulatedSwarm) -> dict[str, Any]:
        members = [
            await start_gossiping(swarm, number, Unresponsive if number < silent else GossipParticipant, speed=SPEED)
            for number in range(nodes)
        ]
        awake = members[silent:]
        await swarm.until(lambda: all(member.phase == "training" for member in awake), within=60)
        began, reached = swarm.now, 0.0
        while reached < GOAL and swarm.now < began + LONGEST_SECONDS:
            await swarm.network.clock.sleep(LOOK_SECONDS)
            newest = sorted(awake, key=lambda member: -member.state.epoch)
            looked_at = newest[:1] if way == "committees" else awake[:LOOKED_AT]
            reached = float(np.mean([accuracy(manifest, member.state.parameters) for member in looked_at]))
        sent = sum(member.gossip_status.bytes_sent for member in awake)
        return {
            "way": way,
            "nodes": nodes,
            "silent": silent,
            "accuracy": reached,
            "seconds": swarm.now - began,
            "epochs": newest[0].state.epoch,
            "bytes_a_node": sent / nodes,
            "samples_a_node": sum(member.samples_contributed for member in awake) / nodes,
        }

    return simulate(scenario, manifest, learns_digits, link=NEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=lambda text: [int(part) for part in text.split(",")], default=[32, 64])
    parser.add_argument("--unresponsive", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.unresponsive:
        cases = [("committees", n, round(share * n), SMALL) for n in options.nodes for share in UNRESPONSIVE]
    else:
        cases = [(way, n, 0, COMMITTEE) for n in options.nodes for way in ("gossip", "committees")]
    runs = []
    for case in cases:
        runs.append(until_goal(*case))
        if not options.json:
            print(show(runs[-1]), flush=True)
    if options.json:
        print(json.dumps(runs))


def show(run: dict[str, Any]) -> str:
    return (
        f"{run['nodes']} nodes, {run['silent']} unresponsive, {run['way']:10}  to {run['accuracy']:.3f} in "
        f"{run['epochs']} epochs, {run['seconds']:.1f} s; a node {run['bytes_a_node'] / 1e3:.0f} kB, "
        f"{run['samples_a_node']:.0f} samples"
    )


if __name__ == "__main__":
    main()
