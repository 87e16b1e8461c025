"""What the daemon needs of a member of a run, whichever way the run trains."""

from collections.abc import Mapping
from typing import Literal, Protocol

from peer.contents import ContentStore
from peer.directives import Directives
from peer.membership import Membership
from peer.profile import Profile
from peer.rejections import Rejections
from peer.rounds.session import RoundOutcome
from peer.signal import Signal
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.state import ModelState

Activity = Literal["joining", "syncing", "training", "averaging", "paused", "idle", "stopping"]


class Learning(Protocol):
    """How training goes here."""

    @property
    def loss(self) -> float | None: ...

    @property
    def samples_per_second(self) -> float: ...


class Member(Protocol):
    manifest: Manifest
    profile: Profile
    rejections: Rejections
    changed: Signal

    @property
    def state(self) -> ModelState:
        """The newest that others can have."""

    @property
    def contents(self) -> ContentStore: ...

    @property
    def evaluation(self) -> dict[str, float]: ...

    @property
    def samples_contributed(self) -> int: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def directives(self) -> Directives: ...

    @property
    def learner(self) -> Learning: ...

    @property
    def activity(self) -> Activity: ...

    @property
    def averages(self) -> bool:
        """Whether it has a state of its own."""

    @property
    def quorum(self) -> int:
        """With fewer members the run waits."""

    @property
    def joined(self) -> bool:
        """Whether our state is one of the swarm's, as far as we know."""

    @property
    def suspended(self) -> Mapping[PeerId, int]: ...

    @property
    def epochs_per_second(self) -> float: ...

    @property
    def round_phase(self) -> str | None: ...

    @property
    def last_round(self) -> tuple[int, RoundOutcome] | None: ...

    async def start(self) -> None:
        """From now on others are answered."""

    async def run(self, max_epochs: int | None = None) -> None:
        """Takes part until `leave`, or for `max_epochs` epochs; then departs in order."""

    def leave(self) -> None:
        """Finish what is under way, then depart."""
