"""Whether what the veterans take stays flat, and the figures of a churn in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from churn_fleet import Failure
from churn_history import Split
from churn_plan import VETERANS
from churn_samples import Sample

FLAT_PERCENT_PER_HOUR = 5.0
SERIES = {
    "memory_bytes": "memory",
    "network_memory_bytes": "memory of p2pd",
    "open_files": "files",
    "network_open_files": "files of p2pd",
    "threads": "threads",
    "network_threads": "threads of p2pd",
    "tasks": "tasks",
}
"""Field of a sample → its name in print."""


@dataclass(frozen=True)
class Verdict:
    flat: bool
    """Nothing that a veteran takes grows by as much as `FLAT_PERCENT_PER_HOUR`."""
    agreed: tuple[int, str] | None
    """An epoch after the churn at which all survivors showed one state, and its digest; None when there was none."""
    survivors: int
    splits: list[Split]
    """Epochs of which two states were ever shown, by whomever."""
    growth_percent_per_hour: dict[str, dict[str, float | None]]
    """Veteran → series → slope; None when there is too little to tell."""
    events: dict[str, int]
    failures: list[Failure]
    """What daemons should have done and have not."""
    unanswered: int
    """Questions for metrics that a daemon which was up has not answered."""
    left_behind: int
    """Processes still there when all daemons had ended."""
    epochs: int
    seconds: float
    longest_pause_seconds: float
    """Without a new epoch, once all had come up."""
    rounds_by_group_size: dict[int, int]
    complaints: dict[str, int]

    @property
    def good(self) -> bool:
        harm = self.splits or self.failures or self.left_behind
        return self.flat and self.agreed is not None and not harm

    def __str__(self) -> str:
        state = f"epoch {self.agreed[0]}, {self.agreed[1][:16]}" if self.agreed else "NONE"
        lines = [
            f"{self.epochs} epochs in {self.seconds:.0f} s, the longest pause {self.longest_pause_seconds:.1f} s",
            f"events: {_counts(self.events)}",
            f"rounds by group size: {_counts(self.rounds_by_group_size)}",
            f"one state of all {self.survivors} survivors: {state}",
            f"epochs with two states: {', '.join(str(split.epoch) for split in self.splits) or 'none'}",
            f"processes left behind: {self.left_behind}; questions unanswered: {self.unanswered}",
            *(f"failure at {failure.seconds:.0f} s: {failure.daemon}: {failure.what}" for failure in self.failures),
            *(f"in the logs {count} × {text}" for text, count in self.complaints.items()),
            f"growth in % per hour: {'flat' if self.flat else 'NOT FLAT'}",
            " " * 18 + "".join(f"{veteran:>10}" for veteran in VETERANS),
        ]
        for series, name in SERIES.items():
            growths = (self.growth_percent_per_hour[veteran][series] for veteran in VETERANS)
            lines.append(f"  {name:16}" + "".join(f"{_percent(growth):>10}" for growth in growths))
        return "\n".join(lines)


def growths(samples: Sequence[Sample], warm_up_seconds: float) -> dict[str, dict[str, float | None]]:
    """Veteran → series → percent an hour, after the warm-up."""
    settled = [sample for sample in samples if sample.seconds >= warm_up_seconds]
    return {
        veteran: {
            series: growth_percent_per_hour([sample for sample in settled if sample.daemon == veteran], series)
            for series in SERIES
        }
        for veteran in VETERANS
    }


def growth_percent_per_hour(samples: Sequence[Sample], series: str) -> float | None:
    """The slope of a robust line, relative to the median; None without two samples that can be compared.

    The median of the slopes between two samples (Theil 1950, Sen 1968), of those pairs alone that know equally many
    members: what a daemon takes for each of its members comes and goes with them, and is no leak.
    """
    seconds = np.array([sample.seconds for sample in samples])
    members = np.array([sample.members for sample in samples])
    values = np.array([getattr(sample, series) for sample in samples], dtype=np.float64)
    first, second = np.triu_indices(len(samples), 1)
    comparable = (members[first] == members[second]) & (seconds[first] < seconds[second])
    first, second = first[comparable], second[comparable]
    if not len(first):
        return None
    slopes = (values[second] - values[first]) / (seconds[second] - seconds[first])
    return float(np.median(slopes) * 3600 / np.median(values) * 100)


def is_flat(growths: Mapping[str, Mapping[str, float | None]]) -> bool:
    """Not when there is nothing to tell from."""
    every = [growth for of_veteran in growths.values() for growth in of_veteran.values()]
    return all(growth is not None and growth < FLAT_PERCENT_PER_HOUR for growth in every)


def _counts(counted: Mapping[str, int] | Mapping[int, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counted.items())


def _percent(growth: float | None) -> str:
    return "?" if growth is None else f"{growth:+.1f}"
