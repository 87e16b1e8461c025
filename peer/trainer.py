"""Local training between two rounds: microbatches in, one update out.

Blocking, for a worker thread; one call at a time. What a peer trains on follows from (run, epoch, peer) alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peer.data.dataset import Dataset
from peer.models.flat import FlatModel
from protocols.identity import PeerId
from protocols.manifest import AdamW, DataParallel, LocalSgd, Manifest, Sgd
from protocols.optimizers import learning_rate
from protocols.sampling import Indices, sample_indices
from protocols.state import ModelState
from protocols.vectors import Vector, all_finite


@dataclass(frozen=True, slots=True)
class StepReport:
    """One microbatch: how many samples it added to the update (0 when it was dropped), and its mean loss."""

    samples: int
    loss: float


class Trainer:
    """Makes one peer's update for an epoch.

    data_parallel: the gradient at the epoch's parameters, averaged over the samples (DeDLOC, Diskin et al. 2021).
    local_sgd: the parameters before minus those after `inner_steps` of the inner optimizer, whose state stays with
    the peer from epoch to epoch (DiLoCo, Douillard et al. 2023); where members check each other it starts anew with
    each epoch, so that an update follows from the epoch's state alone.

    A microbatch whose loss or gradient is not finite is dropped: it adds no samples, and `dropped` counts it.
    """

    def __init__(self, manifest: Manifest, model: FlatModel, dataset: Dataset, peer_id: PeerId) -> None:
        self._manifest = manifest
        self._training = manifest.training
        self._run = manifest.run_id
        self._model = model
        self._dataset = dataset
        self._peer_id = peer_id
        self._epoch = 0
        self._microbatches = 0
        self._start: Vector = np.zeros(0, np.float32)
        self._gradient_sum: Tensor | None = None
        self._inner: torch.optim.Optimizer | None = None
        self.samples = 0
        """Behind the update of this epoch."""
        self.dropped = 0
        """Microbatches, in all epochs."""

    @property
    def complete(self) -> bool:
        """Whether the peer has done all it may do in this epoch."""
        if isinstance(self._training, LocalSgd):
            return self._microbatches >= self._training.inner_steps
        return self.samples >= self._training.most_samples

    def start_epoch(self, state: ModelState) -> None:
        """Takes on `state` and forgets what the last epoch has gathered."""
        self._epoch = state.epoch
        self._start = state.parameters
        self._model.load(state.parameters)
        self._microbatches = self.samples = 0
        if isinstance(self._training, DataParallel):
            self._gradient_sum = torch.zeros(self._model.parameter_count)
        elif isinstance(self._training, LocalSgd):
            if self._inner is None or self._manifest.verification.validators:
                self._inner = _torch_optimizer(self._training.inner, self._model.parameters)
            rate = learning_rate(self._training.inner, state.epoch, self._manifest.epochs)
            for group in self._inner.param_groups:
                group["lr"] = rate

    def train_microbatch(self) -> StepReport:
        """Trains on the next microbatch of this peer."""
        size = self._training.batch_size
        indices = sample_indices(
            self._run,
            self._epoch,
            self._peer_id,
            start=self._microbatches * size,
            count=size,
            population=self._dataset.train_size,
        )
        self._microbatches += 1
        loss = compute_gradient(self._model, self._dataset, indices)
        if loss is None:
            self.dropped += 1
            return StepReport(0, float("nan"))
        if self._inner is not None:
            self._inner.step()
        else:
            assert self._gradient_sum is not None
            self._gradient_sum.add_(self._model.gradient, alpha=size)
        self.samples += size
        return StepReport(size, loss)

    def update(self) -> Vector:
        """This epoch's update; it stands for `samples` samples, and is zero when there are none.

        It is the caller's own from now on, and the epoch has no second one. Should it have run away to infinity, its
        microbatches count as dropped and `samples` becomes 0.
        """
        if isinstance(self._training, DataParallel):
            assert self._gradient_sum is not None
            update: Vector = self._gradient_sum.div_(max(1, self.samples)).numpy()
            self._gradient_sum = None
        else:
            update = self._model.store()
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(self._start, update, out=update)
        if not all_finite(update):
            self.dropped += self.samples // self._training.batch_size
            self.samples = 0
            update.fill(0)
        return update

    def evaluate(self, state: ModelState) -> dict[str, float]:
        """The data set's metrics for `state`; training goes on afterwards where it was."""
        training = self._model.store()
        self._model.load(state.parameters)
        try:
            return self._dataset.evaluate(self._model, self._manifest.evaluation.samples)
        finally:
            self._model.load(training)


def compute_gradient(model: FlatModel, dataset: Dataset, indices: Indices) -> float | None:
    """Fills the model's gradient with that of these samples; their mean loss, None when either is not finite."""
    inputs, targets = dataset.batch(indices)
    model.clear_gradient()
    loss = dataset.loss(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item() if torch.isfinite(loss) and all_finite(model.gradient.numpy()) else None


def _torch_optimizer(spec: Sgd | AdamW, parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
    if isinstance(spec, Sgd):
        return torch.optim.SGD(
            [parameters],
            lr=spec.learning_rate,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    return torch.optim.AdamW(
        [parameters],
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
    )
