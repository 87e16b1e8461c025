"""A simulated network: hundreds of peers in one process, under virtual time, the same from the same seed.

Peers have links with bandwidth, latency, jitter and loss, and may be in regions that are further from each other;
they crash and restart, and the network can be parted and healed. A connection between parted peers holds back what is
sent and breaks when that lasts, as TCP does.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from dht.exchange import CONNECT_SECONDS, ExchangeTransport
from dht.interfaces import Clock, OnRejected, Records, Unreachable
from dht.simulated_connection import STALL_SECONDS, SimulatedConnection, Traffic
from dht.simulated_link import Attachment, Channel, Link
from dht.virtual_time import VirtualClock, VirtualTimeLoop
from protocols.identity import PeerId
from protocols.records import RECORDS, Record, check_record, current_expirations, record_key_digest
from protocols.rejection import Rejected
from protocols.signed import Signed

Result = TypeVar("Result")
Distances = Mapping[frozenset[str], float]
"""Between two regions (or within one): seconds, one way, beside the latency of the links."""


def run_simulation(
    main: Callable[["SimulatedNetwork"], Coroutine[Any, Any, Result]],
    seed: int,
    link: Link | None = None,
    distances: Distances | None = None,
) -> Result:
    """Runs `main` with a new network, in virtual time, to its end. Raises DeadlockError when nothing can happen."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main(SimulatedNetwork(seed, link or Link(), distances or {})))


class SimulatedNetwork:
    """The peers, their links and the connections between them."""

    def __init__(self, seed: int, link: Link, distances: Distances) -> None:
        """`link`: of every peer that joins without one of its own."""
        self.random = Random(seed)  # noqa: S311 - repeatable on purpose
        self.clock: Clock = VirtualClock()
        """Right, as the clocks of most nodes of the DHT are."""
        self._clocks: dict[PeerId, VirtualClock] = {}
        self._link, self._distances = link, distances
        self._attached: dict[PeerId, Attachment] = {}
        self._transports: dict[PeerId, SimulatedTransport] = {}
        self._connections: dict[PeerId, dict[SimulatedConnection, None]] = {}
        """The ends at each peer."""
        self._group_of: dict[PeerId, int] = {}
        self._regrouped = asyncio.Event()
        self._records: dict[tuple[str, str], dict[PeerId, Signed[Record]]] = {}
        self.traffic: dict[str, Traffic] = {}
        """By the kind of request or stream: what has been delivered so far, whatever became of it."""
        self._trace = hashlib.blake2b()

    def join(
        self,
        peer: PeerId,
        *,
        link: Link | None = None,
        client_mode: bool = False,
        on_rejected: OnRejected = lambda peer, reason, message: None,
    ) -> "SimulatedTransport":
        """Attaches `peer`, for the first time or again after a crash."""
        if peer in self._transports:
            raise ValueError(f"{peer} has joined already")
        self._attached[peer] = Attachment(link or self._link)
        transport = SimulatedTransport(self, peer, on_rejected, client_mode=client_mode)
        self._transports[peer] = transport
        return transport

    def records(self, peer: PeerId) -> "SimulatedRecords":
        """The DHT as `peer` sees it."""
        return SimulatedRecords(self, peer)

    def crash(self, peer: PeerId) -> None:
        """The peer's process is killed: its connections break, its handlers stop, nothing is said.

        Whoever runs the peer's own tasks cancels those.
        """
        transport = self._transports.pop(peer)
        transport.stop()
        for connection in list(self._connections.get(peer, ())):
            connection.break_both(self.latency(peer, connection.remote))

    def clock_of(self, peer: PeerId) -> Clock:
        return self._clocks.setdefault(peer, VirtualClock())

    def set_wall_clock(self, peer: PeerId, offset_seconds: float) -> None:
        """From now on its wall clock is ahead of the right one by so much."""
        self._clocks.setdefault(peer, VirtualClock()).wall_offset_seconds = offset_seconds

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """Only peers of one group reach each other; peers of no group form one more."""
        self._group_of = {peer: number for number, group in enumerate(groups) for peer in group}
        loop = asyncio.get_running_loop()
        for connection in [connection for ends in self._connections.values() for connection in ends]:
            if self.parted(connection.local, connection.remote):
                loop.call_later(STALL_SECONDS, connection.break_if_parted)
            else:
                connection.release_held()
        self._regrouped.set()
        self._regrouped = asyncio.Event()

    def heal(self) -> None:
        """Ends the partition; what was held back arrives now."""
        self.partition()

    async def united(self, one: PeerId, other: PeerId) -> None:
        """Returns when the two can reach each other."""
        while self.parted(one, other):
            await self._regrouped.wait()

    @property
    def is_whole(self) -> bool:
        """Whether all can reach each other."""
        return not self._group_of

    def parted(self, one: PeerId, other: PeerId) -> bool:
        return self._group_of.get(one) != self._group_of.get(other)

    def trace(self) -> str:
        """A digest of all deliveries so far: when, from whom to whom, how many bytes."""
        return self._trace.hexdigest()

    # ── for transports, connections and records ──

    def transport(self, peer: PeerId) -> "SimulatedTransport | None":
        """None while the peer is not there."""
        return self._transports.get(peer)

    def leave(self, peer: PeerId) -> None:
        if peer in self._transports:
            self.crash(peer)

    def latency(self, one: PeerId, other: PeerId) -> float:
        """One way, in seconds, without jitter."""
        return self._latency(self._link_of(one), self._link_of(other))

    def connect_pair(self, one: PeerId, other: PeerId, kind: str) -> tuple[SimulatedConnection, SimulatedConnection]:
        """The end at `one`, and that at the other."""
        traffic = self.traffic.setdefault(kind, Traffic())
        near = SimulatedConnection(self, one, other, traffic)
        far = SimulatedConnection(self, other, one, traffic)
        near.other, far.other = far, near
        for end in (near, far):
            self._connections.setdefault(end.local, {})[end] = None
        return near, far

    def forget(self, connection: SimulatedConnection) -> None:
        for end in (connection, connection.other):
            if end is not None:
                self._connections.get(end.local, {}).pop(end, None)

    def drop_connections(self, one: PeerId, other: PeerId) -> None:
        for connection in list(self._connections.get(one, ())):
            if connection.remote == other:
                connection.break_both(self.latency(one, other))

    def open_connections(self, peer: PeerId) -> int:
        """How many have an end at `peer`."""
        return len(self._connections.get(peer, ()))

    def way(self, sender: PeerId, receiver: PeerId) -> tuple[Channel, Channel, float]:
        """The channels that a message passes now, and the seconds between them."""
        up, down = self._attached[sender], self._attached[receiver]
        jitter = up.link.jitter_seconds + down.link.jitter_seconds
        drawn = self.random.uniform(0.0, jitter) if jitter else 0.0
        return up.upload, down.download, self._latency(up.link, down.link) + drawn

    def loses(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether what is sent now is lost."""
        kept = (1 - self._link_of(sender).loss) * (1 - self._link_of(receiver).loss)
        return kept < 1 and self.random.random() >= kept

    def drop(self, connection: SimulatedConnection) -> None:
        """What has not passed of what it has sent does not arrive any more."""
        self._attached[connection.local].upload.drop(connection)
        self._attached[connection.remote].download.drop(connection)

    def record(self, now: float, sender: PeerId, receiver: PeerId, size_bytes: int) -> None:
        """Enters a delivery into the trace."""
        self._trace.update(f"{now!r} {sender} {receiver} {size_bytes}\n".encode())

    def stored(self, run: str, kind: str) -> dict[PeerId, Signed[Record]]:
        return self._records.setdefault((run, kind), {})

    def _latency(self, near: Link, far: Link) -> float:
        distance = self._distances.get(frozenset((near.region, far.region)), 0.0) if self._distances else 0.0
        return near.latency_seconds + far.latency_seconds + distance

    def _link_of(self, peer: PeerId) -> Link:
        attachment = self._attached.get(peer)
        return attachment.link if attachment else self._link


class SimulatedTransport(ExchangeTransport):
    """One peer's transport, until it closes or crashes; as with libp2p, it must connect to a peer before it asks it."""

    def __init__(
        self, network: SimulatedNetwork, peer_id: PeerId, on_rejected: OnRejected, *, client_mode: bool
    ) -> None:
        super().__init__(peer_id, network.clock_of(peer_id), on_rejected)
        self._network = network
        self._client_mode = client_mode
        self._known: set[PeerId] = set()
        self._running = True

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can connect to; none in client mode."""
        return () if self._client_mode else (f"/dns4/{self.peer_id.lower()}.example/tcp/4001/p2p/{self.peer_id}",)

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport = await self._reach(peer)
        except TimeoutError:
            raise Unreachable(f"cannot connect to {peer}: no answer in {CONNECT_SECONDS:g} seconds") from None
        if not set(addresses) & set(transport.addresses):
            raise Unreachable(f"cannot connect to {peer}: nobody answers at {list(addresses)}")
        self._known.add(peer)
        transport._known.add(self.peer_id)

    def remember(self, peer: PeerId, addresses: Sequence[str]) -> None:
        if addresses:
            self._known.add(peer)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def close(self) -> None:
        if self._running:
            self._network.leave(self.peer_id)
        self._kept.close()
        await self._tasks.close()

    def stop(self) -> None:
        """The process is no more."""
        self._running = False
        self._tasks.cancel()

    async def _dial(self, peer: PeerId, kind: str) -> SimulatedConnection:
        if peer not in self._known:
            raise Unreachable(f"{peer} has not been connected to")
        transport = await self._reach(peer)
        if transport._client_mode and self.peer_id not in transport._known:
            raise Unreachable(f"{peer} takes no connections")
        if kind not in transport._services:
            raise Unreachable(f"{peer} does not serve {kind}")
        transport._known.add(self.peer_id)
        near, far = self._network.connect_pair(self.peer_id, peer, kind)
        transport._tasks.start(transport._serve_incoming(kind, far), f"{kind} from {self.peer_id}")
        return near

    async def _reach(self, peer: PeerId) -> "SimulatedTransport":
        """The peer's transport, one round trip later. Raises Unreachable."""
        network = self._network
        await asyncio.sleep(2 * network.latency(self.peer_id, peer))
        await network.united(self.peer_id, peer)  # until then no answer: it is for the caller to give up
        transport = network.transport(peer)
        if not self._running:
            raise Unreachable("this peer has left the network")
        if transport is None or transport is self:
            raise Unreachable(f"{peer} does not answer")
        return transport

    async def _serve_incoming(self, kind: str, connection: SimulatedConnection) -> None:
        try:
            await self._serve_connection(connection.remote, kind, connection)
        except (Unreachable, TimeoutError):
            connection.abort()
        except BaseException:
            connection.abort()
            raise

    async def _offer(self, kind: str) -> None:
        pass  # whoever dials looks into `_services`

    async def _disconnect(self, peer: PeerId) -> None:
        self._known.discard(peer)
        self._network.drop_connections(self.peer_id, peer)


class SimulatedRecords(Records):
    """The DHT as one peer sees it: the records of the peers that it can reach, checked as every node checks them."""

    def __init__(self, network: SimulatedNetwork, peer: PeerId) -> None:
        self._network = network
        self._peer = peer

    async def publish(self, record: Signed[Any], expires: float) -> bool:
        await asyncio.sleep(2 * self._network.latency(self._peer, self._peer))
        owners = self._network.stored(record.run, record.kind)
        try:
            checked = check_record(
                record.wire,
                key_digest=record_key_digest(record.run, record.kind),
                owner=record.sender,
                expires=expires,
                now=self._network.clock.wall(),
            )
        except Rejected:
            return False
        held = owners.get(record.sender)
        if held is not None and (held.sequence >= checked.sequence or held.body.expires >= expires):
            return False
        owners[record.sender] = checked
        return True

    async def lookup(self, run: str, kind: str) -> list[Signed[Any]]:
        await asyncio.sleep(2 * self._network.latency(self._peer, self._peer))
        stored = self._network.stored(run, kind)
        if not stored:
            return []
        earliest, latest = current_expirations(RECORDS[kind], self._network.clock_of(self._peer).wall())
        earliest = max(earliest, self._network.clock.wall())
        current = [record for record in stored.values() if earliest <= record.body.expires <= latest]
        return (
            current
            if self._network.is_whole
            else [r for r in current if not self._network.parted(self._peer, r.sender)]
        )
