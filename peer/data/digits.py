"""The UCI handwritten digits that come with scikit-learn: 1797 images of 8 × 8 pixels (Alpaydin & Kaynak 1998)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from peer.data.dataset import Dataset, DatasetError, Predict
from peer.data.losses import check_classes, label_loss
from peer.data.registry import DatasetKind
from peer.plugins import PluginOptions
from protocols.encoding import digest
from protocols.manifest import Shard
from protocols.sampling import Indices


class Options(PluginOptions):
    """None."""


LARGEST_LABEL = 9
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
"""Pixels down and right by which each training image is moved; what moves in is blank."""


class Digits(Dataset):
    """Inputs (batch, 1, 8, 8) in 0 … 1, targets 0 … 9; a fifth is held out, chosen by the hash of its pixels.

    Every training image counts as five samples: as it is, and moved by one pixel in each direction.
    """

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # noqa: PLC0415  (takes a second, and only this data set needs it)

        bunch = load_digits()
        images = torch.from_numpy((bunch.images / 16).astype(np.float32)).unsqueeze(1)
        labels = torch.from_numpy(bunch.target.astype(np.int64))
        pixels = bunch.images.astype(np.uint8)
        held_out = torch.tensor([digest(b"peer/1/digits\x00", image.tobytes())[0] % 5 == 0 for image in pixels])
        padded = functional.pad(images[~held_out], (1, 1, 1, 1))
        moved = [padded[:, :, 1 - down : 9 - down, 1 - right : 9 - right] for down, right in SHIFTS]
        self._inputs, self._targets = torch.cat(moved), labels[~held_out].repeat(len(SHIFTS))
        self._test_inputs, self._test_targets = images[held_out], labels[held_out]
        self.train_size = len(self._targets)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return self._inputs[indices], self._targets[indices]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        check_classes(outputs, LARGEST_LABEL)
        return label_loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        targets = self._test_targets[:limit]
        with torch.inference_mode():
            predictions = model(self._test_inputs[:limit]).argmax(dim=1)
        return {"accuracy": (predictions == targets).float().mean().item()}


def _open(_options: Options, shards: Sequence[Shard], files: Sequence[Path]) -> Digits:
    if shards or files:
        raise DatasetError("the data set digits comes with the program and reads no files: leave them out")
    return Digits()


KIND = DatasetKind(Options, _open, label_loss)
