"""What attacks do to a run with each rule: digits, sixteen peers, some of which attack, beside the run without attack.

    python benchmarks/attacks.py --attackers 3 --json >> runs.json            # every attack × every rule
    python benchmarks/attacks.py --rules mean,median --attacks alie,ipm --attackers 7 --split
    python benchmarks/attacks.py --rules median --attacks sign_flip --attackers 7 --begin 30

Whole participants in one process over the simulated transport (`attack_swarm.py`). Several runs at a time, each in a
process of its own. The accuracy is that of the held-out digits at the end of the run.
"""

import argparse
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

import structlog
import torch
from attack_swarm import Case, Course, run

from peer.data.digits import Digits
from peer.misbehaviour import LABEL_FLIP
from protocols.attacks import ATTACKS

NO_ATTACK = "none"
ALL_ATTACKS = (NO_ATTACK, LABEL_FLIP, *ATTACKS)
ALL_RULES = (
    "mean",
    "median",
    "trimmed_mean",
    "meamed",
    "sign_majority",
    "krum",
    "multi_krum",
    "mda",
    "monna",
    "geometric_median",
    "centered_clip",
    "caf",
    "flag",
    "nnm | trimmed_mean",
    "nnm | median",
    "nnm | geometric_median",
    "arc | nnm | trimmed_mean",
)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=names, default=list(ALL_RULES), help="nnm | trimmed_mean, median, ...")
    parser.add_argument("--attacks", type=names, default=list(ALL_ATTACKS))
    parser.add_argument("--attackers", type=int, default=3, help="f, of sixteen")
    parser.add_argument("--split", action="store_true", help="each peer has data of its own kind")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--begin", type=int, default=0, help="the epoch at which they begin to attack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="the whole course of each run, one JSON object a line")
    options = parser.parse_args()
    cases = [
        Case(
            rule,
            None if attack == NO_ATTACK else attack,
            options.attackers,
            options.split,
            options.epochs,
            options.seed,
            options.begin,
        )
        for rule in options.rules
        for attack in options.attacks
    ]
    if not options.json:
        print(f"{options.attackers} of 16 attack{', data split' if options.split else ''}; accuracy, %")
        print("| rule | " + " | ".join(options.attacks) + " |\n|---" + "|---" * len(options.attacks) + "|")
    row: list[str] = []
    for case, course in played(cases, options.processes):
        if options.json:
            print(json.dumps(asdict(case) | asdict(course)), flush=True)
            continue
        row.append(f"{100 * final(course):.1f}" + ("" if course.agree else " (parted)"))
        if len(row) == len(options.attacks):
            print(f"| {case.rule.replace('|', '/')} | " + " | ".join(row) + " |", flush=True)
            row = []


def played(cases: list[Case], processes: int) -> Iterator[tuple[Case, Course]]:
    """In the order of the cases."""
    with ProcessPoolExecutor(processes, initializer=_prepare) as pool:
        yield from zip(cases, pool.map(play, cases), strict=True)


def play(case: Case) -> Course:
    return run(case, Digits())


def final(course: Course) -> float:
    return course.accuracy[max(course.accuracy)]


def _prepare() -> None:
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


if __name__ == "__main__":
    main()
