import numpy as np

from peer.data.registry import open_dataset
from peer.demo import demo_manifest
from peer.models.flat import FlatModel, initial_state
from peer.trainer import Trainer
from protocols.codecs import codec
from protocols.identity import Identity
from protocols.optimizers import make_optimizer
from protocols.rules import rule
from protocols.state import advance

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2)]


def test_everybody_has_the_same_demo():
    assert demo_manifest().run_id == demo_manifest().run_id
    assert demo_manifest().run_id.startswith("demo-")


def test_two_peers_that_average_learn_the_demo():
    """The first twenty epochs, in one process: the arithmetic of a round without its messages."""
    manifest = demo_manifest()
    dataset, state = open_dataset(manifest.data), initial_state(manifest)
    trainers = [Trainer(manifest, FlatModel.of(manifest.model), dataset, peer) for peer in PEERS]
    optimizer = make_optimizer(manifest.training.outer, manifest.epochs)
    over_the_wire = codec(manifest.averaging.codec)
    for _ in range(20):
        for trainer in trainers:
            trainer.start_epoch(state)
            while trainer.samples < manifest.training.target_batch // 2:
                trainer.train_microbatch()
        payloads = [over_the_wire.encode(trainer.update()) for trainer in trainers]
        rows = [over_the_wire.decode(payload, state.parameter_count) for payload in payloads]
        aggregate = rule(manifest.averaging.rule).aggregate(rows, [trainer.samples for trainer in trainers])
        state = advance(state, over_the_wire.decode(over_the_wire.encode(aggregate), len(aggregate)), optimizer)
    assert np.isfinite(state.parameters).all()
    assert trainers[0].evaluate(state)["accuracy"] > 0.85
