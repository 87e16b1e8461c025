"""A byte-level GPT on real text: together is better than alone (DiLoCo)."""

import sysconfig
from pathlib import Path

from tests.swarm.processes import LISTEN, Swarm, finished

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
EPOCHS = 40
"""With 15 the luck of the draw (each run has its own samples) was more than what three others add, in one of twenty."""
RECIPE = """
name = "{name}"
epochs = {epochs}

[model]
architecture = "gpt"
options = {{ context = 64, width = 64, layers = 2, heads = 4 }}

[data]
dataset = "text"
options = {{ context = 64 }}
files = [{files}]

[training]
mode = "local_sgd"
batch_size = 2
inner_steps = 20
inner = {{ algorithm = "adamw", learning_rate = 0.001, beta2 = 0.99 }}
outer = {{ learning_rate = 0.8, momentum = 0.5, nesterov = true }}

[averaging]
quorum = {quorum}

[evaluation]
every_epochs = {epochs}
samples = 1024
"""


def test_four_daemons_learn_more_than_one_in_as_many_steps_of_its_own(swarm: Swarm, tmp_path: Path) -> None:
    together = bits_per_byte(swarm, tmp_path, members=4)
    alone = bits_per_byte(swarm, tmp_path, members=1)
    assert together < alone
    assert alone < 8


def bits_per_byte(swarm: Swarm, directory: Path, members: int) -> float:
    """Of the model after all epochs, of 20 steps each, on every one of `members` daemons."""
    files = sorted(STANDARD_LIBRARY.glob("*.py"))[:40]
    recipe = directory / f"{members}.toml"
    names = ", ".join(f'"{file}"' for file in files)
    recipe.write_text(RECIPE.format(name=f"text-{members}", epochs=EPOCHS, files=names, quorum=members))
    daemons = [swarm.daemon(f"text-{members}-{number}") for number in range(members)]
    run_id = swarm.command("run", "create", str(recipe), "--home", str(daemons[0].home)).split()[0]
    daemons[0].start(run_id, *LISTEN)
    for number, daemon in enumerate(daemons[1:]):  # one has the files, the others fetch them from the members
        daemon.start(run_id, *LISTEN, *(["--data", str(STANDARD_LIBRARY)] if number == 0 else []))
    ends = [daemon.wait("at the run's end", finished, 240) for daemon in daemons]
    assert len({end["self"]["state_digest"] for end in ends}) == 1
    steps = EPOCHS * 20 * 2
    assert [end["self"]["samples_contributed"] for end in ends] == [steps] * members
    return float(ends[0]["run"]["evaluation"]["bits_per_byte"])
