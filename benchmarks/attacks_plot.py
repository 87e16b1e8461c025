"""The table and the pictures of the attacks' benchmark, from what `attacks.py --json` printed.

python benchmarks/attacks_plot.py table runs.json                   (Markdown, on stdout)
python benchmarks/attacks_plot.py grid runs.json attacks.svg        (the same, in colours)
python benchmarks/attacks_plot.py courses runs.json recovery.svg    (accuracy by epoch, a line for each run)
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Run = dict[str, Any]
Setting = tuple[int, bool]
"""How many attack, and whether the data are split."""


def accuracy(run: Run) -> float:
    """At the end, in per cent."""
    return 100 * run["accuracy"][max(run["accuracy"], key=int)]


def settings(runs: Sequence[Run]) -> list[Setting]:
    return list(dict.fromkeys((run["attackers"], run["split"]) for run in runs))


def cells(runs: Sequence[Run], setting: Setting) -> tuple[list[str], list[str], dict[tuple[str, str], Run]]:
    """The rules, the attacks, and the run of each pair of them."""
    found = {(run["rule"], run["attack"] or "none"): run for run in runs if (run["attackers"], run["split"]) == setting}
    return list(dict.fromkeys(rule for rule, _ in found)), list(dict.fromkeys(attack for _, attack in found)), found


def title(setting: Setting) -> str:
    return f"{setting[0]} of 16 attack" + (", each peer with data of its own kind" if setting[1] else "")


def table(runs: Sequence[Run]) -> str:
    lines = []
    for setting in settings(runs):
        rules, attacks, found = cells(runs, setting)
        lines += [f"**{title(setting)}**; accuracy at the end, %:", ""]
        lines += ["| rule | " + " | ".join(attack.replace("_", " ") for attack in attacks) + " |"]
        lines += ["|---" * (len(attacks) + 1) + "|"]
        for rule in rules:
            shown = [f"{accuracy(found[rule, attack]):.1f}" if (rule, attack) in found else "" for attack in attacks]
            lines.append(f"| {rule.replace('|', chr(92) + '|')} | " + " | ".join(shown) + " |")
        lines.append("")
    return "\n".join(lines)


def plot_grid(path: Path, runs: Sequence[Run]) -> None:
    """One panel for each setting: rules × attacks, coloured by what is left of the accuracy."""
    mpl.rcParams["svg.hashsalt"] = "attacks"
    panels = settings(runs)
    heights = [len(cells(runs, setting)[0]) for setting in panels]
    figure = Figure(figsize=(9, 0.32 * sum(heights) + 1.5 * len(panels)), layout="constrained")
    for axes, setting in zip(
        figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], panels, strict=True
    ):
        _grid(axes, runs, setting)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _grid(axes: Axes, runs: Sequence[Run], setting: Setting) -> None:
    rules, attacks, found = cells(runs, setting)
    values = [[accuracy(found[r, a]) if (r, a) in found else float("nan") for a in attacks] for r in rules]
    axes.imshow(values, vmin=10, vmax=100, cmap="RdYlGn", aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize="small")
    axes.set_xticks(range(len(attacks)), [attack.replace("_", " ") for attack in attacks], rotation=25, ha="right")
    axes.set_yticks(range(len(rules)), rules)
    axes.set_title(title(setting), fontsize="medium")


def plot_courses(path: Path, runs: Sequence[Run]) -> None:
    mpl.rcParams["svg.hashsalt"] = "attacks"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        name = f"{run['rule']}, {(run['attack'] or 'no attack').replace('_', ' ')}"
        epochs = sorted(run["accuracy"], key=int)
        axes.plot(
            [int(epoch) for epoch in epochs],
            [100 * run["accuracy"][epoch] for epoch in epochs],
            label=name,
            linestyle="-" if run["attack"] else "--",
        )
    axes.axvline(max(run["begin"] for run in runs), color="grey", linewidth=0.8)
    axes.set_xlabel("epoch; the attack begins at the line")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    what, records, *picture = sys.argv[1:]
    runs = [json.loads(line) for line in Path(records).read_text().splitlines()]
    if what == "table":
        print(table(runs))
    else:
        {"grid": plot_grid, "courses": plot_courses}[what](Path(picture[0]), runs)


if __name__ == "__main__":
    main()
