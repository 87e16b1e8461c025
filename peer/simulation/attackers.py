"""Dishonest members of a simulation: `peer.misbehaviour` by name, loaded only where a scenario has some."""

from collections.abc import Callable
from functools import partial

from peer.errors import UsageError
from peer.learner import IdleLearner, Learner
from peer.member import Member
from peer.participant import Participant
from peer.recipe_errors import advice
from peer.simulation.scenario import World
from peer.simulation.swarm import SimulatedSwarm
from peer.simulation.training import Training
from protocols.identity import PeerId


def check_misbehaviour(origin: str, world: World, training: Training) -> None:
    """Raises UsageError where a group misbehaves in a way that there is not, or not in this run."""
    for number, group in enumerate(world.peers):
        if group.misbehave is None:
            continue
        from peer.misbehaviour import ATTACKS_ON_ROUNDS, LABEL_FLIP  # noqa: PLC0415

        where = f"{origin}: peers.{number}.misbehave"
        if group.misbehave not in ATTACKS_ON_ROUNDS:
            raise UsageError(f"{where}: there is no {group.misbehave!r}; {advice(group.misbehave, ATTACKS_ON_ROUNDS)}")
        if group.misbehave == LABEL_FLIP and training.flipped is None:
            raise UsageError(f"{where}: a problem has no labels to flip; train a model on digits instead")


def participant_maker(misbehave: str | None) -> Callable[..., Participant]:
    """What makes the participant, of all that `Participant` takes."""
    if misbehave is None:
        return Participant
    from peer.misbehaviour import make_participant  # noqa: PLC0415

    return partial(make_participant, misbehave)


def flips_labels(misbehave: str | None) -> bool:
    return misbehave == "label_flip"


def dishonest(misbehave: str, honest: Learner, peer: PeerId) -> Learner:
    """A learner that attacks the model, for attacks that do."""
    from peer.misbehaviour import LABEL_FLIP, MODEL_ATTACKS, MisbehavingLearner  # noqa: PLC0415

    if misbehave not in MODEL_ATTACKS or misbehave == LABEL_FLIP:
        return honest
    return MisbehavingLearner(honest, misbehave, peer)


async def start_identities_beside(swarm: SimulatedSwarm, first: Member, numbers: range) -> None:
    """The other identities of one that joins under several names; of no other dishonest participant."""
    from peer.misbehaviour.sybil import IDENTITIES, Sybil, another  # noqa: PLC0415

    if isinstance(first, Sybil):
        for number in numbers[:IDENTITIES]:
            await swarm.start(number, make=partial(another, first), learns=lambda *_: IdleLearner())
