"""How the kernel schedules p2pd: working off what has come in, not taking the processor from others for each piece."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def batch_scheduling() -> Iterator[None]:
    """Processes started in here have the policy SCHED_BATCH of sched(7), where there is one (Linux).

    A byte passes through two p2pds and the processes behind them. Where each wakes up for every piece, and pushes the
    one away that is just filling the next, a quarter of the processor's time goes into that (`docs/benchmarks.md`).
    """
    if not hasattr(os, "SCHED_BATCH"):
        yield
        return
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, before, parameters)
