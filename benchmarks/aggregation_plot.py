"""How the time of the aggregation rules grows with rows and elements, beside byzfl's, from lines of `aggregation.py`.

    python benchmarks/aggregation_plot.py docs/aggregation.svg < docs/data/aggregation.jsonl

The lines of one number of rows that there are most of make the picture against elements; those of one number of
elements that of rows.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Figures = dict[str, Any]
LABELS = {"d": "elements", "n": "rows"}


def plot(path: Path, runs: Sequence[Figures]) -> None:
    """An SVG of two panels."""
    mpl.rcParams["svg.hashsalt"] = "aggregation"
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, grows, stands in zip(figure.subplots(1, 2), ("d", "n"), ("n", "d"), strict=True):
        fixed = Counter(run[stands] for run in runs).most_common(1)[0][0]
        shown = sorted((run for run in runs if run[stands] == fixed), key=lambda run: run[grows])
        _panel(axes, shown, grows)
        axes.set_title(f"{fixed:,} {LABELS[stands]}", fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, runs: Sequence[Figures], grows: str) -> None:
    rules = [name for name in runs[0]["rules"] if all(name in run["rules"] for run in runs)]
    for number, rule in enumerate(rules):
        for who, style in (("ours", "o-"), ("byzfl", "x--")):
            values = [run["rules"][rule].get(f"{who}_ms") for run in runs]
            if None not in values:
                axes.plot([run[grows] for run in runs], values, style, color=f"C{number}", markersize=3, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=LABELS[grows], ylabel="ms")
    lines = [Line2D([], [], color=f"C{number}") for number in range(len(rules))]
    styles = [Line2D([], [], color="grey", linestyle=style) for style in ("-", "--")]
    axes.legend([*lines, *styles], [*rules, "ours", "byzfl"], fontsize="x-small")


if __name__ == "__main__":
    plot(Path(sys.argv[1]), [json.loads(line) for line in sys.stdin])
