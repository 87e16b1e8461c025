"""Daemons of one machine, some of which move."""

from pathlib import Path

import pytest

from peer.neighbourhood import Neighbourhood
from tests.dht.worlds import run_real
from tests.peer.simulated_swarm import identity

ONE, TWO = identity(1).peer_id, identity(2).peer_id


def test_others_see_where_a_daemon_has_moved_and_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEER_RUNTIME_DIR", str(tmp_path / "run"))

    def address(peer: str, port: int) -> str:
        return f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"

    async def main() -> None:
        one = await Neighbourhood.start("demo", ONE, [address(ONE, 1)], client_mode=False)
        two = await Neighbourhood.start("demo", TWO, [address(TWO, 2)], client_mode=False)
        assert await one.others() == {TWO: (address(TWO, 2),)}
        for port in (3, 4):
            await two.move([address(TWO, port)])
            assert await one.others() == {TWO: (address(TWO, port),)}
        assert await two.others() == {ONE: (address(ONE, 1),)}
        await two.close()
        assert await one.others() == {}
        await one.close()

    run_real(main())
