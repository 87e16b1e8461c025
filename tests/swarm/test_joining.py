"""A joiner in mid-run: the others do not notice, and it ends where they do."""

from contextlib import ExitStack

import pytest

from tests.swarm.faulty import Members, started
from tests.swarm.processes import LISTEN, Swarm, finished
from tests.swarm.watcher import Watcher, rounds_go_on

EPOCHS = 60
RECIPE = f"""
name = "joined"
epochs = {EPOCHS}

[model]
architecture = "mlp"
options = {{ width = 512, layers = 3 }}

[data]
dataset = "digits"

[training]
mode = "data_parallel"
batch_size = 16
target_batch = 1200
optimizer = {{ algorithm = "adamw", learning_rate = 0.001 }}

[averaging]
codec = "int8"

[evaluation]
every_epochs = 20
"""
"""An epoch takes one member about a third of a second."""
LONGEST_PAUSE = 6.0
"""Times the usual, while a process starts beside it. Who waits for a member in vain waits ten seconds."""


@pytest.mark.alone
def test_a_joiner_in_mid_run_syncs_while_rounds_go_on_and_ends_bit_equal(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(swarm, [swarm.daemon("first")], monkeypatch, recipe=RECIPE) as run, ExitStack() as stack:
        (first,) = run.watchers
        first.wait("at epoch 5", lambda status: status.self_.epoch >= 5, 90)
        at = run.epoch()
        with rounds_go_on(first, epochs=5, longest_pause=LONGEST_PAUSE):
            joiner = Watcher(swarm.daemon("joiner").start(run.run_id, *LISTEN), run.run_id)
            stack.callback(joiner.close)
            joiner.wait("contributing", lambda status: status.self_.samples_contributed > 0, 90)
        assert min(joiner.digests) >= at
        ends = [watcher.daemon.wait("at the run's end", finished, 120) for watcher in (first, joiner)]
        assert {end["self"]["epoch"] for end in ends} == {EPOCHS}
        assert len({end["self"]["state_digest"] for end in ends}) == 1
        Members(run.run_id, [first, joiner]).assert_one_history()
