"""Throughput of a pipeline of uneven peers and links: ours, round-robin, and fixed pipelines, in turn.

    python benchmarks/wiring.py --json > wiring.json               (root, iproute2)
    python benchmarks/wiring_plot.py wiring.json docs/wiring.svg

Eight real daemons serve four stages, two each, every one on a host of its own. One computes five times slower than the
others, one is behind a slow link, and computing is emulated (`--emulate`), so that a few cores are enough. Each of two
trainers, on fast links, chooses among all peers of a stage (stochastic wiring: ours; or each in turn), or has one peer
of each stage for itself (fixed). What all that is held against is what the peers' speeds allow: the sum over the
peers of the slowest stage, of what each can compute, and what its link can carry.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from netlab import NetLab, bytes_per_second, reason_why_not
from pipeline_daemons import PipelineDaemons
from pipeline_task import PipelineTask

from peer.models.stages import activation_shape
from peer.swarm.counts import read_counts
from peer.swarm.emulated import FORWARD_SHARE
from protocols.swarm.coverage import from_bytes

WIRINGS = ("stochastic", "round_robin", "fixed")
WIRED_PEER = Path(__file__).with_name("wired_peer.py")
PER_STAGE = 2
SLOW, NARROW = 1, 6
"""Peers: of the second stage, and of the third."""
PORT = 4001
RUN_SECONDS = 1200.0
Figures = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    stage: int
    compute_seconds: float
    """Of a microbatch, forward and backward."""
    link: str

    def speed(self, task: PipelineTask) -> float:
        """Microbatches a second."""
        line = bytes_per_second(self.link) / max(traffic(task, self.stage))
        return min(1 / self.compute_seconds, line)

    def emulated_seconds(self, task: PipelineTask) -> float:
        """What `--emulate` is to be; the last stage has no forward pass by itself."""
        return self.compute_seconds / (1 - FORWARD_SHARE if self.stage == task.stages - 1 else 1)


def traffic(task: PipelineTask, stage: int) -> tuple[float, float]:
    """Bytes of a microbatch that come to a stage's peer, and that leave it; without what is small."""
    width = activation_shape(task.manifest, (task.batch_size, task.context))[-1]
    activation = {"none": 4, "float16": 2, "int8": 1}[task.codec] * task.batch_size * task.context * width
    first, last = stage == 0, stage == task.stages - 1
    came = (not first) * (1 if last else 2) + (not last)  # inputs, twice where both passes are asked for; a gradient
    left = (not last) + (not first)
    return came * activation, left * activation


def peers_of(options: argparse.Namespace, stages: int) -> list[Peer]:
    """Each stage's first, then each stage's second."""
    return [
        Peer(
            number % stages,
            options.compute_seconds * (options.slow_times if number == SLOW else 1),
            options.slow_link if number == NARROW else options.link,
        )
        for number in range(PER_STAGE * stages)
    ]


def allowed(task: PipelineTask, peers: Sequence[Peer]) -> list[float]:
    """Microbatches a second of each stage."""
    return [sum(peer.speed(task) for peer in peers if peer.stage == stage) for stage in range(task.stages)]


def measure(wiring: str, task: PipelineTask, peers: Sequence[Peer], options: argparse.Namespace) -> Figures:
    """Of real daemons: the seconds of each epoch, and the microbatches that each peer has counted in them."""
    with NetLab(len(peers) + PER_STAGE, options.link) as lab, PipelineDaemons(task) as daemons:
        for number, peer in enumerate(peers):
            lab.set_rate(number + 1, peer.link)
        names = [daemons.peer_id(number) for number in range(len(peers))]
        met = ("--no-local-discovery", "--initial-peers", f"/ip4/{lab.address(1)}/tcp/{PORT}/p2p/{names[0]}")

        def start(host: int, *choice: str, inside: Sequence[str] = (), watched: bool = True) -> Any:
            listen = ("--listen", f"/ip4/{lab.address(host)}/tcp/{PORT}")
            known = met if host > 1 else met[:1]
            return daemons.start(*known, *choice, inside=[*lab.inside(host), *inside], listen=listen, watched=watched)

        serving = [
            start(
                *(number + 1, "--role", "stage", "--stage", str(peer.stage)),
                *("--emulate", f"{peer.emulated_seconds(task):.4f}"),
            )
            for number, peer in enumerate(peers)
        ]
        for number in range(PER_STAGE):
            chain = ",".join(names[number * task.stages : (number + 1) * task.stages])
            wired = [sys.executable, str(WIRED_PEER), chain if wiring == "fixed" else wiring]
            start(len(peers) + 1 + number, "--role", "trainer", inside=wired, watched=False)
        moments = daemons.epoch_moments(options.warm_up, options.warm_up + options.epochs, RUN_SECONDS)
        measured = range(options.warm_up, options.warm_up + options.epochs)
        done: Counter[str] = Counter()
        for daemon in serving[: task.stages]:  # one of each stage
            counts = read_counts(daemons.counts(daemon))
            begins = {begin.epoch: begin.body for begin in counts if begin.epoch in measured}
            for begin in begins.values():
                done.update({member.peer: from_bytes(member.covered).bit_count() for member in begin.members})
    epoch_seconds = [after - before for before, after in pairwise(moments)]
    return {
        "microbatches_per_second": task.microbatches * options.epochs / sum(epoch_seconds),
        "epoch_seconds": epoch_seconds,
        "done": [done[name] / sum(epoch_seconds) for name in names],
    }


def show(figures: Figures) -> str:
    bound = min(figures["allowed"])
    per_stage = ", ".join(f"{each:.2f}" for each in figures["allowed"])
    lines = [f"the peers' speeds allow {bound:.2f} microbatches a second (of each stage: {per_stage})"]
    for wiring in WIRINGS:
        if wiring in figures:
            rate = figures[wiring]["microbatches_per_second"]
            peers = " ".join(f"{each:.2f}" for each in figures[wiring].get("done", ()))
            lines.append(f"  {wiring:12}{rate:6.2f}   {rate / bound:4.0%} of that   {peers}".rstrip())
    return "\n".join(lines)


def parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--compute-seconds", type=float, default=1.0, help="of a microbatch on a stage")
    parser.add_argument("--slow-times", type=float, default=5.0, help="how much slower the slow peer computes")
    parser.add_argument("--link", default="1gbit", help="of every other host")
    parser.add_argument("--slow-link", default="20mbit")
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--microbatches", type=int, default=48, help="of an epoch")
    parser.add_argument("--codec", choices=("none", "float16", "int8"), default="none")
    parser.add_argument("--delayed", type=int, choices=(0, 1), default=1)
    parser.add_argument("--warm-up", type=int, default=1, help="epochs before that are not counted")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--wirings", type=lambda text: text.split(","), default=list(WIRINGS))
    parser.add_argument("--json", action="store_true")
    return parser


def main() -> None:
    options = parser(__doc__).parse_args()
    if reason := reason_why_not():
        sys.exit(reason)
    named = ("stages", "width", "context", "batch_size", "microbatches", "codec", "delayed")
    task = PipelineTask(layers=options.stages, **{name: getattr(options, name) for name in named})
    peers = peers_of(options, task.stages)
    figures: Figures = {
        "task": asdict(task),
        "peers": [asdict(peer) | {"speed": peer.speed(task)} for peer in peers],
        "allowed": allowed(task, peers),
        "load_before": os.getloadavg()[0],
    }
    for wiring in options.wirings:
        figures[wiring] = measure(wiring, task, peers, options)
    print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    main()
