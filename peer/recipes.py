"""Recipes: what an organiser writes, in TOML; the fields are those of the manifest.

A recipe names its data as `[data] files`, relative to itself and with patterns (`**/*.py`), or a saved Hugging Face
data set as `[data] directory`; the manifest holds the names and digests of files instead, and no path.
"""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peer.errors import UsageError
from peer.recipe_errors import explain
from peer.setting_sources import parse_toml
from peer.user_paths import user_path
from protocols.identity import PeerId
from protocols.manifest import Manifest, Shard
from protocols.rules import Mean

BUILT_IN = ("demo", "text")
MAX_FILES = 1024
ROBUST_FROM = 4
"""Members: of fewer, one liar is too many for a rule."""
ROBUST_RULE = "nnm | geometric_median"
"""Measured against ten attacks, alone and beside others (`docs/security.md`)."""

_MADE_HERE = {"": ("version", "organiser"), "data": ("shards",)}
"""By table: fields of the manifest that a recipe does not hold."""
_ONLY_HERE = {"data": ("files", "directory")}
"""By table: fields of a recipe that the manifest does not hold."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as it was read; nothing in it has been checked but the TOML."""

    origin: str
    """Where it stands, for messages."""
    directory: Path
    """What its files are relative to."""
    fields: dict[str, Any]


def read_recipe(source: str) -> Recipe:
    """The recipe of a path, or of a built-in's name. Raises UsageError."""
    if source in BUILT_IN:
        return built_in_recipe(source)
    return read_file(source, "recipe", f", or a built-in: {', '.join(BUILT_IN)}")


def read_file(source: str, what: str, otherwise: str = "") -> Recipe:
    """The TOML file at the path `source`, which is called `what`, and where it is missing, what may be given besides.

    Raises UsageError.
    """
    try:
        path = user_path(source)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no {what} {source}; give the path of one{otherwise}") from error
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not a TOML file in UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise UsageError(f"the {what}: {error}") from error
    return Recipe(source, path.absolute().parent, _parse(source, text))


def built_in_recipe(name: str) -> Recipe:
    text = (resources.files("peer") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return Recipe(f"built-in recipe {name}", Path.cwd(), _parse(name, text))


def data_files(recipe: Recipe, more: Sequence[Path] = ()) -> list[Path]:
    """The files of `[data] files`, sorted for each pattern, then `more`; each once. Raises UsageError."""
    data = recipe.fields.get("data", {})
    patterns = data.get("files", []) if isinstance(data, dict) else []
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"{recipe.origin}: data.files: must be a list of file names, not {patterns!r}")
    files = [file for pattern in patterns for file in _matches(recipe, pattern)]
    for file in more:
        if not file.is_file():
            raise UsageError(f"--data {file}: {'is a directory; name files' if file.is_dir() else 'no such file'}")
    files = list(dict.fromkeys([*files, *more]))
    if len(files) > MAX_FILES:
        raise UsageError(f"{recipe.origin}: data.files: {len(files)} files, a run has {MAX_FILES} at most; join some")
    return files


def to_manifest(recipe: Recipe, organiser: PeerId | None = None, shards: Sequence[Shard] = ()) -> Manifest:
    """The manifest. Raises UsageError, which names the wrong field."""
    fields = dict(recipe.fields)
    data = fields.get("data")
    for table, made in _MADE_HERE.items():
        inside = fields.get(table) if table else fields
        for field in made:
            if isinstance(inside, dict) and field in inside:
                name = f"{table}.{field}" if table else field
                raise UsageError(f"{recipe.origin}: {name}: `peer run create` writes it; remove it from the recipe")
    if isinstance(data, dict):
        shards_and_rest = {"shards": [shard.model_dump() for shard in shards], **data}
        fields["data"] = {key: value for key, value in shards_and_rest.items() if key != "files"}
    fields["training"] = _with_mode(fields.get("training"))
    if not _is_gossip(fields["training"]):
        fields["averaging"] = _with_robust_rule(fields.get("averaging", {}))
    try:
        return Manifest.model_validate(fields | {"organiser": organiser})
    except ValidationError as error:
        raise UsageError(f"{recipe.origin}: {explain(error, Manifest, hidden=_MADE_HERE, more=_ONLY_HERE)}") from error


def _with_robust_rule(averaging: Any) -> Any:
    """What no recipe has to say: a group of four or more withstands a third of liars (`docs/security.md`)."""
    if not isinstance(averaging, dict) or "byzantine" in averaging or averaging.get("rule") == Mean.name:
        return averaging
    quorum = averaging.get("quorum", 1)
    if type(quorum) is not int or quorum < ROBUST_FROM:
        return averaging
    return {"rule": ROBUST_RULE} | averaging | {"byzantine": min((quorum - 1) // 3, 31)}


def _is_gossip(training: Any) -> bool:
    """Whether there are neighbourhoods instead of groups, whose size is no matter of the quorum."""
    return isinstance(training, dict) and training.get("mode") == "gossip"


def _with_mode(training: Any) -> Any:
    """`protocol = "swarm"` is another word for `mode = "swarm"`."""
    if not isinstance(training, dict) or "protocol" not in training or "mode" in training:
        return training
    return {"mode" if field == "protocol" else field: value for field, value in training.items()}


def _parse(origin: str, text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ValueError as error:
        raise UsageError(f"{origin} is not TOML: {error}") from error


def _matches(recipe: Recipe, pattern: str) -> list[Path]:
    try:
        names = glob.glob(os.path.expanduser(pattern), root_dir=recipe.directory, recursive=True)
        files = [path for name in sorted(names) if (path := recipe.directory / name).is_file()]
    except (ValueError, OSError) as error:  # a NUL in the name, a name that is too long
        raise UsageError(f"{recipe.origin}: data.files: {pattern!r} is not a file name: {error}") from error
    if not files:
        what = "matches no file" if glob.has_magic(pattern) else "is not a file"
        raise UsageError(f"{recipe.origin}: data.files: {pattern!r} {what} in {recipe.directory}")
    return files
