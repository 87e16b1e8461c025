"""What a daemon's member is made of: whether it may take part in the run, its state, what it trains with, its data."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from dht.node import Node
from peer.data.dataset import Dataset
from peer.data.registry import open_dataset
from peer.directive_store import saved_log
from peer.errors import PeerError, UsageError
from peer.gossip.learner import GossipLearner, TrainerGossipLearner
from peer.gossip.model_objective import ModelObjective
from peer.gossip.participant import GossipParticipant
from peer.gossip.trainer import GossipTrainer
from peer.home import Home
from peer.learner import IdleLearner, Learner, TrainerLearner
from peer.member import Member
from peer.misbehaviour import (
    FORGERIES,
    LABEL_FLIP,
    FlippedLabels,
    MisbehavingGossipTrainer,
    MisbehavingLearner,
    assemble_pipeline,
    check_misbehaviour,
    make_participant,
)
from peer.models.flat import FlatModel, initial_state
from peer.profile import Profile
from peer.rejections import Rejections
from peer.rounds.session import RoundOutcome
from peer.saving import Saver, SavesNewest, Saving
from peer.sequence import first_sequence
from peer.settings import JoinSettings
from peer.shard_fetch import ShardFetcher
from peer.shard_store import ShardStore
from peer.shards import locate_shards
from peer.snapshots import SnapshotStore
from peer.swarm.assembly import Wishes
from peer.swarm.factory import real_compute
from peer.swarm.kept_passes import kept_bytes
from peer.swarm.pipeline import PipelinePeer
from peer.trainer import Trainer
from protocols.admission import Admission
from protocols.averaging import check_averaging
from protocols.directives import DirectiveLog
from protocols.identity import PeerId
from protocols.manifest import Gossip, Manifest, Pipeline
from protocols.rejection import Rejected
from protocols.roles import TRAINING, Role
from protocols.signed import Signer


@dataclass(frozen=True)
class Prepared:
    participant: Member
    saving: Saving
    """Of its states."""
    model: FlatModel | None = None
    """Where members hold the whole one."""
    pipeline: PipelinePeer | None = None
    """Around the participant, where the run is one."""


class Preparation:
    """Of one manifest; `prepare` is called once."""

    def __init__(
        self,
        settings: JoinSettings,
        home: Home,
        node: Node,
        manifest: Manifest,
        rejections: Rejections,
        on_round: Callable[[RoundOutcome], None],
        resources: AsyncExitStack,
    ) -> None:
        """`resources`: closes what is opened here."""
        self._settings, self._home, self._node, self._manifest = settings, home, node, manifest
        self._rejections, self._on_round, self._resources = rejections, on_round, resources
        self._run_directory = home.run_directory(manifest.run_id)
        self._participant: Member | None = None

    async def prepare(self) -> Prepared:
        """Raises PeerError where this peer cannot or may not take part as it is told to, DatasetError."""
        self._check()
        training = self._manifest.training
        prepared = await (self._pipeline() if isinstance(training, Pipeline) else self._whole_model())
        self._participant = prepared.participant
        return prepared

    def _check(self) -> None:
        settings, manifest = self._settings, self._manifest
        try:
            check_averaging(manifest)
        except ValueError as error:
            raise PeerError(f"this program cannot take part in {manifest.run_id}: averaging: {error}") from error
        try:
            Admission(manifest).admit(self._node.peer_id, settings.token, time.time())
        except Rejected as error:
            raise PeerError(self._how_to_be_admitted(error)) from error
        if settings.misbehave is not None:
            check_misbehaviour(settings.misbehave, manifest)
        if isinstance(manifest.training, Pipeline):
            if settings.role == "aggregator":
                raise UsageError(f"--role aggregator: {manifest.run_id} is a pipeline; serve a stage (--role stage)")
        elif settings.role in ("stage", "both") or settings.stage is not None:
            raise UsageError(f"--role, --stage: {manifest.run_id} is no pipeline, and has no stages")
        elif settings.emulate is not None:
            raise UsageError(f"--emulate: {manifest.run_id} is no pipeline, and has no stages")

    def _how_to_be_admitted(self, error: Rejected) -> str:
        run_id, peer = self._manifest.run_id, self._node.peer_id
        if self._manifest.admission.policy == "allowlist":
            return f"{run_id} admits only the peers on its list, and {peer} is not on it"
        asked = f"the organiser admits you by: peer run admit {run_id} {peer}"
        return f"{run_id} admits by token ({error}); {asked}; then join with --token"

    async def _whole_model(self) -> Prepared:
        settings, manifest = self._settings, self._manifest
        model = await asyncio.to_thread(FlatModel.of, manifest.model)
        initial = await asyncio.to_thread(initial_state, manifest)
        store = SnapshotStore(self._run_directory / "snapshots")
        last = await asyncio.to_thread(
            store.latest,
            run=initial.run,
            parameter_count=initial.parameter_count,
            slot_names=tuple(initial.slots),
        )
        gossips = isinstance(manifest.training, Gossip)
        learner: Learner | GossipLearner = IdleLearner()
        prepare = None
        if settings.role in (None, "trainer"):
            prepare = partial(self._gossip_learner if gossips else self._learner, model)
            if not manifest.data.shards:  # others are not needed for it
                learner, prepare = await prepare(), None
        given = await self._given("trainer") | {"state": last or initial, "learner": learner, "prepare": prepare}
        participant: Member
        if gossips:
            participant = GossipParticipant(**given)
        else:
            participant = make_participant(settings.misbehave, on_round=self._on_round, **given)
        saver = Saver(store, last, self._node.transport.clock)
        return Prepared(participant, SavesNewest(saver, participant), model)

    async def _pipeline(self) -> Prepared:
        settings = self._settings
        pipeline = assemble_pipeline(
            settings.misbehave,
            directory=self._run_directory / "snapshots",
            open_data=self._open_data,
            wishes=Wishes(settings.stage, settings.emulate, int(settings.data_quota * 1e9)),
            compute=partial(real_compute, kept_bytes=kept_bytes(settings.activations)),
            on_round=self._on_round,
            **await self._given("both"),
        )
        await pipeline.serve()
        return Prepared(pipeline.participant, pipeline, pipeline=pipeline)

    async def _given(self, role: Role) -> dict[str, Any]:
        """What every participant is given. `role`: of who wishes for none."""
        node, known = self._node, await self._known_directives()
        return {
            "transport": node.transport,
            "records": node.records,
            "signer": await self._signer(),
            "manifest": self._manifest,
            "profile": self._profile(self._settings.role or role),
            "rejections": self._rejections,
            "directives": known.wires,
        }

    def _profile(self, role: Role) -> Profile:
        settings, node = self._settings, self._node
        return Profile(
            settings.name,
            role,
            settings.client_mode,
            node.addresses,
            lambda: node.transport.bandwidth.bytes_per_second,
            settings.token,
        )

    async def _signer(self) -> Signer:
        sequence = await asyncio.to_thread(first_sequence, self._run_directory / "sequence", time.time_ns())
        return Signer(self._home.identity(), self._manifest.run_id, sequence)

    async def _known_directives(self) -> DirectiveLog:
        """Raises PeerError when they ban us."""
        run_id, us = self._manifest.run_id, self._node.peer_id
        known = await asyncio.to_thread(saved_log, self._home.directives_path(run_id), self._manifest)
        if us in known.bans:
            why = known.bans[us] or "no reason was given"
            raise PeerError(f"the organiser has banned this peer from {run_id}: {why}")
        return known

    # -- what it trains with ------------------------------------------------------------------------------------------

    async def _learner(self, model: FlatModel) -> Learner:
        manifest, attack, dataset = self._manifest, self._attack, await self._data()
        trainer = Trainer(manifest, model, dataset, self._node.peer_id)
        examine = Examining(manifest, dataset) if manifest.checks_senders else None
        learner = TrainerLearner(trainer, self._node.transport.clock, examine)
        self._resources.push_async_callback(learner.close)
        return MisbehavingLearner(learner, attack, self._node.peer_id) if attack else learner

    async def _gossip_learner(self, model: FlatModel) -> GossipLearner:
        manifest, attack, us = self._manifest, self._attack, self._node.peer_id
        objective = ModelObjective(manifest, model, await self._data(), us)
        if attack is None:
            trainer = GossipTrainer(manifest, objective)
        else:
            trainer = MisbehavingGossipTrainer(manifest, objective, attack, us)
        learner = TrainerGossipLearner(trainer, self._node.transport.clock)
        self._resources.push_async_callback(learner.close)
        return learner

    @property
    def _attack(self) -> str | None:
        """On what its learner gives."""
        attack = self._settings.misbehave
        return attack if attack in FORGERIES else None

    async def _data(self) -> Dataset:
        """To train on."""
        dataset = await self._open_data()
        flips = self._settings.misbehave == LABEL_FLIP
        return await asyncio.to_thread(FlippedLabels, dataset) if flips else dataset

    async def _open_data(self) -> Dataset:
        """What of the data is not here is fetched from the other members."""
        data, settings = self._manifest.data, self._settings
        if not data.shards:
            return await asyncio.to_thread(open_dataset, data)
        assert self._participant is not None  # who opens them sooner has no members to ask
        located = await asyncio.to_thread(locate_shards, data.shards, settings.data, self._run_directory)
        store = ShardStore(self._home.path / "data", int(settings.data_quota * 1e9), self._home.needed_shards)
        contents, transport = self._participant.contents, self._node.transport
        fetcher = ShardFetcher(store, contents, transport, self._holders, transport.reject)
        files = await fetcher.fetch(data.shards, located)
        return await asyncio.to_thread(open_dataset, data, [file.path for file in files])

    async def _holders(self) -> list[PeerId]:
        """The members who hold the run's data, or some of it."""
        assert self._participant is not None
        membership = self._participant.membership
        if not len(membership.roster):
            await membership.look_up()
        return [member.peer for member in membership.roster if member.entry.role in TRAINING]


class Examining:
    """Makes trainers that do what others do, with one more model, which is made when it is first needed."""

    def __init__(self, manifest: Manifest, dataset: Dataset) -> None:
        self._manifest, self._dataset = manifest, dataset
        self._model: FlatModel | None = None

    def __call__(self, peer: PeerId) -> Trainer:
        if self._model is None:
            self._model = FlatModel.of(self._manifest.model)
        return Trainer(self._manifest, self._model, self._dataset, peer)
