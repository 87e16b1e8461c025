import subprocess
import sys

ASKED = """
import numpy, torch
from threadpoolctl import threadpool_info
from peer.compute_threads import use_threads

use_threads(3)
print(torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
"""


def test_torch_and_numpy_compute_with_as_many_threads_as_the_volunteer_gives():
    counts = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True).stdout.split()
    assert len(counts) >= 2
    assert set(counts) == {"3"}
