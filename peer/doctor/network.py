"""What is found out about the network by trying: nodes are started here, dialled from here, and dial the initial peers.

They have throw-away identities and join no DHT: a daemon that runs here is not disturbed, and nobody counts them.
"""

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from dht.addresses import AddressError, parse_peer_address
from dht.interfaces import TransportError
from dht.node import Node
from dht.p2pd import P2pdError
from dht.probe import Answer, probe
from peer.doctor.bandwidth import check_bandwidth, check_upload
from peer.doctor.findings import Finding, failed, ok, warning
from peer.doctor.reachability import check_reachability
from peer.ephemeral import ephemeral_node
from peer.settings import DoctorSettings
from protocols.identity import PeerId
from protocols.records import CLOCK_SKEW_SECONDS

GOOD_ROUND_TRIP_SECONDS = 0.5
GOOD_CLOCK_SECONDS = 3.0
"""By which hivemind's own nodes warn."""
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
        findings.append(await check_bandwidth(sink, dialler))
        answers = await _ask_initial_peers(dialler, settings.initial_peers)
        up = [address for address, answer in answers.items() if isinstance(answer, Answer)]
        members = [PeerId(parse_peer_address(address)[0]) for address in up]
        findings += await check_reachability(settings, dialler, members)
        if members:
            findings.append(await check_upload(dialler, members))
    if answers:
        findings.append(_check_initial_peers(answers))
    findings.append(_check_clock([answer for answer in answers.values() if isinstance(answer, Answer)]))
    return findings


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
