"""A run on arrays that one daemon has: the other fetches them, and repairs them after a bit has flipped on its disk."""

from pathlib import Path
from typing import Any

import numpy as np

from protocols.blocks import BLOCK_BYTES
from tests.swarm.processes import LISTEN, Daemon, Swarm

RECIPE = """
name = "arrays"
epochs = 100000

[model]
architecture = "mlp"
options = { inputs = 1024, width = 8, classes = 4 }

[data]
dataset = "npz"
files = ["noise.npz"]

[training]
mode = "data_parallel"
batch_size = 16
target_batch = 256
optimizer = { algorithm = "sgd", learning_rate = 0.01 }

[averaging]
quorum = 2
"""


def test_a_flipped_bit_in_fetched_data_is_told_and_repaired_from_the_swarm(swarm: Swarm, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    np.savez(
        tmp_path / "noise.npz", inputs=random.random((1000, 1024), np.float32), targets=random.integers(4, size=1000)
    )
    (tmp_path / "arrays.toml").write_text(RECIPE)
    organiser, volunteer = swarm.daemon("organiser"), swarm.daemon("volunteer")
    run_id = swarm.command("run", "create", str(tmp_path / "arrays.toml"), "--home", str(organiser.home)).split()[0]
    organiser.start(run_id, *LISTEN)
    volunteer.start(run_id, *LISTEN)
    in_step(organiser, volunteer)
    volunteer.stop()

    [file] = (volunteer.home / "data").glob("*/noise.npz")
    content = file.read_bytes()
    assert content == (tmp_path / "noise.npz").read_bytes()
    with file.open("r+b") as opened:
        opened.seek(2 * BLOCK_BYTES + 5)
        opened.write(bytes([content[2 * BLOCK_BYTES + 5] ^ 1]))
    log_before = len(volunteer.log.read_text())
    volunteer.start(run_id, *LISTEN)
    in_step(organiser, volunteer)
    log = volunteer.log.read_text()[log_before:]
    assert log.count("the data is damaged; what is wrong in it is fetched again") == 1
    assert "missing_blocks=1 " in log
    assert file.read_bytes() == content


def in_step(organiser: Daemon, volunteer: Daemon) -> None:
    """Both go on together: the quorum of two lets neither take an epoch alone."""

    def further(status: dict[str, Any]) -> bool:
        return bool(
            status["self"]["epoch"] > before and status["last_round"] and status["last_round"]["group_size"] == 2
        )

    before = organiser.wait("up", lambda status: True)["self"]["epoch"]
    volunteer.wait("in step", further)
    organiser.wait("in step", further)
