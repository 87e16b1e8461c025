"""The control API: HTTP over a unix socket that only this user may open.

    GET  /status       the object of `peer.status.Status`
    GET  /peers        its list `peers`
    GET  /events       the status whenever it has changed, one JSON object a line, at most four a second, until the end
    GET  /directives   what the organiser has directed: `peer.status.DirectivesStatus`
    POST /directives   a directive as the organiser has signed it: 202, or 409 when it is none of this run
    GET  /snapshot     the model as safetensors
    GET  /metrics      for Prometheus: docs/metrics.md
    POST /leave        202; the daemon finishes what it is at, and stops

`serve_control` is the outermost thing of a daemon: when its socket is closed, the daemon is gone.
"""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from peer.errors import PeerError
from peer.status import DirectivesStatus, Status

EVENT_INTERVAL_SECONDS = 0.25
_SHUTDOWN_SECONDS = 0.5
"""How long a request that is being answered may take when the daemon stops; event streams never end by themselves."""


_PIECE_BYTES = 1024 * 1024
_MAX_BODY_BYTES = 64 * 1024


class DaemonView(Protocol):
    """What the control API needs of a daemon."""

    def status(self) -> Status: ...

    async def changed(self) -> None:
        """Returns when the status has changed since the call."""

    def leave(self) -> None:
        """Asks the daemon to finish and stop."""

    def metrics(self) -> bytes:
        """In Prometheus's text format."""

    def directives(self) -> DirectivesStatus:
        """What the organiser has directed. Raises PeerError while it is not known."""

    async def direct(self, wire: bytes) -> None:
        """Takes a signed directive in and hands it on. Raises PeerError when it is none of this run's organiser."""

    async def export(self, path: Path) -> None:
        """Writes the current model to `path` as safetensors. Raises PeerError when there is none yet."""


@asynccontextmanager
async def serve_control(daemon: DaemonView, socket_path: Path, *, scratch: Path) -> AsyncIterator[None]:
    """Serves the API at `socket_path` while the context lasts; exports pass through files in `scratch`.

    The socket that a killed daemon left behind is replaced. Raises PeerError when a living one listens there.
    """
    listener = _listen(socket_path)
    runner = web.AppRunner(
        _application(daemon, scratch), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield
    finally:
        _remove(socket_path)
        await runner.cleanup()
        listener.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise PeerError(f"another daemon listens at {path}; stop it with `peer leave`")
        _remove(path)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise PeerError(f"the control socket {path} cannot be opened: {error.strerror}") from error
    except PeerError:
        listener.close()
        raise
    return listener


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _application(daemon: DaemonView, scratch: Path) -> web.Application:
    async def status(_request: web.Request) -> web.Response:
        return _json(daemon.status().to_json())

    async def peers(_request: web.Request) -> web.Response:
        return _json(json.dumps([member.model_dump(mode="json") for member in daemon.status().peers]))

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=daemon.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def leave(_request: web.Request) -> web.Response:
        daemon.leave()
        return _json(json.dumps({"leaving": daemon.status().run.id}), 202)

    async def directives(_request: web.Request) -> web.Response:
        try:
            return _json(daemon.directives().to_json())
        except PeerError as error:
            return _json(json.dumps({"error": str(error)}), 409)

    async def direct(request: web.Request) -> web.Response:
        try:
            await daemon.direct(await request.read())
        except PeerError as error:
            return _json(json.dumps({"error": str(error)}), 409)
        return _json(json.dumps({"taken": True}), 202)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        sent = ""
        while True:
            current = daemon.status().to_json()
            if current != sent:
                await response.write(f"{current}\n".encode())
                sent = current
                await asyncio.sleep(EVENT_INTERVAL_SECONDS)
            else:
                await daemon.changed()

    async def snapshot(request: web.Request) -> web.StreamResponse:
        directory = tempfile.TemporaryDirectory(dir=scratch, prefix=".export-")
        try:
            path = Path(directory.name) / "model.safetensors"
            await daemon.export(path)
            file = await asyncio.to_thread(path.open, "rb")
        except PeerError as error:
            return _json(json.dumps({"error": str(error)}), 409)
        finally:  # removing a large file takes long
            await asyncio.to_thread(directory.cleanup)
        return await _send(request, file)  # which has no name any more: it goes when it has been sent

    application = web.Application(middlewares=[_errors_as_json], client_max_size=_MAX_BODY_BYTES)
    application.add_routes(
        [
            web.get("/status", status),
            web.get("/peers", peers),
            web.get("/events", events),
            web.get("/snapshot", snapshot),
            web.get("/metrics", metrics),
            web.get("/directives", directives),
            web.post("/directives", direct),
            web.post("/leave", leave),
        ]
    )
    return application


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json(json.dumps({"error": f"{request.method} {request.path}: {error.reason}"}), error.status)


async def _send(request: web.Request, file: BinaryIO) -> web.StreamResponse:
    try:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = os.fstat(file.fileno()).st_size
        await response.prepare(request)
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            await response.write(piece)
        await response.write_eof()
        return response
    finally:
        await asyncio.to_thread(file.close)  # its last name is gone: closing removes it


def _json(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text + "\n", status=status, content_type="application/json")
