"""What one member knows of a round that is over: what its checks start from."""

from dataclasses import dataclass, field

from peer.rounds.results import HeldPart
from protocols.identity import PeerId
from protocols.round.messages import Begin, Done, Observed
from protocols.signed import Signed
from protocols.verification.dealing import Recipient


@dataclass(frozen=True, slots=True)
class RoundAccount:
    begin: Signed[Begin]
    """Under which the results were reduced."""
    owners: tuple[PeerId, ...]
    """Of each part, the last one, who has reduced it."""
    group: Begin
    """Of the term that decided them, which may have adopted them: its members make the seed."""
    done: Signed[Done]
    results: tuple[HeldPart, ...]
    """As far as they are here."""
    observed: tuple[Signed[Observed], ...]
    """What all owners have observed, where the rule looks at distances."""
    private_key: bytes = field(repr=False)
    """For the shares that others have dealt to us."""
    secret: bytes = field(repr=False)
    """What we have dealt, if we have voted."""

    @property
    def epoch(self) -> int:
        return self.begin.epoch

    @property
    def base(self) -> bytes:
        return self.begin.body.base


def recipients(begin: Begin) -> list[Recipient]:
    """Those of a group to whom secrets are dealt: all of them."""
    return [Recipient(member.peer, member.key) for member in begin.members if member.key is not None]
