"""What the organiser directs, in whole participants: it reaches all, wherever it was issued; no state parts by it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dht.interfaces import TimedOut
from dht.wrapped_transport import WrappedTransport
from peer.directives import DIRECTIVES_KIND
from peer.participant import Participant
from peer.view import status_of
from protocols.directives import Ban, Directive, DirectiveLog, Order, Pause, Resume, Set, Sharing
from protocols.identity import Identity, PeerId
from protocols.manifest import Averaging, Manifest, Verification
from protocols.optimizers import make_optimizer
from protocols.records import DirectivesRecord
from protocols.rejection import Reason
from protocols.signed import Signed, Signer
from protocols.state import ModelState
from tests.peer.simulated_swarm import SimulatedPeer, SimulatedSwarm, data_parallel, identity, local_sgd, simulate

ORGANISER = identity(100)
"""Who is not in the swarm, but where a test says so."""
MANIFEST = data_parallel(epochs=30).model_copy(update={"organiser": ORGANISER.peer_id})
RATE = Set(learning_rate=0.02)


def signed(
    number: int, order: Order, epoch: int = 0, *, by: Identity = ORGANISER, of: Manifest = MANIFEST
) -> Signed[Directive]:
    return Signer(by, of.run_id, number).sign(Directive(number=number, order=order), epoch)


def know(peer: SimulatedPeer, *numbers: int) -> bool:
    return tuple(one.body.number for one in peer.participant.directives.log.holding) == numbers


def check_one_history(swarm: SimulatedSwarm) -> None:
    for epoch in range(swarm.manifest.epochs + 1):
        states = {peer.digests[epoch] for peer in swarm.members if epoch in peer.digests}
        assert len(states) <= 1, f"{len(states)} states at epoch {epoch}"


# -- learning rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest_of", [data_parallel, local_sgd])
@pytest.mark.parametrize("seed", range(2))
def test_a_learning_rate_changes_at_one_epoch_everywhere(manifest_of: Callable[..., Manifest], seed: int) -> None:
    manifest = manifest_of(epochs=25).model_copy(update={"organiser": ORGANISER.peer_id})

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(5)
        swarm.peers[0].participant.directives.take(signed(1, RATE, 15, of=manifest).wire)
        await swarm.until(lambda: all(know(peer, 1) for peer in swarm.members), within=5)
        assert all(peer.state.epoch < 15 for peer in swarm.members)
        await swarm.epoch(18)
        joiner = await swarm.start(4)
        await swarm.finish(within=200)
        assert know(joiner, 1)
        check_one_history(swarm)
        assert not any(peer.resyncs for peer in swarm.members)

    simulate(scenario, manifest, seed)


def test_the_new_rate_is_what_the_step_is_taken_with() -> None:
    """One member alone, whose steps can be taken again."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        aggregates: dict[int, tuple[ModelState, np.ndarray]] = {}

        class Recording(Participant):
            def _on(self, outcome: Any) -> None:
                aggregates[self.state.epoch] = (self.state, outcome.aggregate)

            def __init__(self, **given: Any) -> None:
                super().__init__(**given | {"on_round": self._on})

        peer = await swarm.start(0, make=Recording)
        peer.participant.directives.take(signed(1, RATE, 3).wire)
        await swarm.epoch(6)
        for epoch in range(5):
            base, aggregate = aggregates[epoch]
            after, _ = aggregates[epoch + 1]
            outer = MANIFEST.training.outer.model_copy(update={"learning_rate": 0.1 if epoch < 3 else 0.02})
            expected, _ = make_optimizer(outer, MANIFEST.epochs).step(base.parameters, aggregate, base.slots, epoch)
            assert np.array_equal(after.parameters, expected)

    simulate(scenario, MANIFEST)


def test_who_was_cut_off_while_it_was_issued_takes_the_others_state() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(5)
        cut = swarm.peers[3]
        swarm.network.partition([cut.peer])
        at = swarm.peers[0].state.epoch + 12
        swarm.peers[0].participant.directives.take(signed(1, RATE, at).wire)
        await swarm.epoch(at + 5)
        assert not know(cut, 1)
        swarm.network.heal()
        await swarm.until(lambda: cut.resyncs, within=60)
        cut.digests.clear()  # after twice the time until others count as dead it may have gone on alone
        await swarm.finish(within=200)
        assert know(cut, 1)
        assert cut.digests
        check_one_history(swarm)

    simulate(scenario, MANIFEST)


class DeafTransport(WrappedTransport):
    """Nobody gets directives through it, until it hears."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.hears = False

    async def request(self, peer: PeerId, kind: str, body: bytes, timeout_seconds: float) -> bytes:
        if kind == DIRECTIVES_KIND and not self.hears:
            raise TimedOut("deaf")
        return await super().request(peer, kind, body, timeout_seconds)


class Deaf(Participant):
    """In every round, but it does not hear of directives before `listen`."""

    def __init__(self, **given: Any) -> None:
        self.deaf = DeafTransport(given["transport"])
        super().__init__(**(given | {"transport": self.deaf}))

    async def start(self) -> None:
        self.directives.look_up = _nothing  # type: ignore[method-assign]
        await super().start()

    def listen(self) -> None:
        self.deaf.hears = True
        self.directives._news.notify()


async def _nothing() -> None:
    pass


@pytest.mark.parametrize("deaf", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_who_learns_of_a_rate_too_late_ends_with_the_others_state(deaf: int, seed: int) -> None:
    """However many of four: some step otherwise than the others, and the state of the most, or the furthest, stands."""

    async def scenario(swarm: SimulatedSwarm) -> None:
        for number in range(4):
            await swarm.start(number, make=Deaf if number < deaf else Participant)
        await swarm.epoch(5)
        at = swarm.peers[3].state.epoch + 8
        swarm.peers[3].participant.directives.take(signed(1, RATE, at).wire)
        await swarm.epoch(at + 4)
        for number in range(deaf):
            participant = swarm.peers[number].participant
            assert not know(swarm.peers[number], 1)
            assert isinstance(participant, Deaf)
            participant.listen()
        await swarm.finish(within=200)
        assert all(know(peer, 1) for peer in swarm.members)

    simulate(scenario, MANIFEST, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_rate_of_an_epoch_that_is_past_parts_nobody_for_long(seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(5)
        await swarm.epoch(10)
        swarm.peers[0].participant.directives.take(signed(1, RATE, 3).wire)
        await swarm.finish(within=200)

    simulate(scenario, MANIFEST, seed)


@pytest.mark.parametrize("seed", range(2))
def test_an_organiser_that_contradicts_itself_parts_nobody_for_long(seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        await swarm.epoch(5)
        at = swarm.peers[0].state.epoch + 1
        swarm.peers[0].participant.directives.take(signed(1, RATE, at).wire)
        swarm.peers[1].participant.directives.take(signed(1, Set(learning_rate=0.03), at).wire)
        await swarm.finish(within=200)
        for peer in swarm.members:
            assert len(peer.participant.directives.log.contradictions) == 1
        assert len({peer.participant.directives.log.digest for peer in swarm.members}) == 1

    simulate(scenario, MANIFEST, seed)


# -- pause and resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_pause_stops_the_rounds_and_resume_goes_on(late: bool, seed: int) -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4, 0.1)
        await swarm.epoch(5)
        at = swarm.peers[0].state.epoch + (0 if late else 10)
        swarm.peers[0].participant.directives.take(signed(1, Pause(), at).wire)
        await swarm.until(lambda: all(peer.participant.activity == "paused" for peer in swarm.members), within=60)
        reached = [peer.state.epoch for peer in swarm.members]
        assert max(reached) <= at + 1
        if not late:
            assert set(reached) == {at}
        joiner = await swarm.start(4)
        await swarm.network.clock.sleep(20)
        assert [peer.state.epoch for peer in swarm.members][:4] == reached
        assert joiner.participant.activity == "paused"
        status = status_of(joiner.participant, joiner.peer)
        assert (status.run.state, status.self_ and status.self_.state) == ("paused", "paused")
        assert len(status.peers) == 4
        swarm.peers[2].participant.directives.take(signed(2, Resume(), at).wire)
        await swarm.finish(within=200)
        check_one_history(swarm)
        assert all(peer.participant.samples_contributed for peer in swarm.members)

    simulate(scenario, MANIFEST, seed)


def test_nobody_is_taken_for_a_liar_who_starts_a_paused_epoch_anew() -> None:
    """It signs another update of one epoch then, where members look for such contradictions."""
    verification = {
        "averaging": Averaging(rule="median", byzantine=1, quorum=3),
        "verification": Verification(validators=2),
    }

    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(5)
        number = 0
        for epoch in (4, 8, 12):
            await swarm.epoch(epoch)
            await swarm.network.clock.sleep(0.1 * epoch)  # training, committing or averaging
            for order in (Pause(), Resume()):
                number += 1
                directive = signed(number, order, 0, of=swarm.manifest)
                swarm.peers[number % 5].participant.directives.take(directive.wire)
                await swarm.network.clock.sleep(5)
        await swarm.finish(within=300)
        assert not any(peer.participant.company.admission.banned for peer in swarm.members)

    simulate(scenario, MANIFEST.model_copy(update=verification))


def test_who_is_paused_leaves_in_order() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        await swarm.epoch(3)
        swarm.peers[0].participant.directives.take(signed(1, Pause(), 0).wire)
        await swarm.until(lambda: all(peer.participant.activity == "paused" for peer in swarm.members), within=60)
        await swarm.leave(swarm.peers[0])
        assert not len(swarm.peers[1].participant.membership.roster)

    simulate(scenario, MANIFEST)


# -- bans -------------------------------------------------------------------------------------------------------------


def test_a_ban_takes_the_member_out() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(4)
        banned = swarm.peers[3]
        await swarm.epoch(5)
        swarm.peers[0].participant.directives.take(signed(1, Ban(peer=banned.peer, why="sends noise"), 5).wire)
        await swarm.until(lambda: not banned.running, within=30)
        again = await swarm.restart(banned)
        others = [swarm.peers[number] for number in range(3)]
        await swarm.until(lambda: all(peer.participant.finished for peer in others), within=200)
        assert len({peer.state.digest for peer in others}) == 1
        for number in range(3):
            roster = swarm.peers[number].participant.membership.roster
            assert roster.get(again.peer) is None
            assert [one.banned for one in roster.status(0.0) if one.peer_id == again.peer] == ["sends noise"]
        assert again.participant.largest_group <= 1

    simulate(scenario, MANIFEST)


# -- how they get about -----------------------------------------------------------------------------------------------


def test_a_forged_directive_is_refused_and_charged() -> None:
    forger = identity(3)

    async def scenario(swarm: SimulatedSwarm) -> None:
        class Forger(Participant):
            async def start(self) -> None:
                async def forge(_peer: PeerId, _body: bytes) -> bytes:
                    forged = signed(1, Ban(peer=identity(0).peer_id, why="forged"), by=forger)
                    return Sharing(known=(), statements=(forged.wire,)).to_bytes()

                self.directives._answer = forge  # type: ignore[method-assign]
                self.directives.log.digest = bytes(32)
                await super().start()

        await swarm.start_all(3)
        liar = await swarm.start(3, make=Forger)
        await swarm.until(
            lambda: all(swarm.peers[number].rejections.by_peer[liar.peer, Reason.WRONG_SENDER] for number in range(3)),
            within=30,
        )
        assert all(len(swarm.peers[number].participant.directives.log) == 0 for number in range(3))
        wire = signed(1, Pause(), by=forger).wire
        told = Sharing(known=(), statements=(wire,)).to_bytes()
        before = swarm.peers[0].rejections.by_peer[liar.peer, Reason.WRONG_SENDER]
        with pytest.raises(Exception, match="wrong_sender"):
            await liar.transport.request(swarm.peers[0].peer, DIRECTIVES_KIND, told, 5.0)
        assert swarm.peers[0].rejections.by_peer[liar.peer, Reason.WRONG_SENDER] == before + 1
        await swarm.finish(within=200)

    simulate(scenario, MANIFEST)


def test_who_joins_knows_them_though_the_organiser_is_gone() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        swarm.peers[0] = await swarm.start(0)
        organiser = await swarm.start(100)
        await swarm.epoch(2)
        organiser.participant.directives.take(signed(1, RATE, 20).wire)
        await swarm.until(lambda: know(swarm.peers[0], 1), within=10)
        await swarm.leave(organiser)
        joiner = await swarm.start(1)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert know(joiner, 1)
        await swarm.finish(within=200)
        check_one_history(swarm)

    simulate(scenario, MANIFEST)


def test_the_organisers_daemon_publishes_them_for_who_finds_nobody() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        organiser = await swarm.start(100)
        await swarm.epoch(2)
        organiser.participant.directives.take(signed(1, Pause(), 7).wire)
        await swarm.until(lambda: swarm.network.stored(swarm.manifest.run_id, DirectivesRecord.kind), within=5)
        await swarm.crash(organiser)
        alone = await swarm.start(1)
        await swarm.until(lambda: know(alone, 1), within=10)

    simulate(scenario, MANIFEST)


def test_a_full_log_gets_to_a_joiner() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        first = await swarm.start(0)
        why = "x" * 120
        for number in range(1, 301):
            banned = Identity.from_seed(number.to_bytes(32, "big")).peer_id
            first.participant.directives.take(signed(number, Ban(peer=banned, why=why)).wire)
        joiner = await swarm.start(1)
        await swarm.until(lambda: joiner.participant.joined, within=30)
        assert len(joiner.participant.directives.log.bans) == 300

    simulate(scenario, MANIFEST)


def test_what_was_known_is_known_after_a_restart() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        wires = (signed(1, Pause(), 0).wire, signed(1, Pause(), 0, by=identity(5)).wire, b"noise")
        peer = await swarm.start(0, make=lambda **given: Participant(**given, directives=wires))
        await swarm.until(lambda: peer.participant.activity == "paused", within=10)
        assert know(peer, 1)

    simulate(scenario, MANIFEST)


def test_a_run_without_an_organiser_knows_none() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        await swarm.finish(within=60)
        assert swarm.peers[0].participant.directives.log.digest is None
        assert isinstance(swarm.peers[0].participant.directives.log, DirectiveLog)

    simulate(scenario, data_parallel(epochs=5))
