"""How another node answers: how fast, and how far its clock is from ours."""

from dataclasses import dataclass

from dht.hivemind_quietly import P2PDaemonError, P2PHandlerError, PeerID, dht_pb2
from dht.interfaces import Unreachable
from dht.node import RPC_SECONDS, Node
from dht.tasks import cancellable
from protocols.identity import PeerId
from protocols.printable import printable


@dataclass(frozen=True, slots=True)
class Answer:
    round_trip_seconds: float
    clock_offset_seconds: float
    """How far its clock is ahead of ours, give or take half the round trip."""


async def probe(node: Node, peer: PeerId) -> Answer:
    """Pings a connected node of the DHT, without becoming known to it. Raises Unreachable."""
    clock = node.transport.clock
    stub = node.dht.protocol.get_stub(PeerID.from_base58(peer))
    try:
        sent, sent_wall = clock.monotonic(), clock.wall()
        response = await cancellable(stub.rpc_ping(dht_pb2.PingRequest(), timeout=RPC_SECONDS))
        round_trip = clock.monotonic() - sent
    except (P2PDaemonError, P2PHandlerError, OSError, TimeoutError) as error:
        raise Unreachable(f"{peer} does not answer a ping: {printable(str(error)) or 'no answer in time'}") from error
    return Answer(round_trip, response.dht_time - (sent_wall + round_trip / 2))
