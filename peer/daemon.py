"""The daemon: one participant in one run, with a home, a libp2p node, a control socket and a user.

What is started first is closed last: lock, control socket, node, participant.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator, Set
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import structlog
import uvloop

from dht.border import Border
from dht.clock import SystemClock
from dht.dial_back import serve_dial_back
from dht.local_discovery import LocalDiscoveryError
from dht.node import DEFAULT_LISTEN, Node
from dht.p2pd import P2pd, P2pdError
from dht.sink import serve_sink
from peer import logs
from peer.clock_watch import watch_wall_clock
from peer.compute_threads import use_threads
from peer.control import serve_control
from peer.data.dataset import DatasetError
from peer.direct import status_of_log
from peer.directive_store import DirectivesFile
from peer.end_process import end_process_within
from peer.errors import PeerError
from peer.export import export_whole
from peer.hang_watch import hang_watch
from peer.heap import settle_heap
from peer.hints import command
from peer.home import Home
from peer.manifests import fetch_manifest
from peer.member import Member
from peer.metrics import Metrics
from peer.misbehaviour.sybil import Sybil, identities_beside
from peer.models.flat import initial_state
from peer.neighbourhood import Neighbourhood
from peer.network_errors import explain_network_error
from peer.plugins import PluginError
from peer.preparation import Preparation, Prepared
from peer.rejections import Rejections
from peer.settings import JoinSettings
from peer.snapshots import SnapshotError, export_model
from peer.status import DirectivesStatus, Status
from peer.swarm.pipeline import PipelinePeer
from peer.tasks import beside
from peer.view import epoch_of, starting_status, status_of
from peer.watchdog import watch_event_loop
from protocols.directives import Directive
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.records import RosterEntry
from protocols.rejection import Rejected
from protocols.signed import open_signed

CONNECT_SECONDS = 15.0
"""How long initial peers are waited for before we go on alone (and go on trying)."""
MANIFEST_SECONDS = 30.0
LINGER_SECONDS = 10.0
"""With --until-done: how long others that are behind are still served at the end."""
AT_ONCE_SECONDS = 1.5
"""From the second signal until the process ends, though its threads may still run."""
LOCAL_CONNECT_SECONDS = 5.0
LOOK_AROUND_SECONDS = 1.0
MEET_SECONDS = 5.0
STATUS_SECONDS = 1.0
SHOW_SECONDS = 0.1

log = structlog.get_logger()


def run_daemon(settings: JoinSettings, on_status: Callable[[Status], None] | None = None) -> int:
    """Joins the run and stays until it is told to leave; the exit code. Raises PeerError."""
    logs.configure(settings.log_format)
    use_threads(settings.threads)
    try:
        return uvloop.run(Daemon(settings, on_status).run())
    except P2pdError as error:
        raise PeerError(explain_network_error(error)) from error
    except (LocalDiscoveryError, DatasetError, PluginError, SnapshotError) as error:
        raise PeerError(str(error)) from error
    finally:
        gc.freeze()  # else the interpreter, as it ends, looks for garbage in all of torch: a second, or ten when busy


class Daemon:
    """Implements `peer.control.DaemonView`."""

    def __init__(self, settings: JoinSettings, on_status: Callable[[Status], None] | None) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._on_status = on_status
        self._rejections = Rejections()
        self._metrics = Metrics(self.status, self._network_process)
        self._peer_id = self._home.identity().peer_id
        self._border = Border(self._peer_id, SystemClock(), self._rejections)
        self._manifest: Manifest | None = None
        self._prepared: Prepared | None = None
        self._stopped_by_user = False
        self._main: asyncio.Task[int]
        self._node: Node
        self._p2pd: P2pd | None = None
        self._neighbourhood: Neighbourhood | None = None
        self._directives_file = DirectivesFile(self._home.directives_path(settings.run_id))
        self._around: Set[PeerId] = frozenset()
        """Whom we saw when we looked around last."""

    async def run(self) -> int:
        """The exit code. Raises PeerError."""
        run_id = self._settings.run_id
        main = asyncio.current_task()
        assert main is not None
        self._main = main
        try:
            async with AsyncExitStack() as resources:
                resources.enter_context(hang_watch())
                resources.enter_context(self._home.lock(run_id))
                resources.enter_context(self._signals())
                socket_path, scratch = self._home.control_socket(run_id), self._home.run_directory(run_id)
                await resources.enter_async_context(serve_control(self, socket_path, scratch=scratch))
                log.info("control API", socket=str(socket_path))
                await self._start_node(resources)
                self._manifest = self._home.manifest(run_id) or await self._fetch_manifest()
                self._prepared = await self._prepare(self._manifest, resources)
                participant = self._prepared.participant
                await participant.start()
                if isinstance(participant, Sybil):
                    addresses, listen = self._node.addresses(), self._settings.listen
                    first = await asyncio.to_thread(initial_state, self._manifest)
                    await resources.enter_async_context(identities_beside(participant, first, addresses, listen))
                settle_heap()
                await self._take_part(self._prepared)
        except asyncio.CancelledError:
            if not self._stopped_by_user:
                raise
        return 0

    # -- what the control API shows -----------------------------------------------------------------------------------

    @property
    def participant(self) -> Member:
        assert self._prepared is not None
        return self._prepared.participant

    @property
    def _pipeline(self) -> PipelinePeer | None:
        return self._prepared.pipeline if self._prepared is not None else None

    def status(self) -> Status:
        if self._prepared is None:
            return starting_status(self._settings, self._peer_id, self._manifest)
        return status_of(self.participant, self._peer_id, self._pipeline)

    async def changed(self) -> None:
        if self._prepared is None:
            await asyncio.sleep(STATUS_SECONDS)
            return
        with suppress(TimeoutError):  # what others say of themselves grows older even when nothing happens
            async with asyncio.timeout(STATUS_SECONDS):
                if not self.participant.averages:  # nothing of its own changes
                    await self.participant.membership.heard.wait()
                else:
                    await self.participant.changed.wait()

    def metrics(self) -> bytes:
        return self._metrics.to_text()

    def leave(self) -> None:
        """Finishes the round and departs; while still coming up, stops at once."""
        if self._prepared is None:
            self._stop_at_once()
        else:
            self.participant.leave()

    def directives(self) -> DirectivesStatus:
        if self._prepared is None:
            raise PeerError("this daemon is still coming up; try again in a moment")
        participant = self.participant
        known, epoch = participant.directives.log, epoch_of(participant)
        return status_of_log(participant.manifest.run_id, known, epoch, participant.epochs_per_second)

    async def direct(self, wire: bytes) -> None:
        if self._prepared is None:
            raise PeerError("this daemon is still coming up; try again in a moment")
        directives, run_id = self.participant.directives, self._settings.run_id
        try:
            number = open_signed(wire, Directive, run=run_id).body.number
            if number < directives.log.next_number:
                raise PeerError(f"{run_id} has had a directive {number} in the meantime; look at it, and try again")
            directives.take(wire)
        except Rejected as error:
            raise PeerError(f"this is no directive of {run_id}: {error}") from error
        await self._directives_file.save(directives.log)

    async def export(self, path: Path) -> None:
        prepared = self._prepared
        if prepared is not None and prepared.pipeline is not None:
            whole = await prepared.pipeline.gather()
            await asyncio.to_thread(export_whole, whole.state, prepared.participant.manifest, path)
            return
        if self._settings.role == "monitor":
            raise PeerError(f"a monitor has no model; take it from the members: {self._export_from_outside()}")
        if prepared is None or prepared.model is None or not prepared.participant.joined:
            raise PeerError("this daemon has no model yet; see `peer status`, and try again when it has synced")
        state, manifest = prepared.participant.state, prepared.participant.manifest
        await asyncio.to_thread(export_model, state, manifest, prepared.model.layout, path)

    def _export_from_outside(self) -> str:
        roster = self.participant.membership.roster if self._prepared is not None else ()
        addresses = [address for member in roster for address in member.entry.addresses]
        through = addresses[0] if addresses else "ADDRESS"
        words = ("--run-id", self._settings.run_id, "--initial-peers", through, "--output", "FILE")
        return command(self._home.path, "export", *words)

    def _network_process(self) -> int | None:
        return self._p2pd.process_id if self._p2pd is not None else None

    # -- coming up ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM finishes the round and departs, the second stops at once, whatever runs."""
        loop = asyncio.get_running_loop()
        asked = 0

        def stop() -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                log.info("leaving; once more to stop at once")
                self.leave()
            elif asked == 2:
                end_process_within(AT_ONCE_SECONDS, self._kill_network_process)
                self._stop_at_once()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop_at_once(self) -> None:
        self._stopped_by_user = True
        self._main.cancel()

    def _kill_network_process(self) -> None:
        if (process := self._network_process()) is not None:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    async def _start_node(self, resources: AsyncExitStack) -> None:
        """Up, and connected to whoever is there already."""
        settings = self._settings
        self._node = node = await Node.start(
            self._home.identity_path,
            initial_peers=settings.initial_peers,
            listen=settings.listen or (DEFAULT_LISTEN,),
            announce=settings.announce,
            client_mode=settings.client_mode,
            relays=settings.relay,
            serve_relay=settings.serve_relay,
            run=settings.run_id,
            on_rejected=self._rejections,
            on_record_refused=lambda reason, message: self._rejections(PeerId("a node of the DHT"), reason, message),
        )
        resources.push_async_callback(node.close)
        self._p2pd = node.p2pd
        await serve_dial_back(node)
        await serve_sink(node.transport)
        if settings.bandwidth is not None:
            node.transport.bandwidth.limit_bytes_per_second = settings.bandwidth * 1e6 / 8
        log.info("listening", peer=node.peer_id, addresses=list(node.addresses()))
        if settings.local_discovery:
            self._neighbourhood = await Neighbourhood.start(
                settings.run_id, node.peer_id, node.addresses(), client_mode=settings.client_mode
            )
            resources.push_async_callback(self._neighbourhood.close)
        found = await self._look_around()
        if settings.initial_peers or found:
            seconds = CONNECT_SECONDS if settings.initial_peers else LOCAL_CONNECT_SECONDS
            if not await node.bootstrap.wait_connected(seconds):
                log.warning("no peer answers yet; going on, and trying again", waited_seconds=seconds)

    async def _look_around(self) -> dict[PeerId, tuple[str, ...]]:
        """The other daemons of the run on this machine and its local network; the node stays connected to them."""
        found = await self._neighbourhood.others() if self._neighbourhood is not None else {}
        for peer in self._around - found.keys():
            self._node.bootstrap.forget(peer)
        for addresses in found.values():
            self._node.bootstrap.add(addresses)
        self._around = found.keys()
        return found

    async def _members(self) -> list[PeerId]:
        """The members that the DHT and this machine know, to be dialled when they are asked; before we are one."""
        records = await self._node.records.lookup(self._settings.run_id, RosterEntry.kind)
        found = {record.sender: record.body.addresses for record in records} | await self._look_around()
        for member, addresses in found.items():
            self._node.transport.remember(member, addresses)
        return [member for member in found if member != self._peer_id]

    async def _fetch_manifest(self) -> Manifest:
        """The manifest of a run that this home does not know yet, from any of its members."""
        run_id, transport = self._settings.run_id, self._node.transport
        deadline = transport.clock.monotonic() + MANIFEST_SECONDS
        while transport.clock.monotonic() < deadline:
            if manifest := await fetch_manifest(transport, run_id, await self._members()):
                self._home.store_manifest(manifest)
                return manifest
            await transport.clock.sleep(1.0)
        raise PeerError(
            f"no member of {run_id} was found within {MANIFEST_SECONDS:.0f} s; check the run id, and give the address "
            "of a member that is up now with --initial-peers"
        )

    async def _prepare(self, manifest: Manifest, resources: AsyncExitStack) -> Prepared:
        settings, node, on_round = self._settings, self._node, self._metrics.add_round
        preparation = Preparation(settings, self._home, node, manifest, self._rejections, on_round, resources)
        return await preparation.prepare()

    # -- being there --------------------------------------------------------------------------------------------------

    async def _take_part(self, prepared: Prepared) -> None:
        participant, pipeline = prepared.participant, prepared.pipeline
        log.info("joining", run=participant.manifest.run_id, epoch=participant.state.epoch)
        log.info("others join with", command=self._invitation())
        watching = watch_event_loop(self._metrics.add_lag)
        saving = prepared.saving.keep_saving()
        directing = beside(self._directives_file.keep_saving(participant.directives, self._border))
        async with beside(self._keep_looking()), beside(saving), beside(self._show()), beside(watching), directing:
            clock = watch_wall_clock(self._node.transport.clock)
            await self._meet_neighbours()  # we are up: of two who start together one sees the other
            work = pipeline.run() if pipeline is not None else asyncio.sleep(0)
            async with beside(self._leave_when_done()), beside(self._keep_announced()), beside(clock), beside(work):
                await participant.run(self._settings.max_epochs)
            await self._directives_file.save(participant.directives.log)
            await prepared.saving.save(last=True)
        if self._on_status is not None:
            self._on_status(self.status())
        log.info("left", epoch=participant.state.epoch, samples_contributed=participant.samples_contributed)

    def _invitation(self) -> str:
        addresses = self._node.addresses()
        elsewhere = [address for address in addresses if "/127.0.0.1/" not in address] or list(addresses)
        peers = f" --initial-peers {elsewhere[0]}" if elsewhere else ""
        return f"peer join --run-id {self._settings.run_id}{peers}"

    async def _keep_looking(self) -> None:
        """Meets daemons that start on this machine and its local network."""
        while True:
            await asyncio.sleep(LOOK_AROUND_SECONDS)
            await self._meet_neighbours()

    async def _meet_neighbours(self) -> None:
        membership = self.participant.membership
        async with self._border.around("looking around"):
            around = await self._look_around()
            strangers = {peer: found for peer, found in around.items() if membership.roster.get(peer) is None}
            with suppress(TimeoutError):  # one that is gone without a word does not keep us from the next
                async with asyncio.timeout(MEET_SECONDS):
                    await membership.meet_all(strangers)

    async def _keep_announced(self) -> None:
        """Tells everybody when this machine has moved."""
        while True:
            await self._node.moved()
            async with self._border.around("telling that the machine has moved"):
                self.participant.membership.announce()
                if self._neighbourhood is not None:
                    await self._neighbourhood.move(self._node.addresses())

    async def _leave_when_done(self) -> None:
        """With --until-done: leaves at the run's end, when the others have it too, or after a while.

        In a pipeline also when it is evaluated, for which all stages have to be there: whoever does it leaves first.
        """
        if not self._settings.until_done:
            return
        participant = self.participant
        last = participant.manifest.epochs
        while epoch_of(participant) < last:
            await self.changed()
        evaluator = self._pipeline.evaluator(last) if self._pipeline is not None else None
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (
                    participant.activity != "idle" or self._others_need_us(last) or self._is_evaluating(evaluator, last)
                ):
                    await self.changed()
        participant.leave()

    def _others_need_us(self, last: int) -> bool:
        """Whether some have not come to the last epoch who have a state."""
        return any(
            member.epoch < last
            and member.entry.role != "monitor"
            and (self._pipeline is None or member.entry.stage is not None)
            for member in self.participant.membership.roster
        )

    def _is_evaluating(self, evaluator: PeerId | None, epoch: int) -> bool:
        if self._pipeline is None or evaluator is None:
            return False
        if evaluator == self._peer_id:
            return self._pipeline.participant.evaluated_epoch != epoch
        return self.participant.membership.roster.get(evaluator) is not None

    async def _show(self) -> None:
        if self._on_status is None:
            return
        while True:
            async with self._border.around("showing the status"):
                self._on_status(self.status())
            await self.changed()
            await asyncio.sleep(SHOW_SECONDS)
