"""One of three peers of a stage that lies about what it has counted, or leads nowhere, does not stop the run."""

from collections.abc import Callable
from typing import Any

import pytest

from peer.swarm.stage import Stage
from protocols.identity import PeerId
from protocols.round.events import Send, Trained
from protocols.round.follower import Following
from protocols.round.leader import Leadership
from protocols.round.order import first
from protocols.round.tally import Tally
from protocols.swarm.coverage import everything, from_bytes, to_bytes
from protocols.swarm.messages import Coverage, OpenEpoch
from protocols.vectors import Vector
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity

MANIFEST = pipeline(epochs=100_000, stages=2)
MICROBATCHES = MANIFEST.training.microbatches
FIRST_STAGE = [0, 2, 4]
ITS_TURN = 2
"""An epoch that the liar leads."""
LIAR = next(
    number
    for number in FIRST_STAGE
    if identity(number).peer_id
    == first(MANIFEST.run_id, ITS_TURN, [identity(number).peer_id for number in FIRST_STAGE])
)
ME: PeerId = identity(LIAR).peer_id
WITHIN_SECONDS = 400.0

Lie = Callable[[Peer, pytest.MonkeyPatch], None]


def says_to_trainers_to_have_counted_everything(liar: Peer, _patch: pytest.MonkeyPatch) -> None:
    """And tells its round the truth, so that nobody sees as missing what is."""

    def lie(stage: Stage) -> Coverage:
        counted = [OpenEpoch(epoch=e, covered=to_bytes(everything(MICROBATCHES))) for e in sorted(stage.open_epochs)]
        return Coverage(stage=stage.number, epoch=stage.epoch, counted=tuple(counted))

    liar.pipeline.server.coverage = lie  # type: ignore[method-assign]


def claims_in_its_round_what_others_have_counted(liar: Peer, patch: pytest.MonkeyPatch) -> None:
    """And does not do it again when it is told to."""
    step, update = Stage.step, Stage.update

    async def more(self: Stage) -> Trained:
        report = await step(self)
        if not _is_liars(self):
            return report
        covered = from_bytes(report.covered) | 1
        return Trained(
            covered.bit_count() * 8, covered == everything(MICROBATCHES), report.samples_per_second, to_bytes(covered)
        )

    async def made(self: Stage) -> tuple[Vector, int] | None:
        if not _is_liars(self):
            return await update(self)
        vector, _, covered = await self._summing(lambda: self._gradients.update(self.epoch))
        self.covered = to_bytes(covered | 1)
        return vector, (covered | 1).bit_count() * 8

    liar.pipeline.server.stage.is_liars = True  # type: ignore[union-attr]
    patch.setattr(Stage, "step", more)
    patch.setattr(Stage, "update", made)


def _is_liars(stage: Stage) -> bool:
    return getattr(stage, "is_liars", False)


def is_never_ready(_liar: Peer, patch: pytest.MonkeyPatch) -> None:
    """With what it says to have counted; it only says that it lives."""
    say = Following.say_ready
    patch.setattr(Following, "say_ready", lambda self: [] if self._setting.me == ME else say(self))


def never_closes_an_epoch(_liar: Peer, patch: pytest.MonkeyPatch) -> None:
    """That it leads; it only says how far it is."""
    enough = Tally.is_enough
    patch.setattr(Tally, "is_enough", lambda self, *given: self._setting.me != ME and enough(self, *given))


def never_begins_a_round(_liar: Peer, patch: pytest.MonkeyPatch) -> None:
    """That it leads; it only asks the others to wait."""
    begin = Leadership._begin_when_ready
    patch.setattr(
        Leadership, "_begin_when_ready", lambda self, *given: [] if self._setting.me == ME else begin(self, *given)
    )


def refuses_what_all_have_counted(liar: Peer, patch: pytest.MonkeyPatch) -> None:
    """When it leads: they throw it away, and say truly that they have counted nothing. Nor does it close the epoch."""
    never_closes_an_epoch(liar, patch)
    say = Tally.standings

    def refuse(self: Tally, *given: Any) -> list[Send]:
        said = say(self, *given)
        if self._setting.me != ME:
            return said
        return [
            Send(each.to, each.body.model_copy(update={"refused": self.know(each.to).covered}))  # type: ignore[attr-defined]
            for each in said
        ]

    patch.setattr(Tally, "standings", refuse)


LIES = [
    says_to_trainers_to_have_counted_everything,
    claims_in_its_round_what_others_have_counted,
    is_never_ready,
    never_closes_an_epoch,
    never_begins_a_round,
    refuses_what_all_have_counted,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_the_run_goes_on_beside_who(lie: Lie, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(swarm: PipelineSwarm) -> None:
        for number in range(6):
            await swarm.start(number, stage=number % 2, role="stage" if number == LIAR else "both")
        liar = swarm.peers[LIAR]
        honest = [peer for peer in swarm.peers.values() if peer is not liar]
        await swarm.until(lambda: all(peer.state.epoch > 0 for peer in swarm.peers.values()), within=60)
        assert max(peer.state.epoch for peer in honest) <= ITS_TURN
        lie(liar, monkeypatch)
        await swarm.until(lambda: all(peer.state.epoch >= ITS_TURN + 3 for peer in honest), WITHIN_SECONDS)
        states = {(peer.stage, peer.state.epoch, peer.state.digest) for peer in honest}
        assert len(states) == len({(stage, epoch) for stage, epoch, _ in states})

    simulate(scenario, MANIFEST)


def test_who_is_found_lying_costs_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is suspended; what it has counted is then nobody's concern from the start."""

    async def scenario(swarm: PipelineSwarm) -> list[float]:
        for number in range(6):
            await swarm.start(number, stage=number % 2, role="stage" if number == LIAR else "both")
        liar = swarm.peers[LIAR]
        honest = [peer for peer in swarm.peers.values() if peer is not liar]
        is_never_ready(liar, monkeypatch)
        clock, took = swarm.network.clock, list[float]()
        for goal in (15, 30, 45):
            began = clock.monotonic()
            await swarm.until(lambda goal=goal: all(peer.state.epoch >= goal for peer in honest), within=1000)
            took.append(clock.monotonic() - began)
        return took

    early, _, late = simulate(scenario, MANIFEST)
    assert late < early / 3, (early, late)
