"""Looks at a run without taking part: finds its members in the DHT, asks them what they have, and takes the state.

An observer says hello to nobody and publishes nothing, so that it is no member, and has no history, so that it has no
say in which state is the swarm's.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median_low

import structlog

from dht.border import Border
from dht.interfaces import Records, Transport, TransportError
from peer.directives import Directives, share
from peer.errors import PeerError
from peer.manifests import fetch_manifest
from peer.rejections import Rejections
from peer.status import PeerStatus, RunStatus, StageStatus, Status
from peer.swarm.gathering import Gathering, Whole
from peer.swarm.view import Word, stage_statuses
from peer.sync import Heads, fetch_state
from peer.view import run_state
from protocols.directives import DirectiveLog, Sharing
from protocols.heads import Choice, History, choose
from protocols.identity import PeerId
from protocols.manifest import Manifest, Pipeline
from protocols.records import RosterEntry
from protocols.rejection import Rejected
from protocols.signed import Signed, Signer
from protocols.state import ModelState

MAX_ASKED = 64
"""So many members, drawn at random, are asked what they have."""
_CONNECT_AT_ONCE = 128
_CONNECT_SECONDS = 30.0
"""So long members are dialled, in no order: anybody can plant records of some hundred who are nowhere."""

log = structlog.get_logger()


class Observer:
    def __init__(
        self, transport: Transport, records: Records, signer: Signer, manifest: Manifest | None, rejections: Rejections
    ) -> None:
        """`signer`: of a throw-away identity, in the run. `manifest`: None when it is not known here.

        `rejections`: what `transport` counts with.
        """
        self._transport, self._records = transport, records
        self._run, self._signer = signer.run, signer
        self._manifest = manifest
        self._rejections = rejections
        self._border = Border(transport.peer_id, transport.clock, rejections)
        self._heads = Heads(transport, signer, self._border)
        self._random = random.SystemRandom()
        self._nowhere: set[PeerId] = set()
        """Who could not be dialled when we looked last."""

    async def look(self) -> Status:
        """The run as its members tell it now; `self` is None. Raises PeerError when there are none."""
        members = await self._find_members()
        manifest = await self.manifest(members)
        histories = await self._ask(members)
        epoch, stages = self._epoch(members, histories), self._stages(manifest, members, histories)
        directed = await self.directives(members)
        roles = [member.body.role for member in members]
        quorum = manifest.quorum_without(median_low(member.body.banned for member in members))
        return Status(
            run=RunStatus(
                id=self._run,
                name=manifest.name,
                epoch=epoch,
                total_epochs=manifest.epochs,
                state=run_state(manifest, epoch, roles, quorum, paused=directed.paused(epoch), stages=stages),
                loss=None,
                evaluation={},
            ),
            self_=None,
            peers=tuple(self._peer_status(member, histories.get(member.sender)) for member in members),
            last_round=None,
            stages=stages,
            rejected=dict(self._rejections.by_reason),
        )

    async def manifest(self, members: Sequence[Signed[RosterEntry]] | None = None) -> Manifest:
        """Raises PeerError when no member gives it."""
        if self._manifest is None:
            peers = [member.sender for member in (members or await self._find_members())]
            self._manifest = await fetch_manifest(self._transport, self._run, peers)
        if self._manifest is None:
            raise PeerError(f"no member of {self._run} that can be reached has its manifest; try again in a moment")
        return self._manifest

    async def directives(self, members: Sequence[Signed[RosterEntry]] | None = None) -> DirectiveLog:
        """What the organiser has directed, as far as members who answer know. Raises PeerError."""
        members = members or await self._find_members()
        directives = Directives(
            self._transport, self._records, self._signer, await self.manifest(members), self._border, list, lambda: None
        )
        await directives.look_up()
        if directives.organiser is not None:
            async with asyncio.TaskGroup() as tasks:
                for member in self._some(members):
                    tasks.create_task(directives.ask(member.sender))
        return directives.log

    async def direct(self, wire: bytes) -> DirectiveLog:
        """Gives members a directive, who hand it on; what is known with it. Raises PeerError when nobody takes it."""
        members = await self._find_members()
        known = await self.directives(members)
        try:
            known.take(wire)
        except Rejected as error:
            raise PeerError(f"this is no directive of {self._run}: {error}") from error
        message = Sharing(known=known.known, statements=known.lacking(frozenset(), newest_first=True)[::-1])
        async with asyncio.TaskGroup() as tasks:
            told = [tasks.create_task(self._tell(member.sender, message)) for member in self._some(members)]
        if not any(task.result() for task in told):
            raise PeerError(f"no member of {self._run} that can be reached takes the directive; try again in a moment")
        return known

    async def _tell(self, peer: PeerId, message: Sharing) -> bool:
        try:
            await share(self._transport, peer, message)
        except (TransportError, Rejected) as error:
            log.debug("a member does not take the directive", member=peer, error=str(error))
            return False
        return True

    def _some(self, members: Sequence[Signed[RosterEntry]]) -> list[Signed[RosterEntry]]:
        here = [member for member in members if member.sender not in self._nowhere]
        return self._random.sample(here, min(len(here), MAX_ASKED))

    async def take_state(self, like: ModelState) -> tuple[ModelState, Choice]:
        """What most members sign, verified, and who they are; `like`: any state of the run, for its shape.

        Raises PeerError.
        """
        choice = choose(await self._ask(await self._find_members()))
        if choice is None:
            raise PeerError(f"no member of {self._run} that can be reached has a state yet; try again in a moment")
        try:
            return await fetch_state(self._transport, like, choice), choice
        except Rejected as error:
            raise PeerError(f"the state of epoch {choice.epoch} could not be had: {error}; try again") from error

    async def gather(self) -> Whole:
        """The whole model of a pipeline, from those who serve its stages. Raises PeerError."""
        manifest = await self.manifest()
        return await Gathering(self._transport, manifest, self._heads, self._serving).gather()

    async def _serving(self) -> dict[int, list[PeerId]]:
        """In a pipeline: by stage, who serves it."""
        serving: dict[int, list[PeerId]] = {}
        for member in await self._find_members():
            if member.body.stage is not None:
                serving.setdefault(member.body.stage, []).append(member.sender)
        return serving

    async def _find_members(self) -> list[Signed[RosterEntry]]:
        """Who says to be in the run, by name, connected where they can be. Raises PeerError when nobody does."""
        found = await self._records.lookup(self._run, RosterEntry.kind)
        members = sorted((member for member in found if not member.body.departed), key=lambda one: one.body.name)
        if not members:
            raise PeerError(f"nobody is in run {self._run} as far as the initial peers know; check the run id")
        gate = asyncio.Semaphore(_CONNECT_AT_ONCE)
        self._nowhere = {member.sender for member in members if member.body.addresses}
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS), asyncio.TaskGroup() as tasks:
                for member in self._random.sample(members, len(members)):
                    tasks.create_task(self._connect(member, gate))
        return members

    async def _connect(self, member: Signed[RosterEntry], gate: asyncio.Semaphore) -> None:
        if not member.body.addresses:
            return
        async with gate:
            try:
                await self._transport.connect(member.sender, member.body.addresses)
                self._nowhere.discard(member.sender)
            except TransportError as error:
                log.debug("a member cannot be reached", member=member.sender, error=str(error))

    async def _ask(self, members: Sequence[Signed[RosterEntry]]) -> dict[PeerId, History]:
        holders = self._some([member for member in members if member.body.role != "monitor"])
        return await self._heads.ask(member.sender for member in holders)

    @staticmethod
    def _epoch(members: Sequence[Signed[RosterEntry]], histories: Mapping[PeerId, History]) -> int:
        """That most have come to; in a pipeline most of each stage."""
        by_stage: dict[int | None, dict[PeerId, History]] = {}
        for member in members:
            if (history := histories.get(member.sender)) is not None:
                by_stage.setdefault(member.body.stage, {})[member.sender] = history
        choices = [choose(told) for told in by_stage.values()]
        return min((choice.epoch for choice in choices if choice is not None), default=0)

    @staticmethod
    def _stages(
        manifest: Manifest, members: Sequence[Signed[RosterEntry]], histories: Mapping[PeerId, History]
    ) -> tuple[StageStatus, ...]:
        if not isinstance(manifest.training, Pipeline):
            return ()
        words = [
            Word(member.body.serving, max(histories[member.sender]) if member.sender in histories else None)
            for member in members
            if member.body.serving is not None
        ]
        return stage_statuses(manifest.training.stages, words)

    def _peer_status(self, member: Signed[RosterEntry], history: History | None) -> PeerStatus:
        """By its record, which may be some seconds old, and by its history, which is of now."""
        entry = member.body
        epoch = max(history) if history else member.epoch
        digest = history[epoch] if history else entry.state_digest
        said = entry.expires - RosterEntry.ttl_seconds
        return PeerStatus(
            peer_id=member.sender,
            name=entry.name,
            role=entry.role,
            epoch=epoch,
            samples_contributed=entry.samples_contributed,
            samples_per_second=entry.samples_per_second,
            last_seen_seconds=0.0 if history else round(max(0.0, self._transport.clock.wall() - said), 1),
            state_digest=digest.hex() if digest else None,
            stage=entry.stage,
            moving_to=entry.moving_to,
        )
