"""What a data set is to the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from protocols.sampling import Indices

Predict = Callable[[Tensor], Tensor]
"""A model: inputs (batch, …) → outputs."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch → their mean loss, a scalar to differentiate.

Raises ValueError when the outputs do not fit the targets.
"""


class DatasetError(ValueError):
    """The data cannot be used; one sentence says which file and why."""


class Dataset(ABC):
    """Training samples by number, the loss, and an evaluation on held-out samples."""

    train_size: int
    """Training samples, numbered 0 … train_size − 1, the same for every peer."""

    @abstractmethod
    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the given training samples, in that order."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar to differentiate."""

    @abstractmethod
    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        """Metrics of `model` over at most `limit` held-out samples, the same ones each time."""
