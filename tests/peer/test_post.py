"""What it costs to be shown results: the votes of a `Done` are checked once, and of one peer only so many a second."""

from collections import OrderedDict

import pytest

from dht.simulated import SimulatedNetwork, run_simulation
from peer.rounds.post import ROUND_KIND, Inbox
from protocols.encoding import digest
from protocols.rejection import Reason, Rejected
from protocols.round.messages import Done, PartResult, Prepared, Progress, Standing
from protocols.signed import Signer, open_signed
from tests.peer.simulated_swarm import SimulatedSwarm, data_parallel, identity, simulate

RUN, EPOCH, BASE = f"run-{'a' * 26}", 3, digest(b"base")
RESULTS = (PartResult(start=0, stop=1, digest=digest(b"result")),)
MEMBERS = [identity(number) for number in range(3)]
ATTACKER = identity(9)


def done(sequence: int, votes: int = 2) -> bytes:
    """A real majority's votes, shown under a new number each time."""
    vote = Prepared(base=BASE, term=0, results=RESULTS)
    body = Done(
        base=BASE,
        term=0,
        members=tuple(member.peer_id for member in MEMBERS),
        results=RESULTS,
        votes=tuple(Signer(member, RUN, 1).sign(vote, EPOCH).wire for member in MEMBERS[:votes]),
    )
    return Signer(ATTACKER, RUN, sequence).sign(body, EPOCH).wire


class Checks:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr("protocols.signed._opened", OrderedDict())  # what other tests have opened
        monkeypatch.setattr("protocols.signed.verify", self._verify)

    def _verify(self, *_arguments: object) -> bool:
        self.count += 1
        return True


def test_a_done_is_proved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(network: SimulatedNetwork) -> None:
        inbox = Inbox(RUN, 1, network.clock, lambda epoch, base: True, 10)
        wire = done(1)
        checks = Checks(monkeypatch)
        opened = [inbox.open(member.peer_id, wire) for member in MEMBERS for _ in range(10)]
        assert len(set(opened)) == 1
        assert checks.count == 1 + 2

    run_simulation(main, seed=1)


def test_a_done_that_decides_nothing_here_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(network: SimulatedNetwork) -> None:
        asked: list[tuple[int, bytes]] = []
        inbox = Inbox(RUN, 1, network.clock, lambda epoch, base: asked.append((epoch, base)) is not None, 10)
        wire = done(1)
        checks = Checks(monkeypatch)
        inbox.open(ATTACKER.peer_id, wire)
        assert asked == [(EPOCH, BASE)]
        assert checks.count == 1

    run_simulation(main, seed=1)


def test_one_that_shows_ever_new_ones_is_turned_away_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.rounds.post.CHECKS_AT_ONCE", 10)

    async def main(network: SimulatedNetwork) -> None:
        inbox = Inbox(RUN, 1, network.clock, lambda epoch, base: True, 10)
        for sequence in range(5):
            inbox.open(ATTACKER.peer_id, done(sequence))
        with pytest.raises(Rejected) as refused:
            inbox.open(ATTACKER.peer_id, done(6))
        assert refused.value.reason is Reason.BUSY
        inbox.open(MEMBERS[0].peer_id, done(6))

    run_simulation(main, seed=1)


def test_a_forged_one_is_refused_however_often() -> None:
    async def main(network: SimulatedNetwork) -> None:
        inbox = Inbox(RUN, 1, network.clock, lambda epoch, base: True, 10)
        for _ in range(2):
            with pytest.raises(Rejected) as refused:
                inbox.open(ATTACKER.peer_id, done(1, votes=1))
            assert refused.value.reason is Reason.MALFORMED

    run_simulation(main, seed=1)


def test_a_message_is_answered_with_how_it_stands() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(3)
        await swarm.epoch(1)
        target, run = swarm.peers[0], swarm.manifest.run_id
        asker = swarm.network.join(ATTACKER.peer_id)
        await asker.connect(target.peer, target.transport.addresses)
        body = Progress(base=target.state.digest, samples=0, complete=True, client_mode=True, samples_per_second=0.0)
        wire = Signer(ATTACKER, run, 1).sign(body, target.state.epoch).wire
        answer = await asker.request(target.peer, ROUND_KIND, wire, 5.0)
        assert open_signed(answer, Standing, run=run, sender=target.peer).body.base == target.state.digest
        await asker.close()

    simulate(scenario, data_parallel(epochs=40), seed=1)


def test_who_is_refused_for_its_bad_input_is_not_heard_by_its_answers_either() -> None:
    async def scenario(swarm: SimulatedSwarm) -> None:
        await swarm.start_all(2)
        await swarm.epoch(1)
        target = swarm.peers[0]
        session, strangers = target.participant._session, [identity(number) for number in (98, 99)]
        assert session is not None
        for _ in range(100):
            target.transport.reject(strangers[1].peer_id, Reason.MALFORMED, "rubbish")
        for who in strangers:
            standing = Signer(who, swarm.manifest.run_id, 1).sign(Standing(base=target.state.digest, samples=1), 1)
            target.participant._conversation._hear_answer(who.peer_id, standing.wire)
        assert [who.peer_id in session.machine.peers for who in strangers] == [True, False]

    simulate(scenario, data_parallel(epochs=40), seed=1)
