"""The square-cube law: the share of a microbatch's time that is communication, against the width of the model.

    python benchmarks/square_cube.py --json                  (root, iproute2)

Computing grows with the square of the width, for each token, and what travels with the width (SWARM, Ryabinin et al.
2023, section 3.1). Computing is a middle stage of a gpt, forward and backward, on one core. Communication is the same
microbatch through the real stream, to a peer that answers with what it was sent, in a network of two hosts: alone
(latency counts in full), and as one of many that are under way (it is hidden, and the links' rate counts).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import torch
from netlab import NetLab, popen_in, reason_why_not
from pipeline_task import PipelineTask
from swarms import Popen, Swarm, median

from peer.compute_threads import use_threads
from peer.data.registry import loss_of
from peer.models.stages import activation_shape, stage_model, stage_state
from peer.swarm.compute import StageCompute

CODECS = ("none", "float16", "int8")
ROUND_TRIPS = {"near": 0.0, "far": 0.1}
"""Networks: seconds to the other peer and back."""
MIDDLE = 1
MEASURE_SECONDS = 300.0
Figures = dict[str, Any]


def compute_seconds(task: PipelineTask, repeat: int) -> float:
    """Of a microbatch on a middle stage: forward, and backward with the forward pass done again."""
    manifest = task.manifest
    compute = StageCompute(stage_model(manifest, MIDDLE), first=False, last=False, loss=loss_of(manifest.data))
    parameters = stage_state(manifest, MIDDLE).parameters
    activations = torch.randn(activation_shape(manifest, (task.batch_size, task.context)))
    seconds = []
    for _ in range(1 + repeat):
        began = time.process_time()
        compute.forward(parameters, activations)
        compute.backward(parameters, activations, activations)
        seconds.append(time.process_time() - began)
    return median(seconds[1:])


def communication(
    task: PipelineTask, widths: Sequence[int], repeat: int, hosts: Sequence[str], popens: Sequence[Popen] | None = None
) -> list[Figures]:
    """Of each width, between two hosts; `popens` as in `Swarm`."""
    found = []
    with Swarm("square_cube_worker.py", {"task": asdict(task)}, hosts, popens) as swarm:
        swarm.expect("ready")
        stage, trainer = swarm.workers
        for width in widths:
            for worker, event in ((stage, "serving"), (trainer, "measured")):
                worker.tell("width", width=width, repeat=repeat)
                report = worker.expect(event, MEASURE_SECONDS)
            found.append({name: value for name, value in report.items() if name != "event"})
    return found


def communication_behind(
    rate: str, round_trip: float, task: PipelineTask, widths: Sequence[int], repeat: int
) -> list[Figures]:
    """The same behind links of that rate."""
    with NetLab(2, rate, round_trip / 4) as lab:
        hosts, popens = [lab.address(host) for host in lab.hosts], [popen_in(lab, host) for host in lab.hosts]
        return communication(task, widths, repeat, hosts, popens)


def crossover(widths: Sequence[int], compute: Sequence[float], communicated: Sequence[float]) -> float | None:
    """The width from which computing takes longer, between two measured ones by a power law; None outside of them."""
    ratios = [math.log(one / other) for one, other in zip(compute, communicated, strict=True)]
    for (before, low), (after, high) in pairwise(zip(widths, ratios, strict=True)):
        if low < 0 <= high:
            return before * (after / before) ** (-low / (high - low))
    return None


def show(figures: Figures) -> str:
    lines = []
    for name, network in figures["networks"].items():
        trip = f"{1e3 * ROUND_TRIPS[name]:.0f} ms there and back"
        lines.append(f"{figures['rate']}, {trip}: communication's share of a microbatch")
        widths = "".join(f"{width:>8}" for width in figures["widths"])
        lines.append(f"  width             {widths}   computing takes longer from width")
        for codec, measured in network.items():
            for kind in ("alone", "streamed"):
                both = zip(figures["compute_seconds"], measured, strict=True)
                shares = "".join(f"{share(compute, one[f'{kind}_seconds']):8.0%}" for compute, one in both)
                crossed = figures["crossovers"][name][codec][kind]
                lines.append(f"  {codec:8} {kind:9}{shares}   {'not here' if crossed is None else round(crossed)}")
    return "\n".join(lines)


def share(compute: float, communicated: float) -> float:
    return communicated / (compute + communicated)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=numbers, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--codecs", type=lambda text: text.split(","), default=CODECS)
    parser.add_argument("--rate", default="200mbit", help="of each peer's link")
    parser.add_argument("--layers", type=int, default=1, help="blocks of a stage")
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if reason := reason_why_not():
        sys.exit(reason)
    use_threads(1)
    task = PipelineTask(3, layers=3 * options.layers, context=options.context, batch_size=options.batch_size)
    widths = options.widths
    compute = [compute_seconds(replace(task, width=width), options.repeat) for width in widths]
    figures: Figures = {"rate": options.rate, "task": asdict(task), "widths": widths, "compute_seconds": compute}
    figures |= {"networks": {}, "crossovers": {}}
    for name, round_trip in ROUND_TRIPS.items():
        measured = {
            codec: communication_behind(options.rate, round_trip, replace(task, codec=codec), widths, options.repeat)
            for codec in options.codecs
        }
        figures["networks"][name] = measured
        figures["crossovers"][name] = {
            codec: {
                kind: crossover(widths, compute, [one[f"{kind}_seconds"] for one in of_width])
                for kind in ("alone", "streamed")
            }
            for codec, of_width in measured.items()
        }
    print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    main()
