"""Which state is the swarm's: what most peers sign, told apart from forks, stragglers and forgers.

Every peer signs its last epochs and their digests (`Head`). Two heads tell one history when they agree at the last
epoch that both mention. A head is as good as the number of peers whose heads tell the same history.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from protocols.identity import PeerId
from protocols.message import Digest, Item, Many, Message, Peer, ShortText

HISTORY = 16
"""Epochs that a head mentions, at most."""
MAX_BANNED = 128
"""Bans that a head mentions, at most."""


class Banned(Item):
    """A peer that may not take part any more, and why."""

    peer: Peer
    why: ShortText


class Head(Message):
    """A peer's last epochs: the envelope's epoch is the newest, `digests` are of that epoch and those before it."""

    kind: ClassVar[str] = "head"
    digests: Annotated[Many[Digest], Field(min_length=1, max_length=HISTORY)]
    """Newest first."""
    banned: Annotated[Many[Banned], Field(max_length=MAX_BANNED)] = ()
    """Whom it has banned from the run, those last banned."""
    nonce: Annotated[bytes, Field(max_length=32)]
    """What the asker sent, so that an old head cannot be shown again."""
    seniors: Annotated[Many[Peer], Field(max_length=64)] = ()
    """Where newcomers serve a probation: who has a say in the epoch, and is none."""


History = Mapping[int, bytes]
"""Epoch → state digest."""


def history_of(epoch: int, head: Head) -> dict[int, bytes]:
    """The epochs that a head mentions; none before 0."""
    return {epoch - age: digest for age, digest in enumerate(head.digests) if epoch >= age}


def agree(first: History, second: History) -> bool:
    """Whether both tell one history: equal digests at the last epoch that both mention."""
    common = first.keys() & second.keys()
    return bool(common) and first[max(common)] == second[max(common)]


@dataclass(frozen=True, slots=True)
class Choice:
    """The state to have, who has signed that they have it, and who tells the history that it is part of."""

    epoch: int
    digest: bytes
    holders: tuple[PeerId, ...]
    makers: tuple[PeerId, ...]
    """Those of the holders who have gone through the epoch before, so that they have made the state, not fetched it."""
    tellers: frozenset[PeerId]
    banned: Mapping[PeerId, str] = field(default_factory=dict)
    """Whom most of the tellers have banned, and why."""


def choose(histories: Mapping[PeerId, History]) -> Choice | None:
    """The state of the history that most peers tell; of that history, the newest that more than half of them mention.

    Of histories told by equally many, the one that is further wins, then the one with the smaller digest, so that all
    who see the same heads choose alike. None when there are no heads.
    """
    if not histories:
        return None
    count = _teller_counts(histories)

    def merit(peer: PeerId) -> tuple[int, int, bytes]:
        newest = max(histories[peer])
        return count[peer], newest, bytes(255 - byte for byte in histories[peer][newest])

    best = max(histories, key=merit)
    told = [peer for peer, other in histories.items() if agree(histories[best], other)]
    counted = Counter((epoch, digest) for peer in told for epoch, digest in histories[peer].items())
    shared = [state for state, count in counted.items() if 2 * count > len(told)]
    epoch, digest = max(shared) if shared else max(histories[best].items())
    return _choice(histories, told, epoch, digest)


def _teller_counts(histories: Mapping[PeerId, History]) -> dict[PeerId, int]:
    """How many of the histories, which have no gaps, `agree` with that of each peer.

    Of two the one that ends first ends at the last epoch that both mention. So nothing is compared pair by pair, which
    would take half a minute for as many identities as a roster holds, each with a history of its own.
    """
    newest = {peer: max(history) for peer, history in histories.items()}
    mentioned = Counter(state for history in histories.values() for state in history.items())
    ending = Counter((newest[peer], history[newest[peer]]) for peer, history in histories.items())
    return {
        peer: mentioned[newest[peer], history[newest[peer]]]
        + sum(ending[state] for state in history.items() if state[0] < newest[peer])
        for peer, history in histories.items()
    }


def states_until(choice: Choice, histories: Mapping[PeerId, History]) -> dict[int, Choice]:
    """By epoch: the state that was chosen of these histories, and those before it that its tellers still remember.

    Those as more than half of the tellers have them who remember that epoch.
    """
    epochs = {epoch for peer in choice.tellers for epoch in histories[peer] if epoch < choice.epoch}
    states = {choice.epoch: choice}
    for epoch in epochs:
        told = Counter(histories[peer][epoch] for peer in choice.tellers if epoch in histories[peer])
        [(digest, count)] = told.most_common(1)
        if 2 * count > told.total():
            states[epoch] = _choice(histories, choice.tellers, epoch, digest)
    return states


def _choice(histories: Mapping[PeerId, History], tellers: Collection[PeerId], epoch: int, digest: bytes) -> Choice:
    holders = tuple(sorted(peer for peer in tellers if histories[peer].get(epoch) == digest))
    makers = tuple(peer for peer in holders if epoch - 1 in histories[peer]) or holders
    return Choice(epoch, digest, holders, makers, frozenset(tellers))


def banned_by_most(tellers: Collection[PeerId], banned: Mapping[PeerId, Iterable[Banned]]) -> dict[PeerId, str]:
    """Whom more than half of the `tellers` say to have banned, and why by the first of them.

    `banned`: what each of those who were asked says.
    """
    of_each = [{said.peer: said for said in banned.get(teller, ())} for teller in sorted(tellers)]
    told = [said for bans in of_each for said in bans.values()]
    counted = Counter(one.peer for one in told)
    return {one.peer: one.why for one in reversed(told) if 2 * counted[one.peer] > len(tellers)}


def choose_from(histories: Mapping[PeerId, History], me: PeerId, snapshot: History) -> Choice:
    """Like `choose`, for who comes back with a `snapshot`, which tells a history as much as one peer does.

    So a single newcomer does not throw back who has trained for long. But where others go on with the history of the
    snapshot, they say how far it has come: the snapshot is a thing of the past.
    """
    choice = choose({**histories, me: snapshot})
    assert choice is not None
    others = {peer: histories[peer] for peer in choice.tellers if peer != me}
    return choose(others) or choice


def most_named(named: Collection[Collection[PeerId]]) -> frozenset[PeerId]:
    """Who is named by more than half of those who were asked."""
    counted = Counter(peer for peers in named for peer in set(peers))
    return frozenset(peer for peer, count in counted.items() if 2 * count > len(named))
