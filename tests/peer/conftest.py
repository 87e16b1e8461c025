import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Threads that wait for each other on a busy machine make small models a hundred times slower."""
    torch.set_num_threads(1)
