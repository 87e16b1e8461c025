"""Attacks of a gossiping member on the models of those it meets: it trains, and shows something else."""

from collections import deque

import numpy as np

from peer.gossip.trainer import GossipTrainer, Objective
from peer.misbehaviour.model_attacks import REMEMBERED
from protocols.attacks import Scene, make_attack
from protocols.encoding import digest
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.vectors import Vector


class MisbehavingGossipTrainer(GossipTrainer):
    """Trains and mixes as others do. They get its model as `attack` makes an update: turned round, drifting, …

    An attack that has to know the others' takes its own models of the last exchanges for theirs: they are near.
    """

    def __init__(self, manifest: Manifest, objective: Objective, attack: str, peer: PeerId) -> None:
        super().__init__(manifest, objective)
        self._forge = make_attack(attack)
        self._shown: deque[Vector] = deque(maxlen=REMEMBERED)
        self._random = np.random.default_rng(int.from_bytes(digest(peer.encode())[:8], "big"))

    def parameters(self) -> Vector:
        own = super().parameters()
        self._shown.append(own)
        return self._forge(Scene(own, np.stack(self._shown), 1, self._random))
