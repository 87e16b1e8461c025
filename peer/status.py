"""What a daemon reports of itself: the versioned object of `peer status --json` and of the control API.

Seen from outside (`peer status --initial-peers …`) it is the same object, of what the members say: `self`, `loss` and
`last_round` are null then.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from protocols.identity import PeerId
from protocols.roles import Role


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RunStatus(_Part):
    id: str
    name: str
    epoch: int = Field(description="The swarm's epoch as this peer sees it")
    total_epochs: int
    state: Literal["waiting", "training", "paused", "finished"]
    loss: float | None
    evaluation: dict[str, float] = Field(
        description="accuracy or bits_per_byte of the last evaluation here; empty, as loss is null, from outside"
    )


class SelfStatus(_Part):
    peer_id: PeerId
    name: str
    role: Role
    state: Literal["joining", "syncing", "training", "averaging", "paused", "idle", "stopping"]
    epoch: int
    state_digest: str | None = Field(description="hex; None before the state is known")
    samples_contributed: int
    samples_per_second: float
    addresses: tuple[str, ...]
    round_phase: str | None = Field(
        None, description="How far the epoch's round is here, as protocols/round/machine.py has it; null outside of one"
    )
    stage: int | None = Field(None, description="of a pipeline, which it serves; null where it serves none")
    moving_to: int | None = Field(None, description="the stage that it is about to serve instead")


class PeerStatus(_Part):
    peer_id: PeerId
    name: str
    role: Role
    epoch: int
    samples_contributed: int
    samples_per_second: float
    last_seen_seconds: float | None = Field(description="null for who is banned, and not listened to")
    state_digest: str | None
    banned: str | None = Field(None, description="why it may not take part any more; null for a member")
    suspended: int = Field(
        0, description="for so many epochs this peer neither waits for it nor takes it into a group that it leads"
    )
    stage: int | None = Field(None, description="of a pipeline, which it serves; null where it serves none")
    moving_to: int | None = Field(None, description="the stage that it is about to serve instead")


class RoundStatus(_Part):
    epoch: int
    group_size: int
    duration_seconds: float
    bytes_sent: int
    bytes_received: int
    rule: str
    codec: str
    recovered_parts: int
    missing_senders: int


class GossipStatus(_Part):
    """Of a run without groups: what this peer has exchanged with others."""

    topology: str
    mixing: str
    consensus_distance: float | None = Field(
        description="root mean square distance of the models from their mean, estimated from the last exchanges"
    )
    relative_consensus_distance: float | None = Field(description="the same, as a fraction of the models' length")
    exchanges: int
    failed_exchanges: int
    busy: int = Field(description="exchanges that did not begin, as one of the two had its hands full")
    last_peer: str | None
    bytes_sent: int
    bytes_received: int


class PipelineStatus(_Part):
    """Of a pipeline: what this peer has done in it."""

    microbatches_done: int = Field(description="begun here, and counted by all stages")
    replays: int = Field(description="parts of them that were done again, because a peer was lost with them")
    microbatches_per_second: float = Field(description="that this peer could do of its stage; 0: not known")
    queue: int = Field(description="microbatches that wait here")
    dropped: int = Field(description="microbatches whose gradient was not finite, since this peer serves its stage")


class StageStatus(_Part):
    """A stage of a pipeline, by what its peers say."""

    number: int
    epoch: int | None = Field(description="that it has come to, by its peers' words; null where none has a state")
    peers: int
    leaving: int = Field(description="so many of them are about to serve another stage")
    arriving: int = Field(description="so many peers of other stages are about to serve this one")
    queue: int = Field(description="microbatches that wait at its peers")
    microbatches_per_second: float = Field(description="that its peers could do together")
    shares: dict[str, float] = Field(
        description="by PeerID: how much of what this peer sends to the stage goes there; who is absent is not known"
    )


class Status(_Part):
    schema_version: Literal[1] = Field(1, alias="schema")
    run: RunStatus
    self_: SelfStatus | None = Field(alias="self", description="null when seen from outside, by who is no member")
    peers: tuple[PeerStatus, ...]
    last_round: RoundStatus | None
    gossip: GossipStatus | None = Field(None, description="null in runs that hold rounds, and from outside")
    pipeline: PipelineStatus | None = Field(None, description="null in runs without stages, and from outside")
    stages: tuple[StageStatus, ...] = Field((), description="of a pipeline, in order")
    rejected: dict[str, int]

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @property
    def member_count(self) -> int:
        """Who takes part; not who is banned."""
        return sum(peer.banned is None for peer in self.peers) + (self.self_ is not None)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)


class DirectiveStatus(_Part):
    """What the organiser has directed, once."""

    number: int
    epoch: int = Field(description="the first epoch at which it holds; bans and resume hold at once")
    action: Literal["ban", "pause", "resume", "set"]
    peer: str | None = Field(None, description="who is banned")
    why: str | None = None
    changes: dict[str, float | int] = Field({}, description="fields of the manifest's training, with their new values")
    holds: bool = Field(
        description="false: one with a smaller number is missing, or it contradicts another of the same number"
    )


class DirectivesStatus(_Part):
    """`peer run directives --json`, and what the control API says of them."""

    schema_version: Literal[1] = Field(1, alias="schema")
    run: str
    epoch: int
    epochs_per_second: float
    directives: tuple[DirectiveStatus, ...]
    statements: tuple[str, ...] = Field(description="the same, as the organiser has signed them; base64")

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)
