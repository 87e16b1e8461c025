"""Making a run: a recipe, checked against the models and data of this machine, becomes a manifest in the home."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor, nn

from peer.data.dataset import DatasetError
from peer.data.huggingface import convert
from peer.data.registry import loss_of, open_dataset
from peer.errors import UsageError
from peer.home import Home
from peer.models.flat import layout_of
from peer.models.registry import build_module
from peer.models.stages import build_stage, stage_tensors
from peer.plugins import PluginError
from peer.recipes import Recipe, data_files, to_manifest
from peer.shards import record_shard_files, shard_of
from protocols.averaging import check_averaging
from protocols.manifest import Gossip, Manifest, Pipeline
from protocols.rules import Mean

READ_FROM_FILES = ("text", "npz", "safetensors")


def create_run(home: Home, recipe: Recipe, more_files: Sequence[Path] = ()) -> Manifest:
    """Makes the run of which this home is the organiser, and keeps its manifest and where its files are.

    Raises UsageError, which names the wrong field or file.
    """
    organiser = home.identity().peer_id
    with TemporaryDirectory(dir=home.path, prefix=".converted-") as scratch:
        try:
            recipe, converted = convert(recipe, Path(scratch))
            files = [*converted, *data_files(recipe, more_files)]
            manifest = to_manifest(recipe, organiser, [shard_of(file) for file in files])
            _check(recipe, manifest, files)
        except (PluginError, DatasetError) as error:
            raise UsageError(f"{recipe.origin}: {error}") from error
        home.store_manifest(manifest)
        run_directory = home.run_directory(manifest.run_id)
        kept = [_keep(file, run_directory / "shards") for file in converted]
        record_shard_files(run_directory, [*kept, *files[len(converted) :]])
    return manifest


def _keep(file: Path, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return file.replace(directory / file.name)


def _check(recipe: Recipe, manifest: Manifest, files: Sequence[Path]) -> None:
    """That the model can be built, the data opened, and the one put through the other."""
    if manifest.data.dataset in READ_FROM_FILES and not files:
        raise UsageError(
            f"{recipe.origin}: data.files: name the {manifest.data.dataset} to train on, there or with --data FILE"
        )
    modules = _build(manifest)
    for module in modules:
        layout_of(module)
    dataset = open_dataset(manifest.data, files)
    try:
        check_averaging(manifest)
    except ValueError as error:
        raise UsageError(f"{recipe.origin}: averaging.rule: {error}") from error
    averaging = manifest.averaging
    is_robust = averaging.rule != Mean.name and not isinstance(manifest.training, Gossip)
    if is_robust and "byzantine" not in averaging.model_fields_set:
        raise UsageError(
            f"{recipe.origin}: averaging.rule: {averaging.rule} is to withstand how many members? Say byzantine = F, "
            "and a quorum of more than twice as many"
        )
    inputs, targets = dataset.batch(np.zeros(1, np.int64))
    try:
        _check_bounds(manifest, inputs)
        dataset.loss(nn.Sequential(*modules)(inputs.to("meta")), targets.to("meta"))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UsageError(
            f"{recipe.origin}: model.options: the model does not fit the data, whose samples have the shape "
            f"{tuple(inputs.shape[1:])}: {str(error).partition(chr(10))[0]}"
        ) from error


def _build(manifest: Manifest) -> list[nn.Module]:
    """The model, or the stages that it is cut into, without memory."""
    if not isinstance(manifest.training, Pipeline):
        return [build_module(manifest.model)]
    loss_of(manifest.data)
    return [build_stage(manifest, stage) for stage in range(manifest.training.stages)]


def _check_bounds(manifest: Manifest, inputs: Tensor) -> None:
    """Raises ValueError when the stages would refuse such inputs."""
    if isinstance(manifest.training, Pipeline) and not stage_tensors(manifest).inputs.allow(tuple(inputs.shape)):
        raise ValueError("the first stage does not take such inputs")
