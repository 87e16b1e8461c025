"""A worker's line to the benchmark that started it: commands come in on stdin, JSON lines go out on stdout."""

import faulthandler
import json
import os
import sys
from typing import Any

Command = dict[str, Any]


class Reports:
    """Takes stdout for itself: whatever else is printed goes to stderr; the stack, too, when it is aborted."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        faulthandler.enable()

    def send(self, event: str, **values: Any) -> None:
        self._out.write(json.dumps({"event": event, **values}) + "\n")


def read_command() -> Command | None:
    """The next command (blocks); None when the benchmark is gone."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def configuration() -> Any:
    """What the benchmark has given this worker on its command line."""
    return json.loads(sys.argv[1])
