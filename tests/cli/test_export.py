import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from peer.demo import demo_manifest
from peer.models.flat import initial_state
from peer.snapshots import SnapshotStore
from tests.peer.scripted_daemon import running_daemon

RUN = demo_manifest().run_id


@pytest.fixture
def output(tmp_path):
    return tmp_path / "model.safetensors"


def test_export_takes_the_model_of_the_daemon(peer, home, output):
    with running_daemon(home, RUN):
        outcome = peer("export", "--output", str(output))
    assert outcome.exit_code == 0
    assert outcome.stdout == f"{output} holds the model of {RUN}, from its daemon here\n"
    assert load_file(output)["weight"].tolist() == np.arange(6).reshape(2, 3).tolist()


def test_export_says_when_the_daemon_has_no_model_yet(refuses, home, output):
    with running_daemon(home, RUN) as daemon:
        daemon.daemon_view.model = None
        assert "no model yet" in refuses(1, "export", "--output", str(output))
    assert not output.exists()


def test_export_takes_the_last_snapshot_when_no_daemon_runs(peer, home, output):
    home.run_directory(RUN)
    SnapshotStore(home.snapshots_path(RUN)).save(initial_state(demo_manifest()))
    assert peer("export", "--output", str(output)).stdout.endswith("from its snapshot of epoch 0\n")
    with safe_open(output, "numpy") as file:
        assert file.metadata()["run"] == RUN
        assert json.loads(file.metadata()["manifest"])["name"] == "demo"


def test_export_replaces_a_file_only_by_force(peer, refuses, home, output):
    output.write_text("precious")
    with running_daemon(home, RUN):
        assert "exists; choose another file, or" in refuses(2, "export", "--output", str(output))
        assert output.read_text() == "precious"
        assert peer("export", "--output", str(output), "--force").exit_code == 0
    assert load_file(output)


def test_export_replaces_no_pipe_or_device(refuses, output):
    os.mkfifo(output)
    for force in ([], ["--force"]):
        assert "is a device or a pipe" in refuses(2, "export", "--output", str(output), *force)
    assert output.is_fifo()


def test_export_replaces_no_link_that_leads_nowhere(refuses, home, output):
    output.symlink_to("nowhere")
    with running_daemon(home, RUN):
        assert "exists; choose another file, or" in refuses(2, "export", "--output", str(output))
    assert output.is_symlink()


def test_export_into_a_file_says_that_it_is_no_directory(refuses, output):
    output.write_text("precious")
    assert f"{output} is no directory; choose another place" in refuses(2, "export", "--output", f"{output}/model")
    assert output.read_text() == "precious"


@pytest.mark.parametrize(
    ("exit_code", "where", "sentence"),
    [
        (2, ".", "is a directory; add the name of a file"),
        (2, "no/such/model.safetensors", "does not exist; make it first"),
        (3, "model.safetensors", "no daemon runs in"),
    ],
)
def test_export_says_what_is_missing(refuses, tmp_path, exit_code, where, sentence):
    assert sentence in refuses(exit_code, "export", "--output", str(tmp_path / where))


def test_export_of_a_run_never_trained_here_says_so(refuses, output):
    assert f"peer join --run-id {RUN}" in refuses(3, "export", "--run-id", "demo", "--output", str(output))


def test_export_refuses_a_damaged_snapshot(refuses, home, output):
    home.run_directory(RUN)
    path = SnapshotStore(home.snapshots_path(RUN)).save(initial_state(demo_manifest()))
    path.write_bytes(path.read_bytes()[:-1])
    assert "has no whole snapshot" in refuses(1, "export", "--output", str(output))
    assert not output.exists()
