"""How long it takes a group to average a vector: our signed rounds and hivemind's `DecentralizedAverager`, in turn.

    python benchmarks/averaging.py --peers 4 --size 10000000 --codec int8 --json
    python benchmarks/averaging.py --peers 4 --size 10000000 --netlab 100mbit     (root, iproute2)
    python benchmarks/averaging.py --peers 8 --rule 'nnm | trimmed_mean' --byzantine 2 --implementations ours
    python benchmarks/averaging.py --sizes 1000,100000,10000000 --json >> runs.json
    python benchmarks/averaging.py --size 1000000 --peer-counts 2,4,8 --json >> runs.json
    python benchmarks/averaging_plot.py runs.json averaging.svg                   (pip install -e '.[benchmarks]')

Each peer is a process of its own with a libp2p daemon of its own. Ours counts from the moment all peers have their
update until all hold the decoded result: closing the epoch, encoding, committing, forming the group, exchanging,
voting. hivemind counts from the trigger, with its group found before (its matchmaking is shown apart).
"""

import argparse
import json
import sys
from contextlib import ExitStack
from typing import Any

from netlab import NetLab, bytes_per_second, popen_in, reason_why_not
from swarms import RoundFigures, Swarm, median

IMPLEMENTATIONS = {"ours": "averaging_ours.py", "hivemind": "averaging_hivemind.py"}
BYTES_PER_ELEMENT = {"none": 4.0, "float16": 2.0, "int8": 1.0 + 4 / 256}
PATIENCE_SECONDS = 10.0
Figures = dict[str, Any]


def compare(options: argparse.Namespace, peers: int, size: int) -> Figures:
    """Both implementations, `options.repeat` rounds each, in turn."""
    settings = {"peers": peers, "size": size, "codec": options.codec, "patience_seconds": PATIENCE_SECONDS}
    settings |= {"rule": options.rule, "byzantine": options.byzantine, "validators": options.validators}
    figures: Figures = {"peers": peers, "size": size, "codec": options.codec, "rule": options.rule}
    figures["validators"] = options.validators
    with ExitStack() as resources:
        hosts, popens = ["127.0.0.1"] * peers, None
        if options.netlab:
            lab = resources.enter_context(NetLab(peers, options.netlab))
            hosts, popens = [lab.address(host) for host in lab.hosts], [popen_in(lab, host) for host in lab.hosts]
            payload = BYTES_PER_ELEMENT[options.codec] * size
            figures["bound_seconds"] = 2 * (peers - 1) / peers * payload / bytes_per_second(options.netlab)
        swarms = {
            name: resources.enter_context(Swarm(IMPLEMENTATIONS[name], settings, hosts, popens))
            for name in options.implementations
        }
        rounds: dict[str, list[RoundFigures]] = {name: [] for name in swarms}
        matchmaking: list[float] = []
        for number in range(options.warm_up + options.repeat):
            for name, swarm in swarms.items():
                for each in swarms.values():  # nobody prepares a round while another's is measured
                    each.settle()
                played = swarm.play(check=number == options.warm_up + options.repeat - 1)
                if number >= options.warm_up:
                    rounds[name].append(played)
                    matchmaking += [report.get("matchmaking_seconds", 0.0) for report in swarm.ready]
        for name, swarm in swarms.items():
            figures[name] = summarise(rounds[name], swarm.baseline_bytes)
        if "hivemind" in figures:
            figures["hivemind"]["matchmaking_seconds"] = median([seconds for seconds in matchmaking if seconds])
    for name in swarms if options.netlab else ():
        figures[name]["fraction_of_bound"] = figures["bound_seconds"] / figures[name]["seconds"]
    if len(swarms) == 2:
        ours, theirs = figures["ours"], figures["hivemind"]
        figures["times_faster"] = theirs["seconds"] / ours["seconds"]
        figures["cpu_ratio"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
    return figures


def summarise(rounds: list[RoundFigures], baseline_bytes: float) -> Figures:
    reports = [report for played in rounds for report in played.reports]
    last = rounds[-1].reports
    figures: Figures = {
        "seconds": median([played.seconds for played in rounds]),
        "all_seconds": [played.seconds for played in rounds],
        "cpu_seconds": median([played.cpu_seconds.total() for played in rounds]),
        "cpu_seconds_of": {
            name: median([played.cpu_seconds[name] for played in rounds]) for name in rounds[0].cpu_seconds
        },
        "peak_bytes": max(report["peak_bytes"] for report in reports),
        "peak_bytes_beyond_start": max(report["peak_bytes"] for report in reports) - baseline_bytes,
        "relative_error": max(report["error"] for report in last),
        "agree": len({report["digest"] for report in last}) == 1,
    }
    if "sent_bytes" in reports[0]:
        figures["round_bytes"] = median([sum(report["sent_bytes"] for report in played.reports) for played in rounds])
        figures["checked_bytes"] = checked_bytes(rounds)
    if "lag" in reports[0]:
        figures["loop_lag_p99_seconds"] = max(report["lag"]["p99"] for report in reports)
        figures["loop_lag_largest_seconds"] = max(report["lag"]["largest"] for report in reports)
        names = reports[0]["stages"]
        figures["stage_seconds"] = {name: median([report["stages"][name] for report in reports]) for name in names}
        figures["recovered_parts"] = sum(report["recovered_parts"] for report in reports)
    return figures


def checked_bytes(rounds: list[RoundFigures]) -> float:
    """What validators fetched for their checks between two rounds, on average."""
    fetched = [sum(report["checked_bytes"] for report in played.reports) for played in rounds]
    return (fetched[-1] - fetched[0]) / max(1, len(fetched) - 1)


def show(figures: Figures) -> str:
    model = 4 * figures["size"]
    lines = [
        f"{figures['peers']} peers × {figures['size']:,} float32, codec {figures['codec']}, rule {figures['rule']}"
    ]
    for name in IMPLEMENTATIONS:
        if name in figures:
            one = figures[name]
            lines.append(
                f"  {name:9} {one['seconds']:7.3f} s   {one['cpu_seconds']:6.2f} CPU s "
                f"({', '.join(f'{program} {seconds:.2f}' for program, seconds in one['cpu_seconds_of'].items())})   "
                f"peak {one['peak_bytes'] / 1e6:.0f} MB ({one['peak_bytes_beyond_start'] / model:.1f} × the model more "
                f"than at the start)   error {one['relative_error']:.1e}, agree: {one['agree']}"
            )
            if "loop_lag_p99_seconds" in one:
                lags = one["loop_lag_p99_seconds"] * 1e3, one["loop_lag_largest_seconds"] * 1e3
                lines.append(f"            loop lag p99 {lags[0]:.0f} ms, largest {lags[1]:.0f} ms")
                stages = ", ".join(f"{name} {1e3 * seconds:.0f}" for name, seconds in one["stage_seconds"].items())
                lines.append(f"            ms: {stages}")
                sent, checked = one["round_bytes"] / 1e6, one["checked_bytes"] / 1e6
                lines.append(f"            {sent:.0f} MB a round between all, and {checked:.0f} MB for checks")
            if "fraction_of_bound" in one:
                fraction, bound = one["fraction_of_bound"], figures["bound_seconds"]
                lines.append(f"            {fraction:.2f} of the bound that the links set ({bound:.2f} s)")
            if "matchmaking_seconds" in one:
                lines.append(f"            and {one['matchmaking_seconds']:.2f} s of matchmaking before")
    if "times_faster" in figures:
        lines.append(f"  {figures['times_faster']:.2f} × faster, {figures['cpu_ratio']:.2f} × less CPU time")
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.replace("_", "").split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--size", type=int, default=10_000_000, help="elements (float32) of the vector")
    parser.add_argument("--codec", choices=list(BYTES_PER_ELEMENT), default="none")
    parser.add_argument("--rule", default="mean", help="of ours: median, nnm | trimmed_mean, ...")
    parser.add_argument("--byzantine", type=int, default=0, help="f, for the rule")
    parser.add_argument("--validators", type=int, default=0, help="of ours: so many members check others")
    parser.add_argument("--sizes", type=numbers, help="several sizes: 1000,100000")
    parser.add_argument("--peer-counts", type=numbers, help="several swarms: 2,4,8")
    parser.add_argument("--repeat", type=int, default=5, help="rounds, of which the median is shown")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before that are not counted")
    parser.add_argument("--implementations", type=lambda text: text.split(","), default=list(IMPLEMENTATIONS))
    parser.add_argument("--netlab", metavar="RATE", help="each peer behind a link of this rate: 100mbit")
    parser.add_argument("--json", action="store_true", help="all figures, one JSON object a line")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.netlab and (reason := reason_why_not()):
        sys.exit(f"--netlab: {reason}")
    for peers in options.peer_counts or [options.peers]:
        for size in options.sizes or [options.size]:
            figures = compare(options, peers, size)
            print(json.dumps(figures) if options.json else show(figures), flush=True)


if __name__ == "__main__":
    sys.exit(main())
