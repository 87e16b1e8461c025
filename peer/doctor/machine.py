"""What can be seen of the machine by looking: versions, home, disk, memory, cores, open files."""

import os
import platform
import resource
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from peer.doctor.findings import Finding, failed, ok, warning
from peer.errors import PeerError
from peer.home import Home, runtime_directory
from peer.resources import available_memory_bytes, usable_cores

MINIMUM_DISK_BYTES = 500e6
GOOD_DISK_BYTES = 5e9
"""Four snapshots of a model of 100 million parameters with two optimizer slots."""
MINIMUM_MEMORY_BYTES = 700e6
"""Python with PyTorch, p2pd, and a small model."""
GOOD_MEMORY_BYTES = 2e9
MINIMUM_OPEN_FILES = 256
GOOD_OPEN_FILES = 1024


def check_versions() -> Finding:
    """Python, and every package that we depend on, against what pyproject.toml asks for."""
    shown = [f"Python {platform.python_version()}"]
    for text in requires("peer") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        mend = f"install it: pip install '{requirement}'"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            return failed("versions", f"{requirement.name} is not installed", mend)
        if not requirement.specifier.contains(installed, prereleases=True):
            return failed("versions", f"{requirement.name} {installed} is not {requirement.specifier}", mend)
        if requirement.name in ("torch", "hivemind"):
            shown.append(f"{requirement.name} {installed}")
    return ok("versions", ", ".join(shown))


def check_home(home: Home) -> Finding:
    """Whether the identity and what is kept can be read and written; makes them as `peer join` would."""
    try:
        peer_id = home.identity().peer_id
        with tempfile.TemporaryFile(dir=home.path) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        runtime_directory()
    except PeerError as error:
        detail, _, mend = str(error).rpartition("; ")
        return failed("home", detail or str(error), mend)
    except OSError as error:
        return failed("home", f"{home.path} cannot be written: {error.strerror}", "give another --home")
    return ok("home", f"{home.path}, identity {peer_id}")


def check_disk(home: Home) -> Finding:
    free = shutil.disk_usage(home.path if home.path.exists() else Path("/")).free
    detail = f"{_giga(free)} free for {home.path}"
    mend = "free some space, or give a --home on another disk"
    if free < MINIMUM_DISK_BYTES:
        return failed("disk", f"{detail}; snapshots need at least {_giga(MINIMUM_DISK_BYTES)}", mend)
    if free < GOOD_DISK_BYTES:
        return warning("disk", f"{detail}; a large run needs {_giga(GOOD_DISK_BYTES)}", mend)
    return ok("disk", detail)


def check_memory() -> Finding:
    available = available_memory_bytes()
    if available is None:
        return ok("memory", "this system does not say how much is free")
    detail = f"{_giga(available)} available"
    mend = "stop other programs, or give the container more memory"
    if available < MINIMUM_MEMORY_BYTES:
        return failed("memory", f"{detail}; the smallest run needs {_giga(MINIMUM_MEMORY_BYTES)}", mend)
    if available < GOOD_MEMORY_BYTES:
        return warning("memory", f"{detail}; a run needs {_giga(MINIMUM_MEMORY_BYTES)} and more for its model", mend)
    return ok("memory", detail)


def check_threads(threads: int) -> Finding:
    """`threads`: with how many we would train."""
    cores = usable_cores()
    load = os.getloadavg()[0]
    detail = f"{threads} to train with, {cores:g} cores"
    if threads > cores:
        return warning(
            "threads", f"{detail}: they would wait for each other", f"join with --threads {max(1, int(cores))}"
        )
    if load > 2 * cores:
        return warning(
            "threads",
            f"{detail}, but a load of {load:.1f}: this machine is busy with other things",
            "stop other programs, or expect to contribute less",
        )
    return ok("threads", detail)


def check_open_files() -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit in (resource.RLIM_INFINITY, -1) or limit >= GOOD_OPEN_FILES:
        return ok("open files", "no limit" if limit < 0 else f"{limit:,} allowed")
    mend = f"raise the limit: ulimit -n {GOOD_OPEN_FILES}"
    if limit < MINIMUM_OPEN_FILES:
        return failed("open files", f"{limit} allowed, too few for the connections of a run", mend)
    return warning("open files", f"{limit} allowed, too few for a large swarm", mend)


def _giga(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
