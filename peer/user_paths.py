"""Paths as a user writes them."""

import os
from pathlib import Path


def user_path(text: str) -> Path:
    """`text` with `~` as the shell has it. Raises ValueError when it can be no path, or is in nobody's home."""
    if not text:
        raise ValueError("is empty; give a path")
    if "\0" in text:
        raise ValueError(f"{text!r} is no path")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        user = text.partition("/")[0]
        raise ValueError(f"{text} is in the home of a user who is not here; if {user} is a file, write ./{text}")
    return Path(path)
