"""What hivemind's and DDP's workers share: our model, our data and the same optimizer, as plain torch."""

import numpy as np
import torch
from tasks import Task

from peer.data.dataset import Dataset
from peer.models.flat import initial_parameters, layout_of, named_parameters
from peer.models.registry import build_module
from peer.models.stages import build_stage, stage_state
from protocols.manifest import Manifest
from protocols.vectors import Vector


def starting_module(manifest: Manifest) -> torch.nn.Module:
    """The run's model with its initial parameters."""
    return _filled(build_module(manifest.model), initial_parameters(manifest))


def starting_stage(manifest: Manifest, stage: int) -> torch.nn.Module:
    """A stage of the run's model with its initial parameters."""
    return _filled(build_stage(manifest, stage), stage_state(manifest, stage).parameters)


def _filled(module: torch.nn.Module, parameters: Vector) -> torch.nn.Module:
    module = module.to_empty(device="cpu")
    values = named_parameters(parameters, layout_of(module))
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values})
    return module


class Microbatches:
    """Random microbatches of one worker."""

    def __init__(self, task: Task, dataset: Dataset, seed: int) -> None:
        self._size, self._dataset = task.batch_size, dataset
        self._random = np.random.default_rng(seed)

    def loss(self, module: torch.nn.Module) -> torch.Tensor:
        indices = self._random.integers(self._dataset.train_size, size=self._size)
        inputs, targets = self._dataset.batch(indices)
        return self._dataset.loss(module(inputs), targets)


def adamw(task: Task, parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=task.learning_rate, weight_decay=0.0)  # type: ignore[arg-type]
