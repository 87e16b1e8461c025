"""A wall clock that jumps is told once."""

import asyncio

from structlog.testing import capture_logs

from dht.simulated import SimulatedNetwork, run_simulation
from peer.clock_watch import INTERVAL_SECONDS, watch_wall_clock
from peer.tasks import beside
from tests.peer.simulated_swarm import identity


def test_each_jump_is_told_once_and_a_steady_clock_never() -> None:
    async def main(network: SimulatedNetwork) -> None:
        peer = identity(0).peer_id
        transport = network.join(peer)
        with capture_logs() as logs:
            async with beside(watch_wall_clock(transport.clock)):
                for offset in (0.0, 3600.0, 3600.0, -3600.0, 0.5 - 3600.0):
                    network.set_wall_clock(peer, offset)
                    await asyncio.sleep(3 * INTERVAL_SECONDS)
        assert [(entry["log_level"], entry["seconds"]) for entry in logs] == [("warning", 3600.0), ("warning", -7200.0)]

    run_simulation(main, seed=1)
