"""The picture of an averaging benchmark: how a round's time grows with the vector and with the group.

python benchmarks/averaging_plot.py runs.json averaging.svg     (what `averaging.py --json` printed)
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"ours": "tab:blue", "hivemind": "tab:orange"}
Figures = Mapping[str, Any]


def plot(path: Path, runs: Sequence[Figures]) -> None:
    """Writes an SVG with one panel for each axis on which `runs` (as `averaging.py` prints them) differ."""
    mpl.rcParams["svg.hashsalt"] = "averaging"
    sizes, counts = sorted({run["size"] for run in runs}), sorted({run["peers"] for run in runs})
    panels: list[tuple[str, str, Callable[[Figures], bool], str]] = []
    if len(sizes) > 1:
        peers = max(counts, key=lambda count: sum(run["peers"] == count for run in runs))
        panels.append(("size", "parameters", lambda run: run["peers"] == peers, f"{peers} peers"))
    if len(counts) > 1:
        size = max(sizes, key=lambda size: sum(run["size"] == size for run in runs))
        panels.append(("peers", "peers", lambda run: run["size"] == size, f"{size:,} parameters"))
    if not panels:
        raise ValueError("nothing to plot: give several --sizes or --peer-counts")
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for axes, (key, label, chosen, title) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _panel(axes, [run for run in runs if chosen(run)], key)
        axes.set_xlabel(label)
        axes.set_title(f"{title}, codec {runs[0]['codec']}", fontsize="medium")
    figure.savefig(path, format="svg", dpi=150, metadata={"Date": None})


def _panel(axes: Axes, runs: Sequence[Figures], key: str) -> None:
    """Medians as lines, single rounds as dots."""
    for name, colour in COLOURS.items():
        measured = sorted((run for run in runs if name in run), key=lambda run: run[key])
        axes.plot([run[key] for run in measured], [run[name]["seconds"] for run in measured], color=colour, label=name)
        for run in measured:
            seconds = run[name]["all_seconds"]
            axes.plot([run[key]] * len(seconds), seconds, ".", color=colour, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if key == "peers":
        counts = sorted({run[key] for run in runs})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
    axes.set_ylabel("seconds a round")
    axes.legend(fontsize="small")


if __name__ == "__main__":
    records, picture = map(Path, sys.argv[1:])
    plot(picture, [json.loads(line) for line in records.read_text().splitlines()])
