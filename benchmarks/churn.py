"""An hour of churn: `peer join` daemons over libp2p on loopback, of which some come, leave, are killed and stopped.

    pip install --constraint constraints.txt --editable '.[benchmarks]'
    python benchmarks/churn.py --seconds 3600 --daemons 20 --seed 7 --output docs/churn

Writes docs/churn.json (verdict, events, samples) and docs/churn.svg. Exits with 1 unless memory, file descriptors,
threads and tasks of the daemons that live all the time are flat, all survivors end with one state bit by bit, no two
states of one epoch were ever shown, and every daemon did what it was asked to and left nothing behind.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from random import Random
from typing import Any

from churn_fleet import Fleet
from churn_history import Progress, agreed, group_sizes, splits
from churn_logs import complaints
from churn_plan import Event, assembly_seconds, plan_churn
from churn_plot import plot
from churn_run import prepare
from churn_samples import sampling
from churn_verdict import Verdict, growths, is_flat

LOOK_SECONDS = 0.2
SAMPLE_SECONDS = 10.0
WARM_UP_SECONDS, WARM_UP_FRACTION = 300.0, 0.25
"""How long what fills up once may take (states that are served, thread pools, p2pd's heap): the smaller of the two."""
AGREE_SECONDS = 180.0
"""How long the survivors may take to show one state when the churn is over."""


def churn(options: argparse.Namespace, directory: Path, runtime: Path) -> Verdict:
    """Plays the plan, judges, and writes record and plot. `directory`: for homes and logs; `runtime`: for sockets."""
    events = plan_churn(Random(options.seed), options.seconds, options.daemons)
    run_id = prepare(directory, runtime, options.daemons)
    began, progress = time.monotonic(), Progress()

    def elapsed() -> float:
        return time.monotonic() - began

    with Fleet(run_id, directory, runtime, elapsed) as fleet:
        with sampling(fleet, elapsed, SAMPLE_SECONDS) as sampler:
            play(events, options.seconds, fleet, progress, elapsed)
        seconds = elapsed()
        common = wait_until_agreed(fleet, progress, elapsed)
        survivors = len(fleet.present())
        left_behind = fleet.stop()
    sizes = group_sizes(fleet.members.values())
    growth = growths(sampler.samples, min(WARM_UP_SECONDS, WARM_UP_FRACTION * options.seconds))
    verdict = Verdict(
        flat=is_flat(growth),
        agreed=common,
        survivors=survivors,
        splits=splits(fleet.members.values()),
        growth_percent_per_hour=growth,
        events=dict(Counter(event.deed.value for event in events)),
        failures=fleet.failures,
        unanswered=sampler.unanswered,
        left_behind=left_behind,
        epochs=progress.epochs(),
        seconds=round(seconds, 1),
        longest_pause_seconds=round(progress.longest_pause_seconds(assembly_seconds(options.daemons), seconds), 1),
        rounds_by_group_size=dict(sorted(Counter(sizes.values()).items())),
        complaints=complaints(directory.glob("*.log")),
    )
    record = {
        "options": {"seconds": options.seconds, "daemons": options.daemons, "seed": options.seed},
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "verdict": asdict(verdict),
        "events": rows(events),  # as planned; they were carried out within a moment
        "epochs": progress.moments,
        "group_sizes": sizes,
        "samples": rows(sampler.samples),
    }
    write(options.output.with_suffix(".json"), record)
    plot(options.output.with_suffix(".svg"), sampler.samples, events, progress.moments, sizes)
    return verdict


def play(
    events: Sequence[Event], seconds: float, fleet: Fleet, progress: Progress, elapsed: Callable[[], float]
) -> None:
    """Carries out each event when it is due, and goes on to the end."""
    coming = deque(events)
    while (now := elapsed()) < seconds or coming:
        while coming and coming[0].seconds <= now:
            fleet.carry_out(coming.popleft())
        look(fleet, progress, now)


def wait_until_agreed(fleet: Fleet, progress: Progress, elapsed: Callable[[], float]) -> tuple[int, str] | None:
    """An epoch after now at which all who are left have shown one state, and its digest; None when none comes."""
    after, deadline = fleet.epoch(), elapsed() + AGREE_SECONDS
    while (now := elapsed()) < deadline:
        if common := agreed(fleet.present(), after):
            return common
        look(fleet, progress, now)
    return None


def look(fleet: Fleet, progress: Progress, now: float) -> None:
    fleet.note_deaths()
    progress.note(now, fleet.epoch())
    time.sleep(LOOK_SECONDS)


def rows(records: Sequence[Any]) -> dict[str, list]:
    """Of dataclasses of one kind: a table is a third as long as a list of objects."""
    names = [field.name for field in fields(records[0])] if records else []
    return {"columns": names, "rows": [[getattr(record, name) for name in names] for record in records]}


def write(path: Path, record: dict[str, Any]) -> None:
    """One line for each entry: what is at the top can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = (f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in record.items())
    path.write_text("{\n" + ",\n".join(entries) + "\n}\n")


@contextmanager
def places(kept: Path | None) -> Iterator[tuple[Path, Path]]:
    """A directory for homes and logs, and one for sockets, whose paths must be short; only `kept` stays."""
    with tempfile.TemporaryDirectory(prefix="churn-", ignore_cleanup_errors=True) as runtime:
        directory = kept or Path(runtime) / "daemons"
        directory.mkdir(parents=True, exist_ok=kept is None)
        yield directory.absolute(), Path(runtime)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--daemons", type=int, default=20, help="at most, at one time")
    parser.add_argument("--seed", type=int, default=7, help="of the plan: who, what, when")
    parser.add_argument("--output", type=Path, default=Path("churn"), help="where to write, without .json and .svg")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="a new one, where homes and logs stay")
    return parser.parse_args()


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: what was started is ended
    with places(options.keep) as (directory, runtime):
        verdict = churn(options, directory, runtime)
    print(verdict)
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
