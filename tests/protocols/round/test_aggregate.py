from collections import deque

import numpy as np
import pytest

from protocols.round.aggregate import Aggregate, AggregateMemory
from protocols.round.messages import PartResult
from protocols.round.parts import Grid
from protocols.vectors import read_only

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
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count, keeps=True))
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    whole = aggregate.assemble(PARTS)
    assert (whole == expected(1, 2)).all()
    assert np.shares_memory(whole, aggregate.assemble(PARTS))
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 0


def test_a_late_writer_of_an_earlier_attempt_changes_nothing():
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count, keeps=True))
    abandoned = aggregate.room(0, HALF)
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    whole = aggregate.assemble(PARTS)
    abandoned[:] = 7
    assert (whole == expected(1, 2)).all()


def test_parts_of_another_term_may_overlap_those_of_the_first():
    aggregate = Aggregate(GRID, AggregateMemory(GRID.count, keeps=True))
    abandoned = aggregate.room(HALF - 3, HALF + 3)
    fill(aggregate, PARTS[0], 1)
    fill(aggregate, PARTS[1], 2)
    abandoned[:] = 7
    assert (aggregate.assemble(PARTS) == expected(1, 2)).all()


def test_the_memory_of_a_round_is_used_again_once_nobody_looks_at_it():
    memory = AggregateMemory(GRID.count, keeps=True)
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


def test_rounds_whose_results_are_looked_at_for_long_take_turns_with_a_few_vectors():
    memory = AggregateMemory(GRID.count, keeps=True)
    looked_at: deque[np.ndarray] = deque(maxlen=2)
    used = []
    for _ in range(8):
        vector = memory.take()
        assert not any(np.shares_memory(vector, other) for other in looked_at)
        used.append(vector.ctypes.data)
        looked_at.append(read_only(vector))
        del vector
    assert len(set(used)) == 3
    looked_at.clear()
    assert len({memory.take().ctypes.data for _ in range(3)}) == 1  # the others are let go


def test_a_vector_that_is_offered_is_taken_once_unless_somebody_looks_at_it():
    memory = AggregateMemory(GRID.count, keeps=False)
    update = np.ones(GRID.count, np.float32)
    address = update.ctypes.data
    memory.offer(update)
    del update
    taken = memory.take()
    assert taken.ctypes.data == address
    assert memory.take().ctypes.data != address

    view = taken[1:]
    memory.offer(taken)
    del taken
    assert not np.shares_memory(memory.take(), view)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(GRID.count + 1, np.float32),
        np.zeros(GRID.count, np.float64),
        np.zeros(2 * GRID.count, np.float32)[::2],
        read_only(np.zeros(GRID.count, np.float32)),
    ],
    ids=["longer", "float64", "strided", "read-only"],
)
def test_a_vector_that_does_not_serve_is_not_taken(vector):
    memory = AggregateMemory(GRID.count, keeps=False)
    memory.offer(vector)
    taken = memory.take()
    taken[:] = 1
    assert not np.shares_memory(taken, vector)
