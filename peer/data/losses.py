"""Losses that need no data set: in a pipeline the last stage measures what others have read.

Both are means over the batch, and raise ValueError when the outputs do not fit the targets.
"""

from torch import Tensor
from torch.nn import functional


def label_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of logits (…, classes) and labels (…)."""
    if outputs.shape[:-1] != targets.shape:
        raise ValueError(f"its outputs {tuple(outputs.shape)} are not logits for targets {tuple(targets.shape)}")
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def check_classes(outputs: Tensor, largest_label: int) -> None:
    """Raises ValueError when the logits (…, classes) are of too few classes for the labels of a data set."""
    if outputs.shape[-1] <= largest_label:
        raise ValueError(f"it tells {outputs.shape[-1]} classes apart, and the labels go to {largest_label}")


def value_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of as many outputs as targets."""
    if outputs.numel() != targets.numel():
        raise ValueError(f"its outputs {tuple(outputs.shape)} are not as many as the targets")
    return functional.mse_loss(outputs.reshape(targets.shape), targets)


def array_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whole numbers are labels, others values."""
    return value_loss(outputs, targets) if targets.is_floating_point() else label_loss(outputs, targets)
