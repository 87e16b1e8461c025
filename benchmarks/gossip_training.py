"""How long four peers train the digits to a goal without rounds: ours, `decent-dp` and torch DDP (gloo), in turn.

    python benchmarks/gossip_training.py                          # loopback
    python benchmarks/gossip_training.py --slow-link 20mbit       # one of four links (root, iproute2)
    python benchmarks/gossip_training.py --implementations ours,ddp --repeat 3 --json

`decent-dp` (Wang et al. 2025, "From promise to practice: realizing high-performance decentralized training") is no
dependency of ours: install it beside (`pip install decent-dp`), or leave it out. The same model, initial parameters,
optimizer and microbatches of 16; ours mixes after `--steps` of them, `decent-dp` with its neighbour of the one-peer
exponential graph in each, DDP averages gradients in each. Each implementation may have another learning rate. The time
is that from all peers ready until the first has seen the goal reached by its own model; all evaluate after as many
samples.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netlab import NetLab, popen_in
from swarms import Popen, Report, Swarm, first_to_hold, in_turn, median
from tasks import TASKS

IMPLEMENTATIONS = {
    "ours": ("gossip_ours.py", 0.0025),
    "decent_dp": ("gossip_torch.py", 0.005),
    "ddp": ("gossip_torch.py", 0.01),
}
"""The worker, and its learning rate."""
PEERS = 4
EVALUATE_STEPS = 50
PATIENCE_SECONDS = 10.0
TRAINING_SECONDS = 900.0
FAST_LINK = "1gbit"


def train(name: str, steps: int, learning_rate: float | None, slow_link: str | None) -> Report:
    """One run of one implementation: seconds; steps and exchanges of the first who was there, the metric reached."""
    script, rate = IMPLEMENTATIONS[name]
    settings = {"implementation": name, "steps": steps, "learning_rate": learning_rate or rate, "peers": PEERS}
    settings |= {"evaluate_steps": EVALUATE_STEPS, "patience_seconds": PATIENCE_SECONDS}
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        settings |= {"store": str(Path(directory) / "store")}
        hosts: Sequence[str] = ["127.0.0.1"] * PEERS
        popens: Sequence[Popen] | None = None
        if slow_link is not None:
            lab = stack.enter_context(NetLab(PEERS, FAST_LINK))
            lab.set_rate(PEERS, slow_link)
            hosts, popens = [lab.address(host) for host in lab.hosts], [popen_in(lab, host) for host in lab.hosts]
        with Swarm(script, settings, hosts, popens) as swarm:
            done = swarm.expect("done", TRAINING_SECONDS)
    first, seconds = first_to_hold(done)
    return {key: first[key] for key in ("steps", "exchanges", "evaluation")} | {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow-link", help="rate of the last peer's link, as 20mbit; the others have 1 Gbit/s")
    parser.add_argument("--steps", type=int, default=25, help="of ours, between two exchanges")
    parser.add_argument("--learning-rate", type=float, help="instead of each implementation's own")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn, of which the median is shown")
    parser.add_argument("--implementations", type=lambda text: text.split(","), default=list(IMPLEMENTATIONS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = in_turn(
        options.implementations,
        options.repeat,
        lambda name: train(name, options.steps, options.learning_rate, options.slow_link),
    )
    figures = {name: {"seconds": median([run["seconds"] for run in done]), "runs": done} for name, done in runs.items()}
    print(json.dumps(figures) if options.json else show(figures, options.slow_link))


def show(figures: dict[str, Any], slow_link: str | None) -> str:
    task = TASKS["digits"]
    links = f"one link of {slow_link}, three of {FAST_LINK}" if slow_link else "loopback"
    lines = [f"digits to {task.metric} {task.goal}, {PEERS} peers, {links}"]
    for name, one in figures.items():
        seconds = ", ".join(f"{run['seconds']:.1f}" for run in one["runs"])
        last = one["runs"][-1]
        counts = f"{last['steps']} steps and {last['exchanges']} exchanges of the first"
        lines.append(f"  {name:10} {one['seconds']:7.1f} s   ({seconds})   {counts}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
