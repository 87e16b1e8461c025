"""Members of one run over a simulated network: whole participants that start, crash, leave and come back.

What a member is made of is the daemon's: membership, rounds, sync, contents. Simulated are its network and its disk,
and how long its training takes.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import structlog

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, SimulatedTransport
from dht.simulated_link import Link
from peer.gossip.learner import GossipLearner
from peer.learner import IdleLearner, Learner
from peer.member import Member
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.rounds.session import RoundOutcome
from peer.signal import Signal
from peer.tasks import beside
from protocols.encoding import digest
from protocols.identity import Identity, PeerId
from protocols.manifest import Gossip, Manifest
from protocols.roles import Role
from protocols.signed import Signer
from protocols.state import ModelState

WORDS_KEPT = 256
MakeLearner = Callable[[Manifest, PeerId, Clock, float], Learner | GossipLearner]
"""(manifest, whose, its clock, samples per second)."""


def identity(number: int) -> Identity:
    return Identity.from_seed(digest(f"simulated {number}".encode()))


class CountedRejections(Rejections):
    """Refused inputs by peer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.by_peer: Counter[tuple[PeerId, str]] = Counter()
        self.words: deque[str] = deque(maxlen=WORDS_KEPT)
        """The last ones in full."""

    def __call__(self, peer: PeerId, reason: str, message: str) -> None:
        super().__call__(peer, reason, message)
        self.by_peer[peer, str(reason)] += 1
        self.words.append(f"{peer[-6:]} {reason}: {message}")


class Played(Member, Protocol):
    """A member that is simulated."""

    @property
    def finished(self) -> bool:
        """Whether it has come to the run's last epoch."""

    def queues(self) -> Iterator[tuple[str, int, int]]:
        """What it keeps of others: what it is, how many, and how many at most."""


@dataclass
class SimulatedPeer:
    """One member, from its start to its end; who restarts is a new one with the same identity."""

    number: int
    participant: Played
    transport: SimulatedTransport
    rejections: CountedRejections
    task: asyncio.Task[None] | None = None
    epoch_times: dict[int, float] = field(default_factory=dict)
    """When it came to each epoch, in virtual seconds."""
    digests: dict[int, bytes] = field(default_factory=dict)
    resyncs: int = 0
    """How often it has given up its state to take the swarm's anew."""

    @property
    def peer(self) -> PeerId:
        return self.transport.peer_id

    @property
    def state(self) -> ModelState:
        return self.participant.state

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def __str__(self) -> str:
        participant = self.participant
        return (
            f"peer {self.number} ({self.peer[-6:]}): epoch {self.state.epoch} {self.state.digest.hex()[:8]} "
            f"{participant.activity} joined={participant.joined} {participant.round_phase} "
            f"roster={len(participant.membership.roster)}"
        )


class Observer:
    """What a swarm tells of its members; does nothing with it."""

    def started(self, peer: SimulatedPeer) -> None:
        """It is up, and about to run."""

    def came_to(self, peer: SimulatedPeer) -> None:
        """Its state is another, and the swarm's as far as it knows."""

    def resynced(self, peer: SimulatedPeer) -> None:
        """It has given its state up, to take that of the swarm."""

    def finished_round(self, peer: SimulatedPeer, outcome: RoundOutcome) -> None:
        """A round that ends the epoch of its state."""

    def ended(self, peer: SimulatedPeer, *, crashed: bool) -> None:
        """Nothing of it runs any more."""

    def failed(self, peer: SimulatedPeer, error: Exception) -> None:
        """It has ended by an error, which is a mistake of ours."""
        raise error


class SimulatedSwarm:
    """Starts, crashes and watches members; made by `simulated_swarm`."""

    def __init__(
        self,
        network: SimulatedNetwork,
        manifest: Manifest,
        initial: ModelState,
        tasks: asyncio.TaskGroup,
        learns: MakeLearner,
        observer: Observer,
    ) -> None:
        """`initial`: the state at epoch 0; `learns`: makes the learner of a member that trains."""
        self.network, self.manifest, self.initial = network, manifest, initial
        self.peers: dict[int, SimulatedPeer] = {}
        """By number: the last of each identity."""
        self.changed = Signal()
        self._tasks, self._learns, self._observer = tasks, learns, observer

    @property
    def now(self) -> float:
        return self.network.clock.monotonic()

    @property
    def running(self) -> list[SimulatedPeer]:
        return [peer for peer in self.peers.values() if peer.running]

    @property
    def members(self) -> list[SimulatedPeer]:
        """Who runs and takes part in rounds."""
        return [peer for peer in self.running if peer.participant.profile.role != "monitor"]

    # -- doing --------------------------------------------------------------------------------------------------------

    async def start(
        self,
        number: int,
        *,
        speed: float = 200.0,
        role: Role = "trainer",
        client_mode: bool = False,
        link: Link | None = None,
        state: ModelState | None = None,
        max_epochs: int | None = None,
        make: Callable[..., Played] = Participant,
        learns: MakeLearner | None = None,
    ) -> SimulatedPeer:
        """`make`: a participant of what `Participant` takes."""
        rejections = CountedRejections()
        who = identity(number)
        transport = self.network.join(who.peer_id, link=link, client_mode=client_mode, on_rejected=rejections)
        learner: Learner | GossipLearner = IdleLearner()
        if role == "trainer":
            learner = (learns or self._learns)(self.manifest, who.peer_id, transport.clock, speed)
        participant = make(
            transport=transport,
            records=self.network.records(who.peer_id),
            signer=Signer(who, self.manifest.run_id, int(transport.clock.wall() * 1e9)),
            manifest=self.manifest,
            profile=Profile(
                f"peer {number}",
                role,
                client_mode,
                lambda: transport.addresses,
                lambda: transport.bandwidth.bytes_per_second,
            ),
            state=state or self.initial,
            learner=learner,
            rejections=rejections,
            on_round=lambda outcome: self._observer.finished_round(self.peers[number], outcome),
        )
        peer = SimulatedPeer(number, participant, transport, rejections)
        await participant.start()
        peer.task = self._tasks.create_task(self._live(peer, max_epochs), name=f"peer {number}")
        self.peers[number] = peer
        self._observer.started(peer)
        return peer

    async def start_all(self, count: int, stagger: float = 0.0, **options: Any) -> None:
        for number in range(count):
            await self.start(number, **options)
            await self.network.clock.sleep(stagger)

    async def crash(self, peer: SimulatedPeer) -> None:
        """As by kill -9."""
        self.strike(peer)
        await self.bury(peer)

    def strike(self, peer: SimulatedPeer) -> None:
        """As by kill -9, from within what it does: nothing more leaves it. Somebody else is to `bury` it."""
        assert peer.task is not None
        self.network.crash(peer.peer)
        peer.task.cancel()

    async def bury(self, peer: SimulatedPeer) -> None:
        """Returns when nothing of a struck member runs any more."""
        assert peer.task is not None
        await asyncio.wait([peer.task])
        await peer.transport.close()
        self._observer.ended(peer, crashed=True)

    async def leave(self, peer: SimulatedPeer) -> None:
        """In order."""
        peer.participant.leave()
        assert peer.task is not None
        await peer.task
        self._observer.ended(peer, crashed=False)

    async def restart(self, peer: SimulatedPeer, **options: Any) -> SimulatedPeer:
        return await self.start(peer.number, **options)

    async def stop(self) -> None:
        for peer in self.running:
            await self.crash(peer)

    async def _live(self, peer: SimulatedPeer, max_epochs: int | None) -> None:
        structlog.contextvars.bind_contextvars(me=peer.number)
        try:
            async with beside(self._watch(peer)):
                await peer.participant.run(max_epochs)
        except Exception as error:
            self._observer.failed(peer, error)
        await peer.transport.close()

    async def _watch(self, peer: SimulatedPeer) -> None:
        joined, last = False, None
        while True:
            state, was_joined, joined = peer.state, joined, peer.participant.joined
            if was_joined and not joined:
                peer.resyncs += 1
                last = None
                self._observer.resynced(peer)
            if joined and state is not last:
                last = state
                peer.epoch_times.setdefault(state.epoch, self.now)
                peer.digests[state.epoch] = state.digest
                self._observer.came_to(peer)
            self.changed.notify()
            await peer.participant.changed.wait()

    # -- waiting and checking -----------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], within: float) -> None:
        """Returns when `condition` holds. Raises AssertionError after `within` virtual seconds."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"not reached in {within:g} virtual seconds\n{self}") from None

    async def epoch(self, epoch: int, within: float = 300.0) -> None:
        """Returns when some member has come to `epoch`."""
        await self.until(lambda: any(peer.state.epoch >= epoch for peer in self.members), within)

    async def finish(self, within: float) -> None:
        """All who run come to the end of the run, with one state."""
        await self.until(lambda: self.finished(self.members), within)

    def finished(self, peers: Iterable[SimulatedPeer]) -> bool:
        """Whether all of these are at the end of the run, with one state where the run ends with one."""
        peers, training = list(peers), self.manifest.training
        last = self.manifest.epochs
        through = all(peer.state.epoch == last and peer.participant.activity == "idle" for peer in peers)
        parted = isinstance(training, Gossip) and not training.merges_at_end
        return through and (parted or len({peer.state.digest for peer in peers}) == 1)

    def agree(self) -> bool:
        """Whether all members that run have the same state."""
        return len({peer.state.digest for peer in self.members}) == 1

    def pace(self, peer: SimulatedPeer) -> float:
        """The median seconds of an epoch, as `peer` saw it."""
        times = [moment for _, moment in sorted(peer.epoch_times.items())]
        return float(np.median(np.diff(times)))

    def rejected(self, among: Iterable[SimulatedPeer] | None = None) -> Counter[str]:
        """Refusals by reason, of all inputs."""
        total: Counter[str] = Counter()
        for peer in among if among is not None else self.peers.values():
            total += peer.rejections.by_reason
        return total

    def __str__(self) -> str:
        return "\n".join(f"{peer}{'' if peer.running else ' (gone)'}" for peer in self.peers.values())


@asynccontextmanager
async def simulated_swarm(
    network: SimulatedNetwork,
    manifest: Manifest,
    initial: ModelState,
    learns: MakeLearner,
    observer: Observer | None = None,
) -> AsyncIterator[SimulatedSwarm]:
    """A swarm without members; those that run at the end of the context are killed."""
    async with asyncio.TaskGroup() as tasks:
        swarm = SimulatedSwarm(network, manifest, initial, tasks, learns, observer or Observer())
        yield swarm
        await swarm.stop()
