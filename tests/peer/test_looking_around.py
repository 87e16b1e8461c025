"""The daemon looks for others on this machine: off the event loop, and forgets those that are gone."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from peer.daemon import Daemon
from peer.demo import demo_manifest
from peer.neighbourhood import Neighbourhood
from peer.settings import JoinSettings
from protocols.identity import PeerId
from tests.dht.worlds import identity

ONE, TWO, THREE = (identity(number).peer_id for number in (1, 2, 3))


class Place:
    """Where others are found; notes the thread that looks."""

    def __init__(self, *peers: PeerId) -> None:
        self.peers = peers
        self.threads: set[int] = set()

    def others(self) -> list[tuple[PeerId, tuple[str, ...]]]:
        self.threads.add(threading.get_ident())
        return [(peer, (f"/ip4/127.0.0.1/tcp/1/p2p/{peer}",)) for peer in self.peers]


class Bootstrap:
    def __init__(self) -> None:
        self.peers: set[str] = set()

    def add(self, addresses: tuple[str, ...]) -> None:
        self.peers.update(address.rpartition("/")[2] for address in addresses)

    def forget(self, peer: str) -> None:
        self.peers.discard(peer)


def test_who_is_found_is_looked_after_and_who_is_gone_is_not(tmp_path: Path) -> None:
    daemon = cast(Any, Daemon(JoinSettings(home=tmp_path, run_id=demo_manifest().run_id), None))
    bootstrap, machine, network = Bootstrap(), Place(ONE, TWO), Place(TWO, THREE)
    daemon._node = SimpleNamespace(bootstrap=bootstrap)
    daemon._neighbourhood = neighbourhood = cast(Any, Neighbourhood.__new__(Neighbourhood))
    neighbourhood._machine, neighbourhood._network = machine, network

    async def look() -> set[str]:
        assert (await daemon._look_around()).keys() == bootstrap.peers
        return set(bootstrap.peers)

    assert asyncio.run(look()) == {ONE, TWO, THREE}
    machine.peers, network.peers = (ONE,), (THREE,)
    assert asyncio.run(look()) == {ONE, THREE}
    assert threading.get_ident() not in machine.threads
