"""Snapshots: states on disk, from which a peer resumes, and the model file that a user takes out."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from peer.files import remove_incomplete, write_atomically
from peer.models.flat import Layout, named_parameters
from protocols.manifest import Manifest
from protocols.state import ModelState
from protocols.vectors import all_finite

logger = logging.getLogger(__name__)

_SLOT_PREFIX = "slot."


class SnapshotError(Exception):
    """A snapshot or an exported model could not be written; what was there before is intact."""


class _Damaged(ValueError):
    """A file that is not a whole snapshot of the wanted run."""


class SnapshotStore:
    """The last `keep` states of one run, as `epoch-<number>.safetensors` in a directory that one daemon owns.

    Each file is written atomically and holds the run id, the epoch and the digest of the state, which is checked when
    it is read.
    """

    def __init__(self, directory: Path, keep: int = 4) -> None:
        """Makes the directory and clears away what a killed daemon left half written."""
        self._directory = directory
        self._keep = keep
        directory.mkdir(parents=True, exist_ok=True)
        remove_incomplete(directory)

    def save(self, state: ModelState) -> Path:
        """Writes `state` and deletes all but the newest. Raises SnapshotError.

        What is there of later epochs goes too: whoever has stepped back to `state` has given that history up, and
        would otherwise resume from it, and take the new states for the oldest.
        """
        path = self._path(state.epoch)
        tensors = {"parameters": state.parameters}
        tensors |= {_SLOT_PREFIX + name: slot for name, slot in state.slots.items()}
        _write(path, tensors, _metadata(state))
        newest_first = self._newest_first()
        abandoned = newest_first.index(path)
        for old in [*newest_first[:abandoned], *newest_first[abandoned + self._keep :]]:
            old.unlink(missing_ok=True)
        return path

    def latest(self, *, run: str, parameter_count: int, slot_names: Sequence[str]) -> ModelState | None:
        """The newest whole snapshot of that run and shape, if any; a damaged one is logged and skipped."""
        return _first_whole(self._newest_first(), run, parameter_count, slot_names)

    def of_epoch(self, epoch: int, *, run: str, parameter_count: int, slot_names: Sequence[str]) -> ModelState | None:
        """As `latest`, of that epoch alone."""
        paths = [path for path in self._newest_first() if path == self._path(epoch)]
        return _first_whole(paths, run, parameter_count, slot_names)

    def _path(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch:012}.safetensors"

    def _newest_first(self) -> list[Path]:
        return sorted(self._directory.glob("epoch-*.safetensors"), reverse=True)


def export_model(state: ModelState, manifest: Manifest, layout: Layout, path: Path) -> None:
    """Writes the named parameters in safetensors; its metadata holds the manifest (JSON), run id, epoch and digest.

    Raises SnapshotError.
    """
    metadata = _metadata(state) | {"manifest": json.dumps(manifest.model_dump(), sort_keys=True, default=bytes.hex)}
    _write(path, dict(named_parameters(state.parameters, layout)), metadata)


def _metadata(state: ModelState) -> dict[str, str]:
    return {"run": state.run, "epoch": str(state.epoch), "digest": state.digest.hex()}


def _write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    try:
        write_atomically(path, lambda file: save_file(tensors, file, metadata))
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"cannot write {path}: {error}; free some space or choose another place") from error


def _first_whole(paths: Iterable[Path], run: str, parameter_count: int, slot_names: Sequence[str]) -> ModelState | None:
    for path in paths:
        try:
            return _read(path, run, parameter_count, slot_names)
        except (_Damaged, SafetensorError, OSError) as error:
            logger.warning("The snapshot %s is damaged and is not used: %s", path.name, error)
    return None


def _read(path: Path, run: str, parameter_count: int, slot_names: Sequence[str]) -> ModelState:
    names = ["parameters", *(_SLOT_PREFIX + name for name in slot_names)]
    with safe_open(path, "numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("run") != run:
            raise _Damaged(f"it says it belongs to the run {metadata.get('run')}")
        if sorted(file.keys()) != sorted(names):
            raise _Damaged(f"it holds {', '.join(file.keys())}")
        vectors = []
        for name in names:
            piece = file.get_slice(name)
            if piece.get_dtype() != "F32" or piece.get_shape() != [parameter_count]:
                raise _Damaged(f"{name} is not {parameter_count} float32")
            vectors.append(file.get_tensor(name))
    epoch = metadata.get("epoch", "")
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 16):
        raise _Damaged("it names no epoch")
    if not all(all_finite(vector) for vector in vectors):
        raise _Damaged("it holds NaN or infinity")
    state = ModelState(run, int(epoch), vectors[0], dict(zip(slot_names, vectors[1:], strict=True)))
    if state.digest.hex() != metadata.get("digest"):
        raise _Damaged("its content is not what was written")
    return state
