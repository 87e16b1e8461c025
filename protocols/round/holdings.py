"""What one member has, through all terms of an epoch: its update, the results that it holds, its vote, and what proves
under whom that was reduced. `Ready` says it to the leader of each term."""

from collections.abc import Iterable

from protocols.round.events import UpdateReady
from protocols.round.messages import Begin, PartResult, Prepared, Ready
from protocols.round.setting import Setting
from protocols.signed import Signed


class Holdings:
    def __init__(self, setting: Setting) -> None:
        self.update: UpdateReady | None = None
        """Once it is finished; in a pipeline, for the term that goes on."""
        self.results: set[PartResult] = set()
        """Everything that the driver keeps for us, of any term."""
        self.begun: dict[int, Signed[Begin]] = {}
        """Those that we have followed and that adopted nothing, by term."""
        self.vote: Prepared | None = None
        """The last vote cast, which later terms carry over …"""
        self.origin: tuple[bytes, ...] = ()
        """… and under whom what it is for was reduced, as in `Ready`."""
        self._setting = setting

    def cast(self, vote: Prepared, origin: tuple[bytes, ...]) -> None:
        self.vote, self.origin = vote, origin

    def voted_for(self, results: tuple[PartResult, ...]) -> bool:
        return self.vote is not None and self.vote.results == results

    def missing(self, results: Iterable[PartResult]) -> list[PartResult]:
        return [result for result in results if result not in self.results]

    def ready(self, term: int) -> Ready | None:
        """None as long as the update is not finished."""
        if self.update is None:
            return None
        return Ready(
            base=self._setting.base,
            term=term,
            weight=self.update.weight,
            root=self.update.root,
            covered=self.update.covered,
            client_mode=self._setting.client_mode,
            speed=self._setting.speed,
            held_term=self.vote.term if self.vote else None,
            held=self.vote.results if self.vote else (),
            origin=self.origin,
        )
