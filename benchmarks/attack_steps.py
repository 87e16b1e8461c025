"""A case of `attacks.py` without a network: in each epoch the updates are made and reduced in one place.

Trainer, attacks, rule, optimizer and the order of the members are the daemon's, so it ends where `attack_swarm.py`
does, in a tenth of the time (`tests/benchmarks/test_attacks.py` compares the two).
"""

import numpy as np
from attack_case import MICROBATCHES, PEERS, Case, Course, Forger, shares

from peer.data.dataset import Dataset
from peer.models.flat import FlatModel, initial_state
from protocols.optimizers import make_optimizer
from protocols.round.order import order
from protocols.rules import DistanceRule, Rule, rule_of
from protocols.state import ModelState, advance
from protocols.vectors import Vector, all_finite


def run(case: Case, whole: Dataset) -> Course:
    return play(case, whole)[0]


def play(case: Case, whole: Dataset) -> tuple[Course, ModelState]:
    """The course, and the state at its end."""
    manifest = case.manifest()
    rule, optimizer = rule_of(manifest.averaging), make_optimizer(manifest.training.outer, case.epochs)
    model = FlatModel.of(manifest.model)
    trainers = [case.trainer(number, model, whole, indices) for number, indices in enumerate(shares(whole, case))]
    forgers = {number: Forger(case, number) for number in range(case.honest, PEERS)}
    numbers = {case.identity(number).peer_id: number for number in range(PEERS)}
    state, course = initial_state(manifest), dict[int, float]()
    for epoch in range(case.epochs):
        updates: dict[int, Vector] = {}
        for number, trainer in enumerate(trainers):
            trainer.start_epoch(state)
            for _ in range(MICROBATCHES):
                trainer.train_microbatch()
            update = trainer.update()
            if trainer.samples:
                updates[number] = update
        honest = [update for number, update in updates.items() if number < case.honest]
        if not honest:  # the parameters are beyond what can be trained with
            break
        sent = {n: forgers[n].update(epoch, own, honest) if n in forgers else own for n, own in updates.items()}
        ranked = [numbers[peer] for peer in order(manifest.run_id, epoch, numbers)]
        taken = [n for n in ranked if n in sent and all_finite(sent[n])]  # owners refuse what is not finite
        state = advance(state, aggregate(rule, np.stack([sent[number] for number in taken])), optimizer)
        if state.epoch % manifest.evaluation.every_epochs == 0:
            course[state.epoch] = trainers[0].evaluate(state)["accuracy"]
    course[case.epochs] = trainers[0].evaluate(state)["accuracy"]
    return Course(course), state


def aggregate(rule: Rule, rows: np.ndarray) -> Vector:
    """Every member has as many samples as the others."""
    if isinstance(rule, DistanceRule):
        return rule.plan(rule.observe(rows)).apply(rows)
    return rule.aggregate(rows, [1.0] * len(rows))
