"""Samples as arrays: what `npz` and `safetensors` files hold. Everything in them is checked once, when they are opened.

Each file has `inputs` (samples, …) and `targets`: whole numbers are labels (samples,) or (samples, positions), which
the model tells apart by its last dimension; floating-point ones are values that the model is to meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from peer.data.dataset import Dataset, DatasetError, Predict
from peer.data.losses import array_loss, check_classes
from peer.plugins import PluginOptions
from protocols.manifest import Shard
from protocols.sampling import Indices

HELD_OUT = 10
"""The last of every so many samples of a file is for evaluation: all classes are, even when a file is sorted."""
EVALUATION_BATCH = 256
CHECKED_AT_ONCE = 4096
"""Samples; a file may be larger than the memory."""

_FLOATING = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


class Options(PluginOptions):
    tokens: bool = False
    """The inputs are numbers of tokens, for a model that embeds them; otherwise they become float32."""
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Inputs that are no tokens are multiplied by it: 0.00392 makes bytes of images 0 … 1."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The arrays of one file, as they lie there."""

    file: Path
    inputs: Tensor
    targets: Tensor


Load = Callable[[Path], Samples]
"""Reads a file. Raises DatasetError."""


class Arrays(Dataset):
    """Inputs (batch, …) float32, or int64 when they are tokens; targets (batch, …) int64 labels or float32 values."""

    def __init__(self, options: Options, files: Sequence[Samples]) -> None:
        for samples in files:
            _check_types(samples, options)
            _check_alike(samples, files[0])
        self._options, self._files = options, files
        self._labels = files[0].targets.dtype in _WHOLE
        self._largest_label = max(_check_values(samples, options) for samples in files)
        sizes = np.array([len(samples.inputs) for samples in files])
        self._held_out_ends = np.cumsum(sizes // HELD_OUT)
        self._train_ends = np.cumsum(sizes - sizes // HELD_OUT)
        self.train_size = int(self._train_ends[-1])
        self._held_out_size = int(self._held_out_ends[-1])
        if not self._held_out_size:
            raise DatasetError(f"no file has {HELD_OUT} samples, of which one would be held out: give more")

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        numbers, offsets = _locate(indices, self._train_ends)
        return self._read(numbers, offsets + offsets // (HELD_OUT - 1))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raises ValueError when the model's outputs are not of the targets' shape, or too few."""
        if self._labels:
            check_classes(outputs, self._largest_label)
        return array_loss(outputs, targets)

    def evaluate(self, model: Predict, limit: int) -> dict[str, float]:
        count = min(limit, self._held_out_size)
        chosen = np.arange(count) * self._held_out_size // count  # spread over all the files
        total = 0.0
        with torch.inference_mode():
            for indices in np.split(chosen, range(EVALUATION_BATCH, count, EVALUATION_BATCH)):
                numbers, offsets = _locate(indices, self._held_out_ends)
                inputs, targets = self._read(numbers, offsets * HELD_OUT + HELD_OUT - 1)
                total += self._measure(model(inputs), targets) * len(indices)
        return {"accuracy" if self._labels else "mean_squared_error": total / count}

    def _measure(self, outputs: Tensor, targets: Tensor) -> float:
        if self._labels:
            return (outputs.argmax(dim=-1) == targets).float().mean().item()
        return self.loss(outputs, targets).item()

    def _read(self, numbers: NDArray[np.int64], positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The samples at `positions` of the files `numbers`."""
        inputs_of, targets_of = self._files[0].inputs, self._files[0].targets
        inputs = torch.empty(
            (len(numbers), *inputs_of.shape[1:]), dtype=torch.int64 if self._options.tokens else torch.float32
        )
        targets = torch.empty(
            (len(numbers), *targets_of.shape[1:]), dtype=torch.int64 if self._labels else torch.float32
        )
        for number in np.unique(numbers):
            places = torch.from_numpy(np.flatnonzero(numbers == number))
            rows = torch.from_numpy(positions[numbers == number])
            inputs[places] = self._files[number].inputs[rows].to(inputs.dtype)
            targets[places] = self._files[number].targets[rows].to(targets.dtype)
        return (inputs if self._options.tokens else inputs.mul_(self._options.scale)), targets


def open_arrays(load: Load, options: Options, shards: Sequence[Shard], files: Sequence[Path]) -> Arrays:
    """The data set in `files`, one for each shard. Raises DatasetError."""
    if len(files) != len(shards) or not shards:
        raise DatasetError(f"the run's data is {len(shards)} files, {len(files)} were given: name each, in order")
    return Arrays(options, [load(file) for file in files])


def _locate(indices: Indices, ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In which file each sample lies, and its number there; `ends`: the number after the last sample of each file."""
    numbers = np.searchsorted(ends, indices, side="right")
    return numbers, indices - np.concatenate([[0], ends[:-1]])[numbers]


def _check_types(samples: Samples, options: Options) -> None:
    file, inputs, targets = samples.file, samples.inputs, samples.targets
    for name, array in (("inputs", inputs), ("targets", targets)):
        if array.dtype not in _FLOATING | _WHOLE:
            raise DatasetError(f"{file}: {name} are {array.dtype}, which cannot be trained on; make them numbers")
        if array.ndim == 0:
            raise DatasetError(f"{file}: {name} are a single number, not (samples, …)")
    if len(inputs) != len(targets):
        raise DatasetError(f"{file}: there are {len(inputs)} inputs and {len(targets)} targets; one each is needed")
    if options.tokens and inputs.dtype not in _WHOLE:
        raise DatasetError(f"{file}: inputs are {inputs.dtype}, and data.options.tokens asks for whole numbers")


def _check_alike(samples: Samples, first: Samples) -> None:
    """The files are one data set: they differ in the number of samples alone, and not in kind."""
    for name in ("inputs", "targets"):
        one, other = getattr(first, name), getattr(samples, name)
        if one.shape[1:] != other.shape[1:] or (one.dtype in _FLOATING) != (other.dtype in _FLOATING):
            raise DatasetError(
                f"{samples.file}: {name} are {_describe(other)}, and those of {first.file} are {_describe(one)}"
            )


def _check_values(samples: Samples, options: Options) -> int:
    """The largest label (−1 when there is none)."""
    largest = -1
    for start in range(0, len(samples.inputs), CHECKED_AT_ONCE):
        part = slice(start, start + CHECKED_AT_ONCE)
        inputs, targets = samples.inputs[part], samples.targets[part]
        for name, array in (("inputs", inputs), ("targets", targets)):
            if array.dtype in _FLOATING and not torch.isfinite(array).all():
                raise DatasetError(f"{samples.file}: {name} are not finite somewhere in samples {start} and after")
        if options.tokens and inputs.numel() and inputs.min() < 0:
            raise DatasetError(f"{samples.file}: inputs hold the token {int(inputs.min())}; tokens begin at 0")
        if targets.dtype in _WHOLE and targets.numel():
            if targets.min() < 0:
                raise DatasetError(f"{samples.file}: targets hold the label {int(targets.min())}; labels begin at 0")
            largest = max(largest, int(targets.max()))
    return largest


def _describe(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape[1:])}"
