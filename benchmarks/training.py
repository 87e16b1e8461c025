"""How long a group trains until a goal is reached: ours, `hivemind.Optimizer` and torch DDP (gloo), in turn.

    python benchmarks/training.py --task digits --peers 4
    python benchmarks/training.py --task text --implementations ours,ddp --json

The same model, initial parameters, optimizer, learning rate, microbatches and target batch. The time is that from all
peers ready until the first of them has seen the goal reached; everybody evaluates every few epochs.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from swarms import Report, Swarm, median
from tasks import TASKS

IMPLEMENTATIONS = {"ours": "training_ours.py", "hivemind": "training_hivemind.py", "ddp": "training_ddp.py"}
PATIENCE_SECONDS = 10.0


def train(name: str, task: str, peers: int) -> Report:
    """One run of one implementation: seconds, epochs, the metric reached."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {"task": task, "peers": peers, "patience_seconds": PATIENCE_SECONDS}
        settings["store"] = str(Path(directory) / "store")
        with Swarm(IMPLEMENTATIONS[name], settings, ["127.0.0.1"] * peers) as swarm:
            done = swarm.expect("done")
    first = min(done, key=lambda report: report["held"])
    seconds = first["held"] - max(report["began"] for report in done)
    return {"seconds": seconds, "epochs": first["epochs"], "evaluation": first["evaluation"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="digits")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn, of which the median is shown")
    parser.add_argument("--implementations", type=lambda text: text.split(","), default=list(IMPLEMENTATIONS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs: dict[str, list[Report]] = {name: [] for name in options.implementations}
    for _ in range(options.repeat):
        for name, done in runs.items():
            done.append(train(name, options.task, options.peers))
    figures: dict[str, Any] = {"task": options.task, "peers": options.peers}
    for name, done in runs.items():
        figures[name] = {
            "seconds": median([run["seconds"] for run in done]),
            "milliseconds_per_epoch": median([1e3 * run["seconds"] / run["epochs"] for run in done]),
            "runs": done,
        }
    print(json.dumps(figures) if options.json else show(figures))


def show(figures: dict[str, Any]) -> str:
    task = TASKS[figures["task"]]
    lines = [
        f"{figures['task']} to {task.metric} {task.goal}, {figures['peers']} peers, batches of {task.target_batch}"
    ]
    for name in IMPLEMENTATIONS:
        if name in figures:
            one, last = figures[name], figures[name]["runs"][-1]
            lines.append(
                f"  {name:9} {one['seconds']:7.1f} s   {one['milliseconds_per_epoch']:6.0f} ms an epoch   "
                f"{last['epochs']} epochs, {task.metric} {last['evaluation'].get(task.metric, float('nan')):.3f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
