"""How the peers of a pipeline, and what they do in it, look to a person."""

from peer.status import PeerStatus, PipelineStatus, SelfStatus, Status

Member = SelfStatus | PeerStatus


def members_of(status: Status) -> list[Member]:
    """All, this one first."""
    return [*filter(None, [status.self_]), *status.peers]


def movers_of(status: Status) -> list[Member]:
    return [member for member in members_of(status) if member.moving_to is not None]


def stage_text(member: Member) -> str:
    """`1`, or `1 → 2` of one that is about to serve another; nothing of one that serves none."""
    here = "" if member.stage is None else str(member.stage)
    return here if member.moving_to is None else f"{here} → {member.moving_to}".strip()


def share_text(status: Status, member: Member) -> str:
    """Of what this peer sends to the member's stage."""
    shares = next((stage.shares for stage in status.stages if stage.number == member.stage), {})
    return f"{100 * shares[member.peer_id]:.0f} %" if member.peer_id in shares else ""


def microbatches_text(pipeline: PipelineStatus) -> str:
    """What this peer has begun, and what it does at its stage."""
    again = f", {pipeline.replays:,} parts of them done again" if pipeline.replays else ""
    dropped = f", {pipeline.dropped:,} not finite" if pipeline.dropped else ""
    here = f"here {pipeline.microbatches_per_second:,.1f} a second, {pipeline.queue} waiting"
    return f"{pipeline.microbatches_done:,} trained{again}; {here}{dropped}"
