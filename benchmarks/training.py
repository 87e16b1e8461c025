"""How long a group trains until a goal is reached: ours, `hivemind.Optimizer` and torch DDP (gloo), in turn.

    python benchmarks/training.py --task digits --peers 4
    python benchmarks/training.py --task text --target-batch 512 --implementations ours,ddp --json

The same model, initial parameters, optimizer, learning rate, microbatches and target batch; ours also in its mode for
slow links, `local_sgd`, where each peer takes many steps of its own between two rounds. The time is that from all peers
ready until the first of them has seen the goal reached; everybody evaluates after about as many samples.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from swarms import Report, Swarm, first_to_hold, in_turn, median
from tasks import TASKS, task_of

IMPLEMENTATIONS = {
    "ours": ("training_ours.py", "data_parallel"),
    "ours_local": ("training_ours.py", "local_sgd"),
    "hivemind": ("training_hivemind.py", "data_parallel"),
    "ddp": ("training_ddp.py", "data_parallel"),
}
"""The worker, and how it trains. `ours_local` has longer epochs, of as many samples as the others have between two
evaluations."""
PATIENCE_SECONDS = 10.0
TRAINING_SECONDS = 1800.0


def train(name: str, task: str, target_batch: int | None, peers: int) -> Report:
    """One run of one implementation: seconds, epochs, the metric reached."""
    with tempfile.TemporaryDirectory() as directory:
        script, mode = IMPLEMENTATIONS[name]
        settings = {"task": task, "target_batch": target_batch, "peers": peers, "mode": mode}
        settings |= {"patience_seconds": PATIENCE_SECONDS, "store": str(Path(directory) / "store")}
        with Swarm(script, settings, ["127.0.0.1"] * peers) as swarm:
            done = swarm.expect("done", TRAINING_SECONDS)
    first, seconds = first_to_hold(done)
    return {"seconds": seconds, "epochs": first["epochs"], "evaluation": first["evaluation"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="digits")
    parser.add_argument("--target-batch", type=int, help="samples of an epoch, instead of the task's own")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn, of which the median is shown")
    parser.add_argument("--implementations", type=lambda text: text.split(","), default=list(IMPLEMENTATIONS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = in_turn(
        options.implementations,
        options.repeat,
        lambda name: train(name, options.task, options.target_batch, options.peers),
    )
    figures: dict[str, Any] = {
        "task": options.task,
        "target_batch": task_of(options.task, options.target_batch).target_batch,
        "peers": options.peers,
    }
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
        f"{figures['task']} to {task.metric} {task.goal}, {figures['peers']} peers, "
        f"batches of {figures['target_batch']}"
    ]
    for name in IMPLEMENTATIONS:
        if name in figures:
            one, last = figures[name], figures[name]["runs"][-1]
            lines.append(
                f"  {name:10} {one['seconds']:7.1f} s   {one['milliseconds_per_epoch']:6.0f} ms an epoch   "
                f"{last['epochs']} epochs, {task.metric} {last['evaluation'].get(task.metric, float('nan')):.3f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
