"""The home: a directory with this user's identity, the runs known here and what the daemon keeps of them.

config.toml                     settings (peer.settings)
data/                           fetched shards of the runs' data (peer.shard_store)
identity.key                    the private key, libp2p's format, 0600
runs/<run id>/manifest.msgpack  checked against the run id whenever it is read
runs/<run id>/sequence          where the next start's sequence numbers begin (peer.sequence)
runs/<run id>/snapshots/        the last states (peer.snapshots)
runs/<run id>/directives        what the organiser has directed (peer.directive_store)
runs/<run id>/daemon.lock       held by the one daemon of this home in this run; holds its process id
runs/<run id>/daemon.log        of a daemon in the background (`--detach`); daemon.log.1 is of the one before
"""

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from peer.errors import PeerError, UsageError
from peer.files import write_atomically
from peer.hints import command
from peer.locks import locked

if TYPE_CHECKING:
    from protocols.identity import Identity
    from protocols.manifest import Manifest

BUILT_IN_RUN = "demo"

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}-[a-z2-7]{26}")
_SAME_BUT_FOR_A_SLIP = 0.9
"""difflib's ratio: two wrong characters in the shortest run id leave 0.93, two runs of one name have some 0.5."""
_LEFT_WITHOUT_MANIFEST = {"daemon.lock", "daemon.log", "daemon.log.1"}
_MAX_SOCKET_PATH_BYTES = 100
"""sun_path has 108 bytes on Linux and 104 on BSD and macOS."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Home:
    """Makes no file before something is to be written; every method raises PeerError when the files are unusable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def identity_path(self) -> Path:
        return self.path / "identity.key"

    def identity(self) -> "Identity":
        """This home's identity, made on first use; processes that start at once agree on one."""
        from protocols.identity import Identity, IdentityError  # noqa: PLC0415

        with self._usable("identity"):
            if not self.identity_path.exists():
                self._create()
                with locked(self.path / "identity.lock", wait=True):
                    if not self.identity_path.exists():
                        secret = Identity.generate().to_libp2p()
                        write_atomically(self.identity_path, lambda path: _write_secret(path, secret))
            _check_secret(self.identity_path)
            try:
                return Identity.from_libp2p(self.identity_path.read_bytes())
            except IdentityError as error:
                raise PeerError(
                    f"{self.identity_path}: {error}; restore it from a backup, "
                    "or move it away to get a new identity at the next start"
                ) from error

    def runs(self) -> list[str]:
        """The ids of the runs that this home knows, in alphabetical order."""
        with self._usable("runs"):
            try:
                entries = sorted(entry.name for entry in os.scandir(self.path / "runs") if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [name for name in entries if _RUN_ID.fullmatch(name)]

    def resolve_run(self, text: str) -> str:
        """The run id that `text` means: a whole one, `demo`, or the name or beginning of one known here.

        Raises UsageError when it means none, or several.
        """
        if text == BUILT_IN_RUN:
            return _built_in().run_id
        known = self.runs()
        if _RUN_ID.fullmatch(text):
            return self._not_mistyped(text, [*known, _built_in().run_id])
        matches = [run for run in known if text and (_name(run) == text or run.startswith(text))]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(f"{text!r} could be any of the runs {', '.join(matches)}; give more of the id")
        names = sorted({BUILT_IN_RUN, *known, *map(_name, known)})
        close = get_close_matches(text, names, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join([BUILT_IN_RUN, *known])}"
        raise UsageError(f"{text!r} is neither a run id nor a run known in {self.path}; {advice}")

    def _not_mistyped(self, run_id: str, known: Sequence[str]) -> str:
        """`run_id`, unless it is so like a known one that it must be that: other runs have wholly different hashes."""
        close = [] if run_id in known else get_close_matches(run_id, known, n=1, cutoff=_SAME_BUT_FOR_A_SLIP)
        if close:
            raise UsageError(f"{run_id} is not known in {self.path}; did you mean {close[0]!r}?")
        return run_id

    def run_directory(self, run_id: str) -> Path:
        """Where the daemon keeps what belongs to a run; made when it is not there."""
        directory = self._run_path(run_id)
        with self._usable(f"directory of run {run_id}"):
            self._create()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def store_manifest(self, manifest: "Manifest") -> None:
        path = self.run_directory(manifest.run_id) / "manifest.msgpack"
        with self._usable("manifest"):
            write_atomically(path, lambda temporary: temporary.write_bytes(manifest.to_bytes()))

    def manifest(self, run_id: str) -> "Manifest | None":
        """The manifest, verified, or None when it is not known here. Raises PeerError when the file is not it."""
        from protocols.manifest import MAX_MANIFEST_BYTES, Manifest  # noqa: PLC0415
        from protocols.rejection import Rejected  # noqa: PLC0415

        if _name(run_id) == BUILT_IN_RUN and _built_in().run_id == run_id:
            return _built_in()
        path = self._run_path(run_id) / "manifest.msgpack"
        with self._usable("manifest"):
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_MANIFEST_BYTES + 1)
            except FileNotFoundError:
                return None
        try:
            return Manifest.from_bytes(data, run_id)
        except Rejected as error:
            raise PeerError(f"{path} is damaged ({error}); remove it to fetch it again from the swarm") from error

    def needed_shards(self) -> set[bytes]:
        """The digests of the data of all runs that this home knows."""
        needed: set[bytes] = set()
        for run in self.runs():
            with suppress(PeerError):  # one that is damaged says nothing of its data
                manifest = self.manifest(run)
                needed.update(shard.digest for shard in (manifest.data.shards if manifest else ()))
        return needed

    @contextmanager
    def lock(self, run_id: str) -> Iterator[None]:
        """Held by the one daemon of this home in the run. Raises PeerError when another one is."""
        path = self.run_directory(run_id) / "daemon.lock"
        with ExitStack() as stack:
            with self._usable("lock"):
                try:
                    descriptor = stack.enter_context(locked(path, wait=False))
                except BlockingIOError as error:
                    leave = command(self.path, "leave", "--run-id", run_id)
                    raise PeerError(
                        f"another daemon (pid {path.read_text().strip() or 'unknown'}) of {self.path} is already in "
                        f"run {run_id}; stop it with `{leave}`, or join with another --home"
                    ) from error
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            yield

    def forget_unknown(self, run_id: str) -> None:
        """Removes what a daemon left of a run whose manifest never came, so that a wrong id is not known here now."""
        directory = self._run_path(run_id)
        if not directory.is_dir() or self.manifest(run_id) is not None:
            return
        with suppress(OSError), locked(directory / "daemon.lock", wait=False):  # not when another daemon waits for it
            if {entry.name for entry in os.scandir(directory)} <= _LEFT_WITHOUT_MANIFEST:
                shutil.rmtree(directory)

    def is_locked(self, run_id: str) -> bool:
        """Whether a daemon of this home is in the run, or still stopping."""
        try:
            with locked(self._run_path(run_id) / "daemon.lock", wait=False):
                return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False

    def directives_path(self, run_id: str) -> Path:
        """Where the organiser's directives are kept."""
        return self._run_path(run_id) / "directives"

    def snapshots_path(self, run_id: str) -> Path:
        """Where the daemon keeps its snapshots of the run."""
        return self._run_path(run_id) / "snapshots"

    def log_path(self, run_id: str) -> Path:
        """Where a daemon in the background logs."""
        return self._run_path(run_id) / "daemon.log"

    def control_socket(self, run_id: str) -> Path:
        """Where the daemon of this home in the run listens for its user.

        A socket's path is limited to about a hundred bytes, so it lies in a short directory of the user's own, under
        a name made from the home and the run.
        """
        place = hashlib.sha256(f"{self.path.resolve()}\0{run_id}".encode()).hexdigest()[:24]
        socket = runtime_directory() / f"{place}.sock"
        if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
            raise UsageError(f"{socket} is too long for a socket; set PEER_RUNTIME_DIR to a shorter path")
        return socket

    def _run_path(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is not a run id")
        return self.path / "runs" / run_id

    def _create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(self.path.iterdir()):
            self.path.chmod(0o700)  # an empty directory was made for us
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            raise PeerError(f"the home {self.path} belongs to another user; give another --home")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PeerError(f"others may write into the home {self.path}; run: chmod go-w {self.path}")

    @contextmanager
    def _usable(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            mend = "free some space" if error.errno in _FULL else "check its permissions"
            raise PeerError(
                f"the home {self.path} cannot be used for its {what}: {where}{error.strerror}; "
                f"{mend}, or give another --home"
            ) from error


def runtime_directory() -> Path:
    """The user's own 0700 directory for sockets: PEER_RUNTIME_DIR, else one under /tmp, else XDG_RUNTIME_DIR/peer.

    The login session's directory comes last, for it goes at the logout, and a daemon in the background stays.
    Raises PeerError when somebody else could write there.
    """
    if chosen := os.environ.get("PEER_RUNTIME_DIR"):
        return _private(Path(chosen))
    try:
        return _private(Path(tempfile.gettempdir()) / f"peer-{os.geteuid()}")
    except PeerError:  # somebody else was there first
        session = os.environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isdir(session) and os.stat(session).st_uid == os.geteuid():
            return _private(Path(session) / "peer")
        raise


def _private(directory: Path) -> Path:
    """`directory`, made where it is not there. Raises PeerError when it is not this user's alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise PeerError(f"{directory} cannot be made: {error.strerror}; set PEER_RUNTIME_DIR to another") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PeerError(f"{directory} must be a directory of yours with mode 700; set PEER_RUNTIME_DIR to another")
    return directory


def _write_secret(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret)


def _check_secret(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise PeerError(f"{path} belongs to another user; give another --home")
    if found.st_mode & 0o077:
        raise PeerError(f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):o}); run: chmod 600 {path}")


def _name(run_id: str) -> str:
    return run_id.rpartition("-")[0]


def _built_in() -> "Manifest":
    from peer.demo import demo_manifest  # noqa: PLC0415

    return demo_manifest()
