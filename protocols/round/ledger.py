"""The parts of one term, as one member sees them: who owns each, whose result is here, and which do not come."""

from collections.abc import Sequence

from protocols.identity import PeerId
from protocols.round.messages import Begin, Observed, PartResult, Reassign, begin_digest
from protocols.signed import Signed


class Ledger:
    def __init__(self, begin: Signed[Begin]) -> None:
        self.begin = begin
        self._digest = begin_digest(begin.body)
        self.owners: list[tuple[int, PeerId]] = [(0, part.owner) for part in begin.body.parts]
        """Of each part: the latest attempt and its owner."""
        self.lacking: set[int] = set()
        """Parts that have broken off since they had their latest owner."""
        self._broken: set[int] = set()
        """Those of which we have not complained since."""
        self._reassigned: dict[int, Signed[Reassign]] = {}
        self._results: dict[int, PartResult] = {}
        self._observed: dict[int, Observed] = {}
        """What we have said of our own parts."""
        self.weighed = False
        """Whether the leader has told us what all owners have observed."""

    def reassign(self, statement: Signed[Reassign], *, voted: bool) -> bool:
        """Gives a part its new owner; False when it is none. Who has `voted` stands by the result that it has."""
        body = statement.body
        if body.part >= len(self.owners) or body.attempt <= self.owners[body.part][0]:
            return False
        if not any(member.peer == body.owner for member in self.begin.body.members):
            return False
        self.owners[body.part] = (body.attempt, body.owner)
        self._broken.discard(body.part)
        self.lacking.discard(body.part)
        if not voted:
            self._results.pop(body.part, None)
            self._reassigned[body.part] = statement
        return True

    def silent_owner(self, part: int) -> PeerId | None:
        """Who owns the part, if its result does not come to us."""
        return self.owners[part][1] if part in self.lacking else None

    def hold(self, result: PartResult, attempt: int | None) -> bool:
        """Whether it is the result of the latest attempt at a part; kept then."""
        for number, part in enumerate(self.begin.body.parts):
            same = (part.start, part.stop) == (result.start, result.stop)
            if same and attempt == self.owners[number][0]:
                self._results[number] = result
                self.lacking.discard(number)
                return True
        return False

    def break_off(self, part: int, attempt: int) -> bool:
        """Whether it is the latest attempt at a part that has now broken off."""
        current = part < len(self.owners) and self.owners[part][0] == attempt and part not in self._results
        if current:
            self._broken.add(part)
            self.lacking.add(part)
        return current

    def take_broken(self) -> list[int]:
        """The parts that have broken off since this was last asked."""
        broken, self._broken = sorted(self._broken), set()
        return broken

    def observe(self, observed: Observed) -> bool:
        """Whether our leader has to hear it: it is of the latest attempt at a part."""
        current = self.owners[observed.part][0] == observed.attempt and not self.weighed
        if current:
            self._observed[observed.part] = observed
        return current

    def unanswered(self) -> list[Observed]:
        """What we have said of our own parts, as long as it is not known that all have."""
        latest = [observed for observed in self._observed.values() if self.owners[observed.part][0] == observed.attempt]
        return [] if self.weighed else latest

    def weigh(self, observed: Sequence[Signed[Observed]]) -> bool:
        """Whether this is news, and what the owners that we know of have observed, of all parts."""
        if self.weighed or len(observed) != len(self.owners):
            return False
        if any(not self._may_observe(statement) for statement in observed):
            return False
        self.weighed = True
        return True

    def _may_observe(self, statement: Signed[Observed]) -> bool:
        body = statement.body
        members = len(self.begin.body.members)
        latest, owner = self.owners[body.part]
        is_of_members = body.begin == self._digest and body.included < 1 << members
        return is_of_members and (body.attempt != latest or statement.sender == owner)

    def whole(self) -> tuple[PartResult, ...] | None:
        """The results of all parts, when they are here."""
        if len(self._results) < len(self.owners):
            return None
        return tuple(self._results[number] for number in range(len(self.owners)))

    def origin(self) -> tuple[bytes, ...]:
        """Under whom the results were reduced, as `Ready.origin` says it."""
        return (self.begin.wire, *(statement.wire for statement in self._reassigned.values()))
