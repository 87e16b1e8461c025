"""Forward passes of several trainers that are computed together do not touch each other.

Else who gets one of its own computed beside those of others makes an honest peer sign wrong answers to them, for
which it is banned where works are checked.
"""

import numpy as np
import torch

from dht.clock import SystemClock
from peer.models.stages import stage_state
from peer.swarm.factory import real_compute
from peer.swarm.kept_passes import Passage
from peer.swarm.stage import Order, Stage
from protocols.activations import TensorHeader
from protocols.identity import PeerId
from tests.peer.pipeline_swarm import pipeline

MANIFEST = pipeline(stages=2)
HEADER = TensorHeader(encoding="none", shape=(8, 64))


async def test_one_whose_outputs_are_not_finite_leaves_the_others_as_they_are() -> None:
    stage = Stage(MANIFEST, 0, real_compute(MANIFEST, 0, kept_bytes=0), SystemClock())
    await stage.begin(stage_state(MANIFEST, 0))
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 64), np.float32))
    try:
        honest = Order(Passage(PeerId("honest"), 0, 0, HEADER, b"some"), inputs)
        hostile = Order(Passage(PeerId("hostile"), 0, 1, HEADER, b"others"), torch.full((8, 64), 3e38))
        [alone] = await stage.forward([honest])
        together, zeros = await stage.forward([honest, hostile])
        torch.testing.assert_close(together, alone)
        assert not zeros.any()
    finally:
        await stage.close()
