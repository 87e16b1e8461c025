"""Bytes of local files, for models that predict the next byte."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from peer.data.dataset import Dataset, DatasetError, Predict
from peer.data.losses import check_classes, label_loss
from peer.data.registry import DatasetKind
from peer.plugins import PluginOptions
from protocols.manifest import Shard
from protocols.sampling import Indices

LARGEST_BYTE = 255
HELD_OUT = 10
"""One byte in so many: the end of every file is for evaluation."""
EVALUATION_BATCH = 32


class Options(PluginOptions):
    context: Annotated[int, Field(ge=1, le=2**17)] = 64
    """Bytes of a sample; the model's context must be as long."""


class Text(Dataset):
    """Samples are windows: inputs (batch, context) int64 bytes, targets the same one byte later.

    A training sample begins at any byte that leaves room for it in the same file; held-out samples do not overlap.
    """

    def __init__(self, context: int, contents: Sequence[NDArray[np.uint8]]) -> None:
        self._context = context
        split = [len(content) - len(content) // HELD_OUT for content in contents]
        train = [content[:end] for content, end in zip(contents, split, strict=True)]
        held_out = [content[end:] for content, end in zip(contents, split, strict=True)]
        self._train = _Windows(train, context, step=1)
        self._held_out = _Windows(held_out, context, step=context)
        if not len(self._train) or not len(self._held_out):
            raise DatasetError(f"the files are too short for samples of {context} bytes: give longer ones or more")
        self.train_size = len(self._train)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return self._train.read(indices)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        check_classes(outputs, LARGEST_BYTE)
        return label_loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        count = min(limit, len(self._held_out))
        chosen = np.arange(count) * len(self._held_out) // count  # spread over all the files
        nats = 0.0
        with torch.inference_mode():
            for indices in np.split(chosen, range(EVALUATION_BATCH, count, EVALUATION_BATCH)):
                inputs, targets = self._held_out.read(indices)
                nats += self.loss(model(inputs), targets).item() * len(indices)
        return {"bits_per_byte": nats / count / math.log(2)}


class _Windows:
    """The windows of `context` + 1 bytes that begin every `step` bytes in each of the contents, numbered through."""

    def __init__(self, contents: Sequence[NDArray[np.uint8]], context: int, step: int) -> None:
        self._contents = contents
        self._context = context
        self._step = step
        counts = [max(0, (len(content) - context - 1) // step + 1) for content in contents]
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Indices) -> tuple[Tensor, Tensor]:
        numbers = np.searchsorted(self._ends, indices, side="right")
        offsets = (indices - self._starts[numbers]) * self._step
        windows = np.empty((len(indices), self._context + 1), np.int64)
        for window, number, offset in zip(windows, numbers, offsets, strict=True):
            window[:] = self._contents[number][offset : offset + self._context + 1]
        tokens = torch.from_numpy(windows)
        return tokens[:, :-1], tokens[:, 1:]


def _open(options: Options, shards: Sequence[Shard], files: Sequence[Path]) -> Text:
    if len(files) != len(shards) or not shards:
        raise DatasetError(f"the run's text is {len(shards)} files, {len(files)} were given: name each, in order")
    return Text(options.context, [_map(file) for file in files])


def _map(file: Path) -> NDArray[np.uint8]:
    """The file's bytes, read only when they are used."""
    try:
        if file.stat().st_size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        return np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error


KIND = DatasetKind(Options, _open, label_loss)
