"""How many threads this process computes with: torch has its own, numpy's products those of another library."""

import torch
from threadpoolctl import threadpool_limits


def use_threads(count: int) -> None:
    """From here on, in the whole process. More than the cores that are free wait for one another."""
    torch.set_num_threads(count)
    threadpool_limits(limits=count, user_api="blas")
