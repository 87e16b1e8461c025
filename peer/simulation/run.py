"""A simulation from beginning to end: a scenario in, a report out."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dht.simulated import run_simulation
from peer.simulation.attackers import check_misbehaviour
from peer.simulation.gossip import GossipSimulation
from peer.simulation.plan import make_plan
from peer.simulation.report import Report
from peer.simulation.rounds import RoundSimulation
from peer.simulation.scenario import Scenario
from peer.simulation.trace import Trace
from peer.simulation.training import training_of
from protocols.manifest import Gossip

COLLECTIONS = (2_000_000, 5, 2)
"""As `gc.set_threshold` takes it: objects that there are more of than at the last collection, and rarer still for those
that have outlived some."""


def simulate(scenario: Scenario, seed: int, peers: int | None, trace: Trace) -> Report:
    """`peers`: instead of as many as the scenario has. Raises UsageError."""
    world = scenario.world if peers is None else scenario.world.scaled(peers)
    manifest = scenario.manifest(seed)
    plan = make_plan(world, scenario.directory, seed)
    training = training_of(scenario, manifest)
    check_misbehaviour(scenario.origin, world, manifest, training)
    kind = GossipSimulation if isinstance(manifest.training, Gossip) else RoundSimulation
    simulation = kind(world, manifest, plan, training, seed, trace)
    began = time.process_time()
    with _rare_collections():
        run_simulation(simulation.run, seed, distances=plan.distances)
    reproduce = f"peer simulate {scenario.origin} --seed {seed}" + (f" --peers {peers}" if peers is not None else "")
    return simulation.report(reproduce, time.process_time() - began)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A simulation makes a hundred thousand objects a second, of which next to none are in cycles, and keeps a few
    thousand for each peer: looking through them as often as Python does would take a fifth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
