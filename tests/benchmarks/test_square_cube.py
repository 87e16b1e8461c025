"""The benchmark of the square-cube law: its stage still answers a trainer, and where two curves cross is found."""

import pytest
from pipeline_task import PipelineTask
from square_cube import communication, crossover

LOOPBACK = "127.0.0.1"


def test_microbatches_of_each_width_are_measured_between_two_processes() -> None:
    task = PipelineTask(3, layers=3, context=8, batch_size=2)
    narrow, wide = communication(task, [16, 32], 1, [LOOPBACK, LOOPBACK])
    assert (narrow["tensor_bytes"], wide["tensor_bytes"]) == (4 * 2 * 8 * 16, 4 * 2 * 8 * 32)
    assert min(narrow["alone_seconds"], narrow["streamed_seconds"], wide["streamed_seconds"]) > 0


def test_the_crossover_lies_between_the_widths_around_it() -> None:
    """Computing grows with the square, communicating with the width: equal at 100."""
    widths = [50, 200, 800]
    assert crossover(widths, [w * w for w in widths], [100 * w for w in widths]) == pytest.approx(100)
    assert crossover(widths[1:], [w * w for w in widths[1:]], [100 * w for w in widths[1:]]) is None
