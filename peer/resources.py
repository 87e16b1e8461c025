"""How much of the machine this process may have: of its cores and of its memory."""

import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> float:
    """Cores that this process may use, and no more than its control group grants."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = re.fullmatch(r"(\d+) (\d+)", _read(_CGROUP / "cpu.max"))
    return min(cores, int(quota[1]) / int(quota[2])) if quota else cores


def available_memory_bytes() -> float | None:
    """What this process could still take, of the machine and of its control group; None when nobody says."""
    machine = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE)
    known = [int(machine[1]) * 1024.0] if machine else []
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        known.append(float(max(0, int(limit) - int(used))))
    return min(known, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
