"""Arrays in safetensors files, which are read from disk as they are used: the data may be larger than the memory."""

from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from peer.data.arrays import Options, Samples, open_arrays
from peer.data.dataset import DatasetError
from peer.data.losses import array_loss
from peer.data.registry import DatasetKind


def _load(file: Path) -> Samples:
    try:
        with safe_open(file, framework="pt") as tensors:
            held = list(tensors.keys())
            for name in ("inputs", "targets"):
                if name not in held:
                    raise DatasetError(f"{file} has no tensor {name!r}, only: {', '.join(sorted(held)) or 'none'}")
            return Samples(file, tensors.get_tensor("inputs"), tensors.get_tensor("targets"))
    except (SafetensorError, OSError) as error:
        raise DatasetError(f"{file} is not a safetensors file: {str(error).partition(chr(10))[0]}") from error


KIND = DatasetKind(Options, partial(open_arrays, _load), array_loss)
