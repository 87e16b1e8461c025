"""Who is there when, on what link, at what speed: all that can be drawn from a scenario's seed before it begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from random import Random

from dht.simulated import Distances
from dht.simulated_link import Link
from peer.errors import UsageError
from peer.simulation.scenario import Crash, Group, Partition, World
from peer.simulation.sessions import Presence, Traced, draw_presences, read_presences

BYTES_PER_MEGABIT = 125_000.0


@dataclass(frozen=True, slots=True)
class PlannedPeer:
    number: int
    group: Group
    link: Link
    samples_per_second: float
    compute_jitter: float
    clock_offset: float
    presences: tuple[Presence, ...]

    def is_there(self, moment: float) -> bool:
        return any(presence.begin <= moment < presence.end for presence in self.presences)

    def is_of(self, names: Iterable[str]) -> bool:
        """Of one of these groups and regions."""
        return not {self.group.name, self.group.region}.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    begin: float
    end: float
    sides: tuple[tuple[int, ...], ...]
    """Numbers of peers; the others form one more."""


@dataclass(frozen=True, slots=True)
class Plan:
    peers: tuple[PlannedPeer, ...]
    partitions: tuple[PlannedPartition, ...]
    distances: Distances

    @property
    def quiet_from(self) -> float:
        """When the last fault is over: from then on nobody comes, goes or is cut off."""
        moments = [moment for peer in self.peers for p in peer.presences for moment in (p.begin, p.end)]
        moments += [partition.end for partition in self.partitions]
        return max((moment for moment in moments if moment < inf), default=0.0)

    @property
    def parted_in(self) -> list[tuple[float, float]]:
        return [(partition.begin, partition.end) for partition in self.partitions]


def make_plan(world: World, directory: Path, seed: int) -> Plan:
    """`directory`: what trace files are relative to. Raises UsageError."""
    random = Random(f"plan {seed}")  # noqa: S311 (repeatable on purpose)
    peers: list[PlannedPeer] = []
    for group in world.peers:
        traced = _traced(group, directory)
        for place in range(group.count):
            peers.append(_peer(len(peers), group, world, traced[place] if traced else None, random))
    for crash in sorted(world.crashes, key=lambda crash: crash.at):
        for number in _victims(crash, peers, random):
            peers[number] = _killed(peers[number], crash.at, crash.back_after)
    partitions = [_partition(partition, peers, random) for partition in world.partitions]
    distances = {
        frozenset((one, other)): seconds for one, others in world.latency.items() for other, seconds in others.items()
    }
    return Plan(tuple(peers), tuple(sorted(partitions, key=lambda one: one.begin)), distances)


def _peer(number: int, group: Group, world: World, traced: Sequence[Presence] | None, random: Random) -> PlannedPeer:
    link = Link(
        upload_bytes_per_second=group.upload.draw(random) * BYTES_PER_MEGABIT,
        download_bytes_per_second=group.download.draw(random) * BYTES_PER_MEGABIT,
        latency_seconds=group.latency.draw(random),
        jitter_seconds=group.jitter.draw(random),
        loss=min(1.0, group.loss.draw(random)),
        region=group.region,
    )
    speed, jitter = group.samples_per_second.draw(random), group.compute_jitter.draw(random)
    offset, first = group.clock_offset.draw(random), group.joins.draw(random)
    if traced is not None:
        presences = tuple(traced)
    elif group.session is None:
        presences = (Presence(first),)
    else:
        presences = tuple(draw_presences(group.session, first, world.seconds, random))
    return PlannedPeer(number, group, link, speed, jitter, offset, presences)


def _traced(group: Group, directory: Path) -> list[list[Presence]] | None:
    if not isinstance(group.session, Traced):
        return None
    return read_presences(directory / group.session.file, group.count)


def _victims(crash: Crash, peers: Sequence[PlannedPeer], random: Random) -> list[int]:
    there = [peer.number for peer in peers if peer.is_there(crash.at) and (not crash.peers or peer.is_of(crash.peers))]
    wanted = crash.count if crash.count is not None else round((crash.share or 0.0) * len(there))
    return sorted(random.sample(there, min(wanted, len(there))))


def _killed(peer: PlannedPeer, at: float, back_after: float | None) -> PlannedPeer:
    presences: list[Presence] = []
    for presence in peer.presences:
        if not presence.begin <= at < presence.end:
            presences.append(presence)
            continue
        presences.append(Presence(presence.begin, at, crash=True))
        if back_after is not None and at + back_after < presence.end:
            presences.append(replace(presence, begin=at + back_after))
    if back_after is None:
        presences = [presence for presence in presences if presence.begin <= at]
    return replace(peer, presences=tuple(presences))


def _partition(partition: Partition, peers: Sequence[PlannedPeer], random: Random) -> PlannedPartition:
    if partition.share is not None:
        numbers = [peer.number for peer in peers]
        sides = [sorted(random.sample(numbers, round(partition.share * len(numbers))))]
    else:
        sides = [[peer.number for peer in peers if peer.is_of(names)] for names in partition.sides]
    both = {number for side in sides for number in side if sum(number in other for other in sides) > 1}
    if both:
        raise UsageError(f"partitions: at {partition.at:g} peer {min(both)} is on two sides")
    return PlannedPartition(partition.at, partition.at + partition.seconds, tuple(map(tuple, sides)))
