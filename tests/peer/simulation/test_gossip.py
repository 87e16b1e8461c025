"""Simulations of runs without rounds: what is reported, and that each invariant is found to be broken where it is."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from peer.errors import UsageError
from peer.gossip import exchanges, models
from peer.gossip.participant import GossipParticipant
from peer.simulation.gossip import GossipSimulation
from peer.simulation.gossip_invariants import GossipInvariants
from peer.simulation.gossip_learner import PacedGossipLearner
from peer.simulation.invariants import Violation
from peer.simulation.plan import Plan
from peer.simulation.scenario import Check
from protocols.signed import Signed, _envelope
from tests.peer.simulated_swarm import identity
from tests.peer.simulation.scenarios import play
from tests.peer.simulation.test_invariants import Impostor, Stub

GOSSIP = """
name = "small"
epochs = 40
seconds = 60
problem = { kind = "quadratic", parameters = 64 }

[training]
protocol = "gossip"
batch_size = 10
steps = 2
optimizer = { algorithm = "sgd", learning_rate = 0.1, final_learning_rate = 0.0 }

[[peers]]
name = "all"
count = 4
latency = 0.005
samples_per_second = [100, 200]
"""


def test_models_come_together_and_the_report_says_how_far(tmp_path: Path) -> None:
    report = play(tmp_path, GOSSIP + "[check]\nconsensus = 0.5\n")
    assert report.violation is None
    assert report.finished
    assert report.evaluation["distance"] < 1
    assert report.gossip is not None
    assert 0 < report.gossip.consensus_distance < 0.5 * report.gossip.largest_consensus_distance
    assert report.gossip.exchanges > 4 * 10
    assert 0 < report.samples <= 4 * 40 * 20
    assert report.accepted > 4 * report.gossip.exchanges / 2, "four statements are accepted in an exchange"


ATTACKED = (
    GOSSIP.replace("count = 4", "count = 5")
    + """
[[peers]]
name = "evil"
count = 1
latency = 0.005
misbehave = "sign_flip"
"""
)


def test_who_shows_another_model_is_withstood_by_a_rule_alone(tmp_path: Path) -> None:
    mixing = 'topology = "regular"\ndegree = 4\nmixing = "rule"\n\n'
    robust = mixing + '[averaging]\nrule = "median"\nbyzantine = 1\nquorum = 3\n\n'
    withstood = play(tmp_path, ATTACKED.replace("[[peers]]", robust + "[[peers]]", 1)).evaluation["distance"]
    suffered = play(tmp_path, ATTACKED).evaluation["distance"]
    assert withstood < 0.7
    assert suffered > 100 * withstood


def test_there_are_no_attacks_on_rounds_without_rounds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"peers\.1\.misbehave: there is no 'replay' in a run by gossip; choose"):
        play(tmp_path, ATTACKED.replace("sign_flip", "replay"))


def test_equal_seeds_give_equal_traces(tmp_path: Path) -> None:
    assert play(tmp_path, GOSSIP, seed=3).trace == play(tmp_path, GOSSIP, seed=3).trace
    assert play(tmp_path, GOSSIP, seed=3).trace != play(tmp_path, GOSSIP, seed=4).trace


@pytest.mark.parametrize(
    "more",
    [
        'topology = "ring"',
        'topology = "regular"\ndegree = 3\nmixing = "clipped"',
        "merges_at_end = false",
        "corrects_variance = true",
    ],
)
def test_every_way_to_mix_can_be_simulated(tmp_path: Path, more: str) -> None:
    report = play(tmp_path, GOSSIP.replace("steps = 2", f"steps = 2\n{more}"))
    assert report.violation is None
    assert report.finished


def test_a_real_model_is_mixed(tmp_path: Path) -> None:
    model = 'model = { architecture = "mlp", options = { inputs = 64, width = 32 } }\ndata = { dataset = "digits" }'
    text = GOSSIP.replace('problem = { kind = "quadratic", parameters = 64 }', model).replace("count = 4", "count = 3")
    report = play(tmp_path, text.replace('"sgd", learning_rate = 0.1', '"adamw", learning_rate = 0.02'))
    assert report.violation is None
    assert report.evaluation["accuracy"] > 0.5


# -- what must hold ---------------------------------------------------------------------------------------------------


class Watch:
    """Invariants of peers whose models are these numbers."""

    def __init__(self, check: Check) -> None:
        self.found: list[Violation] = []
        self.invariants = GossipInvariants(check, 1, Plan((), (), {}), self.found.append)
        self.peers: list[Any] = [Stub(number) for number in range(3)]
        for peer in self.peers:
            learner = object.__new__(PacedGossipLearner)
            learner._trainer = SimpleNamespace(model=np.zeros(2, np.float32))  # type: ignore[assignment]
            learner.samples = 100
            peer.participant.learner, peer.participant.joined = learner, True

    def models(self, *models: float) -> float | None:
        for peer, model in zip(self.peers, models, strict=True):
            peer.participant.learner._trainer.model[:] = model
        return self.invariants.consensus(self.peers)


def test_the_consensus_distance_is_that_of_the_models_from_their_mean() -> None:
    watch = Watch(Check())
    assert watch.models(1, 1, 1) == 0
    assert watch.models(0, 3, 6) == pytest.approx(np.sqrt(2 * (9 + 0 + 9) / 3))


def test_models_that_stay_apart_are_found() -> None:
    watch = Watch(Check(consensus=0.5))
    watch.models(0, 0, 30)
    watch.models(0, 0, 15)
    watch.invariants.concluded(9.0)
    assert watch.found == []
    watch.models(0, 16, 0)
    watch.invariants.concluded(9.0)
    assert [violation.peer for violation in watch.found] == [1]
    assert "is far from the others' models" in watch.found[0].what


def test_models_count_until_somebody_is_at_the_end() -> None:
    watch = Watch(Check(consensus=0.5))
    watch.models(0, 0, 30)
    watch.models(0, 0, 1)
    watch.peers[0].participant.finished = True
    assert watch.models(0, 0, 100) is None
    watch.invariants.concluded(9.0)
    assert watch.found == []


def test_samples_that_were_not_trained_on_are_found() -> None:
    watch = Watch(Check())
    watch.invariants.counted(watch.peers[0], 1.0, 100)
    assert watch.found == []
    watch.invariants.counted(watch.peers[0], 1.0, 101)
    assert [violation.what for violation in watch.found] == [
        "101 samples were counted for it, and it has trained on 100"
    ]


class InAnothersName(GossipParticipant):
    """Sends its models in the name of somebody else."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        signer = given["signer"]
        self.exchanges._signer = Impostor(identity(99), signer.run, 1)


class Halting(GossipParticipant):
    async def _train_epoch(self) -> None:
        if self.epoch == 10:
            await self._leaving.wait()
        await super()._train_epoch()


def found_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faulty: Callable[..., GossipParticipant], check: str = ""
) -> str:
    def make(on_round: object, **given: Any) -> GossipParticipant:
        return faulty(**given)

    monkeypatch.setattr(GossipSimulation, "_participant_maker", lambda *_: make)
    violation = play(tmp_path, GOSSIP + check).violation
    assert violation is not None
    return violation.what


def believing(wire: bytes, body_type: Any, *, run: str, sender: str) -> Signed[Any]:
    """Opens a statement whoever has signed it."""
    _, signer, _, epoch, sequence, body, _ = _envelope(wire)
    return Signed(run, signer, epoch, sequence, body_type.from_bytes(body), wire)


def test_a_model_of_another_that_is_accepted_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models, "open_signed", believing)
    monkeypatch.setattr(exchanges, "open_signed", believing)
    assert " was accepted from " in found_with(monkeypatch, tmp_path, InAnothersName)


def test_a_member_that_stands_still_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    what = found_with(monkeypatch, tmp_path, Halting, "[check]\nprogress_within = 5\n")
    assert what.startswith("stands still at epoch ")
