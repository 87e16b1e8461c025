"""Members that attack on purpose, in a run whose manifest allows it: to see that the others withstand them.

An attack is wrapped around an honest member: around its learner (what it contributes), its transport (what it says and
sends), or its rule (what it reduces parts to). The honest code knows nothing of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from peer.misbehaviour.equivocation import two_begins, two_commitments, two_results
from peer.misbehaviour.excluding_leader import excluding_leader
from peer.misbehaviour.false_charge import false_charge
from peer.misbehaviour.inflated_samples import inflated_samples
from peer.misbehaviour.model_attacks import LABEL_FLIP, MODEL_ATTACKS, FlippedLabels, MisbehavingLearner
from peer.misbehaviour.owners import WrongPart, withheld_part
from peer.misbehaviour.strangers_words import forged_sender, replay
from peer.misbehaviour.sybil import SYBIL, Sybil
from peer.participant import Participant

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
MISBEHAVIOURS = (*MODEL_ATTACKS, *PROTOCOL_ATTACKS)


def make_participant(misbehaviour: str | None, **given: Any) -> Participant:
    """A participant that misbehaves so; an honest one for None, and for attacks on the model (a learner's)."""
    return PROTOCOL_ATTACKS.get(misbehaviour or "", Participant)(**given)


__all__ = [
    "LABEL_FLIP",
    "MISBEHAVIOURS",
    "MODEL_ATTACKS",
    "PROTOCOL_ATTACKS",
    "FlippedLabels",
    "MisbehavingLearner",
    "make_participant",
]
