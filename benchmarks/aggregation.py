"""How long an aggregation rule takes and how much memory beyond its input: ours and byzfl's, in turns, in one process.

    python benchmarks/aggregation.py --n 16 --d 1000000 --f 3
    python benchmarks/aggregation.py --rules krum,nnm --d 10000000 --repeat 3 --json >> runs.json

Both get the same n × d float32 tensor and the same threads (one unless given). Where byzfl takes few steps unless told
otherwise (geometric median 3, centered clipping 1), ours iterates to convergence all the same. A pre-aggregator is
measured with the mean behind it; `bulyan`, `flag` and `sign_majority` are ours alone.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from byzfl_rules import load
from resources import forget_peak, peak_bytes, resident_bytes
from torch import Tensor

from peer.compute_threads import use_threads
from protocols.aggregation import make_rule

Aggregate = Callable[[Tensor], Tensor]
GOALS = {
    "geometric_median": 10.0,
    "nnm | mean": 20.0,
    "krum": 4.0,
    "multi_krum": 4.0,
    "mda": 4.0,
    "median": 4.0,
    "trimmed_mean": 4.0,
    "meamed": 8.0,
    "centered_clip": 3.0,
}
"""Times faster than byzfl at n = 16, d = 1 000 000, f = 3 (issue 6)."""
TAU = 100.0
"""byzfl's radius of centered clipping."""


def pairs(f: int) -> dict[str, tuple[Aggregate, Aggregate | None]]:
    """Ours and byzfl's, by our name."""
    rules, before = load()

    def theirs_after(preaggregator: Aggregate) -> Aggregate:
        mean = rules.Average()
        return lambda x: mean(preaggregator(x))

    def theirs_anew(x: Tensor) -> Tensor:  # the object keeps its result as the next start
        return rules.CenteredClipping(tau=TAU)(x)

    theirs: dict[str, Aggregate | None] = {
        "mean": rules.Average(),
        "median": rules.Median(),
        "trimmed_mean": rules.TrMean(f),
        "meamed": rules.Meamed(f),
        "sign_majority": None,
        "krum": rules.Krum(f),
        "multi_krum": rules.MultiKrum(f),
        "mda": rules.MDA(f),
        "monna": rules.MoNNA(f),
        "geometric_median": rules.GeometricMedian(),
        "centered_clip": theirs_anew,
        "caf": rules.CAF(f),
        "flag": None,
        "bulyan": None,
        "nnm | mean": theirs_after(before.NNM(f)),
        "nnm | trimmed_mean": lambda x: rules.TrMean(f)(before.NNM(f)(x)),
        "bucketing | mean": theirs_after(before.Bucketing(2)),
        "clipping | mean": theirs_after(before.Clipping(2.0)),
        "arc | mean": theirs_after(before.ARC(f)),
    }
    parameters = {"centered_clip": {"tau": TAU}}
    return {name: (make_rule(name, f, **parameters.get(name, {})), their) for name, their in theirs.items()}


def compare(ours: Aggregate, theirs: Aggregate | None, x: Tensor, repeat: int) -> dict[str, Any]:
    """Medians of `repeat` runs of each, in turns, after one of each that is not counted."""
    runs: dict[str, list[tuple[float, int]]] = {"ours": [], "byzfl": []}
    contestants = {"ours": ours, "byzfl": theirs}
    for _ in range(repeat + 1):
        for name, aggregate in contestants.items():
            if aggregate is not None:
                runs[name].append(measure(aggregate, x.clone()))  # byzfl clips its input in place
    figures: dict[str, Any] = {}
    for name, measured in runs.items():
        if measured:
            figures[f"{name}_ms"] = 1000 * statistics.median(seconds for seconds, _ in measured[1:])
            figures[f"{name}_peak_bytes"] = max(beyond for _, beyond in measured[1:])
    if theirs is not None:
        figures["times_faster"] = figures["byzfl_ms"] / figures["ours_ms"]
    return figures


def measure(aggregate: Aggregate, x: Tensor) -> tuple[float, int]:
    """Seconds, and the most bytes that were resident beyond those before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that stays resident would hide new use
    before = resident_bytes(os.getpid())
    forget_peak(os.getpid())
    started = time.perf_counter()
    result = aggregate(x)
    seconds = time.perf_counter() - started
    beyond = max(0, peak_bytes(os.getpid()) - before)
    assert torch.isfinite(result).all()
    return seconds, beyond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16, help="rows")
    parser.add_argument("--d", type=int, default=1_000_000, help="elements of a row")
    parser.add_argument("--f", type=int, default=3, help="rows that may be anything")
    parser.add_argument("--rules", help="of those shown, with commas between; default all that serve n and f")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    use_threads(options.threads)
    x = torch.randn(options.n, options.d, generator=torch.Generator().manual_seed(0))
    x[options.n - options.f :] *= 10
    contestants = pairs(options.f)
    chosen = [name.strip() for name in options.rules.split(",")] if options.rules else list(contestants)
    head = {name: getattr(options, name) for name in ("n", "d", "f", "repeat", "threads")}
    results: dict[str, dict[str, Any]] = {}
    if not options.json:
        print(f"{'rule':20} {'ours ms':>9} {'byzfl ms':>9} {'ratio':>7} {'goal':>5} {'ours MB':>8} {'byzfl MB':>9}")
    for name in chosen:
        results[name] = compare(*contestants[name], x, options.repeat)
        if not options.json:
            show(name, results[name])
    if options.json:
        print(json.dumps({**head, "input_bytes": x.nbytes, "load": os.getloadavg()[0], "rules": results}))
    else:
        print(f"input {x.nbytes / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def show(name: str, figures: dict[str, Any]) -> None:
    theirs = f"{figures['byzfl_ms']:9.1f} {figures['times_faster']:6.1f}×" if "byzfl_ms" in figures else f"{'':17}"
    goal = f"{GOALS[name]:4.0f}×" if name in GOALS else " " * 5
    memory = f"{figures['ours_peak_bytes'] / 1e6:8.1f}"
    memory += f" {figures['byzfl_peak_bytes'] / 1e6:9.1f}" if "byzfl_peak_bytes" in figures else ""
    print(f"{name:20} {figures['ours_ms']:9.1f} {theirs} {goal} {memory}", flush=True)


if __name__ == "__main__":
    main()
