"""How fast a topology brings models together, beside what its spectrum says: consensus error against epochs.

    python benchmarks/gossip_topologies.py
    python benchmarks/gossip_topologies.py --json > topologies.jsonl
    python benchmarks/gossip_topologies.py --plot docs/gossip_topologies.svg

No network and no training: independent models are drawn, and mixed along the graphs of one epoch after the other, with
the daemon's own graphs and shifts (`protocols.gossip`). The consensus error is the root mean square distance of the
models from their mean, as a fraction of what it was at first.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from protocols.gossip.mixing import apply_shift, pairwise, share_of_other
from protocols.gossip.spectrum import expected_error, expected_gap
from protocols.gossip.topologies import Exponential, RandomPairs, RandomRegular, Ring, Topology, draw_graph
from protocols.identity import PeerId
from protocols.vectors import Vector

TOPOLOGIES = {
    "random pairs": RandomPairs(),
    "exponential": Exponential(),
    "regular, degree 4": RandomRegular(4),
    "ring": Ring(),
}
SIZES = (16, 64, 256, 1024)
PARAMETERS = 64
GOAL = 0.01
"""Of the first consensus error."""
ROUNDING = 1e-6
"""Below it an error is what float32 leaves."""


@dataclass(frozen=True)
class Course:
    topology: str
    peers: int
    gap: float
    """Of the expected mixing matrix."""
    measured: Sequence[float]
    """Consensus error after 0, 1, … epochs."""
    theory: Sequence[float]

    @property
    def furthest_apart(self) -> float:
        """By how much theory and what was measured differ at most until GOAL is reached, as a fraction of theory."""
        pairs = zip(self.measured, self.theory, strict=True)
        return max(abs(m - t) / t for m, t in pairs if min(m, t) > GOAL)


def mix(name: str, peers: int, epochs: int, models: int) -> Course:
    """Of as many draws as it takes to mix that many models."""
    topology, seeds = TOPOLOGIES[name], max(1, models // peers)
    squared = np.zeros(epochs + 1)
    for seed in range(seeds):
        squared += np.square(_errors(topology, peers, epochs, seed)) / seeds
    theory = [expected_error(topology, peers, epoch) for epoch in range(epochs + 1)]
    return Course(name, peers, expected_gap(topology, peers), np.sqrt(squared).tolist(), theory)


def _errors(topology: Topology, peers: int, epochs: int, seed: int) -> list[float]:
    roster = [PeerId(f"peer {number}") for number in range(peers)]
    models = np.random.default_rng(seed).standard_normal((peers, PARAMETERS)).astype(np.float32)
    by_peer = dict(zip(roster, models, strict=True))
    first = _distance(models)
    errors = [1.0]
    for epoch in range(epochs):
        _exchange(topology, f"seed {seed}", epoch, by_peer)
        errors.append(_distance(models) / first)
    return errors


def _exchange(topology: Topology, run: str, epoch: int, models: dict[PeerId, Vector]) -> None:
    """All exchanges of an epoch at once: each shifts both models by what they were when it began."""
    graph = draw_graph(topology, run, epoch, frozenset(models))
    share = share_of_other(1, 1, topology.degree)
    sides = [*graph.links, *((callee, caller) for caller, callee in graph.links)]
    shifts = [pairwise(models[one], models[other], share)[0] for one, other in sides]
    for (one, _), shift in zip(sides, shifts, strict=True):
        apply_shift(models[one], shift)


def _distance(models: np.ndarray) -> float:
    models = models.astype(np.float64)
    return float(np.sqrt(np.mean(np.sum(np.square(models - models.mean(axis=0)), axis=1))))


def epochs_to(goal: float, errors: Sequence[float]) -> int | None:
    return next((epoch for epoch, error in enumerate(errors) if error <= goal), None)


def in_words(course: Course) -> str:
    reached = [epochs_to(GOAL, errors) for errors in (course.measured, course.theory)]
    measured, theory = (f"> {len(course.measured) - 1}" if epoch is None else str(epoch) for epoch in reached)
    return (
        f"{course.topology:18} {course.peers:5} peers  gap {course.gap:.2g}  "
        f"{GOAL:.0%} after {measured} epochs, in theory {theory}; "
        f"until then within {course.furthest_apart:.1%} of theory"
    )


def plot(path: Path, courses: Sequence[Course]) -> None:
    """An SVG with one panel for each number of peers: what was measured as lines, theory as dots."""
    mpl.rcParams["svg.hashsalt"] = "gossip topologies"
    sizes = sorted({course.peers for course in courses})
    figure = Figure(figsize=(3.2 * len(sizes), 3.4), layout="constrained")
    for axes, peers in zip(figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
        for number, course in enumerate(c for c in courses if c.peers == peers):
            for errors, style in ((course.measured, "-"), (course.theory, ".")):
                seen = [error for error in errors if error > ROUNDING]
                label = course.topology if style == "-" else None
                axes.plot(seen, style, color=f"C{number}", label=label, markersize=4, linewidth=1)
        axes.set_yscale("log")
        axes.set_ylim(ROUNDING, 2)
        axes.set_title(f"{peers} peers", fontsize="medium")
        axes.set_xlabel("epochs")
    figure.axes[0].set_ylabel("consensus error")
    figure.axes[-1].legend(fontsize="x-small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--models", type=int, default=4096, help="of all draws together: a small swarm is drawn more often"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    courses = []
    for peers in options.peers:
        for name in TOPOLOGIES:
            courses.append(mix(name, peers, options.epochs, options.models))
            print(json.dumps(asdict(courses[-1])) if options.json else in_words(courses[-1]), flush=True)
    if options.plot:
        plot(options.plot, courses)


if __name__ == "__main__":
    sys.exit(main())
