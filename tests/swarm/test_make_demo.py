"""The first thing that a stranger types."""

import os
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_make_demo_trains_to_its_end_within_a_minute() -> None:
    done = subprocess.run(
        ["make", "demo"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    sentence = done.stdout.strip().splitlines()[-1]
    found = re.search(r"accuracy ([\d.]+) % after (\d+) epochs in (\d+) s", sentence)
    assert found is not None, sentence
    accuracy, epochs, seconds = map(float, found.groups())
    assert accuracy >= 95
    assert epochs == 100
    assert seconds < 60
    model = re.search(r"the model lies in (\S+)", sentence)
    assert model is not None
    assert Path(model[1]).exists()
