"""The status of a participant as the schema of `peer status --json` has it."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from peer.gossip.participant import GossipParticipant
from peer.member import Member
from peer.settings import JoinSettings
from peer.status import RoundStatus, RunStatus, SelfStatus, StageStatus, Status
from peer.swarm.pipeline import PipelinePeer
from peer.swarm.view import pipeline_status, stages_seen_by
from protocols.manifest import Manifest
from protocols.roles import TRAINING


def status_of(participant: Member, peer_id: str, pipeline: PipelinePeer | None = None) -> Status:
    """`pipeline`: around the participant, where the run is one."""
    epoch = epoch_of(participant)
    paused = participant.directives.log.paused(epoch)
    stages = stages_seen_by(pipeline) if pipeline is not None else ()
    roles, quorum = _roles(participant), participant.quorum
    state = run_state(participant.manifest, epoch, roles, quorum, paused=paused, stages=stages)
    has_state = participant.averages and participant.joined
    digest = participant.state.digest.hex() if has_state else None
    suspended = participant.suspended
    return Status(
        run=RunStatus(
            id=participant.manifest.run_id,
            name=participant.manifest.name,
            epoch=epoch,
            total_epochs=participant.manifest.epochs,
            state=state,
            loss=participant.learner.loss,
            evaluation=participant.evaluation,
        ),
        self_=SelfStatus(
            peer_id=peer_id,
            name=participant.profile.name,
            role=participant.profile.role,
            state="training" if state == "training" and _only_trains(pipeline) else participant.activity,
            epoch=epoch,
            state_digest=digest,
            samples_contributed=participant.samples_contributed,
            samples_per_second=round(participant.learner.samples_per_second, 1),
            addresses=participant.profile.addresses(),
            round_phase=participant.round_phase,
            stage=pipeline.participant.stage if pipeline is not None else None,
            moving_to=pipeline.moving_to if pipeline is not None else None,
        ),
        peers=tuple(
            member.model_copy(update={"suspended": suspended.get(member.peer_id, 0)})
            for member in participant.membership.status()
        ),
        last_round=_last_round(participant),
        gossip=participant.gossip_status if isinstance(participant, GossipParticipant) else None,
        pipeline=pipeline_status(pipeline) if pipeline is not None else None,
        stages=stages,
        rejected=dict(participant.rejections.by_reason),
    )


def epoch_of(participant: Member) -> int:
    """Of its state; who has none: the epoch that most members are at, or that the last one left at.

    In a pipeline the state is that of a stage; who serves none sees the epoch that all stages have come to.
    """
    if participant.averages:
        return participant.state.epoch
    roster = participant.membership.roster
    if by_stage := roster.stage_epochs():
        return min(by_stage.values())
    counted = Counter(member.epoch for member in roster if member.entry.state_digest is not None)
    return counted.most_common(1)[0][0] if counted else roster.last_departed_epoch


def starting_status(settings: JoinSettings, peer_id: str, manifest: Manifest | None) -> Status:
    """Of a daemon that is still coming up; without `manifest` it does not know how long the run is."""
    return Status(
        run=RunStatus(
            id=settings.run_id,
            name=settings.run_id.rpartition("-")[0],
            epoch=0,
            total_epochs=manifest.epochs if manifest else 0,
            state="waiting",
            loss=None,
            evaluation={},
        ),
        self_=SelfStatus(
            peer_id=peer_id,
            name=settings.name,
            role=settings.role or "trainer",
            state="joining",
            epoch=0,
            state_digest=None,
            samples_contributed=0,
            samples_per_second=0.0,
            addresses=(),
        ),
        peers=(),
        last_round=None,
        rejected={},
    )


def run_state(
    manifest: Manifest,
    epoch: int,
    roles: Sequence[str],
    quorum: int,
    *,
    paused: bool,
    stages: Sequence[StageStatus] = (),
) -> Literal["waiting", "training", "paused", "finished"]:
    """`roles`: of all members; `quorum`: of a group; `stages`: of a pipeline, each of which holds rounds of its own."""
    if epoch >= manifest.epochs:
        return "finished"
    if paused:
        return "paused"
    groups = [stage.peers for stage in stages] or [sum(role != "monitor" for role in roles)]
    enough = min(groups) >= quorum
    return "training" if enough and not set(roles).isdisjoint(TRAINING) else "waiting"


def _only_trains(pipeline: PipelinePeer | None) -> bool:
    """In a pipeline, without a stage: it has no state, and is idle as far as rounds go."""
    return pipeline is not None and pipeline.trainer is not None and pipeline.participant.stage is None


def _roles(participant: Member) -> list[str]:
    return [participant.profile.role, *(member.entry.role for member in participant.membership.roster)]


def _last_round(participant: Member) -> RoundStatus | None:
    if participant.last_round is None:
        return None
    epoch, outcome = participant.last_round
    return RoundStatus(
        epoch=epoch,
        group_size=len(outcome.done.body.members),
        duration_seconds=round(outcome.duration_seconds, 4),
        bytes_sent=outcome.bytes_sent,
        bytes_received=outcome.bytes_received,
        rule=participant.manifest.averaging.rule,
        codec=participant.manifest.averaging.codec,
        recovered_parts=outcome.recovered_parts,
        missing_senders=outcome.missing_senders,
    )
