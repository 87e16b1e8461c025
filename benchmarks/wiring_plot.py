"""The picture of the wiring's benchmark: throughput by what the peers' speeds allow, and what each peer has done of it.

python benchmarks/wiring_plot.py wiring.json docs/wiring.svg     (what `wiring.py --json` printed)
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from wiring import WIRINGS

LABELS = {"stochastic": "ours", "round_robin": "round-robin", "fixed": "fixed pipelines"}
COLOURS = {"stochastic": "tab:blue", "round_robin": "tab:orange", "fixed": "tab:green"}
WIDTH = 0.25
Figures = Mapping[str, Any]


def plot(path: Path, figures: Figures) -> None:
    """Writes an SVG."""
    mpl.rcParams["svg.hashsalt"] = "wiring"
    figure = Figure(figsize=(11, 4), layout="constrained")
    throughput, peers = figure.subplots(1, 2, width_ratios=(1, 2))
    wirings = [wiring for wiring in WIRINGS if wiring in figures]
    _throughput(throughput, figures, wirings)
    _peers(peers, figures, wirings)
    figure.savefig(path, format="svg", dpi=150, metadata={"Date": None})


def _throughput(axes: Axes, figures: Figures, wirings: list[str]) -> None:
    bound = min(figures["allowed"])
    for number, wiring in enumerate(wirings):
        rate = figures[wiring]["microbatches_per_second"]
        bars = axes.bar(number, rate, color=COLOURS[wiring])
        axes.bar_label(bars, [f"{rate / bound:.0%}"])
    axes.axhline(bound, color="black", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(wirings)), [LABELS[wiring] for wiring in wirings])
    axes.set_ylabel("microbatches a second")
    axes.set_title("dashed: what the speeds allow", fontsize="medium")


def _peers(axes: Axes, figures: Figures, wirings: list[str]) -> None:
    order = sorted(range(len(figures["peers"])), key=lambda number: figures["peers"][number]["stage"])
    for place, number in enumerate(order):
        speed = figures["peers"][number]["speed"]
        axes.hlines(speed, place - 0.5, place + 0.5, color="black", linestyle="--", linewidth=1)
        for offset, wiring in enumerate(wirings):
            axes.bar(place + (offset - 1) * WIDTH, figures[wiring]["done"][number], WIDTH, color=COLOURS[wiring])
    axes.set_xticks(range(len(order)), [f"stage {figures['peers'][number]['stage']}" for number in order])
    axes.set_title("of each peer; dashed: its speed", fontsize="medium")


if __name__ == "__main__":
    record, picture = map(Path, sys.argv[1:])
    plot(picture, json.loads(record.read_text()))
