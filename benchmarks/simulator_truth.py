"""Is the simulator right? The same small swarm as real daemons behind real links, and in `peer simulate`.

    pip install --constraint constraints.txt --editable '.[benchmarks]'
    sudo python benchmarks/simulator_truth.py [--peers 8] [--rate 100mbit] [--width 768] [--epochs 24] [--json]

One peer is killed (kill -9) in the middle. Compared are the seconds of a round, from the close of training until a peer
has the result: of all peers, of the round in which the one has died, and of those who are left. A microbatch takes as
long as it is told to on both sides (`paced_digits`), so that the swarm's own work is what differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from netlab import NetLab, bytes_per_second, reason_why_not
from paced_digits import install

sys.path.append(str(Path(__file__).parents[1]))
from tests.swarm.hosts import kill_whole
from tests.swarm.processes import Daemon, Swarm
from tests.swarm.watcher import Watcher, in_round_after

PORT = 4001
BATCH_SIZE, BATCH_SECONDS, BATCHES = 16, 0.2, 8
"""Each peer's share of an epoch is so many microbatches."""
FIRST = 4
"""Epochs until lines are measured and all are in step; they do not count."""
SECONDS = 300.0
RECIPE = """
name = "truth"
epochs = 100000

[model]
architecture = "mlp"
options = {{ width = {width}, layers = 3 }}

[data]
dataset = {dataset}

[training]
mode = "data_parallel"
batch_size = {batch_size}
target_batch = {target_batch}
optimizer = {{ algorithm = "sgd", learning_rate = 0.01 }}

[averaging]
codec = "none"

[evaluation]
every_epochs = 1000000
"""
WORLD = """
seconds = {seconds}

[[peers]]
name = "peers"
count = {peers}
upload = {megabits}
download = {megabits}
latency = 0.0005
samples_per_second = {speed}

[[crashes]]
at = {crash}
count = 1

[check]
finishes = false
"""


@dataclass(frozen=True)
class Times:
    """Median seconds of rounds."""

    all: float
    with_a_death: float
    """The longest of a round in which, or after which, one of them has died: the others wait for it."""
    without_one: float
    epoch: float
    """Of an epoch of all, training included."""


@dataclass(frozen=True)
class Round:
    epoch: int
    members: int
    seconds: float


def recipe(options: argparse.Namespace, dataset: str) -> str:
    target = options.peers * BATCHES * BATCH_SIZE
    return RECIPE.format(width=options.width, dataset=dataset, batch_size=BATCH_SIZE, target_batch=target)


def times_of(rounds: list[Round], peers: int, epoch_seconds: float) -> Times:
    """`rounds`: of all survivors, those of the first epochs left out."""
    whole = [r.seconds for r in rounds if r.members == peers]
    last_whole = max(r.epoch for r in rounds if r.members == peers)
    return Times(
        all=median(whole),
        with_a_death=max(r.seconds for r in rounds if last_whole <= r.epoch <= last_whole + 1),
        without_one=median(r.seconds for r in rounds if r.members == peers - 1 and r.epoch > last_whole + 1),
        epoch=epoch_seconds,
    )


def real(options: argparse.Namespace) -> Times:
    with ExitStack() as resources:
        directory = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
        install(directory / "plug-ins")
        paths = filter(None, (str(directory / "plug-ins"), os.environ.get("PYTHONPATH")))
        os.environ |= {"PEER_RUNTIME_DIR": str(directory), "PYTHONPATH": os.pathsep.join(paths)}
        lab = resources.enter_context(NetLab(options.peers, options.rate))
        swarm = Swarm(directory, directory)
        resources.callback(swarm.stop)
        file = directory / "recipe.toml"
        file.write_text(recipe(options, f'"paced_digits"\noptions = {{ batch_seconds = {BATCH_SECONDS} }}'))
        daemons = [swarm.daemon(f"host{host}") for host in lab.hosts]
        run_id = swarm.command("run", "create", str(file), "--home", str(daemons[0].home)).split()[0]
        first = swarm.command("id", "--home", str(daemons[0].home)).strip()
        watchers = [_started(daemon, run_id, lab, host, first) for host, daemon in zip(lab.hosts, daemons, strict=True)]
        for watcher in watchers:
            resources.callback(watcher.close)
        begin = _in_step(watchers, -1)
        middle = begin + FIRST + options.epochs // 2
        victim, *survivors = watchers
        for watcher in survivors:
            watcher.wait(f"at epoch {middle}", lambda s: s.self_.epoch >= middle, SECONDS)
        kill_whole(victim.daemon)
        for watcher in survivors:
            watcher.wait("done", lambda s: s.self_.epoch >= middle + options.epochs // 2, SECONDS)
        rounds = [
            Round(epoch, r.group_size, r.duration_seconds)
            for watcher in survivors
            for epoch, r in watcher.rounds.items()
            if epoch >= begin + FIRST
        ]
        moments = survivors[0].moments
        return times_of(rounds, options.peers, _pace(moments, begin + FIRST, middle - 1))


def _started(daemon: Daemon, run_id: str, lab: NetLab, host: int, first: str) -> Watcher:
    daemon.inside = lab.inside(host)
    initial = () if host == 1 else ("--initial-peers", f"/ip4/{lab.address(1)}/tcp/{PORT}/p2p/{first}")
    listen = f"/ip4/{lab.address(host)}/tcp/{PORT}"
    daemon.start(run_id, "--listen", listen, *initial, "--no-local-discovery")
    return Watcher(daemon, run_id)


def _in_step(watchers: list[Watcher], after: int) -> int:
    """The first epoch whose round all have played."""
    shown = [w.wait("in a round of all", in_round_after(after, len(watchers)), SECONDS) for w in watchers]
    return max(status.self_.epoch for status in shown)


def _pace(moments: dict[int, float], first: int, last: int) -> float:
    known = sorted(epoch for epoch in moments if first <= epoch <= last)
    return (moments[known[-1]] - moments[known[0]]) / (known[-1] - known[0])


def simulated(options: argparse.Namespace, epoch_seconds: float) -> Times:
    """`epoch_seconds`: as long as an epoch takes about, for the crash to come in the middle."""
    crash = (FIRST + options.epochs // 2 + 0.5) * epoch_seconds
    world = WORLD.format(
        seconds=crash + options.epochs // 2 * epoch_seconds,
        peers=options.peers,
        megabits=bytes_per_second(options.rate) * 8 / 1e6,
        speed=BATCH_SIZE / BATCH_SECONDS,
        crash=crash,
    )
    with tempfile.TemporaryDirectory(prefix="peer-") as directory:
        scenario, trace = Path(directory) / "scenario.toml", Path(directory) / "trace.jsonl"
        head, _, tables = recipe(options, '"digits"').partition("\n[model]")
        seconds, _, groups = world.partition("\n[[peers]]")
        scenario.write_text(f"{head}{seconds}\n[model]{tables}\n[[peers]]{groups}")
        command = [sys.executable, "-m", "cli.main", "simulate", str(scenario), "--trace", str(trace), "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        events = [json.loads(line) for line in trace.read_text().splitlines()]
    dead = next(event["peer"] for event in events if event["event"] == "crash")
    told = [event for event in events if event["event"] == "round" and event["peer"] != dead]
    begin = min(event["epoch"] for event in told if event["members"] == options.peers) + FIRST
    rounds = [Round(e["epoch"], e["members"], e["seconds"]) for e in told if e["epoch"] >= begin]
    last = max(r.epoch for r in rounds if r.members == options.peers)
    moments = {e["epoch"]: e["time"] for e in events if e["event"] == "epoch" and e["peer"] == told[0]["peer"]}
    return times_of(rounds, options.peers, _pace(moments, begin, last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=8)
    parser.add_argument("--rate", default="100mbit", help="of every link, as tc takes it")
    parser.add_argument("--width", type=int, default=768, help="of the model's layers")
    parser.add_argument("--epochs", type=int, default=24, help="half of them before the death")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if why_not := reason_why_not():
        sys.exit(why_not)
    ours = real(options)
    virtual = simulated(options, ours.epoch)
    if options.json:
        print(json.dumps({"real": asdict(ours), "simulated": asdict(virtual)}))
        return
    print(f"{'seconds':24}{'real':>8}{'simulated':>12}{'ratio':>8}")
    for name, seconds in asdict(ours).items():
        played = asdict(virtual)[name]
        print(f"{name.replace('_', ' '):24}{seconds:8.3f}{played:12.3f}{played / seconds:8.2f}")


if __name__ == "__main__":
    main()
