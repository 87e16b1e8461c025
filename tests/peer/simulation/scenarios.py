"""Scenarios for tests, small enough for a second or two."""

from pathlib import Path

from peer.simulation.report import Report
from peer.simulation.run import simulate
from peer.simulation.scenario import read_scenario
from peer.simulation.trace import Trace

EXAMPLES = Path(__file__).parents[3] / "examples" / "simulations"
SMALL = """
name = "small"
epochs = 4
seconds = 60
problem = { kind = "quadratic", parameters = 512 }

[training]
mode = "data_parallel"
batch_size = 10
target_batch = 400
optimizer = { algorithm = "sgd", learning_rate = 0.1 }

[[peers]]
name = "all"
count = 4
"""


def write(directory: Path, text: str) -> str:
    path = directory / "scenario.toml"
    path.write_text(text)
    return str(path)


def play(directory: Path, text: str, seed: int = 0, peers: int | None = None) -> Report:
    return simulate(read_scenario(write(directory, text)), seed, peers, Trace())
