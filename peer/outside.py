"""A run seen from a machine without a daemon: the questions that `ControlClient` answers, put to the swarm.

Blocking, as the commands are; the node behind it lives in an event loop of its own, under a throw-away identity.
"""

import asyncio
import logging
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import uvloop

from dht.node import Node
from dht.p2pd import P2pdError
from peer import logs
from peer.direct import status_of_log
from peer.directive_store import save_directives, saved_log
from peer.directives import publish
from peer.ephemeral import ephemeral_node
from peer.errors import PeerError
from peer.export import export_whole
from peer.hints import command
from peer.home import Home
from peer.models.flat import initial_state, layout_of
from peer.models.registry import build_module
from peer.network_errors import explain_network_error
from peer.observer import Observer
from peer.plugins import PluginError
from peer.rejections import Rejections
from peer.snapshots import SnapshotError, export_model
from peer.status import DirectivesStatus, Status
from protocols.manifest import Pipeline
from protocols.signed import Signer

CONNECT_SECONDS = 15.0
LOOK_SECONDS = 2.0
"""Between two looks of `events`."""


class OutsideView:
    """Up while the context lasts. Every method raises PeerError."""

    def __init__(self, home: Home, run_id: str, initial_peers: Sequence[str]) -> None:
        """`home`: nothing is written there but what its user directs; it may have the manifest."""
        self.run_id = run_id
        self._home = home
        self._initial_peers = initial_peers
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._resources = AsyncExitStack()
        self._observer: Observer
        self._node: Node

    def __enter__(self) -> Self:
        logs.configure("text", level=logging.WARNING)
        try:
            self._observer = self._runner.run(self._start())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def status(self) -> Status:
        return self._runner.run(self._observer.look())

    def events(self) -> Generator[Status, None, None]:
        """The status now, and every LOOK_SECONDS, without end."""
        while True:
            yield self.status()
            self._runner.run(asyncio.sleep(LOOK_SECONDS))

    def export(self, path: Path) -> tuple[int, int]:
        """Writes the model to `path`; of which epoch it is, and how many members have signed it."""
        return self._runner.run(self._export(path))

    def directives(self) -> DirectivesStatus:
        """What the run's organiser has directed, and how fast the run goes."""
        return self._runner.run(self._directives())

    def direct(self, wire: bytes) -> None:
        """Hands a directive of this home's identity to members, who hand it on; and puts it into the DHT."""
        self._runner.run(self._direct(wire))

    async def _directives(self) -> DirectivesStatus:
        began, before = time.monotonic(), (await self._observer.look()).run.epoch
        await asyncio.sleep(LOOK_SECONDS)
        after = (await self._observer.look()).run.epoch
        manifest = await self._observer.manifest()
        known = await self._observer.directives()
        path = self._home.directives_path(self.run_id)
        for wire in saved_log(path, manifest).wires:  # of what was directed from here; the members may have forgotten
            known.take(wire)
        rate = max(0, after - before) / (time.monotonic() - began)
        return status_of_log(self.run_id, known, after, rate)

    async def _direct(self, wire: bytes) -> None:
        known = await self._observer.direct(wire)
        signer = Signer(self._home.identity(), self.run_id, time.time_ns())
        await publish(self._node.records, signer, known, time.time())
        if not self._home.is_locked(self.run_id):  # a daemon saves what it knows itself
            self._home.run_directory(self.run_id)
            save_directives(self._home.directives_path(self.run_id), known.wires)

    async def _start(self) -> Observer:
        rejections = Rejections()
        try:
            node, identity = await self._resources.enter_async_context(
                ephemeral_node(initial_peers=self._initial_peers, on_rejected=rejections)
            )
        except P2pdError as error:
            raise PeerError(explain_network_error(error)) from error
        if not await node.bootstrap.wait_connected(CONNECT_SECONDS):
            peers = [word for address in self._initial_peers for word in ("--initial-peers", address)]
            examine = command(self._home.path, "doctor", *peers)
            raise PeerError(f"no initial peer answers within {CONNECT_SECONDS:.0f} s; find out why with: {examine}")
        manifest = self._home.manifest(self.run_id)
        self._node = node
        return Observer(node.transport, node.records, Signer(identity, self.run_id, 0), manifest, rejections)

    async def _export(self, path: Path) -> tuple[int, int]:
        manifest = await self._observer.manifest()
        try:
            if isinstance(manifest.training, Pipeline):
                whole = await self._observer.gather()
                await asyncio.to_thread(export_whole, whole.state, manifest, path)
                return whole.state.epoch, len(whole.signers)
            layout = await asyncio.to_thread(lambda: layout_of(build_module(manifest.model)))
            like = await asyncio.to_thread(initial_state, manifest)
            state, choice = await self._observer.take_state(like)
            await asyncio.to_thread(export_model, state, manifest, layout, path)
        except (PluginError, SnapshotError) as error:
            raise PeerError(str(error)) from error
        return state.epoch, len(choice.holders)

    def _close(self) -> None:
        try:
            self._runner.run(self._resources.aclose())
        finally:
            self._runner.close()
