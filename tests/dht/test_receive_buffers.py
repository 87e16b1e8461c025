import numpy as np

from dht.receive_buffers import MOST_BUFFERS, SMALLEST_BYTES, SPARE_BYTES, ReceiveBuffers

SIZE = 1024 * 1024


def test_a_buffer_is_used_again_when_its_last_view_is_gone():
    buffers = ReceiveBuffers()
    view = memoryview(buffers.take(SIZE))[4:]
    array = np.frombuffer(view, np.uint8)
    first = view.obj
    del view
    second = memoryview(buffers.take(SIZE))
    assert second.obj is not first  # the array still shows it
    del array
    assert buffers.take(SIZE) is first


def test_a_buffer_has_exactly_the_size_that_was_asked_for():
    buffers = ReceiveBuffers()
    for size in (0, 1, SMALLEST_BYTES, SIZE, SIZE + 1, SIZE, SIZE + 1):
        assert len(buffers.take(size)) == size


def taken(buffers, size, count):
    return [memoryview(buffers.take(size)) for _ in range(count)]


def addresses(views):
    return {np.asarray(view).ctypes.data for view in views}


def test_of_what_is_spare_no_more_than_the_limit_stays_when_there_is_need_of_another_size():
    buffers = ReceiveBuffers()
    views = taken(buffers, SIZE, 3 * SPARE_BYTES // SIZE)
    first = [view.obj for view in views[: 2 * SPARE_BYTES // SIZE]]
    last = addresses(views[2 * SPARE_BYTES // SIZE :])
    views.clear()
    buffers.take(SIZE + 1)
    again = taken(buffers, SIZE, 2 * SPARE_BYTES // SIZE)
    assert last <= addresses(again)
    assert not {id(view.obj) for view in again} & {id(buffer) for buffer in first}


def test_as_much_stays_as_is_in_use_for_what_is_held_over_a_round_comes_again():
    buffers = ReceiveBuffers()
    half = 2 * SPARE_BYTES // SIZE
    held = taken(buffers, SIZE, half)
    others = taken(buffers, SIZE, half)
    before = addresses(others)
    others.clear()
    buffers.take(SIZE + 1)
    assert addresses(taken(buffers, SIZE, half)) == before
    assert len(held) == half


def test_only_so_many_are_remembered_and_the_others_stay_with_who_uses_them():
    buffers = ReceiveBuffers()
    views = taken(buffers, SMALLEST_BYTES, MOST_BUFFERS + 10)
    views[0][:] = b"a" * SMALLEST_BYTES
    assert len(addresses(views)) == MOST_BUFFERS + 10
    kept = views[0]
    views.clear()
    again = taken(buffers, SMALLEST_BYTES, MOST_BUFFERS)
    assert not addresses([kept]) & addresses(again)
    assert bytes(kept) == b"a" * SMALLEST_BYTES
