"""The benchmark of pipelines: still starts, trains and measures, ours and torch's (two stages, a tiny model)."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "swarm.py"
SMALL = ["--stages", "2", "--width", "16", "--layers", "2", "--context", "16", "--microbatches", "4"]


def test_a_pipeline_of_daemons_is_measured_beside_torch() -> None:
    options = [*SMALL, "--epochs", "2", "--implementations", "ours,torch"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options, "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for name in ("ours", "torch"):
        assert len(figures[name]["epoch_seconds"]) == 2
        assert min(figures[name]["epoch_seconds"]) > 0
