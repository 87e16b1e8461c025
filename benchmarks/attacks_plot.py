"""The tables and the pictures of the attacks' benchmark, from the lines of `attacks.py`.

python benchmarks/attacks_plot.py table runs.jsonl                   (Markdown, on stdout)
python benchmarks/attacks_plot.py grid runs.jsonl attacks.svg        (the same, in colours)
python benchmarks/attacks_plot.py courses runs.jsonl recovery.svg    (accuracy by epoch, of runs attacked midway)
python benchmarks/attacks_plot.py checked runs.jsonl checked.svg     (the same, of those where members check each other)

Of several seeds the mean is shown. What an attack costs is compared seed by seed, with the run of the same rule without
attack; ± is the standard error of the mean over the seeds.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import matplotlib as mpl
from attack_case import ALL_ATTACKS, NO_ATTACK
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Run = dict[str, Any]
WHOLE_GRID = 200
"""Combinations of a rule and an attack: with fewer a setting is no picture."""


class Setting(NamedTuple):
    whole: bool
    epochs: int
    optimizer: str
    attackers: int
    split: bool

    def __str__(self) -> str:
        return (
            f"{self.attackers} of 16 attack"
            + (", each peer with data of its own kind" if self.split else "")
            + f", {self.epochs} epochs of {self.optimizer}"
            + (", whole participants" if self.whole else "")
        )


def attack_of(run: Run) -> str:
    return run["attack"] or NO_ATTACK


def accuracy(run: Run) -> float:
    """At the end, in per cent."""
    return 100 * run["accuracy"][max(run["accuracy"], key=int)]


@dataclass
class Results:
    """Of one setting: the accuracy at the end of each run, by rule and attack, then by seed."""

    setting: Setting
    found: dict[tuple[str, str], dict[int, float]]

    @property
    def rules(self) -> list[str]:
        return list(dict.fromkeys(rule for rule, _ in self.found))

    @property
    def attacks(self) -> list[str]:
        there = {attack for _, attack in self.found}
        return [attack for attack in ALL_ATTACKS if attack in there]

    def mean(self, rule: str, attack: str) -> float:
        """NaN where there is no run."""
        of_seeds = self.found.get((rule, attack))
        return fmean(of_seeds.values()) if of_seeds else nan

    def cost(self, rule: str, attack: str) -> tuple[float, float]:
        """Points lost to the attack, and the standard error (NaN of one seed)."""
        free, attacked = self.found.get((rule, NO_ATTACK), {}), self.found.get((rule, attack), {})
        lost = [free[seed] - attacked[seed] for seed in free.keys() & attacked.keys()]
        if not lost:
            return nan, nan
        return fmean(lost), stdev(lost) / sqrt(len(lost)) if len(lost) > 1 else nan

    def worst(self, rule: str) -> str:
        """What the worst attack costs, and which that is."""
        costs = {attack: self.cost(rule, attack) for attack in self.attacks if attack != NO_ATTACK}
        known = {attack: cost for attack, cost in costs.items() if not isnan(cost[0])}
        if not known:
            return ""
        attack, (points, error) = max(known.items(), key=lambda item: item[1][0])
        return f"{points:.1f}{'' if isnan(error) else f' ± {error:.1f}'} ({spaced(attack)})"

    @property
    def seeds(self) -> str:
        counts = [len(of_seeds) for of_seeds in self.found.values()]
        fewest, most = min(counts), max(counts)
        if most == 1:
            return "one seed"
        return f"mean of {most} seeds" if fewest == most else f"mean of {fewest} to {most} seeds"


def results(runs: Sequence[Run]) -> list[Results]:
    """Of the runs that are attacked from the first epoch on."""
    tables: dict[Setting, Results] = {}
    for run in runs:
        if not run["begin"]:
            setting = Setting(*(run[field] for field in Setting._fields))
            found = tables.setdefault(setting, Results(setting, {})).found
            found.setdefault((run["rule"], attack_of(run)), {})[run["seed"]] = accuracy(run)
    return [tables[setting] for setting in sorted(tables)]


def spaced(name: str) -> str:
    return name.replace("_", " ")


def table(runs: Sequence[Run]) -> str:
    lines = []
    for shown in results(runs):
        lines += [f"**{shown.setting}**; accuracy at the end, %, {shown.seeds}:", ""]
        lines += ["| rule | " + " | ".join(spaced(attack) for attack in shown.attacks) + " | costs most |"]
        lines += ["|---" * (len(shown.attacks) + 2) + "|"]
        for rule in shown.rules:
            means = [shown.mean(rule, attack) for attack in shown.attacks]
            cells = ["" if isnan(mean) else f"{mean:.1f}" for mean in means]
            lines.append("| " + " | ".join([rule.replace("|", "\\|"), *cells, shown.worst(rule)]) + " |")
        lines.append("")
    return "\n".join(lines)


def plot_grid(path: Path, runs: Sequence[Run]) -> None:
    """Rules × attacks, coloured by what is left of the accuracy: a panel for each setting of which most is known, those
    with the same data for all on the left."""
    shown = [one for one in results(runs) if len(one.found) >= WHOLE_GRID]
    rows = sorted({one.setting._replace(split=False) for one in shown}, key=lambda setting: setting[::-1])
    figure = Figure(figsize=(17, 7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False)
    for one in shown:
        _grid(panels[rows.index(one.setting._replace(split=False)), int(one.setting.split)], one)
    save(figure, path)


def _grid(axes: Axes, shown: Results) -> None:
    values = [[shown.mean(rule, attack) for attack in shown.attacks] for rule in shown.rules]
    axes.imshow(values, vmin=75, vmax=96, cmap="RdYlGn", alpha=0.7, aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if not isnan(value):
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize="small")
    axes.set_xticks(range(len(shown.attacks)), [spaced(attack) for attack in shown.attacks])
    axes.set_yticks(range(len(shown.rules)), shown.rules)
    axes.set_title(str(shown.setting), fontsize="medium")


def plot_courses(path: Path, runs: Sequence[Run], *, checked: bool = False) -> None:
    """One panel for each attack, one colour for each rule; dashed is the rule's run without attack."""
    runs = [run for run in runs if run["begin"] and (run["validators"] > 0) == checked]
    rules = list(dict.fromkeys(run["rule"] for run in runs))
    attacks = [attack for attack in dict.fromkeys(attack_of(run) for run in runs) if attack != NO_ATTACK]
    rows = (len(attacks) + 1) // 2
    figure = Figure(figsize=(9, 3 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).flat
    for axes, attack in zip(panels, attacks, strict=False):
        for run in runs:
            if attack_of(run) in (attack, NO_ATTACK):
                _course(axes, run, f"C{rules.index(run['rule'])}")
        axes.axvline(max(run["begin"] for run in runs), color="grey", linewidth=0.8)
        axes.set_title(spaced(attack), fontsize="medium")
        axes.set_ylim(0, 100)
    figure.supxlabel("epoch; the attack begins at the line, dashed is without attack", fontsize="medium")
    figure.supylabel("accuracy, %", fontsize="medium")
    handles = [mpl.lines.Line2D([], [], color=f"C{number}", label=rule) for number, rule in enumerate(rules)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(rules), fontsize="small")
    save(figure, path)


def _course(axes: Axes, run: Run, colour: str) -> None:
    epochs = sorted(run["accuracy"], key=int)
    shown = [100 * run["accuracy"][epoch] for epoch in epochs]
    style = "-" if run["attack"] else "--"
    axes.plot([int(epoch) for epoch in epochs], shown, style, color=colour, linewidth=1.2 if run["attack"] else 0.8)


def save(figure: Figure, path: Path) -> None:
    """The same bytes from the same runs."""
    mpl.rcParams.update({"svg.hashsalt": "attacks", "svg.fonttype": "none"})
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    what, records, *picture = sys.argv[1:]
    runs = [json.loads(line) for line in Path(records).read_text().splitlines()]
    if what == "table":
        print(table(runs))
    else:
        plots = {"grid": plot_grid, "courses": plot_courses, "checked": partial(plot_courses, checked=True)}
        plots[what](Path(picture[0]), runs)


if __name__ == "__main__":
    main()
