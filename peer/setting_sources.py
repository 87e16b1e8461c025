"""Where settings come from, and how a wrong one is explained: by the flag, variable or file key that holds it."""

import os
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peer.errors import UsageError

VARIABLE_PREFIX = "PEER_"


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The keys of `config.toml`, {} when there is none. Raises UsageError (unreadable, unknown key)."""
    try:
        config = parse_toml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    for key in config:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(sorted(known))}"
            raise UsageError(f"{path}: unknown key {key!r}; {advice}")
    return config


def parse_toml(text: str) -> dict[str, Any]:
    """Raises ValueError, which says why the text is not TOML, or none that anybody needs."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python reads no number of more than 4300 digits
        raise ValueError("it has a number of thousands of digits") from error


def explain(error: ValidationError, flags: Collection[str], config: Path, names: Mapping[str, str]) -> str:
    """The first thing wrong as one sentence; `names` maps pydantic's name of a setting to the user's."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # settings that do not fit together
        return what_is_wrong(first)
    name = names.get(str(first["loc"][0]), str(first["loc"][0]))
    variable = VARIABLE_PREFIX + name.upper()
    if first["type"] == "missing":
        return f"{flag(name)} is missing; give it, or set {variable}, or put {name} into {config}"
    if name in flags:
        origin = flag(name)
    elif os.environ.get(variable):
        origin = variable
    else:
        origin = f"{config}: {name}"
    return f"{origin}: {what_is_wrong(first)}"


def flag(name: str) -> str:
    """The option of the command line for a setting."""
    return f"--{name.replace('_', '-')}"


def what_is_wrong(error: Mapping[str, Any]) -> str:
    """One error of pydantic in a user's words, with the value."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = _IN_WORDS.get(error["type"].removesuffix("_type").removesuffix("_parsing")) or error["msg"]
    message = message.replace("Input should", "must").replace("String should", "must")
    return f"{message}, not {shortened(error['input'])}"


def shortened(value: Any) -> str:
    """The value as Python writes it, cut when it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


_IN_WORDS = {
    "int": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "bytes": "must be a text",
    "path": "must be a path",
    "tuple": "must be a list",
}
