"""Plays a scenario: members come and go as planned, the network parts and heals, and what must hold is looked at.

What is the same of runs with rounds (`rounds.py`) and without (`gossip.py`).
"""

import asyncio
import resource
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork
from peer.simulation.disk import Disk
from peer.simulation.invariants import Invariants, Violation
from peer.simulation.learner import Pace
from peer.simulation.plan import Plan, PlannedPeer
from peer.simulation.report import GossipReport, Report, TrafficReport
from peer.simulation.scenario import World
from peer.simulation.signatures import WatchedTransport
from peer.simulation.swarm import Observer, Played, SimulatedPeer, SimulatedSwarm, identity, simulated_swarm
from peer.simulation.trace import Trace
from peer.simulation.training import Training
from peer.tasks import beside
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.state import ModelState

LOOK_SECONDS = 1.0


class Simulation(Observer, ABC):
    def __init__(
        self, world: World, manifest: Manifest, plan: Plan, training: Training, seed: int, trace: Trace
    ) -> None:
        self._world, self._manifest, self._plan, self._training, self._seed = world, manifest, plan, training, seed
        self._record = trace
        self._planned = {identity(peer.number).peer_id: peer for peer in plan.peers}
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._banned: set[PeerId] = set()
        self._violation: Violation | None = None
        self._over = asyncio.Event()
        self._finished = False
        self._seconds = 0.0
        self._final = training.initial
        self._network: SimulatedNetwork
        self._swarm: SimulatedSwarm

    # -- what depends on how the run trains ---------------------------------------------------------------------------

    _invariants: Invariants

    @abstractmethod
    def _participant_maker(self, misbehave: str | None) -> Callable[..., Played]:
        """What makes a participant, of all that a `SimulatedSwarm` gives."""

    @abstractmethod
    def _learner(self, manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> Any:
        """Of a member that trains."""

    def _summary(self) -> GossipReport | None:
        """What a report says of a run without rounds."""
        return None

    # -- playing ------------------------------------------------------------------------------------------------------

    async def run(self, network: SimulatedNetwork) -> None:
        """Until all honest members that live are through, the time is over, or something does not hold."""
        self._network = network
        async with simulated_swarm(network, self._manifest, self._training.initial, self._learner, self) as self._swarm:
            async with asyncio.TaskGroup() as tasks:
                playing = [tasks.create_task(self._live(peer)) for peer in self._plan.peers]
                playing += [tasks.create_task(self._part_and_heal()), tasks.create_task(self._look())]
                await self._over.wait()
                for task in playing:
                    task.cancel()
            self._conclude()

    # -- what is planned ----------------------------------------------------------------------------------------------

    async def _live(self, planned: PlannedPeer) -> None:
        """All sessions of one peer."""
        peer_id = identity(planned.number).peer_id
        self._network.set_wall_clock(peer_id, planned.clock_offset)
        disk = Disk(self._network.clock, self._world.snapshot_seconds)
        for presence in planned.presences:
            await self._until(presence.begin)
            peer = await self._start(planned, disk)
            async with beside(disk.keep_saving(peer.participant)):
                await self._until(presence.end)
            if peer.running and presence.crash:
                await self._swarm.crash(peer)
            elif peer.running:
                await self._swarm.leave(peer)

    async def _start(self, planned: PlannedPeer, disk: Disk) -> SimulatedPeer:
        group = planned.group
        make = self._participant_maker(group.misbehave)

        def watched(**given: Any) -> Played:
            transport = WatchedTransport(given["transport"], lambda flaw: self._accepted(planned.number, flaw))
            return make(**(given | {"transport": transport}))

        return await self._swarm.start(
            planned.number,
            speed=planned.samples_per_second,
            role=group.role,
            client_mode=group.client_mode,
            link=planned.link,
            state=disk.snapshot,
            make=watched if group.misbehave is None else make,
        )

    def _pace(self, planned: PlannedPeer) -> Pace:
        jitter = Random(f"pace {self._seed} {planned.number}")  # noqa: S311 (repeatable on purpose)
        return Pace(planned.samples_per_second, planned.compute_jitter, jitter)

    async def _part_and_heal(self) -> None:
        for partition in self._plan.partitions:
            await self._until(partition.begin)
            self._network.partition(*([identity(number).peer_id for number in side] for side in partition.sides))
            self._tell(None, "partition", sides=[len(side) for side in partition.sides])
            await self._until(partition.end)
            self._network.heal()
            self._tell(None, "heal")

    async def _until(self, moment: float) -> None:
        if moment == inf:
            await asyncio.Event().wait()
        await self._network.clock.sleep(max(0.0, moment - self._swarm.now))

    # -- what must hold -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while not self._over.is_set():
            await self._network.clock.sleep(self._pause())
            honest = self._honest()
            self._look_at(honest)
            if honest and self._swarm.finished(honest):
                self._finished = True
                self._over.set()
            elif self._swarm.now >= self._world.seconds:
                self._miss_the_end(honest)
                self._over.set()

    def _pause(self) -> float:
        """Seconds from one look to the next."""
        return LOOK_SECONDS

    def _look_at(self, honest: list[SimulatedPeer]) -> None:
        self._invariants.look(honest, self._swarm.now, self._network.open_connections)

    def _miss_the_end(self, honest: list[SimulatedPeer]) -> None:
        if not self._world.check.finishes:
            return
        if not honest:
            self._on_violation(Violation(self._swarm.now, None, "nobody honest is there to come to the end of the run"))
            return
        last = min(honest, key=lambda peer: peer.state.epoch)
        what = f"has not come to the end of the run, but to epoch {last.state.epoch}"
        self._on_violation(Violation(self._swarm.now, last.number, what))

    def _honest(self) -> list[SimulatedPeer]:
        """Honest members that live and take part in rounds."""
        return [peer for peer in self._swarm.members if self._is_honest(peer)]

    def _is_honest(self, peer: SimulatedPeer) -> bool:
        return peer.peer in self._planned and self._planned[peer.peer].group.misbehave is None

    def _accepted(self, number: int, flaw: str | None) -> None:
        self._counts["accepted"] += 1
        if flaw is not None:
            self._on_violation(Violation(self._swarm.now, number, flaw))

    def _on_violation(self, violation: Violation) -> None:
        """The first one ends the simulation."""
        if self._violation is None:
            self._violation = violation
            self._record(violation.time, violation.peer, "violation", what=violation.what)
            self._over.set()

    # -- what happens -------------------------------------------------------------------------------------------------

    def started(self, peer: SimulatedPeer) -> None:
        self._counts["starts"] += 1
        self._tell(peer, "start", epoch=peer.state.epoch)
        if self._is_honest(peer):
            self._invariants.started(peer, self._swarm.now)

    def came_to(self, peer: SimulatedPeer) -> None:
        self._tell(peer, "epoch", epoch=peer.state.epoch, digest=peer.state.digest.hex()[:16])
        if self._is_honest(peer):
            self._counts["epochs"] += 1
            self._invariants.came_to(peer, peer.state.epoch, peer.state.digest, self._swarm.now)

    def resynced(self, peer: SimulatedPeer) -> None:
        self._counts["resyncs"] += 1
        self._tell(peer, "resync", epoch=peer.state.epoch)
        if self._is_honest(peer):
            self._invariants.resynced(peer)

    def ended(self, peer: SimulatedPeer, *, crashed: bool) -> None:
        if self._over.is_set():
            return
        self._counts["crashes" if crashed else "departures"] += 1
        self._tell(peer, "crash" if crashed else "leave", epoch=peer.state.epoch)
        if self._is_honest(peer):
            self._add_up(peer)
            self._invariants.ended(peer)

    def failed(self, peer: SimulatedPeer, error: Exception) -> None:
        what = f"ended by an error, {type(error).__name__}: {error}"
        self._on_violation(Violation(self._swarm.now, peer.number, what))

    def _tell(self, peer: SimulatedPeer | None, event: str, **details: Any) -> None:
        self._record(self._swarm.now, peer.number if peer else None, event, **details)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        running = [peer for peer in self._swarm.running if self._is_honest(peer)]
        for peer in running:
            self._add_up(peer)
        self._final = most_common_state([peer.state for peer in running] or [self._training.initial])
        self._seconds = self._swarm.now
        self._tell(None, "end", finished=self._finished, deliveries=self._network.trace())

    def _add_up(self, peer: SimulatedPeer) -> None:
        self._refused.update(peer.rejections.by_reason)
        self._banned.update(peer.participant.membership.roster.banned)

    def report(self, reproduce: str, processor_seconds: float) -> Report:
        trainer = self._training.trainer(next(iter(self._planned)))
        return Report(
            run_id=self._manifest.run_id,
            seed=self._seed,
            peers=len(self._plan.peers),
            finished=self._finished,
            seconds=self._seconds,
            epoch=self._final.epoch,
            evaluation=trainer.evaluate(self._final),
            epochs_of_all=self._counts["epochs"],
            samples=self._counts["samples"],
            starts=self._counts["starts"],
            crashes=self._counts["crashes"],
            departures=self._counts["departures"],
            resyncs=self._counts["resyncs"],
            banned=len(self._banned),
            refused=dict(sorted(self._refused.items())),
            accepted=self._counts["accepted"],
            traffic={kind: TrafficReport(t.frames, t.size_bytes) for kind, t in sorted(self._network.traffic.items())},
            trace=self._record.digest,
            violation=self._violation,
            reproduce=reproduce,
            gossip=self._summary(),
            processor_seconds=processor_seconds,
            memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )


def most_common_state(states: list[ModelState]) -> ModelState:
    counted = Counter(state.digest for state in states)
    return max(states, key=lambda state: counted[state.digest])
