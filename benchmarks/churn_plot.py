"""The picture of a churn: who was there, what veterans and others took, and how the epochs went, over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from churn_plan import VETERANS, Deed, Event
from churn_samples import Sample
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = dict(zip(VETERANS, ("tab:blue", "tab:orange", "tab:green"), strict=True))
_DEEDS = (Deed.JOIN, Deed.RESTART, Deed.LEAVE, Deed.KILL, Deed.FREEZE)
"""From top to bottom."""
_MIB = 2**20


def plot(
    path: Path,
    samples: Sequence[Sample],
    events: Sequence[Event],
    moments: Sequence[tuple[float, int]],
    group_sizes: Mapping[int, int],
) -> None:
    """Writes an SVG. `moments`: seconds and epoch; `group_sizes`: by epoch."""
    mpl.rcParams["svg.hashsalt"] = "churn"
    figure = Figure(figsize=(10, 14), layout="constrained")
    deeds, known, memory, files, counts, lag, epochs = figure.subplots(7, sharex=True)
    _deeds(deeds, events)
    _known(known, samples)
    _takes(memory, samples, "memory, MiB", "memory_bytes", "network_memory_bytes", _MIB)
    _takes(files, samples, "open files", "open_files", "network_open_files")
    _takes(counts, samples, "threads", "threads", "network_threads")
    _tasks(lag, samples)
    _epochs(epochs, moments, group_sizes)
    epochs.set_xlabel("minutes")
    figure.savefig(path, format="svg", dpi=150, metadata={"Date": None})


def _deeds(axes: Axes, events: Sequence[Event]) -> None:
    for height, deed in enumerate(reversed(_DEEDS)):
        minutes = [event.seconds / 60 for event in events if event.deed is deed]
        axes.plot(minutes, [height] * len(minutes), "|", color="black")
    axes.set_yticks(range(len(_DEEDS)), [deed.value for deed in reversed(_DEEDS)])
    axes.set_ylim(-0.5, len(_DEEDS) - 0.5)


def _known(axes: Axes, samples: Sequence[Sample]) -> None:
    for veteran, colour in _COLOURS.items():
        _line(axes, _of(samples, veteran), "members", color=colour, label=veteran)
    axes.set_ylabel("members known")
    axes.set_ylim(bottom=0)
    axes.legend(ncols=len(VETERANS), fontsize="small", loc="lower right")


def _takes(axes: Axes, samples: Sequence[Sample], label: str, own: str, network: str, unit: int = 1) -> None:
    """The same of the daemon and of its p2pd; dots: everybody who is no veteran."""
    others = [sample for sample in samples if sample.daemon not in VETERANS]
    for series in (own, network):
        heights = [getattr(sample, series) / unit for sample in others]
        minutes = [sample.seconds / 60 for sample in others]
        axes.plot(minutes, heights, ".", markersize=1.5, color="silver", zorder=0, rasterized=True)
    for veteran, colour in _COLOURS.items():
        _line(axes, _of(samples, veteran), own, unit, color=colour)
        _line(axes, _of(samples, veteran), network, unit, color=colour, linestyle="dashed")
    axes.set_ylabel(f"{label}\n(dashed: p2pd)")
    axes.set_ylim(bottom=0)


def _tasks(axes: Axes, samples: Sequence[Sample]) -> None:
    late = axes.twinx()
    for veteran, colour in _COLOURS.items():
        _line(axes, _of(samples, veteran), "tasks", color=colour)
        _line(late, _of(samples, veteran), "lag_seconds", 0.001, color=colour, linestyle="dotted")
    axes.set_ylabel("tasks")
    late.set_ylabel("event loop late by,\nms (dotted)")
    axes.set_ylim(bottom=0)
    late.set_ylim(bottom=0)


def _epochs(axes: Axes, moments: Sequence[tuple[float, int]], group_sizes: Mapping[int, int]) -> None:
    axes.plot([seconds / 60 for seconds, _ in moments], [epoch for _, epoch in moments], color="black")
    axes.set_ylabel("epoch")
    sizes = axes.twinx()
    played = [(seconds / 60, group_sizes[epoch - 1]) for seconds, epoch in moments if epoch - 1 in group_sizes]
    sizes.plot(*zip(*played, strict=True) if played else ((), ()), ".", color="tab:purple", markersize=2)
    sizes.set_ylabel("members of its\nround (dots)")
    sizes.set_ylim(bottom=0)


def _of(samples: Sequence[Sample], daemon: str) -> list[Sample]:
    return [sample for sample in samples if sample.daemon == daemon]


def _line(axes: Axes, samples: Sequence[Sample], series: str, unit: float = 1, **style: str) -> None:
    minutes = [sample.seconds / 60 for sample in samples]
    axes.plot(minutes, [getattr(sample, series) / unit for sample in samples], linewidth=1, **style)
