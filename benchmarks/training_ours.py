"""Worker of `training.py`: one of our peers, as the daemon trains."""

import time

import uvloop
from our_peer import Prepared, command, in_rounds, our_peer
from reporting import Command, Reports, configuration
from tasks import task_of

from dht.node import Node
from peer.compute_threads import use_threads
from peer.learner import TrainerLearner
from peer.models.flat import FlatModel, initial_state
from peer.participant import Participant
from peer.trainer import Trainer
from protocols.identity import PeerId


async def serve(settings: Command) -> None:
    use_threads(1)
    reports, task = Reports(), task_of(settings["task"], settings["target_batch"])
    manifest = task.manifest(settings["peers"], settings["mode"])

    def prepare(peer: PeerId, node: Node) -> Prepared:
        trainer = Trainer(manifest, FlatModel.of(manifest.model), task.dataset(manifest), peer)
        return Prepared(manifest, initial_state(manifest), TrainerLearner(trainer, node.transport.clock))

    async with our_peer(settings, reports, prepare, in_rounds(settings, Participant)) as participant:
        began = time.monotonic()
        while not (task.reached(participant.evaluation) or participant.finished):
            await participant.changed.wait()
        held = time.monotonic()
        reports.send(
            "done", began=began, held=held, epochs=participant.evaluated_epoch, evaluation=participant.evaluation
        )
        await command()


if __name__ == "__main__":
    uvloop.run(serve(configuration()))
