"""What processes take, as the kernel counts it (Linux): CPU seconds, memory, files, threads; and their children."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError)


def family(process_id: int) -> list[int]:
    """The process and all that it has started, directly or not, and that still run."""
    found = [process_id]
    for parent in found:
        with suppress(*_GONE):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(process_ids: list[int]) -> Counter[str]:
    """User and system time that these processes have used so far, by the name of their program."""
    seconds: Counter[str] = Counter()
    for process_id in process_ids:
        with suppress(*_GONE):
            name, _, rest = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")
            fields = rest.split()
            seconds[name.partition("(")[2]] += (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return seconds


def program(process_id: int) -> str:
    """The name of what it runs; empty when it is gone."""
    with suppress(*_GONE):
        return Path(f"/proc/{process_id}/comm").read_text().rstrip("\n")
    return ""


def open_files(process_id: int) -> int:
    """Its open file descriptors, sockets included."""
    return len(os.listdir(f"/proc/{process_id}/fd"))


def threads(process_id: int) -> int:
    """Of the kernel, those of libraries included."""
    return len(os.listdir(f"/proc/{process_id}/task"))


def resident_bytes(process_id: int) -> int:
    return _status_bytes(process_id, "VmRSS")


def peak_bytes(process_id: int) -> int:
    """The most memory that was resident since `forget_peak`."""
    return _status_bytes(process_id, "VmHWM")


def forget_peak(process_id: int) -> None:
    """From here on `peak_bytes` counts anew."""
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


def _status_bytes(process_id: int, field: str) -> int:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
