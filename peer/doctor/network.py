"""What is found out about the network by trying: nodes are started here, dialled from here, and dial the initial peers.

They have throw-away identities and join no DHT: a daemon that runs here is not disturbed, and nobody counts them.
"""

import ipaddress
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from dht.addresses import AddressError, parse_peer_address
from dht.interfaces import Frame, Stream, TransportError
from dht.node import DEFAULT_LISTEN, Node
from dht.p2pd import P2pdError
from dht.probe import Answer, probe
from peer.doctor.findings import Finding, failed, ok, warning
from peer.ephemeral import ephemeral_node
from peer.settings import DoctorSettings
from protocols.identity import PeerId
from protocols.records import CLOCK_SKEW_SECONDS

SINK_KIND = "doctor-sink"
BANDWIDTH_BYTES = 64 * 1024 * 1024
GOOD_BYTES_PER_SECOND = 50e6
GOOD_ROUND_TRIP_SECONDS = 0.5
GOOD_CLOCK_SECONDS = 3.0
"""By which hivemind's own nodes warn."""
MAX_ADDRESSES = 6
_PIECE_BYTES = 1024 * 1024
_LOOPBACK_LISTEN = "/ip4/127.0.0.1/tcp/0"


async def check_network(settings: DoctorSettings) -> list[Finding]:
    """Everything that takes a node to find out."""
    async with AsyncExitStack() as nodes:
        began = time.monotonic()
        try:
            sink, _ = await nodes.enter_async_context(ephemeral_node(listen=[_LOOPBACK_LISTEN]))
            dialler, _ = await nodes.enter_async_context(ephemeral_node())
        except P2pdError as error:
            mend = "install peer again for this system: p2pd comes with the package hivemind, for Linux and macOS"
            return [failed("network process", str(error), mend)]
        findings = [ok("network process", f"p2pd runs; two nodes were up after {time.monotonic() - began:.1f} s")]
        findings.append(await _check_bandwidth(sink, dialler))
        findings.append(await _check_reachability(settings))
        answers = await _ask_initial_peers(dialler, settings.initial_peers)
    if answers:
        findings.append(_check_initial_peers(answers))
    findings.append(_check_clock([answer for answer in answers.values() if isinstance(answer, Answer)]))
    return findings


async def _check_reachability(settings: DoctorSettings) -> Finding:
    """Whether a node that listens as the daemon would can be dialled, by other nodes here, at what it announces."""
    if settings.client_mode:
        return ok("reachability", "client mode: takes part by its own connections, and accepts none")
    listen = settings.listen or [DEFAULT_LISTEN]
    reached, unreached = [], []
    try:
        async with ephemeral_node(listen=listen, announce=settings.announce) as (listener, _):
            for address in sorted(listener.addresses(), key=_is_public, reverse=True)[:MAX_ADDRESSES]:
                found = await _can_be_dialled(listener.peer_id, address)
                (reached if found else unreached).append(address)
    except P2pdError as error:
        return failed(
            "reachability",
            str(error),
            "stop what uses the port (a daemon that runs here?), or choose another with --listen",
        )
    return _judge_reachability(reached, unreached, announced=bool(settings.announce))


def _judge_reachability(reached: Sequence[str], unreached: Sequence[str], *, announced: bool) -> Finding:
    not_at = ", ".join(map(_transport, unreached)) or "any address of its own"
    if not reached and announced:
        return warning(
            "reachability",
            f"this machine cannot connect to {not_at}, which it would announce; behind some routers only others can",
            "have somebody elsewhere try that address, or join with --client-mode",
        )
    if not reached:
        return failed(
            "reachability",
            f"not even this machine can connect to {not_at}",
            "open the port in the firewall, correct --listen, or join with --client-mode",
        )
    shown = f"dialled back at {', '.join(map(_transport, reached))}"
    if unreached:
        return warning(
            "reachability",
            f"{shown}, but not at {not_at}",
            "announce only what others can dial, with --announce",
        )
    if not any(_is_public(address) for address in reached):
        return warning(
            "reachability",
            f"{shown}: no public address, only this network can dial this machine",
            "for members elsewhere forward a port of the router and join with --listen /ip4/0.0.0.0/tcp/PORT "
            "--announce /ip4/PUBLIC-ADDRESS/tcp/PORT, or join with --client-mode",
        )
    return ok("reachability", shown)


async def _can_be_dialled(peer: PeerId, address: str) -> bool:
    """By a new node, which knows this one address."""
    async with ephemeral_node() as (dialler, _):
        try:
            await dialler.transport.connect(peer, [address])
            await probe(dialler, peer)
        except TransportError:
            return False
    return True


async def _check_bandwidth(sink: Node, dialler: Node) -> Finding:
    """Between two nodes of this machine: what its processor can encrypt and pass on, whatever the line can."""

    async def swallow(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            if frame.header:
                await stream.send(frame)

    piece = bytes(_PIECE_BYTES)
    try:
        await sink.transport.serve_streams(SINK_KIND, swallow)
        await dialler.transport.connect(sink.peer_id, sink.addresses())
        async with await dialler.transport.open_stream(sink.peer_id, SINK_KIND) as stream:
            began = time.monotonic()
            for _ in range(BANDWIDTH_BYTES // _PIECE_BYTES):
                await stream.send(Frame(b"", piece))
            await stream.send(Frame(b"was that all?"))
            await stream.receive()
            seconds = time.monotonic() - began
    except TransportError as error:
        return failed("bandwidth", f"two nodes of this machine cannot exchange data: {error}", "look into the firewall")
    speed = BANDWIDTH_BYTES / seconds
    detail = f"{speed / 1e6:,.0f} MB/s within this machine"
    if speed < GOOD_BYTES_PER_SECOND:
        return warning("bandwidth", detail, "stop other programs: the processor is the limit")
    return ok("bandwidth", detail)


async def _ask_initial_peers(dialler: Node, addresses: Sequence[str]) -> dict[str, Answer | str]:
    """Address → how the peer there answers, or why it does not."""
    answers: dict[str, Answer | str] = {}
    for address in addresses:
        try:
            peer, _ = parse_peer_address(address)
            await dialler.transport.connect(PeerId(peer), [address])
            answers[address] = await probe(dialler, PeerId(peer))
        except (AddressError, TransportError) as error:
            answers[address] = str(error)
    return answers


def _check_initial_peers(answers: dict[str, Answer | str]) -> Finding:
    silent = {address: answer for address, answer in answers.items() if isinstance(answer, str)}
    trips = [answer.round_trip_seconds for answer in answers.values() if isinstance(answer, Answer)]
    told = "; ".join(f"{address}: {reason}" for address, reason in silent.items())
    mend = "ask for an address of a member that is up now, and compare its PeerID"
    if not trips:
        return failed("initial peers", told, mend)
    detail = f"{len(trips)} of {len(answers)} answer, round trip {statistics.median(trips) * 1000:.0f} ms"
    if silent:
        return warning("initial peers", f"{detail}; {told}", mend)
    if statistics.median(trips) > GOOD_ROUND_TRIP_SECONDS:
        return warning("initial peers", detail, "use a line with less delay, or look for what else uses this one")
    return ok("initial peers", detail)


def _check_clock(answers: Sequence[Answer]) -> Finding:
    """Against the initial peers' clocks; without any, only against the age of our own files."""
    mend = "set the clock, and let the system keep it right (timedatectl set-ntp true)"
    if not answers:
        installed = Path(__file__).stat().st_mtime
        if time.time() < installed:
            return failed("clock", "it is earlier here than when this program was installed", mend)
        return ok("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}; compared with nobody, give --initial-peers")
    offset = statistics.median(answer.clock_offset_seconds for answer in answers)
    detail = f"{abs(offset):.1f} s {'behind' if offset > 0 else 'ahead of'} the initial peers"
    if abs(offset) > CLOCK_SKEW_SECONDS:
        return failed("clock", f"{detail}; {CLOCK_SKEW_SECONDS:.0f} s are allowed", mend)
    if abs(offset) > GOOD_CLOCK_SECONDS:
        return warning("clock", detail, mend)
    return ok("clock", detail)


def _transport(address: str) -> str:
    return address.partition("/p2p/")[0]


def _is_public(address: str) -> bool:
    """Whether a multiaddr may be dialled from the internet: a name, or a global IP address."""
    _, kind, host, *_ = address.split("/")
    return not kind.startswith("ip") or ipaddress.ip_address(host).is_global
