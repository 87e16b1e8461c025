"""A disk of a few megabytes that really fills up: a tmpfs, mounted for one test. Needs root that may mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DISK_BYTES = 16 * 1024 * 1024
FILLER = "filler"


@contextmanager
def small_disk(mount_point: Path, size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """Mounts the disk at `mount_point`, which is made; skips the test where that is not allowed."""
    mount_point.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    options = f"size={size_bytes},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount_point)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


def fill(disk: Path) -> None:
    """Takes all the space that is left."""
    with (disk / FILLER).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def empty(disk: Path) -> None:
    """Gives it back."""
    (disk / FILLER).unlink()
