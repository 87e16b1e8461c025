"""Commands that a message tells its reader to type, so that they work as they stand, in the terminal that shows it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from peer.setting_sources import VARIABLE_PREFIX
from peer.settings import default_home


def command(home: Path, *words: str) -> str:
    """`peer` with `words`, for `home`: which is named unless the command would use it anyway."""
    usual = Path(os.environ.get(f"{VARIABLE_PREFIX}HOME") or default_home())
    where = [] if os.path.abspath(usual.expanduser()) == str(home) else ["--home", str(home)]
    return shlex.join([_program(), *words, *where])


def _program() -> str:
    """`peer` where the shell finds this one by that name, else its path: of an environment that is not activated."""
    running = Path(sys.argv[0])
    found = shutil.which("peer")
    if running.name != "peer" or not running.is_file() or (found is not None and running.samefile(found)):
        return "peer"
    relative = os.path.relpath(running)
    return os.path.abspath(running) if relative.startswith("..") else os.path.join(".", relative)
