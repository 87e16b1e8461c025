"""What daemons complain of in their logs."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_COMPLAINTS = ("warning", "error", "critical", "exception")
_UNSTRUCTURED = re.compile(r"Traceback|panic|fatal|^\w*(Error|Exception)\b")


def complaints(logs: Iterable[Path]) -> dict[str, int]:
    """How often each warning and error was logged, and what was no log line but looks like a crash; most first."""
    counted: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                if entry["level"] in _COMPLAINTS:
                    counted[f"{entry['level']}: {entry['event'][:120]}"] += 1
            except (ValueError, KeyError, TypeError):
                if _UNSTRUCTURED.search(line):
                    counted[line[:120]] += 1
    return dict(counted.most_common())
