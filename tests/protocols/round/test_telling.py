"""How often a follower tells its leader how far it is, while it trains."""

import pytest

from protocols.round.events import Send, Trained
from protocols.round.machine import Round
from protocols.round.messages import Progress
from protocols.round.order import first
from protocols.round.setting import Setting
from tests.peer.simulated_swarm import identity

PEERS = [identity(number).peer_id for number in range(16)]
SAMPLES = 10


def told(step_seconds: float, steps: int) -> list[int]:
    """After which of its steps a follower speaks, of an epoch that all sixteen end after so many of them."""
    me = next(peer for peer in PEERS if peer != first("run", 3, PEERS))
    target = len(PEERS) * steps * SAMPLES
    setting = Setting(run="run", epoch=3, base=bytes(32), me=me, target_samples=target, chunks=12)
    follower = Round(setting, dict.fromkeys(PEERS, False), 0.0, electorate=PEERS)
    spoken = []
    for step in range(1, steps + 1):
        actions = follower.handle(Trained(step * SAMPLES, False, 10.0), step * step_seconds)
        if any(isinstance(action, Send) and isinstance(action.body, Progress) for action in actions):
            spoken.append(step)
    return spoken


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_whose_steps_are_long_tells_of_each(steps: int) -> None:
    """Else an epoch that ends with one of them would take another."""
    assert told(0.5, steps) == list(range(1, steps + 1))


def test_whose_steps_are_short_tells_of_few() -> None:
    assert len(told(0.01, 200)) < 20
