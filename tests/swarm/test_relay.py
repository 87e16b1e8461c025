"""Two volunteers whom nobody can dial train together behind one member who relays."""

import pytest

from tests.swarm.faulty import BACK_SECONDS, started
from tests.swarm.processes import LISTEN, Daemon, Swarm
from tests.swarm.watcher import in_round_after

EPOCHS = 5


@pytest.mark.timeout(600)
def test_two_in_client_mode_train_behind_one_relay(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    relay, *clients = [swarm.daemon(name) for name in ("relay", "one", "two")]
    alone = ("--no-local-discovery",)
    with started(
        swarm, [relay], monkeypatch, lambda daemon: (*LISTEN, *alone, "--serve-relay", "--role", "aggregator")
    ) as run:
        (watcher,) = run.watchers
        (address,) = watcher.wait("up", lambda s: s.self_.addresses, BACK_SECONDS).self_.addresses

        def options(_daemon: Daemon) -> tuple[str, ...]:
            return ("--client-mode", "--relay", address, "--initial-peers", address, *alone)

        with started(swarm, clients, monkeypatch, options, run_id=run.run_id) as both:
            for one, other in zip(both.watchers, reversed(clients), strict=True):
                one.wait("in rounds of three", in_round_after(EPOCHS, 3), BACK_SECONDS)
                one.wait(
                    "in touch with the other", lambda s, n=other.name: n in [m.name for m in s.peers], BACK_SECONDS
                )
                assert one.last.self_.addresses == (f"{address}/p2p-circuit/p2p/{one.last.self_.peer_id}",)
                assert one.last.self_.samples_contributed > 0
            both.assert_one_history()
