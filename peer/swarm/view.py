"""The stages of a pipeline as its peers tell them, for `peer status`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from peer.status import PipelineStatus, StageStatus
from peer.swarm.pipeline import PipelinePeer
from protocols.identity import PeerId
from protocols.records import Serving
from protocols.swarm.steps import come_to

Shares = Callable[[int], Mapping[PeerId, float]]
"""Stage → which share of the work for it each of its peers gets, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a peer says of its stage."""

    serving: Serving
    epoch: int | None
    """None as long as it has no state."""


def pipeline_status(pipeline: PipelinePeer) -> PipelineStatus:
    trainer, stage = pipeline.trainer, pipeline.server.stage
    return PipelineStatus(
        microbatches_done=trainer.microbatches_done if trainer is not None else 0,
        replays=trainer.replays if trainer is not None else 0,
        microbatches_per_second=round(pipeline.rate, 2),
        queue=pipeline.server.queue,
        dropped=stage.dropped if stage is not None else 0,
    )


def stages_seen_by(pipeline: PipelinePeer) -> tuple[StageStatus, ...]:
    participant = pipeline.participant
    words = [
        Word(member.entry.serving, member.epoch if member.entry.state_digest is not None else None)
        for member in participant.membership.roster
        if member.entry.serving is not None
    ]
    if participant.stage is not None:
        words.append(Word(pipeline.serving(participant.stage), participant.state.epoch if participant.joined else None))
    return stage_statuses(pipeline.stages, words, pipeline.wiring.share)


def stage_statuses(stages: int, words: Iterable[Word], shares: Shares = lambda _stage: {}) -> tuple[StageStatus, ...]:
    words = [word for word in words if word.serving.stage < stages]
    return tuple(_status(stage, words, shares(stage)) for stage in range(stages))


def _status(stage: int, words: list[Word], shares: Mapping[PeerId, float]) -> StageStatus:
    here = [word for word in words if word.serving.stage == stage]
    epochs = [word.epoch for word in here if word.epoch is not None]
    return StageStatus(
        number=stage,
        epoch=come_to(epochs) if epochs else None,
        peers=len(here),
        leaving=sum(word.serving.moving_to not in (None, stage) for word in here),
        arriving=sum(word.serving.moving_to == stage for word in words if word.serving.stage != stage),
        queue=sum(word.serving.queue for word in here),
        microbatches_per_second=round(sum(word.serving.rate for word in here), 2),
        shares={peer: round(share, 4) for peer, share in shares.items()},
    )
