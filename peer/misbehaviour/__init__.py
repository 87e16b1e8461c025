"""Members that attack on purpose, in a run whose manifest allows it: to see that the others withstand them.

An attack is wrapped around an honest member: around its learner (what it contributes), its transport (what it says and
sends), its rule (what it reduces parts to), or what it computes. The honest code knows nothing of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peer.errors import UsageError
from peer.misbehaviour.equivocation import two_begins, two_commitments, two_results
from peer.misbehaviour.excluding_leader import excluding_leader
from peer.misbehaviour.false_charge import false_charge
from peer.misbehaviour.gossip_attacks import MisbehavingGossipTrainer
from peer.misbehaviour.inflated_samples import inflated_samples
from peer.misbehaviour.model_attacks import FORGERIES, LABEL_FLIP, MODEL_ATTACKS, FlippedLabels, MisbehavingLearner
from peer.misbehaviour.owners import WrongPart, withheld_part
from peer.misbehaviour.pipelines import PIPELINE_ATTACKS, assemble_pipeline
from peer.misbehaviour.strangers_words import forged_sender, replay
from peer.misbehaviour.sybil import SYBIL, Sybil
from peer.participant import Participant
from protocols.manifest import Gossip, Manifest, Pipeline, Training

PROTOCOL_ATTACKS: Mapping[str, Callable[..., Participant]] = {
    "two_commitments": two_commitments,
    "two_begins": two_begins,
    "wrong_part": WrongPart,
    "two_results": two_results,
    "withheld_part": withheld_part,
    "forged_sender": forged_sender,
    "replay": replay,
    "inflated_samples": inflated_samples,
    "excluding_leader": excluding_leader,
    SYBIL: Sybil,
    "false_charge": false_charge,
}
"""Each makes a participant, and takes what `Participant` does."""
ATTACKS_ON_ROUNDS = (*MODEL_ATTACKS, *PROTOCOL_ATTACKS)
"""What a member may do where all hold the whole model, and average it in rounds; by gossip MODEL_ATTACKS alone."""
MISBEHAVIOURS = (*ATTACKS_ON_ROUNDS, *PIPELINE_ATTACKS)


def check_misbehaviour(misbehaviour: str, manifest: Manifest) -> None:
    """Raises UsageError where the run is not to be attacked, or not so."""
    if not manifest.test:
        raise UsageError(f"--misbehave: {manifest.run_id} was not made for tests (test = true in its recipe)")
    what, possible = attacks_on(manifest.training)
    if misbehaviour not in possible:
        raise UsageError(
            f"--misbehave {misbehaviour}: {manifest.run_id} is {what}; choose one of {', '.join(possible)}"
        )


def attacks_on(training: Training) -> tuple[str, Sequence[str]]:
    """What kind of run it is, in words, and how one may be attacked."""
    match training:
        case Pipeline():
            return "a pipeline", tuple(PIPELINE_ATTACKS)
        case Gossip():
            return "a run by gossip", MODEL_ATTACKS
        case _:
            return "a run in rounds", ATTACKS_ON_ROUNDS


def make_participant(misbehaviour: str | None, **given: Any) -> Participant:
    """A participant that misbehaves so; an honest one for None, and for attacks on the model (a learner's)."""
    return PROTOCOL_ATTACKS.get(misbehaviour or "", Participant)(**given)


__all__ = [
    "ATTACKS_ON_ROUNDS",
    "FORGERIES",
    "LABEL_FLIP",
    "MISBEHAVIOURS",
    "MODEL_ATTACKS",
    "PIPELINE_ATTACKS",
    "PROTOCOL_ATTACKS",
    "FlippedLabels",
    "MisbehavingGossipTrainer",
    "MisbehavingLearner",
    "assemble_pipeline",
    "attacks_on",
    "check_misbehaviour",
    "make_participant",
]
