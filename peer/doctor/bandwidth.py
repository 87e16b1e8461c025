"""How fast data leaves: within this machine, and on the line to an initial peer."""

from collections.abc import Sequence

from dht.interfaces import TransportError
from dht.node import Node
from dht.sink import measure_upload, serve_sink
from peer.doctor.findings import Finding, failed, ok, warning
from protocols.identity import PeerId
from protocols.rejection import Rejected

LOCAL_BYTES = 64 * 1024 * 1024
LOCAL_SECONDS = 20.0
GOOD_LOCAL_BYTES_PER_SECOND = 50e6
UPLOAD_BYTES = 4 * 1024 * 1024
UPLOAD_SECONDS = 5.0
GOOD_UPLOAD_BYTES_PER_SECOND = 5e6 / 8
"""On which a model of a million parameters still takes 6 s a round; slower lines hold the others up."""


async def check_bandwidth(sink: Node, dialler: Node) -> Finding:
    """Between two nodes of this machine: what its processor can encrypt and pass on, whatever the line can."""
    try:
        await serve_sink(sink.transport, LOCAL_BYTES)
        await dialler.transport.connect(sink.peer_id, sink.addresses())
        speed = await measure_upload(dialler.transport, sink.peer_id, LOCAL_BYTES, LOCAL_SECONDS)
    except (TransportError, Rejected) as error:
        return failed("bandwidth", f"two nodes of this machine cannot exchange data: {error}", "look into the firewall")
    detail = f"{speed / 1e6:,.0f} MB/s within this machine"
    if speed < GOOD_LOCAL_BYTES_PER_SECOND:
        return warning("bandwidth", detail, "stop other programs: the processor is the limit")
    return ok("bandwidth", detail)


async def check_upload(dialler: Node, members: Sequence[PeerId]) -> Finding:
    """By some megabytes to the first of the connected `members` that takes them."""
    refusals = []
    for member in members:
        try:
            speed = await measure_upload(dialler.transport, member, UPLOAD_BYTES, UPLOAD_SECONDS)
        except (TransportError, Rejected) as error:
            refusals.append(str(error))
        else:
            return _judge_upload(member, speed)
    return warning("upload", f"not measured: {'; '.join(refusals)}", "try again, with another --initial-peers")


def _judge_upload(member: PeerId, bytes_per_second: float) -> Finding:
    detail = f"{bytes_per_second * 8 / 1e6:,.1f} Mbit/s to {member}"
    if bytes_per_second < GOOD_UPLOAD_BYTES_PER_SECOND:
        return warning(
            "upload", detail, "look for what else uses the line, or join runs with a small model or the codec int8"
        )
    return ok("upload", detail)
