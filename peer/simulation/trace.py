"""What happened, as JSON lines: `{"time": seconds, "peer": number, "event": …, …}`; equal runs have equal bytes."""

import json
from hashlib import blake2b
from typing import Any, TextIO


class Trace:
    def __init__(self, file: TextIO | None = None) -> None:
        self.lines = 0
        self._file = file
        self._digest = blake2b(digest_size=16)

    def __call__(self, time: float, peer: int | None, event: str, **details: Any) -> None:
        """`peer`: its number; None for what happens to all."""
        line = json.dumps({"time": round(time, 6), "peer": peer, "event": event, **details}) + "\n"
        self.lines += 1
        self._digest.update(line.encode())
        if self._file is not None:
            self._file.write(line)

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()
