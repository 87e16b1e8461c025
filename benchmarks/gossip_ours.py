"""Worker of `gossip_training.py`: one of our gossiping peers, as the daemon trains."""

import time

import uvloop
from our_peer import Prepared, command, our_peer
from reporting import Command, Reports, configuration
from tasks import Task, task_of

from dht.node import Node
from peer.compute_threads import use_threads
from peer.gossip.learner import TrainerGossipLearner
from peer.gossip.model_objective import ModelObjective
from peer.gossip.participant import GossipParticipant
from peer.gossip.trainer import GossipTrainer
from peer.models.flat import FlatModel, initial_state
from protocols.identity import PeerId
from protocols.manifest import AdamW, Averaging, Evaluation, Gossip, Manifest

MOST_STEPS = 20_000


def manifest_of(task: Task, settings: Command) -> Manifest:
    steps = settings["steps"]
    training = Gossip(
        topology="exponential",
        batch_size=task.batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=settings["learning_rate"]),
    )
    return task.manifest(settings["peers"]).model_copy(
        update={
            "training": training,
            "epochs": MOST_STEPS // steps,
            "averaging": Averaging(quorum=settings["peers"], codec="float16"),
            "evaluation": Evaluation(every_epochs=max(1, settings["evaluate_steps"] // steps), samples=1024),
        }
    )


async def serve(settings: Command) -> None:
    use_threads(1)
    reports, task = Reports(), task_of("digits")
    manifest = manifest_of(task, settings)

    def prepare(peer: PeerId, node: Node) -> Prepared:
        objective = ModelObjective(manifest, FlatModel.of(manifest.model), task.dataset(manifest), peer)
        trainer = GossipTrainer(manifest, objective)
        return Prepared(manifest, initial_state(manifest), TrainerGossipLearner(trainer, node.transport.clock))

    async with our_peer(settings, reports, prepare, GossipParticipant) as participant:
        while participant.phase != "training":
            await participant.changed.wait()
        began = time.monotonic()
        while not (task.reached(participant.evaluation) or participant.finished):
            await participant.changed.wait()
        held = time.monotonic()
        steps = participant.samples_contributed // task.batch_size
        exchanges = participant.gossip_status.exchanges
        reports.send(
            "done", began=began, held=held, steps=steps, exchanges=exchanges, evaluation=participant.evaluation
        )
        await command()


if __name__ == "__main__":
    uvloop.run(serve(configuration()))
