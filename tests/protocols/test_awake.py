"""Time that stands still while a process does not run."""

from protocols.awake import AwakeTime


def test_time_passes_as_long_as_it_is_looked_at() -> None:
    awake = AwakeTime(now=100.0, longest_gap_seconds=1.0)
    assert [awake.at(now) for now in (100.5, 101.5, 102.0)] == [100.5, 101.5, 102.0]


def test_a_gap_is_nobodys_silence() -> None:
    awake = AwakeTime(now=100.0, longest_gap_seconds=1.0)
    assert awake.at(101.0) == 101.0
    assert awake.at(121.0) == 101.0
    assert awake.at(121.5) == 101.5
    assert awake.at(1000.0) == 101.5
