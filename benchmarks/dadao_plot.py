"""The picture of `dadao.py`: how close the models come to the optimum, by exchanges.

python benchmarks/dadao_plot.py runs.json dadao.svg     (what `dadao.py --json` printed)
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = {"DADAO": "tab:blue", "gossip": "tab:orange", "accelerated gossip": "tab:green"}


def plot(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Writes an SVG with one panel for each graph."""
    mpl.rcParams["svg.hashsalt"] = "dadao"
    figure = Figure(figsize=(3.6 * len(runs), 3.4), layout="constrained")
    for axes, run in zip(figure.subplots(1, len(runs), squeeze=False, sharey=True)[0], runs, strict=True):
        for name, curve in run["curves"].items():
            exchanges, errors = zip(*curve, strict=True)
            axes.semilogy(exchanges, errors, color=COLOURS[name], label=name)
        axes.set_title(f"{run['graph']}, √(χ1 / χ2) = {(run['chi'][0] / run['chi'][1]) ** 0.5:.1f}", fontsize="medium")
        axes.set_xlabel("exchanges of all peers")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.get_axes()[0].set_ylabel("distance to the optimum")
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    runs_path, picture = map(Path, sys.argv[1:])
    plot(picture, json.loads(runs_path.read_text()))
