"""Sequence numbers rise over restarts, whatever the clock does."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from peer.sequence import RESERVED, first_sequence

NOON = 1_800_000_000_000_000_000
HOUR = 3_600_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sequence"


def test_they_start_at_the_clock(path: Path) -> None:
    assert first_sequence(path, NOON) == NOON
    assert first_sequence(path, NOON + HOUR) == NOON + HOUR


def test_a_clock_that_was_set_back_makes_them_go_on_above_the_last(path: Path) -> None:
    first_sequence(path, NOON)
    again = first_sequence(path, NOON - HOUR)
    assert again == NOON + RESERVED
    assert first_sequence(path, NOON - HOUR) == again + RESERVED


@pytest.mark.parametrize("damage", [b"", b"-5", b"1e9", "²".encode(), b"9" * 40, b"\xff\x00"])
def test_a_damaged_file_is_reported_and_replaced(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with capture_logs() as lines:
        assert first_sequence(path, NOON) == NOON
    assert len(lines) == 1
    assert first_sequence(path, 0) == NOON + RESERVED


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with capture_logs() as lines:
        assert first_sequence(tmp_path / "absent" / "sequence", NOON) == NOON
    assert [line["log_level"] for line in lines] == ["warning"]
