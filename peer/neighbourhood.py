"""The daemons of the run on this machine and on its local network: who is there, and that we are."""

import asyncio
from collections.abc import Sequence
from typing import Self

import structlog

from dht.lan_discovery import LanDiscovery, LanDiscoveryError, lan_addresses
from dht.local_discovery import LocalDiscovery
from peer.home import runtime_directory
from protocols.identity import PeerId

log = structlog.get_logger()


class Neighbourhood:
    """Made by `start`, ended by `close`."""

    def __init__(self, run_id: str, peer_id: PeerId, addresses: Sequence[str], *, client_mode: bool) -> None:
        """Raises LocalDiscoveryError."""
        self._run_id, self._peer_id, self._client_mode = run_id, peer_id, client_mode
        self._machine = LocalDiscovery(runtime_directory(), run_id, peer_id, addresses)
        self._network: LanDiscovery | None = None

    @classmethod
    async def start(cls, run_id: str, peer_id: PeerId, addresses: Sequence[str], *, client_mode: bool) -> Self:
        """Announces this peer at `addresses` and looks for others. Raises LocalDiscoveryError."""
        neighbourhood = cls(run_id, peer_id, addresses, client_mode=client_mode)
        try:
            await neighbourhood._join_network(addresses)
        except BaseException:
            await neighbourhood.close()
            raise
        return neighbourhood

    async def others(self) -> dict[PeerId, tuple[str, ...]]:
        """The others and their multiaddrs."""
        network = self._network.others() if self._network is not None else []
        return dict(network) | dict(await asyncio.to_thread(self._machine.others))

    async def move(self, addresses: Sequence[str]) -> None:
        """We are at other addresses now, and maybe on another network."""
        try:
            self._machine.announce(addresses)
        except OSError as error:
            log.warning("this peer is still announced on this machine at its old addresses", error=str(error))
        await self._leave_network()
        await self._join_network(addresses)

    async def close(self) -> None:
        await self._leave_network()
        self._machine.close()

    async def _join_network(self, addresses: Sequence[str]) -> None:
        """Multicast DNS; not for a daemon that listens on loopback alone."""
        elsewhere = lan_addresses(addresses)
        if not elsewhere and not self._client_mode:
            return
        try:
            self._network = await LanDiscovery.start(self._run_id, self._peer_id, elsewhere)
        except LanDiscoveryError as error:
            log.warning("other machines of this network are not looked for", error=str(error))

    async def _leave_network(self) -> None:
        network, self._network = self._network, None
        if network is not None:
            await network.close()
