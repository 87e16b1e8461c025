"""The averaging benchmark itself: still starts, plays and measures (our side alone, two peers, a tiny vector)."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "averaging.py"


def test_averaging_benchmark_measures_a_round_of_two_peers():
    options = ["--peers", "2", "--size", "5000", "--implementations", "ours", "--repeat", "1", "--warm-up", "0"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options, "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["ours"]
    assert figures["agree"]
    assert figures["relative_error"] < 1e-6
    assert figures["seconds"] > 0
    assert figures["recovered_parts"] == 0
