"""Where data sets come from: built in, or the entry point group `peer.datasets`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer.data.dataset import Dataset
from peer.plugins import PluginOptions, Plugins, parse_options
from protocols.manifest import Data, Shard


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set; `open` gets validated `options`, the manifest's shards and the file of each shard."""

    options: type[PluginOptions]
    open: Callable[[Any, Sequence[Shard], Sequence[Path]], Dataset]


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
