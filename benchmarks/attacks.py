"""What attacks do to a run with each rule: digits, sixteen peers, some of which attack, beside the run without attack.

    python benchmarks/attacks.py --attackers 3 >> runs.jsonl                  # every attack × every rule
    python benchmarks/attacks.py --rules mean,median --attacks alie,ipm --split --seeds 1,2,3 >> runs.jsonl
    python benchmarks/attacks.py --rules median --attacks sign_flip --attackers 7 --begin 30 >> runs.jsonl
    python benchmarks/attacks.py --whole --rules median >> runs.jsonl         # by whole participants: ten times as long

A JSON object a line for each run: the case, and the accuracy on the held-out digits by epoch. `attacks_plot.py` makes
tables and pictures of them. A rule that cannot serve so many attackers is passed over.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache, partial

import attack_steps
import structlog
from attack_case import ALL_ATTACKS, NO_ATTACK, Case, Course

import peer.trainer
from peer.compute_threads import use_threads
from peer.data.digits import Digits
from protocols.rules import rule_of

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
    "bulyan",
    "geometric_median",
    "centered_clip",
    "caf",
    "flag",
    "nnm | trimmed_mean",
    "nnm | median",
    "nnm | krum",
    "nnm | geometric_median",
    "nnm | centered_clip",
    "bucketing | trimmed_mean",
    "bucketing | geometric_median",
    "bucketing | centered_clip",
    "clipping | trimmed_mean",
    "arc | trimmed_mean",
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
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--seeds", type=names, default=["1"])
    parser.add_argument("--validators", type=int, default=0, help="in each epoch, with --whole: liars are banned")
    parser.add_argument("--whole", action="store_true", help="whole participants over the simulated transport")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.validators and (options.split or not options.whole):
        parser.error("--validators: whole participants check each other (--whole), who train on the same data")
    cases = [
        Case(
            rule,
            None if attack == NO_ATTACK else attack,
            options.attackers,
            options.split,
            options.epochs,
            int(seed),
            options.begin,
            options.optimizer,
            options.validators,
        )
        for seed in options.seeds
        for rule in options.rules
        for attack in options.attacks
    ]
    for case, course in played([case for case in cases if serves(case)], options.whole, options.processes):
        record = asdict(case) | {"whole": options.whole} | asdict(course)
        record["accuracy"] = {epoch: round(share, 4) for epoch, share in course.accuracy.items()}
        print(json.dumps(record, separators=(",", ":")), flush=True)


def serves(case: Case) -> bool:
    """Whether the rule can withstand so many."""
    try:
        rule_of(case.manifest().averaging)
    except ValueError as error:
        print(error, file=sys.stderr)
        return False
    return True


def played(cases: list[Case], whole: bool, processes: int) -> Iterator[tuple[Case, Course]]:
    """In the order of the cases."""
    with ProcessPoolExecutor(processes, initializer=_prepare) as pool:
        yield from zip(cases, pool.map(partial(play, whole=whole), cases), strict=True)


def play(case: Case, whole: bool) -> Course:
    if not whole:
        return attack_steps.run(case, Digits())
    import attack_swarm  # noqa: PLC0415  (a second to load)

    return attack_swarm.run(case, Digits())


def _prepare() -> None:
    use_threads(1)
    # A third of the time; and what a peer trains on is the same under every attack.
    peer.trainer.sample_indices = lru_cache(4096)(peer.trainer.sample_indices)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


if __name__ == "__main__":
    main()
