"""Benchmarks are scripts beside the packages: their modules are found by their directory."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
