"""Worker of `averaging.py`: one of our peers, whose trainer always has the same vector.

Everything else is the daemon's own: libp2p node, membership, signed rounds, commitments, digests, codecs, the state.
"""

import asyncio
import os
import time

import numpy as np
import uvloop
from loop_lag import LoopLag
from our_peer import Prepared, command, in_rounds, our_peer
from reporting import Command, Reports, configuration
from resources import forget_peak, peak_bytes
from stages import StageTimes
from vectors import relative_error, vector

from dht.node import Node
from peer.compute_threads import use_threads
from peer.learner import Learner
from peer.participant import Participant
from peer.rounds.session import RoundOutcome, Session
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Averaging, Data, DataParallel, Evaluation, Manifest, Model, Sgd, Verification
from protocols.optimizers import make_optimizer
from protocols.round.events import Trained
from protocols.state import ModelState
from protocols.vectors import Vector

ROUNDS = 1_000_000


def manifest_of(peers: int, codec: str, rule: str = "mean", byzantine: int = 0, validators: int = 0) -> Manifest:
    return Manifest(
        name="benchmark",
        model=Model(architecture="vector"),
        data=Data(dataset="vector"),
        training=DataParallel(batch_size=1, target_batch=peers, optimizer=Sgd(learning_rate=1.0)),
        epochs=ROUNDS,
        averaging=Averaging(rule=rule, byzantine=byzantine, codec=codec, quorum=peers),
        evaluation=Evaluation(every_epochs=ROUNDS),
        verification=Verification(validators=validators),
    )


class ReadyLearner(Learner):
    """Has its one sample, and its update, as soon as it is told to go.

    As of a trainer, the update is handed over to the round; what it is made of is there all the time.
    """

    def __init__(self, source: Vector) -> None:
        self._source = source
        self._update: Vector | None = None
        self.waiting, self.go = asyncio.Event(), asyncio.Event()

    async def begin(self, state: ModelState) -> None:
        pass

    async def step(self) -> Trained:
        self._update = self._source.copy()
        self.waiting.set()
        await self.go.wait()
        self.waiting.clear()
        self.go.clear()
        return Trained(1, True, 1.0)

    async def update(self) -> tuple[Vector, int]:
        update, self._update = self._update, None
        assert update is not None
        return update, 1

    async def evaluate(self, state: ModelState) -> dict[str, float]:
        return {}


class PausingParticipant(Participant):
    """Stops between a round's result and its application, so that the one is measured without the other."""

    result: asyncio.Future[RoundOutcome]
    stages: StageTimes

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.apply = asyncio.Event()
        self.expect()

    def expect(self) -> None:
        self.result = asyncio.get_running_loop().create_future()

    async def _finish_unless_stopped(self, session: Session) -> RoundOutcome | None:
        self.stages = StageTimes(session.machine)
        outcome = await super()._finish_unless_stopped(session)
        if outcome is not None:
            self.result.set_result(outcome)
            await self.apply.wait()
            self.apply.clear()
        return outcome


async def serve(settings: Command) -> None:
    use_threads(1)  # as a daemon here, and as the other side
    reports = Reports()
    source = vector(settings["seed"], settings["size"])  # torch's, as of a gradient: before the memory is looked at

    def prepare(_peer: PeerId, _node: Node) -> Prepared:
        named = ("peers", "codec", "rule", "byzantine", "validators")
        manifest = manifest_of(*(settings[name] for name in named))
        slots = make_optimizer(manifest.training.outer, ROUNDS).initial_slots(settings["size"])
        state = ModelState(manifest.run_id, 0, np.zeros(settings["size"], np.float32), slots)
        return Prepared(manifest, state, ReadyLearner(source))

    async with our_peer(settings, reports, prepare, in_rounds(settings, PausingParticipant)) as participant:
        await play(participant, participant.learner, settings, reports)


async def play(participant: PausingParticipant, learner: ReadyLearner, settings: Command, reports: Reports) -> None:
    """Rounds on command, until told to stop."""
    lag, process_id = LoopLag(), os.getpid()
    while True:
        await learner.waiting.wait()
        forget_peak(process_id)
        reports.send("ready")
        if (await command())["command"] == "stop":
            return
        lag.start()
        began = time.monotonic()
        learner.go.set()
        outcome = await participant.result
        held = time.monotonic()
        lags = lag.stop()
        reports.send(
            "done",
            began=began,
            held=held,
            lag=lags,
            stages=participant.stages.seconds(began, held),
            peak_bytes=peak_bytes(process_id),
            sent_bytes=outcome.bytes_sent,
            received_bytes=outcome.bytes_received,
            members=len(outcome.done.body.members),
            recovered_parts=outcome.recovered_parts,
            checked_bytes=participant.inspector.fetched_bytes,
        )
        if (await command())["command"] == "check":
            error = await asyncio.to_thread(relative_error, outcome.aggregate, settings["peers"])
            reports.send("checked", digest=digest(memoryview(outcome.aggregate).cast("B")).hex(), error=error)
            await command()
        del outcome
        participant.expect()
        participant.apply.set()


if __name__ == "__main__":
    uvloop.run(serve(configuration()))
