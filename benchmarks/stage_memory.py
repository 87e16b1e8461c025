"""How much memory a peer takes at its peak, when one model is cut into more and more stages.

    python benchmarks/stage_memory.py
    python benchmarks/stage_memory.py --stages 1,2,4,8 --width 512 --json

Real daemons, one for each stage, until all have stepped a few epochs; one stage is the whole model, trained by one
peer as `data_parallel`. Peaks are the kernel's (VmHWM), less that of the same daemons with a model of nearly nothing.
"""

import argparse
import json
from dataclasses import asdict, replace
from typing import Any

from pipeline_daemons import PipelineDaemons
from pipeline_task import PipelineTask
from resources import peak_bytes

from peer.models.flat import initial_parameters
from peer.models.stages import parameter_count

RUN_SECONDS = 600.0
TINY_WIDTH = 8
Figures = dict[str, Any]


def peaks(task: PipelineTask, epochs: int) -> list[int]:
    """Of each stage's daemon, bytes."""
    with PipelineDaemons(task) as daemons:
        for stage in range(task.stages):
            daemons.start(*(("--stage", str(stage)) if task.stages > 1 else ()))
        daemons.epoch_moments(epochs, epochs, RUN_SECONDS)
        return [peak_bytes(watcher.daemon.process.pid) for watcher in daemons.watchers]


def parameters_bytes(task: PipelineTask) -> list[int]:
    """Of each stage."""
    manifest = task.manifest
    if task.stages == 1:
        return [4 * len(initial_parameters(manifest))]
    return [4 * parameter_count(manifest, stage) for stage in range(task.stages)]


def measure(task: PipelineTask, epochs: int) -> Figures:
    start = max(peaks(replace(task, width=TINY_WIDTH), epochs))
    held, peak = parameters_bytes(task), peaks(task, epochs)
    return {"stages": task.stages, "parameters_bytes": held, "start_bytes": start, "peak_bytes": peak}


def show(figures: Figures) -> str:
    lines = [" stages   largest stage   peak beyond the start   times the stage   of each, MB"]
    for one in figures["cuts"]:
        beyond = [peak - one["start_bytes"] for peak in one["peak_bytes"]]
        most, held = max(beyond), max(one["parameters_bytes"])
        each = ", ".join(f"{bytes_ / 1e6:.0f}" for bytes_ in beyond)
        lines.append(f"{one['stages']:7} {held / 1e6:12.1f} MB {most / 1e6:20.0f} MB {most / held:17.1f}   {each}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--microbatches", type=int, default=8, help="of 2 samples, in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    task = PipelineTask(
        width=options.width,
        layers=options.layers,
        context=options.context,
        batch_size=2,
        microbatches=options.microbatches,
    )
    cuts = [measure(replace(task, stages=stages), options.epochs) for stages in options.stages]
    figures = {"task": asdict(task), "cuts": cuts}
    print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    main()
