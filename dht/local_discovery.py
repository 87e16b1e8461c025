"""Peers of one user on one machine find each other without options: each leaves a small file in a private directory.

The directory must belong to the user alone. A live peer holds a lock on its file, so that a file whose peer is gone is
known as such, whatever became of the process number. What a file says is checked like anything from the network.
"""

import fcntl
import json
import logging
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from dht.addresses import usable_transports
from protocols.identity import IdentityError, PeerId, parse_peer_id

log = logging.getLogger(__name__)

MAX_FILES = 1024
MAX_FILE_BYTES = 16 * 1024
MAX_ADDRESSES = 16
_SUFFIX = ".json"


class LocalDiscoveryError(Exception):
    """The directory is not safe to use; the message says why."""


class LocalDiscovery:
    """The peers of one run on this machine, as `peer_id` sees them; `close` takes its own file away."""

    def __init__(self, directory: Path, run: str, peer_id: PeerId, addresses: Sequence[str]) -> None:
        """Makes the directory where needed, and announces this peer. Raises LocalDiscoveryError."""
        self._directory = directory
        self._run = run
        self._peer_id = peer_id
        self._addresses = tuple(addresses[:MAX_ADDRESSES])
        self._locked: int | None = None
        self._lock = threading.Lock()
        """One thread at a time: after `close` none may announce us again."""
        self._hidden = False
        """The file is gone and could not be written again."""
        _make_private(directory)
        self._announce()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def others(self) -> list[tuple[PeerId, tuple[str, ...]]]:
        """The other live peers of the run and their multiaddrs; removes the files of peers that are gone.

        Reads many files: call it in a thread.
        """
        with self._lock:
            return self._others()

    def _others(self) -> list[tuple[PeerId, tuple[str, ...]]]:
        self._stay_announced()
        found = []
        for path in sorted(self._directory.glob(f"{self._run}.*{_SUFFIX}"))[:MAX_FILES]:
            if path == self._path:
                continue
            try:
                entry = _read_live(path)
            except OSError as error:
                log.debug("cannot read %s: %s", path, error)
                continue
            if entry is not None and (parsed := _parse(entry, self._run, path)) is not None:
                found.append(parsed)
        return found

    def announce(self, addresses: Sequence[str]) -> None:
        """We are at these addresses now."""
        with self._lock:
            self._addresses = tuple(addresses[:MAX_ADDRESSES])
            self._announce()

    def close(self) -> None:
        with self._lock:
            if self._locked is not None:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)
                self._unlock()

    def _stay_announced(self) -> None:
        """Somebody may have cleaned up; with a login session even the directory goes, and nobody may make it anew."""
        try:
            if self._locked is None or self._path.exists():
                return
            _make_private(self._directory)
            self._announce()
            self._hidden = False
        except (OSError, LocalDiscoveryError) as error:
            if not self._hidden:
                log.warning("other daemons on this machine do not find this one any more: %s", error)
            self._hidden = True

    def _announce(self) -> None:
        content = {"version": 1, "run": self._run, "peer_id": self._peer_id, "addresses": self._addresses}
        temporary = self._directory / f".{self._path.name}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(content).encode())
            temporary.rename(self._path)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        self._unlock()
        self._locked = descriptor

    @property
    def _path(self) -> Path:
        return self._directory / f"{self._run}.{self._peer_id}{_SUFFIX}"

    def _unlock(self) -> None:
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None


def _make_private(directory: Path) -> None:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise LocalDiscoveryError(f"{directory} is not a directory; remove it")
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise LocalDiscoveryError(f"{directory} must belong to you alone (mode 0700); correct or remove it")


def _read_live(path: Path) -> bytes | None:
    """What the file holds, None when its peer is gone (and now its file too) or it is too long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its peer lives
            return os.read(descriptor, MAX_FILE_BYTES) if status.st_size <= MAX_FILE_BYTES else None
        if path.lstat().st_ino == status.st_ino:
            path.unlink(missing_ok=True)
        return None
    finally:
        os.close(descriptor)


def _parse(data: bytes, run: str, path: Path) -> tuple[PeerId, tuple[str, ...]] | None:
    """(who, where) if the file is what its name says; otherwise None."""
    try:
        content = json.loads(data)
        peer = parse_peer_id(content["peer_id"])
        addresses = content["addresses"]
    except (ValueError, KeyError, TypeError, AttributeError, IdentityError, RecursionError):
        return None
    if content.get("run") != run or path.name != f"{run}.{peer}{_SUFFIX}" or not isinstance(addresses, list):
        return None
    texts = [text for text in addresses[:MAX_ADDRESSES] if isinstance(text, str)]
    return peer, tuple(f"{transport}/p2p/{peer}" for transport in usable_transports(peer, texts))
