"""Dishonest members of a simulation: `peer.misbehaviour` by name, loaded only where a scenario has some."""

from collections.abc import Callable
from functools import partial

from peer.errors import UsageError
from peer.gossip.trainer import GossipTrainer, Objective
from peer.learner import IdleLearner, Learner
from peer.member import Member
from peer.participant import Participant
from peer.recipe_errors import advice
from peer.simulation.scenario import World
from peer.simulation.swarm import SimulatedSwarm
from peer.simulation.training import Training
from protocols.identity import PeerId
from protocols.manifest import Manifest


def check_misbehaviour(origin: str, world: World, manifest: Manifest, training: Training) -> None:
    """Raises UsageError where a group misbehaves in a way that there is not, or not in this run."""
    for number, group in enumerate(world.peers):
        if group.misbehave is None:
            continue
        from peer.misbehaviour import LABEL_FLIP, MISBEHAVIOURS, attacks_on  # noqa: PLC0415

        where = f"{origin}: peers.{number}.misbehave"
        what, possible = attacks_on(manifest.training)
        if group.misbehave not in possible:
            known = group.misbehave in MISBEHAVIOURS
            hint = f"choose one of {', '.join(possible)}" if known else advice(group.misbehave, possible)
            raise UsageError(f"{where}: there is no {group.misbehave!r} in {what}; {hint}")
        if group.misbehave == LABEL_FLIP and training.flipped is None:
            raise UsageError(f"{where}: a problem has no labels to flip; train a model on digits instead")


def participant_maker(misbehave: str | None) -> Callable[..., Participant]:
    """What makes the participant, of all that `Participant` takes."""
    if misbehave is None:
        return Participant
    from peer.misbehaviour import make_participant  # noqa: PLC0415

    return partial(make_participant, misbehave)


def data_of(misbehave: str | None, training: Training) -> Training:
    """What a peer trains on that misbehaves so."""
    if misbehave is None or training.flipped is None:
        return training
    from peer.misbehaviour import LABEL_FLIP  # noqa: PLC0415

    return training.flipped() if misbehave == LABEL_FLIP else training


def learner_of(misbehave: str | None, honest: Learner, peer: PeerId) -> Learner:
    """One that attacks the model, for attacks that do; else `honest`."""
    if misbehave is None:
        return honest
    from peer.misbehaviour import FORGERIES, MisbehavingLearner  # noqa: PLC0415

    return MisbehavingLearner(honest, misbehave, peer) if misbehave in FORGERIES else honest


def gossip_trainer(misbehave: str | None, manifest: Manifest, objective: Objective, peer: PeerId) -> GossipTrainer:
    if misbehave is None:
        return GossipTrainer(manifest, objective)
    from peer.misbehaviour import FORGERIES, MisbehavingGossipTrainer  # noqa: PLC0415

    if misbehave not in FORGERIES:
        return GossipTrainer(manifest, objective)
    return MisbehavingGossipTrainer(manifest, objective, misbehave, peer)


async def start_identities_beside(swarm: SimulatedSwarm, first: Member, numbers: range) -> None:
    """The other identities of one that joins under several names; of no other dishonest participant."""
    from peer.misbehaviour.sybil import IDENTITIES, Sybil, another  # noqa: PLC0415

    if isinstance(first, Sybil):
        for number in numbers[:IDENTITIES]:
            await swarm.start(number, make=partial(another, first), learns=lambda *_: IdleLearner())
