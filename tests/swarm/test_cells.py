"""Daemons in rounds of two levels: real libp2p, two cells of three, one of them killed and restarted."""

from pathlib import Path

import pytest

from tests.swarm.processes import LISTEN, Swarm, finished

COUNT = 6
RECIPE = """
name = "cells"
epochs = 12

[model]
architecture = "cnn"
options = { width = 16, halvings = 2 }

[data]
dataset = "digits"

[training]
mode = "local_sgd"
batch_size = 16
inner_steps = 20
inner = { algorithm = "adamw", learning_rate = 0.003 }

[averaging]
cells = 2

[evaluation]
every_epochs = 12
"""


@pytest.mark.timeout(600)
def test_daemons_in_two_cells_end_with_one_state_though_one_is_killed(swarm: Swarm, tmp_path: Path) -> None:
    recipe = tmp_path / "cells.toml"
    recipe.write_text(RECIPE)
    daemons = [swarm.daemon(f"peer-{number}") for number in range(COUNT)]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(daemons[0].home)).split()[0]
    for daemon in daemons:
        daemon.start(run_id, *LISTEN)
    daemons[0].wait("in the third epoch", lambda status: status["run"]["epoch"] >= 2, 300)
    victim = daemons[-1]
    assert victim.process is not None
    victim.process.kill()
    victim.process.wait()
    victim.start_again()
    ends = [daemon.wait("at the run's end", finished, 400) for daemon in daemons]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    assert min(end["run"]["evaluation"]["accuracy"] for end in ends) >= 0.9
    assert all(end["self"]["samples_contributed"] for end in ends[:-1])
