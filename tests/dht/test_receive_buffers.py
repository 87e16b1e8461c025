import numpy as np

from dht.receive_buffers import POOL_BYTES, SMALLEST_BYTES, ReceiveBuffers

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


def test_no_more_than_the_pool_is_remembered():
    buffers = ReceiveBuffers()
    views = [memoryview(buffers.take(SIZE)) for _ in range(2 * POOL_BYTES // SIZE)]
    first = views[0].obj
    views.clear()
    again = [memoryview(buffers.take(SIZE)) for _ in range(2 * POOL_BYTES // SIZE)]
    assert all(view.obj is not first for view in again)
