"""What two peers of an exchange say to each other, on one stream. Every message travels in a `Signed` envelope.

caller → callee   Offer
callee → caller   Model, and its chunks              | nothing more where the caller only asked for a model
caller → callee   Model, and its chunks              |
callee → caller   Prepared, when it has them all     |
caller → callee   Commit, when it has decided        |
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from protocols.encoding import digest, encode
from protocols.message import Count, Digest, Many, Message, Peer
from protocols.round.messages import MAX_CHUNKS
from protocols.signed import Signed


class Offer(Message):
    """The caller would mix with `to`, in the envelope's epoch."""

    kind: ClassVar[str] = "gossip_offer"
    limit_bytes: ClassVar[int] = 1024
    to: Peer
    """So that nobody else can be shown it."""
    only_asks: bool
    """It asks for the callee's model and gives none."""


class Model(Message):
    """Heads a model: the envelope's epoch is its epoch, the chunks that follow have these digests."""

    kind: ClassVar[str] = "gossip_model"
    limit_bytes: ClassVar[int] = MAX_CHUNKS * 34 + 1024
    offer: Digest
    """Of the `Offer` as signed."""
    samples: Count
    """That the peer adds in an epoch: its weight."""
    chunks: Annotated[Many[Digest], Field(min_length=1, max_length=MAX_CHUNKS)]


class Prepared(Message):
    """The callee has the caller's whole model, and will shift its own when the caller says so."""

    kind: ClassVar[str] = "gossip_prepared"
    limit_bytes: ClassVar[int] = 1024
    exchange: Digest


class Commit(Message):
    """The caller has shifted its model, and the callee is to do the same."""

    kind: ClassVar[str] = "gossip_commit"
    limit_bytes: ClassVar[int] = 1024
    exchange: Digest


class Outcome(Message):
    """The caller's answer to a callee in doubt."""

    kind: ClassVar[str] = "gossip_outcome"
    limit_bytes: ClassVar[int] = 1024
    exchange: Digest
    committed: bool


class CommitteeModel(Message):
    """Heads a model on its way through committees (`protocols.gossip.committee`); the envelope's epoch is the round."""

    kind: ClassVar[str] = "committee_model"
    limit_bytes: ClassVar[int] = MAX_CHUNKS * 34 + 1024
    to: Peer
    task: Literal["train", "aggregate"]
    """What its receiver is to do: it is a trainer of this round, or an aggregator of it."""
    samples: Count
    """Behind a model that is to be aggregated."""
    chunks: Annotated[Many[Digest], Field(min_length=1, max_length=MAX_CHUNKS)]


def offer_digest(offer: Signed[Offer]) -> bytes:
    """What both models of an exchange name."""
    return digest(offer.wire)


def exchange_digest(of_callee: Signed[Model], of_caller: Signed[Model]) -> bytes:
    """The name of an exchange: of exactly these two models."""
    return digest(b"peer/1/exchange\x00", encode([digest(of_callee.wire), digest(of_caller.wire)]))
