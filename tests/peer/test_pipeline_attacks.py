"""Members of a pipeline that misbehave: who lies is banned by all, and whatever others do, nothing is lost for it."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from peer.models.stages import join
from peer.swarm.inspector import WRONG_ANSWER
from peer.swarm.server import StageServer
from protocols.identity import PeerId
from protocols.manifest import AdamW, Manifest
from protocols.rejection import Reason
from protocols.round.order import order
from tests.peer.pipeline_swarm import Peer, PipelineSwarm, pipeline, simulate
from tests.peer.simulated_swarm import identity
from tests.peer.test_pipeline import in_one_process

PEERS = 8
RATE = 0.05
MOST_MICROBATCHES = 100
LEARNING = AdamW(learning_rate=0.01)


def checked(stages: int, epochs: int = 200, codec: str = "none", rate: float = RATE, **training: Any) -> Manifest:
    return pipeline(epochs, stages, codec, target_batch=256, optimizer=LEARNING, spot_checks=rate, **training)


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[PeerId, str]]:
    """How many works each peer has done of each task."""
    done: Counter[tuple[PeerId, str]] = Counter()
    handle = StageServer.handle

    async def counted(self: StageServer, trainer: PeerId, delivery: Any, payloads: Any) -> Any:
        answer, payload = await handle(self, trainer, delivery, payloads)
        done[self._transport.peer_id, delivery.work.task] += answer.outcome == "done"
        return answer, payload

    monkeypatch.setattr(StageServer, "handle", counted)
    return done


async def start(swarm: PipelineSwarm, attack: str, *attackers: int, **options: Any) -> tuple[list[Peer], list[Peer]]:
    """Eight peers: those who attack, and the honest ones."""
    stages = swarm.manifest.training.stages
    for number in range(PEERS):
        more = {"misbehaviour": attack, **options} if number in attackers else {}
        await swarm.start(number, stage=number % stages, **more)
    return [swarm.peers[n] for n in attackers], [peer for n, peer in swarm.peers.items() if n not in attackers]


def banned(peer: Peer) -> dict[PeerId, str]:
    return dict(peer.participant.company.admission.banned)


def all_ban(honest: list[Peer], liars: list[Peer]) -> bool:
    return all(banned(peer).keys() >= {liar.transport.peer_id for liar in liars} for peer in honest)


# -- liars ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "codec", "seed"), [(2, "none", 0), (4, "int8", 1)])
@pytest.mark.parametrize(
    ("attack", "task", "liar"), [("wrong_activations", "forward", 0), ("wrong_gradients", "backward", 1)]
)
def test_a_liar_is_banned_by_all_within_100_of_its_microbatches(
    works: Counter[tuple[PeerId, str]], attack: str, task: str, liar: int, stages: int, codec: str, seed: int
) -> None:
    """Also in stages of two, where it is the one's word against the other's."""

    async def scenario(swarm: PipelineSwarm) -> None:
        liars, honest = await start(swarm, attack, liar)
        await swarm.until(lambda: all_ban(honest, liars), within=600)
        assert works[liars[0].transport.peer_id, task] <= MOST_MICROBATCHES
        for peer in honest:
            assert banned(peer) == {liars[0].transport.peer_id: WRONG_ANSWER}

    simulate(scenario, checked(stages, codec=codec), seed)


def test_two_liars_who_say_the_same_are_both_banned() -> None:
    """Of a stage of four half lie, and agree in what they say; the honest go by the stage's state."""

    async def scenario(swarm: PipelineSwarm) -> None:
        liars, honest = await start(swarm, "wrong_activations", 0, 2)
        await swarm.until(lambda: all_ban(honest, liars), within=600)
        assert all(len(banned(peer)) == 2 for peer in honest)

    simulate(scenario, checked(stages=2, rate=0.2))


@pytest.mark.parametrize(("stages", "codec", "seed", "rate"), [(2, "none", 0, 1.0), (4, "int8", 1, 0.25)])
def test_nobody_is_banned_who_works(stages: int, codec: str, seed: int, rate: float) -> None:
    """However much is checked."""

    async def scenario(swarm: PipelineSwarm) -> None:
        _, honest = await start(swarm, "")
        await swarm.finish(within=600)
        assert all(not banned(peer) for peer in honest)
        checks = [peer.pipeline.spot_checks for peer in honest]
        assert sum(each.checked for each in checks) > 100
        assert sum(each.differences for each in checks) == 0

    simulate(scenario, checked(stages, epochs=6, codec=codec, rate=rate), seed)


def test_training_goes_on_where_all_work_is_checked(works: Counter[tuple[PeerId, str]]) -> None:
    """Gradients that wait for a check are crowded out by others; what is done again for that is not checked again."""
    manifest = checked(stages=4, epochs=2, codec="int8", rate=1.0)

    async def scenario(swarm: PipelineSwarm) -> None:
        await start(swarm, "")
        await swarm.finish(within=60)

    simulate(scenario, manifest, seed=1)
    passes = manifest.epochs * manifest.training.microbatches
    backward = sum(count for (_, task), count in works.items() if task == "backward")
    needed = 2 * 3 + 1  # of three stages a second peer does it, too
    assert needed * passes <= backward <= 2 * needed * passes


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_checks_cost_their_share_of_the_work(works: Counter[tuple[PeerId, str]], codec: str) -> None:
    """And what the second peers have computed is not counted: the parameters are those of one process."""
    manifest = checked(stages=2, epochs=6, codec=codec, rate=0.25)

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        await start(swarm, "")
        await swarm.finish(within=600)
        return join(swarm.parameters())

    trained = simulate(scenario, manifest)
    needed = 3 * manifest.epochs * manifest.training.microbatches  # a forward pass, and two backward
    once = manifest.epochs * manifest.training.microbatches  # of which the first stage's backward cannot be checked
    assert sum(works.values()) == pytest.approx(needed + 0.25 * (needed - once), rel=0.1)
    if codec == "none":
        np.testing.assert_allclose(trained, in_one_process(manifest)[-1].parameters, rtol=1e-3, atol=1e-4)


# -- who does nothing, or says what it has not done -------------------------------------------------------------------


def keepers(manifest: Manifest) -> list[int]:
    """In the order in which trainers turn to them."""
    peers = [identity(number).peer_id for number in range(PEERS)]
    return [peers.index(peer) for peer in order(manifest.run_id, 0, peers)]


@pytest.mark.parametrize(
    ("attack", "microbatches"),
    [
        ("nan_answers", 8),
        ("withheld_answers", 8),
        ("false_counts", 8),
        ("hoarded_microbatches", 64),
        ("idle_keeper", 8),
        ("busy_keeper", 8),
    ],
)
def test_nothing_is_lost_or_counted_twice(attack: str, microbatches: int) -> None:
    """Whatever one of eight keeps from the others, the parameters are those of one process."""
    manifest = pipeline(epochs=8, stages=2, target_batch=8 * microbatches)
    keeps = attack.endswith("_keeper")
    attacker = keepers(manifest)[0 if keeps else -1]

    async def scenario(swarm: PipelineSwarm) -> np.ndarray:
        without_work = keeps or attack == "hoarded_microbatches"
        role = {"role": "stage"} if without_work else {}
        attackers, honest = await start(swarm, attack, attacker, **role)
        await swarm.finish(within=200)
        if attack == "nan_answers":
            refused = [peer.rejections.by_peer[attackers[0].transport.peer_id, Reason.NON_FINITE] for peer in honest]
            assert sum(refused) > 0
        return join(swarm.parameters())

    np.testing.assert_allclose(
        simulate(scenario, manifest), in_one_process(manifest)[-1].parameters, rtol=1e-4, atol=1e-5
    )
