"""What `wiring.py` measures, in virtual time: whole peers over simulated links, and no other load in the figures.

    python benchmarks/wiring_simulated.py --json

Models are narrower and links slower by the same factor: a microbatch takes as long on every link.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import structlog
import wired_peer
from netlab import bytes_per_second
from pipeline_task import PipelineTask
from wiring import PER_STAGE, Figures, Peer, allowed, parser, peers_of, show

import peer.swarm.pipeline
from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Link
from peer.compute_threads import use_threads
from peer.data.dataset import Dataset
from peer.profile import Profile
from peer.rejections import Rejections
from peer.swarm.assembly import Wishes, assemble
from peer.swarm.emulated import EmulatedCompute
from peer.swarm.pipeline import PipelinePeer
from protocols.identity import Identity
from protocols.manifest import Manifest
from protocols.signed import Signer

NARROWER = 12
LATENCY_SECONDS = 0.0005
"""From a peer to the middle of the network."""
POLL_SECONDS = 0.1


class VirtualThread:
    """Computes one call after the other, for as long as what it emulates takes; what takes nothing waits for none."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._taken, self._lock = clock, 0.0, asyncio.Lock()

    def sleep(self, seconds: float) -> None:
        self._taken += seconds

    async def __call__(self, call: Callable[..., Any], *arguments: Any) -> Any:
        result = call(*arguments)
        seconds, self._taken = self._taken, 0.0
        if seconds:
            async with self._lock:
                await self._clock.sleep(seconds)
        return result


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


async def start(
    network: SimulatedNetwork, number: int, place: Peer | None, link: str, task: PipelineTask, data: Dataset
) -> PipelinePeer:
    """One that serves that place, or trains; the caller runs it."""
    who, rate = identity(number), bytes_per_second(link) / NARROWER
    transport = network.join(who.peer_id, link=Link(rate, rate, LATENCY_SECONDS))
    thread, manifest = VirtualThread(transport.clock), task.manifest

    async def open_data() -> Dataset:
        return data

    def compute(manifest: Manifest, stage: int) -> EmulatedCompute:
        seconds = place.emulated_seconds(task) if place is not None else 0.0
        return EmulatedCompute(manifest, stage, seconds, thread.sleep)

    made = assemble(
        transport=transport,
        records=network.records(who.peer_id),
        signer=Signer(who, manifest.run_id, int(transport.clock.wall() * 1e9)),
        manifest=manifest,
        profile=Profile(str(number), "stage" if place else "trainer", False, lambda: transport.addresses),
        rejections=Rejections(),
        directory=None,
        open_data=open_data,
        wishes=Wishes(place.stage if place else None),
        in_thread=thread,
        compute=compute,
    )
    await made.participant.start()
    await made.serve()
    return made


def counted(fellows: Sequence[PipelinePeer], task: PipelineTask) -> int:
    """Microbatches of the whole run that the peers of a stage have counted."""
    stages = [each.server.stage for each in fellows if each.server.stage is not None]
    epoch = max(stage.epoch for stage in stages)
    masks = ([stage.open_epochs.get(number, 0) for stage in stages] for number in (epoch, epoch + 1))
    return epoch * task.microbatches + sum(reduce(or_, each).bit_count() for each in masks)


async def play(
    wiring: str, task: PipelineTask, peers: Sequence[Peer], options: argparse.Namespace, network: SimulatedNetwork
) -> Figures:
    data, chains = task.dataset(), PER_STAGE
    names = [identity(number).peer_id for number in range(len(peers))]
    places = [(place, place.link) for place in peers] + [(None, options.link)] * chains
    swarm: list[PipelinePeer] = []
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number, (place, link) in enumerate(places):
            if place is None:
                chain = names[(number - len(peers)) * task.stages :][: task.stages]
                peer.swarm.pipeline.Wiring = wired_peer.wiring_of(",".join(chain) if wiring == "fixed" else wiring)
            swarm.append(await start(network, number, place, link, task, data))
            running += [tasks.create_task(swarm[-1].run()), tasks.create_task(swarm[-1].participant.run())]
        moments, done = [], []
        for epoch in (options.warm_up, options.warm_up + options.epochs):
            while min(each.participant.state.epoch for each in swarm[: len(peers)]) < epoch:
                await network.clock.sleep(POLL_SECONDS)
            moments.append(network.clock.monotonic())
            done.append(min(counted(swarm[stage : len(peers) : task.stages], task) for stage in range(task.stages)))
        for each in running:
            each.cancel()
    seconds = moments[1] - moments[0]
    return {"microbatches_per_second": (done[1] - done[0]) / seconds, "seconds": seconds}


def main() -> None:
    options = parser(__doc__).parse_args()
    use_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    named = ("stages", "width", "context", "batch_size", "microbatches", "codec", "delayed")
    task = PipelineTask(layers=options.stages, **{name: getattr(options, name) for name in named})
    peers = peers_of(options, task.stages)
    figures: Figures = {"task": asdict(task), "allowed": allowed(task, peers)}
    small = replace(task, width=task.width // NARROWER)
    for wiring in options.wirings:
        figures[wiring] = run_simulation(partial(play, wiring, small, peers, options), 0)
    print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    main()
