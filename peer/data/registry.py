"""Where data sets come from: built in, or the entry point group `peer.datasets`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer.data.dataset import Dataset, DatasetError, Loss
from peer.plugins import PluginOptions, Plugins, parse_options
from protocols.manifest import Data, Shard


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set; `open` gets validated `options`, the manifest's shards and the file of each shard.

    `loss` is that of all data sets of this kind, where it needs none of their files; else they serve no pipeline.
    """

    options: type[PluginOptions]
    open: Callable[[Any, Sequence[Shard], Sequence[Path]], Dataset]
    loss: Loss | None = None


_KINDS = Plugins(
    "data set",
    "data.dataset",
    "peer.datasets",
    DatasetKind,
    {
        "digits": "peer.data.digits:KIND",
        "npz": "peer.data.npz:KIND",
        "safetensors": "peer.data.safetensors:KIND",
        "text": "peer.data.text:KIND",
    },
)


def open_dataset(data: Data, files: Sequence[Path] = ()) -> Dataset:
    """The data set that a manifest names; `files` hold its shards, in the manifest's order, verified by the caller.

    Raises PluginError (no such data set, a wrong option) or DatasetError (a file is missing or cannot be used).
    """
    kind = _KINDS.find(data.dataset)
    return kind.open(parse_options(kind.options, data.options, "data.options"), data.shards, files)


def loss_of(data: Data) -> Loss:
    """The loss of the data set that a manifest names, for who has none of its files.

    Raises PluginError (no such data set) or DatasetError (its loss is not to be had without them).
    """
    loss = _KINDS.find(data.dataset).loss
    if loss is None:
        raise DatasetError(
            f"data.dataset: the loss of {data.dataset!r} is part of its files, which the last stage of a pipeline does "
            "not have; choose another data set, or another training.mode"
        )
    return loss
