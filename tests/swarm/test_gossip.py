"""Real daemons in runs without groups: they learn, come together, end with one model, and miss nobody who is killed."""

import random
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest

from peer.status import Status
from tests.swarm.faulty import started
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.watcher import Watcher

RECIPE = """
name = "gossip"
epochs = {epochs}

[model]
architecture = "cnn"
options = {{ width = 24, halvings = 2 }}

[data]
dataset = "digits"

[training]
protocol = "gossip"
{mixing}
batch_size = 16
steps = 4
optimizer = {{ algorithm = "adamw", learning_rate = 0.003, warmup_epochs = 10, final_learning_rate = 0.0 }}

[averaging]
codec = "float16"
{averaging}

[evaluation]
every_epochs = 100
"""
TOPOLOGIES = {
    "random": 'topology = "random"',
    "exponential": 'topology = "exponential"',
    "ring": 'topology = "ring"',
    "accelerated": 'topology = "ring"\naccelerated = true',
    "regular": 'topology = "regular"\ndegree = 3',
}
ROBUST = 'topology = "regular"\ndegree = 4\nmixing = "rule"', 'rule = "trimmed_mean"\nbyzantine = 1\nquorum = 3'
END_SECONDS = 150.0


def recipe(mixing: str = TOPOLOGIES["random"], averaging: str = "quorum = 4", epochs: int = 300) -> str:
    return RECIPE.format(mixing=mixing, averaging=averaging, epochs=epochs)


def distance(status: Status) -> float:
    assert status.gossip is not None
    assert status.gossip.relative_consensus_distance is not None
    return status.gossip.relative_consensus_distance


def check_learned_together(swarm: Swarm, count: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(swarm, [swarm.daemon(f"peer{n}") for n in range(count)], monkeypatch, recipe=text) as run:
        early = [
            watcher.wait("mixing", lambda s: s.gossip and s.gossip.exchanges >= 10, END_SECONDS)
            for watcher in run.watchers
        ]
        ends = [watcher.daemon.wait("at the run's end", finished, END_SECONDS) for watcher in run.watchers]
        last = [watcher.ask() for watcher in run.watchers]
    accuracies = [end["run"]["evaluation"]["accuracy"] for end in ends]
    exchanges = [status.gossip.exchanges for status in last if status.gossip]
    print(f"accuracy {min(accuracies):.3f} to {max(accuracies):.3f}, {min(exchanges)} to {max(exchanges)} exchanges")
    print(f"relative consensus distance {min(map(distance, early)):.1e}, in the end {max(map(distance, last)):.1e}")
    assert min(accuracies) >= 0.95, accuracies
    assert max(map(distance, last)) < 0.5 * min(map(distance, early))
    assert all(status.rejected.keys() <= {"busy"} for status in last), [status.rejected for status in last]
    if "rule" not in text:
        assert len({end["self"]["state_digest"] for end in ends}) == 1


def test_four_daemons_learn_in_pairs_and_end_with_one_model(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    check_learned_together(swarm, 4, recipe(), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_eight_daemons_learn_in_each_topology(topology: str, swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    check_learned_together(swarm, 8, recipe(TOPOLOGIES[topology], "quorum = 8"), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_six_daemons_learn_by_a_robust_rule(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    check_learned_together(swarm, 6, recipe(*ROBUST), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_six_daemons_learn_in_committees_of_three(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    text = recipe("committee = { trainers = 3, aggregators = 2, fraction = 0.6 }", "quorum = 6", epochs=150)
    with started(swarm, [swarm.daemon(f"peer{n}") for n in range(6)], monkeypatch, recipe=text) as run:
        ends = [watcher.daemon.wait("at the run's end", finished, END_SECONDS) for watcher in run.watchers]
        last = [watcher.ask() for watcher in run.watchers]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    assert ends[0]["run"]["evaluation"]["accuracy"] >= 0.95, ends[0]["run"]
    assert all(status.self_.samples_contributed > 0 for status in last), "they take turns"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_kills_and_joins_at_random_stall_nobody(topology: str, swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's epochs stop for longer than an exchange may take before it is given up."""
    chance = random.Random(11)
    text = recipe(TOPOLOGIES[topology], "quorum = 2", epochs=100_000)
    with (
        started(swarm, [swarm.daemon(f"peer{n}") for n in range(5)], monkeypatch, recipe=text) as run,
        ExitStack() as stack,
    ):
        for watcher in run.watchers:
            watcher.wait("mixing", lambda s: s.gossip and s.gossip.exchanges >= 5, END_SECONDS)
        watchers = list(run.watchers)
        for number in range(4):
            victim = chance.choice(watchers)
            others = [watcher for watcher in watchers if watcher is not victim]
            began = time.monotonic()
            victim.daemon.process.kill()
            victim.daemon.process.wait()
            victim.wait_gone()
            if number % 2:
                victim.daemon.start_again()
            else:
                watchers.remove(victim)
                joiner = Watcher(swarm.daemon(f"joiner{number}").start(run.run_id, *LISTEN), run.run_id)
                stack.callback(joiner.close)
                watchers.append(joiner)
            back = watchers[-1] if victim not in watchers else victim
            back.wait("mixing again", lambda s: s.gossip and s.gossip.exchanges >= 3, END_SECONDS)
            pauses = [longest_pause(watcher, began) for watcher in others]
            print(f"{victim.daemon.name} killed; the longest pause of the others {max(pauses):.1f} s")
            assert max(pauses) < 8, pauses
        for watcher in watchers:
            status = watcher.ask()
            assert status.rejected.keys() <= {"busy"}, status.rejected


def longest_pause(watcher: Watcher, since: float) -> float:
    """Between two epochs that a daemon has shown, which it does once a second."""
    moments = [since, *sorted(moment for moment in watcher.moments.values() if moment > since), time.monotonic()]
    return max(later - earlier for earlier, later in pairwise(moments))


def test_a_run_without_groups_can_be_looked_at_and_taken_out(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    daemons = [swarm.daemon("first"), swarm.daemon("second")]
    text = recipe(averaging="quorum = 2", epochs=100_000)
    with started(swarm, daemons, monkeypatch, recipe=text) as run:
        for watcher in run.watchers:
            watcher.wait("mixing", lambda s: s.gossip and s.gossip.exchanges >= 5, END_SECONDS)
        home = ("--home", str(daemons[0].home))
        assert "consensus distance" in swarm.command("status", *home)
        assert "second" in swarm.command("peers", *home)
        address = run.watchers[0].ask().self_.addresses[0]
        outside = ("--run-id", run.run_id, "--initial-peers", address, "--home", str(swarm.directory / "outside"))
        assert run.run_id in swarm.command("status", *outside)
        for number, command in enumerate((home, outside)):
            model = swarm.directory / f"model{number}.safetensors"
            swarm.command("export", *command, "--output", str(model))
            assert model.stat().st_size > 10_000
        swarm.command("leave", *home)
        assert daemons[0].wait_exit(30) == 0
        (snapshot, *_) = (daemons[0].home / "runs").glob("*/snapshots/epoch-*")
        assert snapshot.exists()


def test_daemons_go_when_they_are_done_or_have_played_enough(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"first": ("--until-done",), "second": ("--until-done",), "third": ("--max-epochs", "30")}
    daemons = [swarm.daemon(name) for name in options]
    text = recipe(averaging="quorum = 2", epochs=200)
    with started(swarm, daemons, monkeypatch, lambda daemon: (*LISTEN, *options[daemon.name]), text) as run:
        assert [daemon.wait_exit(END_SECONDS) for daemon in reversed(daemons)] == [0, 0, 0]
        assert run.watchers[0].digests.keys() >= {200}
