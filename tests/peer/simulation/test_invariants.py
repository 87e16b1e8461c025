"""Each invariant is broken here once, by a member with a mistake or by what it is told, and is found to be broken."""

from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peer.participant import Participant
from peer.simulation import rounds
from peer.simulation.invariants import Violation
from peer.simulation.plan import Plan
from peer.simulation.round_invariants import RoundInvariants
from peer.simulation.scenario import Check
from protocols.identity import PeerId
from protocols.round.messages import Member
from protocols.signed import Signed, Signer
from tests.peer.simulated_swarm import identity
from tests.peer.simulation.scenarios import SMALL, play

ONE, OTHER, THIRD = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


@dataclass
class Stub:
    """As much of a `SimulatedPeer` as the invariants look at."""

    number: int
    queues: tuple[tuple[str, int, int], ...] = ()
    finished: bool = False
    by_reason: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.peer = identity(self.number).peer_id
        self.state = SimpleNamespace(epoch=0)
        self.participant = SimpleNamespace(queues=lambda: self.queues, finished=self.finished)
        self.rejections = SimpleNamespace(by_reason=self.by_reason, words=deque(["a task failed: KeyError"]))


class Watch:
    """Invariants of some stubs that have all started at once."""

    def __init__(self, count: int = 3, check: Check | None = None, plan: Plan | None = None) -> None:
        self.found: list[Violation] = []
        self.peers: list[Any] = [Stub(number) for number in range(count)]
        self.invariants = RoundInvariants(check or Check(), 1, plan or Plan((), (), {}), self.found.append)
        for peer in self.peers:
            self.invariants.started(peer, 0.0)

    def come_to(self, now: float, epoch: int, *states: bytes) -> None:
        for peer, state in zip(self.peers, states, strict=False):
            self.invariants.came_to(peer, epoch, state, now)

    def look(self, now: float) -> list[str]:
        self.invariants.look(self.peers, now, lambda _peer: 0)
        return [violation.what for violation in self.found]


def test_who_keeps_to_another_history_is_found_once_its_time_is_over() -> None:
    watch = Watch(check=Check(agree_within=10.0))
    watch.come_to(1.0, 5, ONE, ONE, OTHER)
    assert watch.look(1.0) == watch.look(11.0) == []
    assert watch.look(11.5) == ["keeps to another history than most, for 10 s"]
    assert watch.found[0].peer == 2


def test_who_has_taken_the_others_history_in_time_is_well() -> None:
    watch = Watch(check=Check(agree_within=10.0))
    watch.come_to(1.0, 5, ONE, ONE, OTHER)
    watch.look(1.0)
    watch.invariants.resynced(watch.peers[2])
    watch.invariants.came_to(watch.peers[2], 5, ONE, 8.0)
    assert watch.look(30.0) == []


def test_a_parted_peer_has_its_time_from_when_it_meets_the_others_again() -> None:
    plan = Plan((), (), {})
    object.__setattr__(plan, "partitions", (SimpleNamespace(begin=0.0, end=50.0),))
    watch = Watch(check=Check(agree_within=10.0), plan=plan)
    watch.come_to(1.0, 5, ONE, ONE, OTHER)
    assert watch.look(49.0) == watch.look(58.0) == []
    assert watch.look(60.0) == ["keeps to another history than most, for 11 s"]


def test_where_nobody_may_differ_the_first_to_do_so_is_found_at_once() -> None:
    watch = Watch(check=Check(agree_within=0.0))
    watch.come_to(1.0, 5, ONE, OTHER)
    assert [violation.what for violation in watch.found] == ["has another state at epoch 5 than others"]


def test_an_epoch_that_goes_backwards_is_found_unless_the_state_was_given_up() -> None:
    watch = Watch()
    watch.come_to(1.0, 5, ONE, ONE)
    watch.invariants.resynced(watch.peers[0])
    watch.come_to(2.0, 4, OTHER)
    assert watch.found == []
    watch.invariants.came_to(watch.peers[1], 4, OTHER, 2.0)
    assert [violation.what for violation in watch.found] == ["went back from epoch 5 to 4"]


def outcome(weight: int, *group: Member) -> Any:
    return SimpleNamespace(weight=weight, group=group)


def member(peer: PeerId, weight: int) -> Member:
    return Member(peer=peer, weight=weight, root=ONE)


def test_samples_that_are_counted_twice_are_found() -> None:
    watch = Watch()
    us, other = watch.peers[0], watch.peers[1]
    watch.invariants.counted(us, 1.0, outcome(20, member(us.peer, 20), member(other.peer, 500)), trained=20)
    assert watch.found == []
    watch.invariants.counted(us, 1.0, outcome(20, member(us.peer, 40)), trained=20)
    watch.invariants.counted(us, 1.0, outcome(30), trained=20)
    watch.invariants.counted(us, 1.0, outcome(20, member(us.peer, 20), member(us.peer, 20)), trained=20)
    assert [violation.what for violation in watch.found] == [
        "40 samples were counted for it, and it has trained on 20",
        "30 samples were counted for it, and it has trained on 20",
        "somebody is named twice in a group, and counted twice",
    ]


def test_who_stands_still_after_the_last_fault_is_found() -> None:
    watch = Watch(check=Check(progress_within=20.0))
    watch.come_to(1.0, 1, ONE, ONE, ONE)
    watch.come_to(18.0, 2, ONE, ONE)
    assert watch.look(21.0) == []
    assert watch.look(22.0) == ["stands still at epoch 0 since 1.0 s"]
    assert watch.found[0].peer == 2


def test_who_takes_the_state_of_one_epoch_again_and_again_stands_still() -> None:
    watch = Watch(count=1, check=Check(progress_within=20.0))
    for now in range(1, 22):
        watch.come_to(float(now), 1, ONE)
        watch.invariants.resynced(watch.peers[0])
    assert watch.look(22.0) == ["stands still at epoch 0 since 1.0 s"]


def test_who_is_at_the_end_may_stand_still() -> None:
    watch = Watch(count=1, check=Check(progress_within=20.0))
    watch.peers[0].participant.finished = True
    assert watch.look(100.0) == []


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"queues": (("sessions", 9, 8),)}, "keeps 9 sessions, of 8 at most"),
        ({"by_reason": Counter(task_failed=1)}, "failed: a task failed: KeyError"),
        ({"by_reason": Counter(handler_failed=1)}, "failed: a task failed: KeyError"),
    ],
)
def test_a_queue_without_bound_and_a_task_that_fails_are_found(wrong: dict[str, Any], what: str) -> None:
    watch = Watch()
    watch.peers[1] = Stub(1, **wrong)
    assert watch.look(1.0) == [what]


# -- members with a mistake -------------------------------------------------------------------------------------------


def play_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faulty: type[Participant], text: str = SMALL) -> str:
    """What is found where all members have that mistake."""
    monkeypatch.setattr(rounds, "participant_maker", lambda _misbehave: faulty)
    violation = play(tmp_path, text).violation
    assert violation is not None
    return violation.what


async def believe(_sender: PeerId, _wire: bytes) -> bytes:
    return b""


class Impostor(Signer):
    @property
    def peer_id(self) -> PeerId:
        return identity(99).peer_id


class SaysItTwice(Participant):
    """Says everything in another's name, to members that believe it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        signer = given["signer"]
        self._conversation._hear = believe  # type: ignore[method-assign]
        self._conversation.outbox._signer = Impostor(signer.identity, signer.run, 1)


def test_a_statement_of_another_that_is_accepted_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    what = play_with(monkeypatch, tmp_path, SaysItTwice)
    assert "a statement was accepted that is none" in what
    assert "not signed by" in what


class Inflated(Participant):
    async def _play_round(self) -> None:
        learner = self.learner
        update = learner.update

        async def twice() -> Any:
            made = await update()
            return made and (made[0], 2 * made[1])

        self.learner.update = twice  # type: ignore[method-assign]
        await super()._play_round()


def test_a_member_that_counts_its_samples_twice_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "samples were counted for it, and it has trained on" in play_with(monkeypatch, tmp_path, Inflated)


class Loner(Participant):
    """Applies something else than the others."""

    def _become(self, state: Any) -> Any:
        if state.epoch:
            slots = dict(state.slots)
            state = type(state)(state.run, state.epoch, state.parameters + float(self.profile.name[-1] == "1"), slots)
        return super()._become(state)


def test_a_member_that_steps_otherwise_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = SMALL + "[check]\nagree_within = 0\n"
    assert "has another state at epoch" in play_with(monkeypatch, tmp_path, Loner, text)


class Broken(Participant):
    async def _play_round(self) -> None:
        raise KeyError("a mistake of ours")


def test_a_member_that_fails_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert play_with(monkeypatch, tmp_path, Broken) == "ended by an error, KeyError: 'a mistake of ours'"


def test_a_run_that_does_not_come_to_its_end_is_found(tmp_path: Path) -> None:
    violation = play(
        tmp_path, SMALL.replace("epochs = 4", "epochs = 400").replace("seconds = 60", "seconds = 8")
    ).violation
    assert violation is not None
    assert violation.what.startswith("has not come to the end of the run, but to epoch ")


@pytest.mark.parametrize("more", ["[[crashes]]\nat = 1\nshare = 1", "joins = 1000", 'role = "monitor"'])
def test_a_run_in_which_nobody_is_left_does_not_pass_for_one_that_has_ended(more: str, tmp_path: Path) -> None:
    text = SMALL.replace("epochs = 4", "epochs = 400").replace("seconds = 60", "seconds = 8")
    violation = play(tmp_path, f"{text}{more}\n").violation
    assert violation is not None
    assert (violation.peer, violation.what) == (None, "nobody honest is there to come to the end of the run")


def test_a_signed_statement_says_who_has_signed_it() -> None:
    statement: Signed[Any] = Signer(identity(1), "small-" + "a" * 26, 1).sign(_standing(), 3)
    from peer.simulation.signatures import flaw

    assert flaw(statement.wire, identity(1).peer_id) is None
    assert flaw(statement.wire, identity(2).peer_id) is not None
    assert flaw(statement.wire[:-1] + b"x", identity(1).peer_id) is not None


def _standing() -> Any:
    from protocols.round.messages import Standing

    return Standing(base=ONE, samples=1)
