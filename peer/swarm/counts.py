"""What became of each microbatch, on disk: the signed `Begin` of every round that this peer has seen decided.

Its members' masks are a partition of the epoch's microbatches; whoever keeps these files can show that none was lost
and none counted twice.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import structlog

from peer.rounds.session import RoundOutcome
from protocols.round.messages import Begin
from protocols.signed import Signed, open_signed

MOST_BYTES = 16 * 1024 * 1024
"""Of one file; the one before is kept beside it."""

log = structlog.get_logger()


def counts_path(snapshots: Path) -> Path:
    """Of the file, beside a run's snapshots."""
    return snapshots / "microbatches.jsonl"


class CountsLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False

    def add(self, outcome: RoundOutcome) -> None:
        """Appends a line; a disk that refuses is reported once."""
        if not outcome.begin:
            return
        line = json.dumps({"run": outcome.done.run, "begin": base64.b64encode(outcome.begin).decode()})
        try:
            if self._path.exists() and self._path.stat().st_size > MOST_BYTES:
                self._path.replace(self._path.with_suffix(".old.jsonl"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if not self._failed:
                log.warning("who has counted which microbatch cannot be written down", error=str(error))
            self._failed = True


def read_counts(path: Path) -> Iterator[Signed[Begin]]:
    """The statements in such a file, verified; a line that a killed daemon has left half written is skipped."""
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            wire = base64.b64decode(line["begin"], validate=True)
        except (ValueError, KeyError, TypeError):
            continue
        yield open_signed(wire, Begin, run=line["run"])
