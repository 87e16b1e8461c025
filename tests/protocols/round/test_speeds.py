"""Who owns how much follows from what members say of their links, within limits."""

import pytest

from protocols.identity import Identity
from protocols.round.electorate import Electorate
from protocols.round.leader import FASTEST, Leadership
from protocols.round.messages import UNMEASURED, Ready
from protocols.round.setting import Setting
from protocols.round.tally import Tally
from protocols.signed import Signed

CHUNKS = 1000
BASE = b"b" * 32


def chunks_owned(speeds: dict[str, float]) -> dict[str, int]:
    """Of CHUNKS, by member, when all are ready; the first leads."""
    peers = {name: Identity.from_seed(name.encode() * 32).peer_id for name in speeds}
    me, *_ = members = list(peers.values())
    setting = Setting("run", 0, BASE, me, None, CHUNKS)
    electorate = Electorate((), 64, is_open=True)
    tally = Tally(setting, electorate, dict.fromkeys(members, False))
    leadership = Leadership(setting, 0, members, (), electorate, (), tally, 0.0)
    for name, speed in speeds.items():
        ready = Ready(base=BASE, term=0, weight=1, root=BASE, client_mode=False, speed=speed, held_term=None, held=())
        leadership.hear(Signed("run", peers[name], 0, 1, ready, b""), set(), 0.0)
    assert leadership.begin is not None
    names = {peer: name for name, peer in peers.items()}
    return {names[part.owner]: part.stop - part.start for part in leadership.begin.parts}


@pytest.mark.parametrize(
    ("speeds", "owned"),
    [
        ({"a": UNMEASURED, "b": UNMEASURED}, {"a": 500, "b": 500}),
        ({"a": 30e6, "b": 10e6}, {"a": 750, "b": 250}),
        ({"a": 10e6, "b": UNMEASURED, "c": 10e6, "d": UNMEASURED}, dict.fromkeys("abcd", 250)),
        ({"a": 12e6, "b": 12e6, "c": 12e6, "d": 0.6e6}, {"a": 334, "b": 333, "c": 333}),
        ({"a": 0.6e6, "b": 0.6e6, "c": 0.6e6}, {"a": 334, "b": 333, "c": 333}),
        ({"a": UNMEASURED, "b": 1e12, "c": UNMEASURED, "d": UNMEASURED}, dict.fromkeys("abcd", 250)),
    ],
    ids=["nobody knows", "three to one", "half know", "one is very slow", "all are slow", "one boasts"],
)
def test_parts_follow_speeds(speeds: dict[str, float], owned: dict[str, int]) -> None:
    found = chunks_owned(speeds)
    assert sum(found.values()) == CHUNKS
    assert sorted(found.values()) == sorted(owned.values())
    assert found.keys() == owned.keys()


def test_nobody_is_believed_beyond_a_limit() -> None:
    found = chunks_owned({"a": 1e6, "b": 1e6, "c": 1e12})
    assert found["c"] <= CHUNKS * FASTEST / (FASTEST + 2) + 1
