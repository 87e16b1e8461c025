"""Peers behind links of their own: the tests' network of hosts on one machine, as a benchmark needs it.

Needs root and iproute2. There is no latency but that of the queues.
"""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from tests.netlab import NetLab, reason_why_not

__all__ = ["NetLab", "bytes_per_second", "popen_in", "reason_why_not"]

_UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def bytes_per_second(rate: str) -> float:
    """Of a rate as `tc` takes it: 100mbit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]bit)", rate)
    if match is None:
        raise ValueError(f"{rate!r} is not a rate like 100mbit")
    return float(match[1]) * _UNITS[match[2]] / 8


def popen_in(lab: NetLab, host: int) -> "partial[subprocess.Popen[Any]]":
    """`subprocess.Popen` for processes of that host."""
    return partial(_popen_inside, lab.inside(host))


def _popen_inside(inside: list[str], command: list[str], **options: Any) -> "subprocess.Popen[Any]":
    return subprocess.Popen([*inside, *command], **options)
