"""What happens to a round (events), and what it asks its driver to do (actions)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocols.identity import PeerId
from protocols.message import Message
from protocols.round.claims import Claim
from protocols.round.messages import Begin, Done, Observed, PartResult
from protocols.signed import Signed


@dataclass(frozen=True, slots=True)
class Heard:
    """A verified message of this epoch and base. The driver has checked signature, replay and `Done` votes."""

    statement: Signed[Any]
    relayed_by: PeerId | None = None
    """Who has passed it on, if that is not its sender."""
    claim: Claim | None = None
    """The results of an earlier term that it speaks of, with their proof."""
    observed: tuple[Signed[Observed], ...] = ()
    """What a `Weigh` is made of."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Some time has passed; due several times per `Timing.resend`."""


@dataclass(frozen=True, slots=True)
class Found:
    """These peers are members with this epoch's history, as far as the roster knows; value: whether client mode."""

    peers: Mapping[PeerId, bool]


@dataclass(frozen=True, slots=True)
class Appeared:
    """These have come into the roster since the round began: told from now on, not waited for until heard from."""

    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Aimed:
    """The epoch closes at so many samples, by what is known of the swarm now."""

    samples: int


@dataclass(frozen=True, slots=True)
class Needed:
    """So many members make a group, by what is known now: others were banned since the round began."""

    quorum: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection to this peer failed just now."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Left:
    """This peer has departed in order."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """This peer plays another epoch, or continues another history: it is not to be waited for."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Astray:
    """This peer has signed, as a leader, what no honest one says."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Trained:
    """The local trainer has come so far in this epoch."""

    samples: int
    complete: bool
    samples_per_second: float
    covered: bytes = b""
    """In a pipeline: which microbatches that is."""


@dataclass(frozen=True, slots=True)
class UpdateReady:
    """The local update is finished and encoded (after `FinishUpdate`)."""

    root: bytes | None
    weight: int
    covered: bytes = b""
    term: int | None = None
    """In a pipeline: as in the `FinishUpdate` that it answers."""


@dataclass(frozen=True, slots=True)
class PartHeld:
    """A part's result is here, whole, and agrees with its owner's signed `Result`."""

    result: PartResult
    term: int | None = None
    """In which it was reduced; None when it was fetched."""
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class PartObserved:
    """All of a part that we own is here, and this is what we see of it."""

    observed: Observed


@dataclass(frozen=True, slots=True)
class PartBroken:
    """No result of this part comes from its owner: the stream broke, stalled or brought something wrong."""

    term: int
    part: int
    attempt: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """None of the holders had this result."""

    result: PartResult
    term: int | None
    """As in `Fetch`."""


Event = (
    Heard
    | Tick
    | Found
    | Appeared
    | Aimed
    | Needed
    | Lost
    | Left
    | Elsewhere
    | Astray
    | Trained
    | UpdateReady
    | PartHeld
    | PartObserved
    | PartBroken
    | FetchFailed
)


@dataclass(frozen=True, slots=True)
class Send:
    """Sign and send; to ourselves too, in which case it comes back as `Heard`."""

    to: PeerId
    body: Message


@dataclass(frozen=True, slots=True)
class Relay:
    """Pass another peer's statement on as it is."""

    to: PeerId
    statement: Signed[Any]


@dataclass(frozen=True, slots=True)
class FinishUpdate:
    """Stop training for this epoch, encode the update, and answer `UpdateReady`.

    In a pipeline: encode what there is now; there may be more in another term.
    """

    term: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send our chunks to the owners, reduce our own parts, read the results. Ends any earlier exchange."""

    begin: Begin
    term: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """A part of the running exchange has a new owner: send our chunks there (or reduce it, if that is us)."""

    part: int
    attempt: int
    owner: PeerId


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the owners of all parts of this term's exchange have observed: reduce our own with it."""

    term: int
    observed: tuple[Signed[Observed], ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get this result from one of its holders."""

    result: PartResult
    holders: tuple[PeerId, ...]
    term: int | None = None
    """The one that adopts it; None when it is decided."""
    owner: PeerId | None = None
    """Whose signed `Result` it must be; None where a majority has voted for it."""


@dataclass(frozen=True, slots=True)
class Decided:
    """These results stand; keep the statement to show to others."""

    done: Signed[Done]


@dataclass(frozen=True, slots=True)
class Apply:
    """All decided results are here: apply them. The round is over for us, but still answers others."""

    results: tuple[PartResult, ...]


@dataclass(frozen=True, slots=True)
class Resync:
    """The results are decided but cannot be had: take the swarm's state instead."""


@dataclass(frozen=True, slots=True)
class Represent:
    """In the second of two levels: nobody before us in our cell speaks, so its aggregate is ours to contribute."""


@dataclass(frozen=True, slots=True)
class Discard:
    """In a pipeline: throw away what you have counted of the epoch, if these are among it: they do not count."""

    covered: bytes


Action = (
    Discard | Send | Relay | FinishUpdate | Exchange | Redirect | Weighed | Fetch | Decided | Apply | Resync | Represent
)
