"""Hugging Face data sets: turned into safetensors shards when a run is made, so that its members need no such package.

    [data]
    dataset = "huggingface"
    directory = "digits/train"      # as `Dataset.save_to_disk` has written it
    options = { inputs = "image", targets = "label", scale = 0.0625 }

becomes the data set `safetensors` with the shards of these two columns; what else stands in `options` is for it.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from peer.data.dataset import DatasetError
from peer.errors import UsageError
from peer.recipes import MAX_FILES, Recipe
from peer.user_paths import user_path

NAME = "huggingface"
SHARD_BYTES = 32 * 1024 * 1024
"""Shards are about so large, and larger when there would be more of them than a run can have."""
_COLUMNS = ("inputs", "targets")

Arrays = dict[str, NDArray[Any]]


def convert(recipe: Recipe, scratch: Path) -> tuple[Recipe, list[Path]]:
    """The recipe in terms of `safetensors`, and its shards, in `scratch`; another recipe is left as it is.

    Raises UsageError, which names the wrong field, or DatasetError.
    """
    data = recipe.fields.get("data")
    if not isinstance(data, dict) or data.get("dataset") != NAME:
        return recipe, []
    options = data.get("options", {})
    if not isinstance(options, dict):
        raise UsageError(f"{recipe.origin}: data.options: must be a table, not {options!r}")
    directory = _text(recipe, data, "directory", "data.directory")
    columns = {name: _text(recipe, options, name, f"data.options.{name}") for name in _COLUMNS}
    if "files" in data:
        raise UsageError(
            f"{recipe.origin}: data.files: the data set {NAME} is read from data.directory; leave them out"
        )
    try:
        path = recipe.directory / user_path(directory)
    except ValueError as error:
        raise UsageError(f"{recipe.origin}: data.directory: {error}") from error
    files = _write_shards(_open(recipe, path), recipe, columns, scratch)
    rest = {name: value for name, value in options.items() if name not in _COLUMNS}
    others = {name: value for name, value in data.items() if name != "directory"}
    converted = {**others, "dataset": "safetensors", "options": rest}
    return replace(recipe, fields={**recipe.fields, "data": converted}), files


def _text(recipe: Recipe, table: dict[str, Any], key: str, field: str) -> str:
    if key not in table:
        raise UsageError(f"{recipe.origin}: {field}: missing")
    if not isinstance(table[key], str):
        raise UsageError(f"{recipe.origin}: {field}: must be a text, not {table[key]!r}")
    return str(table[key])


def _open(recipe: Recipe, directory: Path) -> Any:
    """A `datasets.Dataset` that gives NumPy arrays."""
    try:
        import datasets  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(
            f"{recipe.origin}: data.dataset: {NAME!r} needs a package that is not installed; "
            "run: pip install 'peer[huggingface]'"
        ) from error
    try:
        dataset = datasets.load_from_disk(str(directory))
    except (OSError, ValueError) as error:
        raise UsageError(f"{recipe.origin}: data.directory: {str(error).partition(chr(10))[0]}") from error
    if isinstance(dataset, datasets.DatasetDict):
        parts = ", ".join(sorted(dataset))
        raise UsageError(f"{recipe.origin}: data.directory: {directory} has the parts {parts}; name one of them")
    return dataset.with_format("numpy")


def _write_shards(dataset: Any, recipe: Recipe, columns: dict[str, str], scratch: Path) -> list[Path]:
    for name, column in columns.items():
        if column not in dataset.column_names:
            known = ", ".join(dataset.column_names)
            raise UsageError(f"{recipe.origin}: data.options.{name}: there is no column {column!r}, only: {known}")
    if not len(dataset):
        raise UsageError(f"{recipe.origin}: data.directory: the data set is empty")
    files = []
    for number, arrays in enumerate(_parts(dataset.select_columns(list(columns.values())), columns)):
        files.append(scratch / f"part-{number:04}.safetensors")
        save_file(arrays, files[-1])
    return files


def _parts(dataset: Any, columns: dict[str, str]) -> Iterator[Arrays]:
    """The columns, in pieces of about SHARD_BYTES."""
    sample_bytes = sum(array.nbytes for array in _read(dataset, columns, slice(0, 1)).values())
    samples = max(1, SHARD_BYTES // max(1, sample_bytes), -(-len(dataset) // MAX_FILES))
    for start in range(0, len(dataset), samples):
        yield _read(dataset, columns, slice(start, start + samples))


def _read(dataset: Any, columns: dict[str, str], part: slice) -> Arrays:
    rows = dataset[part]
    arrays = {name: np.ascontiguousarray(rows[column]) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise DatasetError(
                f"data.options.{name}: the column {columns[name]!r} has no numbers of one shape; give such a column"
            )
    return arrays
