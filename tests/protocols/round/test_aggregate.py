import numpy as np
import pytest

from protocols.round.aggregate import Aggregate, AggregateMemory
from protocols.round.messages import PartResult
from protocols.round.parts import Grid

GRID = Grid(64 * 256 + 100)
HALF = GRID.chunks // 2
PARTS = (
    PartResult(start=0, stop=HALF, digest=b"a" * 32),
    PartResult(start=HALF, stop=GRID.chunks, digest=b"b" * 32),
)


def fill(aggregate: Aggregate, result: PartResult, value: float) -> None:
    room = aggregate.room(result.start, result.stop)
    room[:] = value
    aggregate.keep(result, room)


def expected(first: float, second: float) -> np.ndarray:
    split = GRID.bounds(HALF).start
    return np.concatenate([np.full(split, first, np.float32), np.full(GRID.count - split, second, np.float32)])


def test_first_attempts_make_up_the_vector_without_a_copy():
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count))
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    whole = aggregate.assemble(PARTS)
    assert (whole == expected(1, 2)).all()
    assert np.shares_memory(whole, aggregate.assemble(PARTS))
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 0


def test_a_late_writer_of_an_earlier_attempt_changes_nothing():
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count))
    abandoned = aggregate.room(0, HALF)
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    whole = aggregate.assemble(PARTS)
    abandoned[:] = 7
    assert (whole == expected(1, 2)).all()


def test_parts_of_another_term_may_overlap_those_of_the_first():
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count))
    abandoned = aggregate.room(HALF - 3, HALF + 3)
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    abandoned[:] = 7
    assert (aggregate.assemble(PARTS) == expected(1, 2)).all()


def test_the_memory_of_a_round_is_used_again_once_nobody_looks_at_it():
    memory = AggregateMemory(GRID.count)
    aggregate = Aggregate(GRID, memory)
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    whole = aggregate.assemble(PARTS)
    served = memoryview(whole)
    aggregate.clear()
    del whole
    following = Aggregate(GRID, memory)
    room = following.room(0, HALF)
    assert not np.shares_memory(room, np.asarray(served))

    address = room.ctypes.data
    del room
    following.clear()
    assert memory.take().ctypes.data == address
