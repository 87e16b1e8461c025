"""Whether others can connect to this machine, tried from here and, through an initial peer, from outside.

A node is started that listens as the daemon would. That we can dial it ourselves says that its port is its own and
that it listens; what a firewall or a router lets in only somebody outside can tell, whom we ask to dial us back.
"""

import asyncio
import ipaddress
from collections.abc import Sequence

from dht.dial_back import MAX_PORTS, DialledBack, ask_to_dial_back
from dht.interfaces import TransportError
from dht.node import DEFAULT_LISTEN, Node
from dht.p2pd import P2pdError
from dht.probe import probe
from peer.doctor.findings import Finding, failed, ok, warning
from peer.ephemeral import ephemeral_node
from peer.settings import DoctorSettings
from protocols.identity import PeerId
from protocols.rejection import Rejected

MAX_ADDRESSES = 6
RELAY_SECONDS = 20.0
"""A place at a relay takes some seconds to get."""
RELAY_RETRY_SECONDS = 0.5
_CLIENT_MODE = "or join with --client-mode"


async def check_reachability(settings: DoctorSettings, dialler: Node, members: Sequence[PeerId]) -> list[Finding]:
    """`members`: initial peers that `dialler` is connected to."""
    if settings.client_mode:
        told = ok("reachability", "client mode: takes part by its own connections, and accepts none")
        return [told, *([await _check_relays(settings.relay)] if settings.relay else [])]
    try:
        async with ephemeral_node(
            listen=settings.listen or [DEFAULT_LISTEN], announce=settings.announce, serve_relay=settings.serve_relay
        ) as (listener, _):
            findings = [await _check_listener(listener, settings, dialler, members)]
            if settings.serve_relay and listener.addresses():
                findings.append(await _check_relays(listener.addresses()[:1]))
            return findings
    except P2pdError as error:
        mend = "stop what uses the port (a daemon that runs here?), or choose another with --listen"
        return [failed("reachability", str(error), mend)]


async def _check_listener(
    listener: Node, settings: DoctorSettings, dialler: Node, members: Sequence[PeerId]
) -> Finding:
    addresses = sorted(listener.addresses(), key=is_public, reverse=True)[:MAX_ADDRESSES]
    tried = await _dial_back(dialler, members, ports_of(addresses))
    if isinstance(tried, DialledBack) and tried.reached:
        return judge_dialled_back(tried, await listener.refresh_addresses())
    reached: list[str] = []
    unreached: list[str] = []
    for address in addresses:
        (reached if await _can_be_dialled(listener.peer_id, address) else unreached).append(address)
    if isinstance(tried, DialledBack) and (reached or settings.announce):
        return _judge_closed(tried, addresses)
    return judge_from_here(
        reached, unreached, tried if isinstance(tried, str) else "", announced=bool(settings.announce)
    )


async def _dial_back(dialler: Node, members: Sequence[PeerId], ports: Sequence[int]) -> DialledBack | str:
    """What the first initial peer that tries comes to, or why none has tried."""
    if not members or not ports:
        return "nobody outside has tried"
    refusals = []
    for member in members:
        try:
            return await ask_to_dial_back(dialler.transport, member, ports)
        except (TransportError, Rejected) as error:
            refusals.append(str(error))
    return f"nobody outside has tried ({'; '.join(refusals)})"


def judge_dialled_back(tried: DialledBack, addresses: Sequence[str]) -> Finding:
    """`addresses`: what this machine would announce."""
    where = [transport_of(tried.host, port) for port in tried.reached]
    shown = f"a member dialled back at {', '.join(where)}"
    if not ipaddress.ip_address(tried.host).is_global:
        return warning(
            "reachability",
            f"{shown}, from this network: nobody on the internet has tried",
            "for members elsewhere give --initial-peers of one of them",
        )
    if not any(not is_ip(address) or _transport(address) in where for address in addresses):
        return warning("reachability", f"{shown}, which would not be announced", f"join with --announce {where[0]}")
    return ok("reachability", shown)


def _judge_closed(tried: DialledBack, addresses: Sequence[str]) -> Finding:
    at = ", ".join(transport_of(tried.host, port) for port in ports_of(addresses))
    return warning(
        "reachability",
        f"a member could not connect to {at}, though this machine listens: a firewall or a router is in between",
        f"open the port in the firewall, forward it in the router, {_CLIENT_MODE}",
    )


def judge_from_here(reached: Sequence[str], unreached: Sequence[str], untried: str, *, announced: bool) -> Finding:
    """`untried`: why nobody outside has told."""
    not_at = ", ".join(map(_transport, unreached)) or "any address of its own"
    if not reached and announced:
        return warning(
            "reachability",
            f"this machine cannot connect to {not_at}, which it would announce; behind some routers only others can, "
            f"but {untried}",
            f"give --initial-peers of a member elsewhere, who dials back, {_CLIENT_MODE}",
        )
    if not reached:
        return failed(
            "reachability",
            f"not even this machine can connect to {not_at}",
            f"open the port in the firewall, correct --listen, {_CLIENT_MODE}",
        )
    shown = f"this machine can connect to {', '.join(map(_transport, reached))}"
    if unreached:
        return warning(
            "reachability",
            f"{shown}, but not to {not_at}; {untried}",
            "announce only what others can dial, with --announce",
        )
    if not any(is_public(address) for address in reached):
        return warning(
            "reachability",
            f"{shown}; no public address, and {untried}",
            "for members elsewhere forward a port of the router and join with --listen /ip4/0.0.0.0/tcp/PORT "
            f"--announce /ip4/PUBLIC-ADDRESS/tcp/PORT, {_CLIENT_MODE}",
        )
    return warning(
        "reachability", f"{shown}, but {untried}", "give --initial-peers of a member elsewhere, who dials back"
    )


async def _can_be_dialled(peer: PeerId, address: str) -> bool:
    """By a new node, which knows this one address."""
    async with ephemeral_node() as (dialler, _):
        try:
            await dialler.transport.connect(peer, [address])
            await probe(dialler, peer)
        except TransportError:
            return False
    return True


async def _check_relays(relays: Sequence[str]) -> Finding:
    """Whether a node in client mode can be dialled through `relays`."""
    try:
        async with ephemeral_node(relays=relays) as (client, _), ephemeral_node() as (dialler, _):
            async with asyncio.timeout(RELAY_SECONDS):
                await _connect(dialler, client)
    except (TimeoutError, P2pdError):
        return failed(
            "relay",
            f"no connection is passed on by {', '.join(map(_transport, relays))}",
            "ask for the address of a member that joined with --serve-relay and is up now",
        )
    return ok("relay", f"connections are passed on by {', '.join(map(_transport, relays))}")


async def _connect(dialler: Node, client: Node) -> None:
    """Returns when a relay has given `client` its place, of which nobody tells."""
    while True:
        try:
            return await dialler.transport.connect(client.peer_id, client.addresses())
        except TransportError:
            await asyncio.sleep(RELAY_RETRY_SECONDS)


def ports_of(addresses: Sequence[str]) -> list[int]:
    """The TCP ports of multiaddrs, as many as may be asked for."""
    parts = [address.split("/") for address in addresses]
    return list(dict.fromkeys(int(part[4]) for part in parts if part[3:4] == ["tcp"]))[:MAX_PORTS]


def transport_of(host: str, port: int) -> str:
    return f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}"


def is_ip(address: str) -> bool:
    return address.split("/")[1].startswith("ip")


def is_public(address: str) -> bool:
    """Whether a multiaddr may be dialled from the internet: a name, or a global IP address."""
    return not is_ip(address) or ipaddress.ip_address(address.split("/")[2]).is_global


def _transport(address: str) -> str:
    return address.partition("/p2p/")[0]
