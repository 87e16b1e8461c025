"""What the rounds of one run have in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from dht.interfaces import Transport
from peer.rounds.post import Outbox
from peer.rounds.results import ResultStore
from peer.verification.inputs import InputStore
from protocols.codecs import Codec
from protocols.identity import PeerId
from protocols.round.aggregate import AggregateMemory
from protocols.round.messages import Begin
from protocols.round.parts import Grid
from protocols.rules import Rule
from protocols.signed import Signed, Signer


class Checking(Protocol):
    """What a session tells those who check its round (`peer.verification`)."""

    inputs: InputStore

    def witness(self, wire: bytes) -> None:
        """A signed statement of somebody, verified before."""

    def follow(self, members: Iterable[PeerId]) -> None:
        """We are in a round with these now."""

    def testify(self, peer: PeerId, begin: Signed[Begin]) -> None:
        """`peer` follows another `Begin` of this round than ours."""


@dataclass(frozen=True)
class Plan:
    """What a session needs of its run."""

    transport: Transport
    signer: Signer
    outbox: Outbox
    results: ResultStore
    grid: Grid
    codec: Codec
    rule: Rule
    checking: Checking
    verifies: bool
    """Whether members check each other's work."""

    @cached_property
    def memory(self) -> AggregateMemory:
        """Where the results of one round after the other come together."""
        return AggregateMemory(self.grid.count, keeps=not self.codec.copies)
