"""The control API from the other side: one user, one daemon, one request at a time.

Blocking, on the standard library's HTTP client: a one-shot `peer status` answers before an asynchronous client would
have been imported.
"""

import json
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from peer.errors import NoDaemon, PeerError
from peer.files import write_atomically
from peer.hints import command
from peer.home import Home
from peer.status import DirectivesStatus, Status

_ANSWER_SECONDS = 10.0
_EXPORT_SECONDS = 600.0
_LEAVE_SECONDS = 120.0
_COPY_BYTES = 1024 * 1024


class ControlClient:
    """The daemon of `home` in one run. Every method raises NoDaemon when none listens, PeerError when it fails."""

    def __init__(self, home: Home, run_id: str) -> None:
        self._home = home
        self._socket_path = home.control_socket(run_id)
        self.run_id = run_id

    def listens(self) -> bool:
        """Whether a daemon is there."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self._socket_path)) == 0

    def status(self) -> Status:
        with self._request("GET", "/status") as response:
            return Status.model_validate_json(response.read())

    def metrics(self) -> str:
        """In Prometheus's text format: docs/metrics.md."""
        with self._request("GET", "/metrics") as response:
            return response.read().decode()

    def events(self, timeout_seconds: float | None = None) -> Generator[Status, None, None]:
        """The status now and whenever it has changed, until the daemon stops or nothing comes for so long."""
        with self._request("GET", "/events", timeout_seconds) as response:
            while line := response.readline():
                yield Status.model_validate_json(line)

    def leave(self) -> None:
        """Asks the daemon to finish and stop, and returns when it is gone."""
        events = self.events(_LEAVE_SECONDS)
        deadline = time.monotonic() + _LEAVE_SECONDS
        with closing(events):
            next(events, None)
            with self._request("POST", "/leave") as response:
                response.read()
            for _ in events:
                if time.monotonic() > deadline:
                    break
        while self.listens() or self._home.is_locked(self.run_id):
            if time.monotonic() > deadline:
                raise PeerError(
                    f"the daemon still runs {_LEAVE_SECONDS:.0f} s after it was asked to leave {self.run_id}; "
                    "see its log, or stop it with Ctrl-C twice"
                )
            time.sleep(0.02)

    def directives(self) -> DirectivesStatus:
        """What the run's organiser has directed."""
        with self._request("GET", "/directives") as response:
            return DirectivesStatus.model_validate_json(response.read())

    def direct(self, wire: bytes) -> None:
        """Hands a signed directive to the daemon, which hands it on."""
        with self._request("POST", "/directives", body=wire) as response:
            response.read()

    def export(self, path: Path) -> None:
        """Writes the daemon's current model to `path`, whole or not at all."""
        with self._request("GET", "/snapshot", _EXPORT_SECONDS) as response:
            write_atomically(path, lambda temporary: _copy(response, temporary))

    @contextmanager
    def _request(
        self, method: str, path: str, timeout_seconds: float | None = _ANSWER_SECONDS, body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        connection = _UnixConnection(self._socket_path, timeout_seconds)
        with closing(connection):
            try:
                connection.connect()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                start = command(self._home.path, "join", "--run-id", self.run_id)
                raise NoDaemon(
                    f"no daemon of {self._home.path} is in run {self.run_id}; start one with: {start}"
                ) from error
            try:
                connection.request(method, path, body)
                with connection.getresponse() as response:
                    if response.status >= 400:
                        raise PeerError(_reason(response))
                    yield response
            except TimeoutError as error:
                raise PeerError(f"the daemon in run {self.run_id} does not answer; see its log") from error
            except (HTTPException, ConnectionError, ValueError) as error:
                raise PeerError(
                    f"the daemon in run {self.run_id} broke off its answer: {error!r}; try again"
                ) from error


def running_daemons(home: Home) -> list[ControlClient]:
    """The daemons of this home, one a run."""
    return [client for run_id in home.runs() if (client := ControlClient(home, run_id)).listens()]


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float | None) -> None:
        super().__init__("daemon")
        self._path = path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_seconds)
        self.sock.connect(str(self._path))


def _copy(source: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while piece := source.read(_COPY_BYTES):
            file.write(piece)


def _reason(response: HTTPResponse) -> str:
    body = response.read()
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the daemon answered {response.status} {response.reason}; see its log"
