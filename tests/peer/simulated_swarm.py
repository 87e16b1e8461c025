"""Whole participants over a simulated network, under virtual time: the real membership, rounds, sync and contents.

Only training is small: a noisy quadratic (Zhang et al. 2019, "Which algorithmic choices matter at which batch sizes?"),
whose microbatches take virtual seconds.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import structlog

from dht.interfaces import Clock
from dht.simulated import SimulatedNetwork, SimulatedTransport, run_simulation
from dht.simulated_link import Link
from peer.learner import IdleLearner, Learner
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.signal import Signal
from protocols.encoding import digest, encode
from protocols.identity import Identity, PeerId
from protocols.manifest import Averaging, Data, DataParallel, LocalSgd, Manifest, Model, Sgd
from protocols.optimizers import make_optimizer
from protocols.roles import Role
from protocols.round.events import Trained
from protocols.signed import Signer
from protocols.state import ModelState
from protocols.vectors import Vector

PARAMETERS = 2048
BATCH = 10
INNER_STEPS = 10
Result = TypeVar("Result")


def data_parallel(epochs: int = 10, codec: str = "none", target_batch: int = 400) -> Manifest:
    training = DataParallel(batch_size=BATCH, target_batch=target_batch, optimizer=Sgd(learning_rate=0.1, momentum=0.9))
    return _manifest(training, epochs, codec)


def local_sgd(epochs: int = 10, codec: str = "none") -> Manifest:
    training = LocalSgd(batch_size=BATCH, inner_steps=INNER_STEPS, inner=Sgd(learning_rate=0.05))
    return _manifest(training, epochs, codec)


def _manifest(training: DataParallel | LocalSgd, epochs: int, codec: str) -> Manifest:
    return Manifest(
        name="simulated",
        model=Model(architecture="quadratic"),
        data=Data(dataset="noise"),
        training=training,
        epochs=epochs,
        averaging=Averaging(codec=codec),
    )


def initial_state(manifest: Manifest, parameters: int = PARAMETERS) -> ModelState:
    slots = make_optimizer(manifest.training.outer, manifest.epochs).initial_slots(parameters)
    return ModelState(manifest.run_id, 0, np.full(parameters, 10.0, np.float32), slots)


def distance(state: ModelState) -> float:
    """Root mean square of what is left to learn; 10 at the start."""
    return float(np.sqrt(np.mean(np.square(state.parameters, dtype=np.float64))))


@lru_cache(maxsize=4)
def _normal(count: int) -> Vector:
    return np.random.default_rng(0).standard_normal(count, np.float32)


class QuadraticLearner(Learner):
    """Descends ½·|w|² by gradients with noise that depends on (peer, epoch, microbatch)."""

    def __init__(self, manifest: Manifest, peer: PeerId, clock: Clock, speed: float) -> None:
        """`speed`: samples per second."""
        self.samples_per_second = speed
        self._manifest, self._peer, self._clock = manifest, peer, clock
        self._epoch = self._steps = 0
        self._start = self._parameters = self._gradients = np.zeros(0, np.float32)

    async def begin(self, state: ModelState) -> None:
        self._epoch, self._steps = state.epoch, 0
        self._start, self._parameters = state.parameters, state.parameters.copy()
        self._gradients = np.zeros_like(state.parameters)

    async def step(self) -> Trained:
        await self._clock.sleep(BATCH / self.samples_per_second)
        gradient = self._parameters + self._noise()
        self.loss = float(np.mean(np.square(self._parameters))) / 2
        self._steps += 1
        training = self._manifest.training
        if isinstance(training, LocalSgd):
            self._parameters -= np.float32(training.inner.learning_rate) * gradient
        else:
            self._gradients += gradient
        return Trained(self._steps * BATCH, self._complete, self.samples_per_second)

    def _noise(self) -> Vector:
        count = len(self._start)
        seed = digest(encode([self._peer, self._epoch, self._steps]))
        start = int.from_bytes(seed[:8], "big") % count
        return _normal(2 * count)[start : start + count]

    @property
    def _complete(self) -> bool:
        training = self._manifest.training
        return self._steps * BATCH >= training.most_samples

    async def update(self) -> tuple[Vector, int] | None:
        if not self._steps:
            return None
        if isinstance(self._manifest.training, LocalSgd):
            return self._start - self._parameters, self._steps * BATCH
        return self._gradients / np.float32(self._steps), self._steps * BATCH

    async def recompute(self, state: ModelState, peer: PeerId, samples: int) -> Vector | None:
        other = QuadraticLearner(self._manifest, peer, self._clock, self.samples_per_second)
        await other.begin(state)
        while other._steps * BATCH < samples:
            await other.step()
        made = await other.update()
        return made[0] if made else None

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return {"distance": distance(state)}


class CountedRejections(Rejections):
    """Refused inputs by peer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.by_peer: Counter[tuple[PeerId, str]] = Counter()
        self.words: list[str] = []

    def __call__(self, peer: PeerId, reason: str, message: str) -> None:
        super().__call__(peer, reason, message)
        self.by_peer[peer, str(reason)] += 1
        self.words.append(f"{peer[-6:]} {reason}: {message}")


@dataclass
class SimulatedPeer:
    """One member, from its start to its end; who restarts is a new one with the same identity."""

    number: int
    participant: Participant
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
        session = participant._sessions.get(self.state.epoch)
        phase = session and (session.machine.phase.value, session.machine.term)
        return (
            f"peer {self.number} ({self.peer[-6:]}): epoch {self.state.epoch} {self.state.digest.hex()[:8]} "
            f"{participant.activity} joined={participant.joined} {phase} roster={len(participant.membership.roster)}"
        )


def identity(number: int) -> Identity:
    return Identity.from_seed(digest(f"simulated {number}".encode()))


class SimulatedSwarm:
    """Starts, crashes and watches members; made by `simulated_swarm`."""

    def __init__(
        self, network: SimulatedNetwork, manifest: Manifest, tasks: asyncio.TaskGroup, parameters: int
    ) -> None:
        self.network, self.manifest = network, manifest
        self.initial = initial_state(manifest, parameters)
        self.peers: dict[int, SimulatedPeer] = {}
        """By number: the last of each identity."""
        self.changed = Signal()
        self._tasks = tasks

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
        make: Callable[..., Participant] = Participant,
        learns: "Callable[[Manifest, PeerId, Clock, float], QuadraticLearner] | None" = None,
    ) -> SimulatedPeer:
        rejections = CountedRejections()
        who = identity(number)
        transport = self.network.join(who.peer_id, link=link, client_mode=client_mode, on_rejected=rejections)
        learner = (learns or QuadraticLearner)(self.manifest, who.peer_id, transport.clock, speed)
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
            learner=learner if role == "trainer" else IdleLearner(),
            rejections=rejections,
        )
        peer = SimulatedPeer(number, participant, transport, rejections)
        await participant.start()
        peer.task = self._tasks.create_task(self._live(peer, max_epochs), name=f"peer {number}")
        self.peers[number] = peer
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

    async def leave(self, peer: SimulatedPeer) -> None:
        """In order."""
        peer.participant.leave()
        assert peer.task is not None
        await peer.task

    async def restart(self, peer: SimulatedPeer, **options: Any) -> SimulatedPeer:
        return await self.start(peer.number, **options)

    async def stop(self) -> None:
        for peer in self.running:
            await self.crash(peer)

    async def _live(self, peer: SimulatedPeer, max_epochs: int | None) -> None:
        structlog.contextvars.bind_contextvars(me=peer.number)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(peer))
            await peer.participant.run(max_epochs)
            watching.cancel()
        await peer.transport.close()

    async def _watch(self, peer: SimulatedPeer) -> None:
        joined = False
        while True:
            state = peer.state
            peer.resyncs += joined and not peer.participant.joined
            joined = peer.participant.joined
            if joined:
                peer.epoch_times.setdefault(state.epoch, self.now)
                peer.digests[state.epoch] = state.digest
            self.changed.notify()
            await peer.participant.changed.wait()

    # -- waiting and checking -----------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], within: float) -> None:
        """Returns when `condition` holds; fails after `within` virtual seconds."""
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
        last = self.manifest.epochs

        def finished() -> bool:
            return (
                all(p.state.epoch == last and p.participant.activity == "idle" for p in self.members) and self.agree()
            )

        await self.until(finished, within)

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
    network: SimulatedNetwork, manifest: Manifest, parameters: int = PARAMETERS
) -> AsyncIterator[SimulatedSwarm]:
    async with asyncio.TaskGroup() as tasks:
        swarm = SimulatedSwarm(network, manifest, tasks, parameters)
        yield swarm
        await swarm.stop()


def simulate(
    scenario: Callable[[SimulatedSwarm], Coroutine[Any, Any, Result]],
    manifest: Manifest,
    seed: int = 0,
    link: Link | None = None,
    parameters: int = PARAMETERS,
) -> Result:
    """Runs `scenario` in a new swarm of the manifest's run, under virtual time."""

    async def main(network: SimulatedNetwork) -> Result:
        async with simulated_swarm(network, manifest, parameters) as swarm:
            return await scenario(swarm)

    return run_simulation(main, seed, link)
