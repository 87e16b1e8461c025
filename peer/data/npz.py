"""Arrays in NumPy's `npz` files. They are read whole, into memory: larger data belongs into safetensors.

A file may come from a stranger, so no object in it is unpickled, and one that would unpack to more than the machine
has is refused before it does.
"""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peer.data.arrays import Arrays, Options, Samples, open_arrays
from peer.data.dataset import DatasetError
from peer.data.losses import array_loss
from peer.data.registry import DatasetKind
from protocols.manifest import Shard

NAMES = ("inputs", "targets")
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError)


def _open(options: Options, shards: Sequence[Shard], files: Sequence[Path]) -> Arrays:
    _check_room(files)
    return open_arrays(_load, options, shards, files)


def _check_room(files: Sequence[Path]) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = sum(_unpacked_bytes(file) for file in files)
    if size > memory // 2:
        raise DatasetError(
            f"the npz files unpack to {size / 1e9:.3g} GB, more than half of this machine's memory; "
            "safetensors files, which are read from disk, would do"
        )


def _unpacked_bytes(file: Path) -> int:
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist())
    except _UNREADABLE as error:
        raise DatasetError(f"{file} is not an npz file: {_sentence(error)}") from error


def _load(file: Path) -> Samples:
    with zipfile.ZipFile(file) as archive:
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in NAMES:
            if name not in held:
                raise DatasetError(f"{file} has no array {name!r}, only: {', '.join(held) or 'none'}")
        inputs, targets = (_read(file, archive, name) for name in NAMES)
    return Samples(file, inputs, targets)


def _read(file: Path, archive: zipfile.ZipFile, name: str) -> Tensor:
    try:
        with archive.open(f"{name}.npy") as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    except _UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise DatasetError(
                f"{file}: {name} are pickled Python objects, which are never unpacked; save them as plain numbers"
            ) from error
        raise DatasetError(f"{file}: {name} cannot be read: {_sentence(error)}") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DatasetError(f"{file}: {name} are {array.dtype}, which cannot be trained on; make them numbers")
    widened = array.dtype.kind == "u" and array.dtype.itemsize > 1  # torch cannot compare these
    return torch.from_numpy(np.ascontiguousarray(array, np.int64 if widened else array.dtype.newbyteorder("=")))


def _sentence(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


KIND = DatasetKind(Options, _open, array_loss)
