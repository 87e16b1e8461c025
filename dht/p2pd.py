"""The Go process `p2pd` that speaks libp2p for us: how it is started, watched and stopped.

It runs in a session of its own, so that a Ctrl-C on the terminal reaches us alone and we can part in order. It ends
by itself when the connection that hivemind keeps to it breaks, as it does when this process is killed. Its sockets lie
in a private directory that we hold a lock on, so that the next start can tell and remove what a killed process left.
They keep their place when the process ends by itself and is started again.
"""

import asyncio
import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from dht.scheduling import batch_scheduling
from dht.tasks import OwnedTasks

log = logging.getLogger(__name__)

START_SECONDS = 20.0
STOP_SECONDS = 5.0
_DIRECTORY_PREFIX = "peer-p2pd-"
_YOUNG_SECONDS = 10.0
"""A directory may be this young and not yet locked."""
_READY = "Peer ID:"
_ENVIRONMENT = {"GOLOG_LOG_LEVEL": "error", "GOMAXPROCS": "1"}
"""One thread at a time carries some 250 MB/s, more than a volunteer's link, and leaves the other cores to training."""
_LINE_BYTES = 16 * 1024


class P2pdError(Exception):
    """p2pd did not start, or has ended; the message says what it said last."""


class P2pd:
    """p2pd in a directory of its own; made by `start`, ended by `close`."""

    def __init__(self, command: Callable[[Path, Sequence[str]], list[str]], directory: Path, lock: int) -> None:
        """`command`: of a control socket and the addresses to listen on."""
        self._command = command
        self._directory = directory
        self._lock: int | None = lock
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = OwnedTasks()

    @property
    def control_path(self) -> Path:
        """The unix socket for commands to p2pd."""
        return self._directory / "control"

    @property
    def listen_path(self) -> Path:
        """Where we listen for the streams that p2pd hands to us."""
        return self._directory / "streams"

    @property
    def process_id(self) -> int | None:
        """None while it does not run."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    @classmethod
    async def start(
        cls,
        identity_path: Path,
        listen: Sequence[str],
        announce: Sequence[str],
        *,
        client_mode: bool,
        relays: Sequence[str] = (),
        serve_relay: bool = False,
    ) -> "P2pd":
        """Raises P2pdError when it does not come up; nothing is left behind then, nor when cancelled.

        `relays`: multiaddrs with `/p2p/…` of peers that are to pass connections on to us; `serve_relay`: we do so for
        others. Every p2pd, asked or not, passes on 128 KiB in 2 minutes for a connection, and in more than half of all
        starts this one does not get beyond that either: see `dht.relay_limit`.
        """
        _remove_left_directories()
        directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY_PREFIX))
        lock = os.open(directory, os.O_RDONLY)

        def command(control_path: Path, listen: Sequence[str]) -> list[str]:
            command = _command(identity_path, control_path, listen, announce, client_mode)
            return [*command, *_relay_options(relays, serve_relay)]

        p2pd = cls(command, directory, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            await p2pd.run(listen)
        except BaseException:
            await p2pd.close()
            raise
        return p2pd

    async def run(self, listen: Sequence[str]) -> None:
        """Runs the process, for the first time or after it has ended. Raises P2pdError when it does not come up."""
        self.control_path.unlink(missing_ok=True)
        try:
            with batch_scheduling():
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(self.control_path, listen),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env=_ENVIRONMENT | dict(os.environ) | {"GOLOG_LOG_FMT": "json"},
                    start_new_session=True,
                )
        except OSError as error:
            raise P2pdError(f"p2pd of the hivemind package cannot be started: {error}") from error
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.start(self._read_output(self._process, ready), "p2pd output")
        try:
            async with asyncio.timeout(START_SECONDS):
                await ready
        except TimeoutError:
            await self.stop()
            raise P2pdError(f"p2pd did not start in {START_SECONDS:.0f} seconds") from None
        except P2pdError:
            await self.stop()
            raise

    async def ended(self) -> None:
        """Returns when the process has ended."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """Ends the process, if it runs; `run` starts another."""
        if self._process is None:
            return
        try:
            with suppress(ProcessLookupError):
                self._process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Returns when the process is gone and its sockets are removed."""
        try:
            await self.stop()
            await self._tasks.close()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def _read_output(self, process: asyncio.subprocess.Process, ready: "asyncio.Future[None]") -> None:
        assert process.stdout is not None
        text = ""
        async for line in _lines(process.stdout):
            text = line
            if text.startswith(_READY) and not ready.done():
                ready.set_result(None)
            log.debug("p2pd: %s", _message(text))
        if not ready.done():
            ready.set_exception(P2pdError(f"p2pd did not start: {text or 'it ended without a word'}"))


def _command(
    identity_path: Path,
    control_path: Path,
    listen: Sequence[str],
    announce: Sequence[str],
    client_mode: bool,
) -> list[str]:
    binary = files("hivemind.hivemind_cli") / "p2pd"
    options = {
        "listen": f"/unix{control_path}",
        "id": str(identity_path),
        "autonat": 1,
        "connManager": 1,
        "idleTimeout": "30s",
        "natPortMap": int(not client_mode),
        "noise": 0,  # TLS 1.3 alone: AES in hardware takes a quarter less CPU time a byte than Noise's ChaCha20
        "relay": 1,
        "tls": 1,
    }
    if client_mode:
        options |= {"dhtClient": 1, "noListenAddrs": 1}
    else:
        options |= {"dhtServer": 1, "hostAddrs": ",".join(listen)}
    if announce:
        options["announceAddrs"] = ",".join(announce)
    return [str(binary), *(f"-{name}={value}" for name, value in options.items())]


def _relay_options(relays: Sequence[str], serve_relay: bool) -> list[str]:
    """go-libp2p takes a place at a relay when it believes that nobody can dial it, and serves when all can: say so.

    It would look for relays by itself for minutes before it turns to those named.
    """
    if relays:
        named = f"-trustedRelays={','.join(relays)}"
        return ["-autoRelay=1", "-relayDiscovery=0", named, "-forceReachabilityPrivate=1"]
    return ["-relayService=1", "-forceReachabilityPublic=1"] if serve_relay else []


async def _lines(output: asyncio.StreamReader) -> AsyncIterator[str]:
    """Its lines, of each no more than _LINE_BYTES: what others say may be in them, and is as long as they like."""
    line = b""
    while piece := await output.read(_LINE_BYTES):
        *whole, line = (line + piece).split(b"\n")
        for each in whole:
            yield each[:_LINE_BYTES].decode(errors="replace").rstrip()
        line = line[:_LINE_BYTES]
    if line:
        yield line.decode(errors="replace").rstrip()


def _message(line: str) -> str:
    """The message of one line of Go's JSON log, or the line itself."""
    try:
        record = json.loads(line)
        return f"{record['caller']} {record['msg']} {record.get('error', '')}".rstrip()
    except (ValueError, KeyError, TypeError):
        return line


def _remove_left_directories() -> None:
    """Removes the socket directories of processes of this user that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            lock = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                status = os.fstat(lock)
                if status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNG_SECONDS:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its process lives
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
