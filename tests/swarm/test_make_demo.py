"""The first thing that a stranger types, in what they have then: the files that git keeps, and nothing else."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files under version control, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        copy = tmp_path / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy)
    return tmp_path / "checkout"


@pytest.mark.alone
def test_make_demo_trains_to_its_end_within_a_minute(checkout: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout)}  # else the installed environment means the repository
    installed = ["VENV=" + sys.prefix, f"--old-file={sys.prefix}/.installed"]
    began = time.monotonic()
    done = subprocess.run(
        ["make", "demo", *installed],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    sentence = done.stdout.strip().splitlines()[-1]
    found = re.search(r"accuracy ([\d.]+) % after (\d+) epochs in \d+ s", sentence)
    assert found is not None, sentence
    accuracy, epochs = map(float, found.groups())
    assert accuracy >= 95
    assert epochs == 100
    assert seconds < 60

    directory = re.search(r"the model lies in (\S+)", sentence)
    assert directory is not None
    assert Path(directory[1]).is_relative_to(checkout)
    command = re.search(r"take it out with: (.*)\)", sentence)
    assert command is not None
    subprocess.run(shlex.split(command[1]), cwd=checkout, env=environment, check=True)
    with safe_open(checkout / "model.safetensors", "numpy") as file:
        assert file.metadata()["epoch"] == "100"
