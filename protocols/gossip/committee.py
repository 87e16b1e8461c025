"""Sampled committees instead of neighbours: in each round a few train and a few aggregate, and nobody says who.

MoDeST (de Vos et al. 2023, "MoDeST: Bridging the Gap between Federated and Decentralized Learning with Decentralized
Sampling"): the members in the order of hash(member, round), without those who do not answer; the first a aggregate, the
next s train. Whoever needs to know asks down the order until enough have answered, so members whose rosters nearly
agree come to nearly the same committee, and it is found however many do not answer. An aggregator goes on as soon as a
fraction of the trainers' models is there.
"""

from collections.abc import Collection, Iterable, Sequence
from math import ceil

from protocols.identity import PeerId
from protocols.reached import reached_by
from protocols.round.order import order
from protocols.rules import Mean
from protocols.vectors import Vector


def newest_round(held: Collection[int], aggregators: int) -> int:
    """The newest round whose state is held by as many as are most of its aggregators, so that a single member that
    claims any round moves nobody. Of those that crash there will be others: the round is begun again.

    `held`: by each member, one at least, the newest round whose state it says to hold.
    """
    return reached_by(min(len(held), aggregators // 2 + 1), held)


class Sampling:
    """The first `wanted` members of a round's order who answer, asked as many at a time as are still wanted."""

    def __init__(self, run: str, number: int, members: Iterable[PeerId], wanted: int, spare: int = 0) -> None:
        """`number`: of the round. `spare`: so many more are asked at a time, lest those who are silent cost time."""
        self._order = order(run, number, members)
        self._wanted, self._spare = wanted, spare
        self._answers: dict[PeerId, bool | None] = {}
        """None while a member is being asked."""

    def ask(self) -> list[PeerId]:
        """Whom to ask now."""
        open_or_well = sum(answer is not False for answer in self._answers.values())
        missing = 0 if self.complete else self._wanted + self._spare - open_or_well
        fresh = [peer for peer in self._order if peer not in self._answers][: max(0, missing)]
        self._answers |= dict.fromkeys(fresh)
        return fresh

    def hear(self, peer: PeerId, *, answers: bool) -> None:
        self._answers[peer] = answers

    @property
    def complete(self) -> bool:
        """Whether the sample is known: nobody before its last member may still answer, or there is nobody else."""
        found = 0
        for peer in self._order:
            if peer not in self._answers:
                return False
            if self._answers[peer] is None:
                return False
            found += bool(self._answers[peer])
            if found == self._wanted:
                return True
        return True

    @property
    def sample(self) -> list[PeerId]:
        """Those who answer, in their order; fewer than wanted when there are no more."""
        return [peer for peer in self._order if self._answers.get(peer)][: self._wanted]


class Aggregation:
    """The models that an aggregator of one round is sent, until there are enough."""

    def __init__(self, trainers: int, fraction: float) -> None:
        """`fraction` of the trainers' models are enough."""
        self._enough = max(1, ceil(fraction * trainers))
        self._models: dict[PeerId, tuple[Vector, int]] = {}

    def add(self, trainer: PeerId, model: Vector, samples: int) -> None:
        """Once of each trainer; none when there are enough already."""
        if not self.complete:
            self._models.setdefault(trainer, (model, samples))

    @property
    def complete(self) -> bool:
        return len(self._models) >= self._enough

    @property
    def trainers(self) -> Sequence[PeerId]:
        return sorted(self._models)

    def mean(self) -> Vector:
        """Weighted by samples, in an order that all aggregators know."""
        chosen = [self._models[trainer] for trainer in self.trainers]
        return Mean().aggregate([model for model, _ in chosen], [max(1.0, samples) for _, samples in chosen])
