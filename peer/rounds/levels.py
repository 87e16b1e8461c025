"""An epoch in two levels, as one member goes through it (`protocols.round.cells`).

    our cell's round        trains, and averages among the members of our cell; comes to the cell's aggregate
    the round of cells      whoever is first of our cell in the order contributes that aggregate; the others follow it:
                            they ask whom they follow what has been decided, and take its place when it is silent

Whose cell is too late, or has too few members, follows the second round all the same: it abandons the first.
Nobody can contribute anything for a cell but what most of the cell have voted for (`Levels.check`).
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

import structlog

from peer.learner import IdleLearner, InThread, Learner
from peer.rounds.session import NeedsResync, RoundOutcome, Session
from protocols.codecs import Codec
from protocols.identity import PeerId
from protocols.rejection import Reason, Rejected
from protocols.round.aggregate import AggregateMemory
from protocols.round.cells import base_of, first_of_each, heirs_of_each, mates, round_number
from protocols.round.checks import check_done
from protocols.round.electorate import Electorate
from protocols.round.events import Trained
from protocols.round.messages import Contribution, Done, commitment
from protocols.round.order import first
from protocols.round.reduction import EncodedUpdate
from protocols.round.setting import Setting
from protocols.signed import open_signed

log = structlog.get_logger()


class CellLearner(IdleLearner):
    """Has nothing to train: its update is what a cell has come to."""

    def __init__(self, aggregate: EncodedUpdate, samples: int) -> None:
        self._aggregate, self._samples = aggregate, samples

    async def step(self) -> Trained:
        return Trained(self._samples, complete=True, samples_per_second=0.0)

    async def encoded(self, _codec: Codec, _in_thread: InThread, _memory: AggregateMemory) -> tuple[EncodedUpdate, int]:
        return self._aggregate, self._samples


@dataclass(frozen=True)
class CellResult:
    """What our cell's round has come to."""

    outcome: RoundOutcome
    members: Mapping[PeerId, bool]
    """Those of its group, and whether in client mode."""
    learner: CellLearner | None
    """What contributes it; None where we came too late to be able to."""


class Levels:
    def __init__(
        self,
        setting: Setting,
        others: Callable[[], Mapping[PeerId, bool]],
        acquaintances: Collection[PeerId],
        learner: Learner,
        make: Callable[..., Session],
        play: Callable[[Session], Awaitable[RoundOutcome | None]],
        is_over: Callable[[], bool],
    ) -> None:
        """`setting`: as of one level. `others`: the members whose history is ours, and whether in client mode.
        `acquaintances`: who has been among them in earlier epochs; they may come back.

        `make` makes a session of our run, by the names of its arguments; `play` plays it, to None where it was stopped;
        `is_over`: whether we leave, or the run is paused.
        """
        self._setting = replace(setting, state=setting.base)
        self._others, self._learner = others, learner
        self._known_at_first = frozenset(others()) | {setting.me}
        """Who comes later has no say in what was under way …"""
        self._not_made_for_it = self._known_at_first.union(acquaintances)
        """… but that it may represent its cell, where it was there before anybody knew what cell that would be."""
        self._make, self._play, self._is_over = make, play, is_over
        self._cell: Session | None = None
        """Our cell's round, while it is under way."""

    async def run(self) -> RoundOutcome | None:
        """What the swarm has come to; None where we leave before that. Raises NeedsResync."""
        ours = await self._average_in_cell()
        follows = ours is None or ours.learner is None or self._first_heir(ours) != self._setting.me
        while not self._is_over():
            session = self._follow(ours) if follows or ours is None else self._represent(ours)
            outcome = await self._play(session)
            if outcome is not None:
                return self._together(ours, outcome)
            follows = follows and not session.is_asked_to_represent
        return None

    def look_around(self) -> None:
        """Aims at our cell's share by the members that we know now.

        Who starts meets its cell before the others: it would take the cell for half of the swarm, and train for long.
        """
        if self._cell is None:
            return
        others = self._others()
        share = self._share(len(self._mates(others)), len(others))
        if share is not None:
            self._cell.aim(share)

    def believes(self, done: Done) -> bool:
        """Whether most of its members, one of each cell, are known to have our state, and may speak for their cell."""
        setting, heirs = self._setting, set(self._heirs())
        electorate = Electorate(heirs, setting.cells, is_open=False, cell_of=setting.cell_of)
        return electorate.most_in(done.members, heirs) and setting.are_of_different_cells(done.members)

    def check(self, peer: PeerId, contribution: Contribution) -> None:
        """In the second round: that it is what most of the cell of `peer` have voted for.

        Raises Rejected (absent where it is of a group that we do not take for the cell, which may be our fault).
        """
        if not contribution.chunks:
            return
        setting, cell = self._setting, self._setting.cell_of(peer)
        done = open_signed(contribution.cell[0], Done, run=setting.run) if contribution.cell else None
        if done is None or done.epoch != self._number(0) or done.body.base != base_of(setting.state, cell):
            raise Rejected(Reason.UNEXPECTED, "a contribution for a cell shows what the cell has decided")
        check_done(done, len(contribution.chunks))
        for result in done.body.results:
            if commitment(contribution.chunks[result.start : result.stop]) != result.digest:
                raise Rejected(Reason.WRONG_DIGEST, "the contribution is not what its cell has decided")
        known = {known for known in self._known_at_first if setting.cell_of(known) == cell}
        if 2 * len(known.intersection(done.body.members)) < len(known):
            raise Rejected(Reason.ABSENT, "a group without half of its cell cannot speak for it")

    # -- our cell's round ---------------------------------------------------------------------------------------------

    async def _average_in_cell(self) -> CellResult | None:
        session = self._cell = self._of_cell()
        try:
            outcome = await self._play(session)
        except NeedsResync:
            log.debug("what our cell has decided cannot be had", round=session.epoch)
            return None
        finally:
            self._cell = None
        if outcome is None:
            return None
        members = {peer: session.client_mode_of(peer) for peer in outcome.done.body.members}
        made = await session.as_cell(outcome.done)
        return CellResult(outcome, members, CellLearner(*made) if made is not None else None)

    def _of_cell(self) -> Session:
        setting, others = self._setting, self._others()
        fellows = self._mates(others)
        return self._make(
            setting=replace(
                setting,
                epoch=self._number(0),
                base=base_of(setting.state, setting.cell_of(setting.me)),
                target_samples=self._share(len(fellows), len(others)),
            ),
            expected=fellows,
            audience=fellows,
            electorate=None,
            learner=self._learner,
        )

    def _share(self, fellows: int, others: int) -> int | None:
        """The samples that our cell has to come to: as much of all as of all members are in it."""
        target = self._setting.target_samples
        return None if target is None else -(-target * (1 + fellows) // (1 + others))

    # -- the round of cells -------------------------------------------------------------------------------------------

    def _first_heir(self, ours: CellResult) -> PeerId:
        """Who represents our cell, unless it is silent."""
        able = [peer for peer, client_mode in ours.members.items() if not client_mode]
        return first(self._setting.draw, self._number(1), able or ours.members)

    def _heirs(self) -> list[PeerId]:
        """Who may speak for a cell, as far as we know.

        Who is heard of for the first time since the epoch began can have been made for its cell, and has no say: but
        where the run starts, all come while the first epoch is under way.
        """
        setting = self._setting
        here = {**self._others(), setting.me: setting.client_mode}
        if setting.epoch:
            here = {peer: client_mode for peer, client_mode in here.items() if peer in self._not_made_for_it}
        return heirs_of_each(setting.draw, self._number(1), setting.state, setting.cells, here)

    def _represent(self, ours: CellResult) -> Session:
        setting, others = self._setting, self._others()
        fellows = self._mates(others)
        able = [peer for peer, client_mode in others.items() if not client_mode and peer not in fellows]
        others_first = first_of_each(setting.draw, self._number(1), setting.state, setting.cells, able)
        return self._make(
            setting=self._of_cells(follows=False, trains=True),
            expected=dict.fromkeys(others_first, False),
            audience=(),
            electorate=self._heirs(),
            learner=ours.learner,
            followers=[peer for peer in dict.fromkeys([*fellows, *ours.members]) if peer != setting.me],
            check=self.check,
        )

    def _follow(self, ours: CellResult | None) -> Session:
        others = self._others()
        group = ours.members if ours is not None else self._mates(others)
        return self._make(
            setting=self._of_cells(follows=True, trains=ours is not None and ours.learner is not None),
            expected=group,
            audience=(),
            electorate=self._heirs(),
            learner=IdleLearner(),
        )

    def _of_cells(self, *, follows: bool, trains: bool) -> Setting:
        return replace(
            self._setting,
            epoch=self._number(1),
            target_samples=None,
            group_limit=self._setting.cells,
            grace=0.0,
            follows=follows,
            trains=trains,
        )

    def _mates(self, others: Mapping[PeerId, bool]) -> dict[PeerId, bool]:
        """Those of `others` that are in our cell."""
        setting = self._setting
        return {peer: others[peer] for peer in mates(setting.state, setting.cells, setting.me, others)}

    def _number(self, level: int) -> int:
        return round_number(self._setting.epoch, level, self._setting.cells)

    def _together(self, ours: CellResult | None, outcome: RoundOutcome) -> RoundOutcome:
        """What both rounds have been to us, and whether our samples are in it."""
        if ours is None:
            return replace(outcome, weight=0, group=())
        cell_of, first = self._setting.cell_of, ours.outcome
        counted = cell_of(self._setting.me) in map(cell_of, outcome.done.body.members)
        return replace(
            outcome,
            weight=first.weight if counted else 0,
            group=first.group,
            duration_seconds=first.duration_seconds + outcome.duration_seconds,
            bytes_sent=first.bytes_sent + outcome.bytes_sent,
            bytes_received=first.bytes_received + outcome.bytes_received,
            recovered_parts=first.recovered_parts + outcome.recovered_parts,
            missing_senders=first.missing_senders + outcome.missing_senders,
        )
