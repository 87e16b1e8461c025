"""Gradients wait until their trainer has them counted; so many of all, and those of who has most give way."""

import numpy as np

from peer.swarm.gradients import MOST_WAITING, Gradients
from protocols.identity import PeerId
from protocols.swarm.coverage import everything
from protocols.vectors import Vector

MICROBATCHES = 64
HONEST, HOSTILE = PeerId("honest"), PeerId("hostile")
GRADIENT: Vector = np.ones(4, np.float32)


def opened() -> Gradients:
    gradients = Gradients(len(GRADIENT), batch_size=1, microbatches=MICROBATCHES)
    gradients.open(range(1))
    return gradients


def test_who_has_nothing_counted_crowds_out_nobody_else() -> None:
    gradients = opened()
    gradients.offer(0, 0, HONEST, GRADIENT)
    for number in range(1, MICROBATCHES):
        gradients.offer(0, number, HOSTILE, GRADIENT)
    assert gradients.count(0, 1, HONEST) == 1


def test_of_one_trainer_the_oldest_gives_way() -> None:
    gradients = opened()
    for number in range(MICROBATCHES):
        gradients.offer(0, number, HONEST, GRADIENT)
    newest = everything(MICROBATCHES) ^ everything(MICROBATCHES - MOST_WAITING)
    assert gradients.count(0, everything(MICROBATCHES), HONEST) == newest
