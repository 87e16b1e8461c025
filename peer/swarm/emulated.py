"""A stage that waits instead of computing, for tests of everything around it on machines with few cores."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from peer.models.stages import build_stage, parameter_count
from peer.swarm.compute import Backward, Forgotten
from peer.swarm.kept_passes import Passage
from protocols.manifest import Manifest, Pipeline
from protocols.vectors import Vector, read_only

FORWARD_SHARE = 1 / 3
"""Of a microbatch's time; the backward pass computes the forward pass once more."""


class EmulatedCompute:
    """Gives zeros after as long as a microbatch takes; training has no forward pass by itself on the last stage."""

    def __init__(
        self, manifest: Manifest, stage: int, seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`seconds`: of a microbatch, forward and backward."""
        assert isinstance(manifest.training, Pipeline)
        self._seconds, self._sleep = seconds, sleep
        self._batch_size = manifest.training.batch_size
        self._first = stage == 0
        self._module = build_stage(manifest, stage)
        """Without memory: it says what shapes its outputs have."""
        self._shapes: dict[torch.Size, torch.Size] = {}
        self._gradient = read_only(torch.zeros(parameter_count(manifest, stage)).numpy())

    @property
    def keeps(self) -> bool:
        return False

    def has_kept(self, passage: Passage) -> bool:
        return False

    def forward(self, parameters: Vector, inputs: Tensor, passage: Passage | None = None) -> Tensor:
        self._sleep(self._seconds * FORWARD_SHARE * len(inputs) / self._batch_size)
        if inputs.shape not in self._shapes:
            self._shapes[inputs.shape] = self._module(inputs.to("meta")).shape
        return torch.zeros(self._shapes[inputs.shape])

    def backward(
        self, parameters: Vector, inputs: Tensor | None, grad_outputs: Tensor, passage: Passage | None = None
    ) -> Backward:
        if inputs is None:
            raise Forgotten
        return self._waited(inputs)

    def backward_from_loss(self, parameters: Vector, inputs: Tensor, targets: Tensor) -> Backward:
        return self._waited(inputs, 0.0)

    def _waited(self, inputs: Tensor, loss: float | None = None) -> Backward:
        self._sleep(self._seconds * (1 - FORWARD_SHARE))
        grad_inputs = None if self._first else torch.zeros_like(inputs)
        return Backward(grad_inputs, self._gradient, loss, finite=True)
