"""Which attacks fit which run, and what who asks for another is told."""

import pytest

from peer.errors import PeerError
from peer.misbehaviour import ATTACKS_ON_ROUNDS, MISBEHAVIOURS, MODEL_ATTACKS, PIPELINE_ATTACKS, check_misbehaviour
from protocols.manifest import DataParallel, Gossip, Manifest, Sgd
from tests.peer.pipeline_swarm import pipeline

SGD = Sgd(learning_rate=0.1)
STAGES = pipeline().model_copy(update={"test": True})
ROUNDS = STAGES.model_copy(update={"training": DataParallel(batch_size=8, target_batch=64, optimizer=SGD)})
GOSSIP = STAGES.model_copy(update={"training": Gossip(batch_size=8, optimizer=SGD)})


def allowed(manifest: Manifest) -> set[str]:
    def fits(attack: str) -> bool:
        try:
            check_misbehaviour(attack, manifest)
        except PeerError:
            return False
        return True

    return set(filter(fits, MISBEHAVIOURS))


def test_each_run_has_its_attacks() -> None:
    assert allowed(STAGES) == set(PIPELINE_ATTACKS)
    assert allowed(ROUNDS) == set(ATTACKS_ON_ROUNDS)
    assert allowed(GOSSIP) == set(MODEL_ATTACKS)


def test_no_run_has_any_that_was_not_made_for_tests() -> None:
    for manifest in (STAGES, ROUNDS, GOSSIP):
        assert allowed(manifest.model_copy(update={"test": False})) == set()


@pytest.mark.parametrize(
    ("manifest", "attack", "told"),
    [
        (STAGES, "sign_flip", f"{STAGES.run_id} is a pipeline; choose one of wrong_activations, wrong_gradients, "),
        (ROUNDS, "false_counts", f"{ROUNDS.run_id} is a run in rounds; choose one of label_flip, sign_flip, "),
        (GOSSIP, "two_begins", f"{GOSSIP.run_id} is a run by gossip; choose one of label_flip, sign_flip, "),
    ],
)
def test_who_asks_for_another_attack_is_told_what_there_is(manifest: Manifest, attack: str, told: str) -> None:
    with pytest.raises(PeerError) as error:
        check_misbehaviour(attack, manifest)
    assert str(error.value).startswith(f"--misbehave {attack}: {told}")
