"""Puts a peer of a pipeline together, from what the daemon has."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dht.border import Border
from dht.interfaces import Records, Transport
from peer.data.asking import Evaluate, evaluate
from peer.data.dataset import Dataset
from peer.errors import UsageError
from peer.learner import IdleLearner
from peer.participant import Participant
from peer.profile import Profile
from peer.rejections import Rejections
from peer.rounds.session import RoundOutcome
from peer.swarm.compute import Compute
from peer.swarm.counts import CountsLog, counts_path
from peer.swarm.emulated import EmulatedCompute
from peer.swarm.factory import ComputeFactory, StageFactory, real_compute
from peer.swarm.pipeline import PipelinePeer
from peer.swarm.server import StageServer
from peer.swarm.stage import InThread
from protocols.manifest import Manifest, Pipeline
from protocols.records import Serving
from protocols.signed import Signer
from protocols.state import ModelState


@dataclass(frozen=True)
class Wishes:
    """What the user has set."""

    stage: int | None = None
    """The one to serve, and no other."""
    emulate_seconds: float | None = None
    """In a run for tests: wait so long for a microbatch instead of computing it."""
    quota_bytes: int = 2**40
    """Of a foreign stage's snapshot."""


def assemble(
    *,
    transport: Transport,
    records: Records,
    signer: Signer,
    manifest: Manifest,
    profile: Profile,
    rejections: Rejections,
    directory: Path | None,
    open_data: Callable[[], Awaitable[Dataset]],
    wishes: Wishes,
    on_round: Callable[[RoundOutcome], None] = lambda _outcome: None,
    directives: Iterable[bytes] = (),
    compute: ComputeFactory = real_compute,
    in_thread: InThread | None = None,
    evaluate: Evaluate = evaluate,
) -> PipelinePeer:
    """The participant is in it; `in_thread` as in `Stage`. Raises PeerError, PluginError, DatasetError."""
    training = manifest.training
    assert isinstance(training, Pipeline)
    if wishes.stage is not None and wishes.stage >= training.stages:
        raise UsageError(f"--stage {wishes.stage}: {manifest.run_id} has the stages 0 to {training.stages - 1}")
    if wishes.emulate_seconds is not None and not manifest.test:
        raise UsageError(f"--emulate: {manifest.run_id} was not made for tests (test = true in its recipe)")
    if profile.client_mode and (profile.role == "stage" or wishes.stage is not None):
        raise UsageError(
            "--client-mode: nobody can connect to this peer, so it can serve no stage; train (--role trainer)"
        )
    if wishes.emulate_seconds is not None:
        compute = partial(_emulated, wishes.emulate_seconds)
    border = Border(transport.peer_id, transport.clock, rejections)
    factory = StageFactory(manifest, directory, transport.clock, compute=compute, in_thread=in_thread)
    counts = CountsLog(counts_path(directory)) if directory is not None else None
    peers: list[PipelinePeer] = []

    def counted(outcome: RoundOutcome) -> None:
        if counts is not None:
            counts.add(outcome)
        on_round(outcome)

    def serving(stage: int) -> Serving:
        return peers[0].serving(stage)

    participant = Participant(
        transport=transport,
        records=records,
        signer=signer,
        manifest=manifest,
        profile=profile,
        state=ModelState(manifest.run_id, 0, np.zeros(1, np.float32), {}),  # until it serves a stage
        learner=IdleLearner(),
        rejections=rejections,
        on_round=counted,
        directives=directives,
        serving=serving,
    )
    server = StageServer(transport, signer, training, border, participant.require, participant.counted_by)
    peers.append(
        PipelinePeer(
            transport,
            signer,
            factory,
            participant,
            server,
            border,
            open_data,
            stage=wishes.stage,
            quota_bytes=wishes.quota_bytes,
            evaluate=evaluate,
        )
    )
    return peers[0]


def _emulated(seconds: float, manifest: Manifest, stage: int) -> Compute:
    return EmulatedCompute(manifest, stage, seconds)
