"""What a simulation costs, and what members send each other, as the swarm grows: with rounds and without.

    python benchmarks/simulation_scale.py --kind gossip --peers 10 30 100 300 1000 2000 >> scale.jsonl
    python benchmarks/simulation_scale.py --kind rounds --peers 10 30 64 100 >> scale.jsonl
    python benchmarks/simulation_scale.py --kind cells --peers 16 36 64 100 256 500 >> scale.jsonl
    python benchmarks/simulation_scale.py --plot docs/simulation_scale.svg < scale.jsonl

Each size is simulated in a process of its own, by `peer simulate`, with everything that is looked at there. Without
rounds each peer makes some hundred exchanges; with rounds there are twenty of them, of one level or, in cells, of two.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Figures = Mapping[str, Any]

COMMON = """
name = "scale"
seconds = 600
problem = { kind = "quadratic", parameters = 64 }

[evaluation]
every_epochs = 1000

[[peers]]
name = "all"
count = 10
latency = [0.005, 0.01]
"""
SCENARIOS = {
    "gossip": """
epochs = 125
"""
    + COMMON
    + """
samples_per_second = [200, 300]

[training]
protocol = "gossip"
batch_size = 10
steps = 3
merges_at_end = false
optimizer = { algorithm = "sgd", learning_rate = 0.1, final_learning_rate = 0.001 }
""",
    "rounds": """
epochs = 20
"""
    + COMMON
    + """
samples_per_second = [50, 100]

[training]
mode = "data_parallel"
batch_size = 10
target_batch = TARGET
optimizer = { algorithm = "sgd", learning_rate = 0.1 }
""",
}
SCENARIOS["cells"] = (
    SCENARIOS["rounds"]
    + """
[averaging]
cells = CELLS
"""
)
SECONDS_A_ROUND = 2.0
"""Of training, at 75 samples per second and peer."""


def measure(kind: str, peers: int, timeout_seconds: float) -> Figures:
    """Simulates one swarm in a process of its own. Raises RuntimeError where something did not hold."""
    text = SCENARIOS[kind].replace("TARGET", str(round(75 * SECONDS_A_ROUND * peers)))
    text = text.replace("CELLS", str(round(math.sqrt(peers))))
    with tempfile.TemporaryDirectory() as directory:
        scenario = Path(directory) / "scale.toml"
        scenario.write_text(text)
        command = [sys.executable, "-m", "cli.main", "simulate", str(scenario), "--peers", str(peers), "--json"]
        began = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
        seconds = time.perf_counter() - began
    if ended.returncode:
        raise RuntimeError(f"{kind}, {peers} peers: {ended.stderr.strip()}")
    report = json.loads(ended.stdout)
    turns = report["gossip"]["exchanges"] if kind == "gossip" else 20 * peers
    return {
        "kind": kind,
        "peers": peers,
        "seconds": round(seconds, 1),
        "processor_seconds": round(report["processor_seconds"], 1),
        "memory_bytes": report["memory_bytes"],
        "virtual_seconds": report["seconds"],
        "turns_a_peer": round(turns / peers, 1),
        "messages_a_turn": round(sum(t["frames"] for t in report["traffic"].values()) / turns, 1),
        "bytes_a_turn": round(sum(t["size_bytes"] for t in report["traffic"].values()) / turns),
        "messages_by_kind": {kind: round(t["frames"] / turns, 2) for kind, t in report["traffic"].items()},
    }


def plot(path: Path, measured: Sequence[Figures]) -> None:
    """An SVG: time, memory, and messages and bytes of a peer in an exchange or a round, against the number of peers."""
    mpl.rcParams["svg.hashsalt"] = "simulation scale"
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = figure.subplots(1, 4)
    for kind, colour in (("gossip", "tab:blue"), ("rounds", "tab:orange"), ("cells", "tab:green")):
        runs = sorted((run for run in measured if run["kind"] == kind), key=lambda run: run["peers"])
        values: tuple[Iterable[float], ...] = (
            (run["processor_seconds"] for run in runs),
            (run["memory_bytes"] / 1e6 for run in runs),
            (run["messages_a_turn"] for run in runs),
            (run["bytes_a_turn"] / 1e3 for run in runs),
        )
        for axes, value in zip(panels, values, strict=True):
            axes.plot([run["peers"] for run in runs], list(value), "o-", color=colour)
    _label(panels[0], "processor seconds", "gossip, 100 exchanges each", "20 rounds", "20 rounds of two levels")
    _label(panels[1], "MB", "gossip", "rounds", "of two levels")
    _label(panels[2], "messages a peer", "gossip, an exchange", "a round", "of two levels")
    _label(panels[3], "kB a peer", "gossip, an exchange", "a round", "of two levels")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _label(axes: Axes, what: str, *lines: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("peers")
    axes.set_ylabel(what)
    axes.legend(axes.get_lines(), lines, fontsize="x-small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=SCENARIOS, default="gossip")
    parser.add_argument("--peers", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS", help="of each simulation")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="Instead: draw what was printed, from stdin.")
    options = parser.parse_args()
    if options.plot:
        plot(options.plot, [json.loads(line) for line in sys.stdin])
        return
    for peers in options.peers:
        print(json.dumps(measure(options.kind, peers, options.timeout)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
