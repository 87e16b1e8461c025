"""What the daemons of a churn train: a run that lasts longer than they do, and leaves the processor to the swarm."""

import os
import sys
from pathlib import Path

from churn_plan import FIRST_FRACTION, VETERANS
from paced_digits import install

sys.path.append(str(Path(__file__).parents[1]))
from tests.swarm.processes import run_command

BATCH_SIZE, BATCH_SECONDS = 32, 0.5
EPOCH_SECONDS = 5.0
"""Of training, by as many as there are at first."""
RECIPE = """
name = "churn"
epochs = 1000000

[model]
architecture = "mlp"
options = {{ width = 128, layers = 2 }}

[data]
dataset = "paced_digits"
options = {{ batch_seconds = {batch_seconds} }}

[training]
mode = "data_parallel"
batch_size = {batch_size}
target_batch = {target_batch}
optimizer = {{ algorithm = "adamw", learning_rate = 0.0003 }}
"""


def prepare(directory: Path, runtime: Path, daemons: int) -> str:
    """Makes the run in the home of the first veteran in `directory`; its id.

    Points the environment, ours and so the daemons', to `runtime`: their sockets and their data set are there.
    """
    plug_ins = runtime / "plug-ins"
    install(plug_ins)
    paths = filter(None, (str(plug_ins), os.environ.get("PYTHONPATH")))
    os.environ |= {"PEER_RUNTIME_DIR": str(runtime), "TMPDIR": str(runtime), "PYTHONPATH": os.pathsep.join(paths)}
    samples = FIRST_FRACTION * daemons * BATCH_SIZE / BATCH_SECONDS * EPOCH_SECONDS
    recipe = directory / "recipe.toml"
    recipe.write_text(RECIPE.format(batch_seconds=BATCH_SECONDS, batch_size=BATCH_SIZE, target_batch=round(samples)))
    return run_command("run", "create", str(recipe), "--home", str(directory / VETERANS[0])).split()[0]
