"""Samples per second of a pipeline: ours, torch's own (`torch.distributed.pipelining`), one process; in turn.

    python benchmarks/swarm.py --stages 4 --repeat 3
    python benchmarks/swarm.py --stages 2 --codec int8 --implementations ours,torch --json

The same gpt, cut into the same stages, the same microbatches and epochs; one thread of torch in every process. Ours are
real daemons, one for each stage (`peer join`), that average, sign, publish and save as always. Stages of ours keep what
`--activations` allows of a microbatch's forward pass, and compute the rest again; `torch` keeps all, `torch_recompute`
nothing.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline_daemons import PipelineDaemons
from pipeline_task import PipelineTask
from swarms import Swarm, median

RUN_SECONDS = 1800.0
Figures = dict[str, Any]
Measure = Callable[[PipelineTask, int, int], list[float]]
"""Of a task, so many epochs after so many that do not count: the seconds of each."""


def ours(task: PipelineTask, warm_up: int, epochs: int) -> list[float]:
    with PipelineDaemons(task) as daemons:
        for stage in range(task.stages):
            daemons.start("--stage", str(stage), watched=False)
        moments = daemons.counted_moments(warm_up, warm_up + epochs, RUN_SECONDS)
    return [after - before for before, after in pairwise(moments)]


def workers(script: str, count: int, options: Figures, task: PipelineTask, warm_up: int, epochs: int) -> list[float]:
    """Of `count` processes of a worker script (0: one for each stage), the slowest."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {"task": asdict(task), "warm_up": warm_up, "epochs": epochs, "store": str(Path(directory) / "store")}
        with Swarm(script, settings | options, ["127.0.0.1"] * (count or task.stages)) as swarm:
            done = swarm.expect("done", RUN_SECONDS)
    return max(([after - before for before, after in pairwise(one["moments"])] for one in done), key=sum)


IMPLEMENTATIONS: dict[str, Measure] = {
    "ours": ours,
    "torch": partial(workers, "swarm_torch.py", 0, {"schedule": "1f1b", "recompute": False}),
    "torch_recompute": partial(workers, "swarm_torch.py", 0, {"schedule": "1f1b", "recompute": True}),
    "torch_gpipe": partial(workers, "swarm_torch.py", 0, {"schedule": "gpipe", "recompute": False}),
    "single": partial(workers, "swarm_single.py", 1, {"threads": 1}),
    "single_all_cores": partial(workers, "swarm_single.py", 1, {"threads": os.cpu_count()}),
}


def compare(options: argparse.Namespace, task: PipelineTask) -> Figures:
    figures: Figures = {"task": asdict(task), "load_before": os.getloadavg()[0]}
    seconds: dict[str, list[float]] = {name: [] for name in options.implementations}
    for _ in range(options.repeat):
        for name in options.implementations:
            seconds[name] += IMPLEMENTATIONS[name](task, options.warm_up, options.epochs)
    for name, each in seconds.items():
        figures[name] = {"samples_per_second": task.epoch_samples / median(each), "epoch_seconds": each}
    return figures


def show(figures: Figures) -> str:
    task = PipelineTask(**figures["task"])
    lines = [
        f"{task.stages} stages of a gpt of {task.layers} × {task.width}, context {task.context}, {task.microbatches} "
        f"microbatches of {task.batch_size} an epoch, codec {task.codec}"
    ]
    for name in IMPLEMENTATIONS:
        if name in figures:
            one = figures[name]
            seconds = ", ".join(f"{each:.1f}" for each in one["epoch_seconds"])
            lines.append(f"  {name:18}{one['samples_per_second']:7.1f} samples/s   epochs of {seconds} s")
            if "ours" in figures and name != "ours":
                times = figures["ours"]["samples_per_second"] / one["samples_per_second"]
                lines.append(f"                    ours {times:.2f} × that")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8, help="samples of a microbatch")
    parser.add_argument("--microbatches", type=int, default=32, help="of an epoch")
    parser.add_argument("--codec", choices=("none", "float16", "int8"), default="none", help="of ours")
    parser.add_argument("--epochs", type=int, default=4, help="that are measured, of which the median is shown")
    parser.add_argument("--warm-up", type=int, default=1, help="epochs before that are not counted")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn")
    parser.add_argument("--implementations", type=lambda text: text.split(","), default=list(IMPLEMENTATIONS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    named = ("stages", "width", "layers", "context", "batch_size", "microbatches", "codec")
    figures = compare(options, PipelineTask(**{name: getattr(options, name) for name in named}))
    print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    main()
