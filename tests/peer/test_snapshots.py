import json
import logging
import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from peer.files import write_atomically
from peer.models.flat import FlatModel, initial_state
from peer.snapshots import SnapshotError, SnapshotStore, export_model
from protocols.manifest import AdamW, Data, DataParallel, Manifest, Model, Shard
from protocols.state import ModelState

RUN = "tests-" + "a" * 26
SHAPE = {"run": RUN, "parameter_count": 100, "slot_names": ("first_moment", "second_moment")}


def a_state(epoch):
    parameters, first, second = np.random.default_rng(epoch).standard_normal((3, 100)).astype(np.float32)
    return ModelState(RUN, epoch, parameters, {"first_moment": first, "second_moment": second})


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


def test_a_new_store_is_empty(store):
    assert store.latest(**SHAPE) is None


def test_the_latest_state_comes_back_to_the_bit(store):
    for epoch in (3, 9, 12):
        store.save(a_state(epoch))
    latest = store.latest(**SHAPE)
    assert latest.epoch == 12
    assert latest.digest == a_state(12).digest


def test_only_the_newest_are_kept(tmp_path):
    store = SnapshotStore(tmp_path, keep=2)
    for epoch in range(9, 13):
        store.save(a_state(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-000000000011.safetensors",
        "epoch-000000000012.safetensors",
    ]


def test_after_a_step_back_the_abandoned_history_is_gone(store):
    for epoch in (9, 10, 11, 12):
        store.save(a_state(epoch))
    for epoch in (3, 4):
        store.save(a_state(epoch))
        assert store.latest(**SHAPE).digest == a_state(epoch).digest


def test_saving_an_epoch_again_replaces_it(store):
    store.save(a_state(5))
    again = ModelState(RUN, 5, a_state(6).parameters, a_state(6).slots)
    store.save(again)
    assert store.latest(**SHAPE).digest == again.digest


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def flip_last_bit(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def replace_by_text(path):
    path.write_text("not a snapshot")


def claim_a_huge_header(path):
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def replace_by_directory(path):
    path.unlink()
    path.mkdir()


def rewrite(path, tensors=None, **metadata):
    with safe_open(path, "numpy") as file:
        old = file.metadata()
    save_file(load_file(path) | (tensors or {}), path, old | metadata)


def claim_another_epoch(path):
    rewrite(path, epoch="77")


def claim_no_epoch(path):
    rewrite(path, epoch="²")


def belong_to_another_run(path):
    rewrite(path, run="other-" + "a" * 26)


def hold_nan(path):
    rewrite(path, {"parameters": np.full(100, np.nan, np.float32)})


def hold_another_shape(path):
    rewrite(path, {"slot.first_moment": np.zeros(99, np.float32)})


def hold_another_type(path):
    rewrite(path, {"slot.first_moment": np.zeros(100, np.float64)})


def hold_another_slot(path):
    rewrite(path, {"slot.momentum": np.zeros(100, np.float32)})


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        flip_last_bit,
        replace_by_text,
        claim_a_huge_header,
        replace_by_directory,
        claim_another_epoch,
        claim_no_epoch,
        belong_to_another_run,
        hold_nan,
        hold_another_shape,
        hold_another_type,
        hold_another_slot,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_snapshot_is_logged_and_the_one_before_is_taken(store, damage, caplog):
    store.save(a_state(1))
    damage(store.save(a_state(2)))
    with caplog.at_level(logging.WARNING):
        assert store.latest(**SHAPE).digest == a_state(1).digest
    assert "epoch-000000000002.safetensors is damaged and is not used" in caplog.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_makes_another_state(tmp_path, position, bit):
    store = SnapshotStore(tmp_path)
    path = store.save(a_state(2))
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)
    latest = store.latest(**SHAPE)
    assert latest is None or latest.digest == a_state(2).digest


def test_what_a_killed_daemon_left_is_cleared_away(tmp_path):
    leftover = tmp_path / ".epoch-000000000003.safetensors.incomplete"
    leftover.write_bytes(b"half a snapsh")
    (tmp_path / "notes.txt").write_text("the user's own")
    assert SnapshotStore(tmp_path).latest(**SHAPE) is None
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _bytes: "guessed")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for planted in (".model.incomplete", ".model.guessed.incomplete"):
        (tmp_path / planted).symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "model", lambda path: path.write_text("new"))
    monkeypatch.undo()
    write_atomically(tmp_path / "model", lambda path: path.write_text("new"))
    assert (tmp_path / "model").read_text() == "new"
    assert victim.read_text() == "precious"


WRITE_WITH_LITTLE_SPACE = """
import resource, sys
import numpy as np
from pathlib import Path
from peer.snapshots import SnapshotError, SnapshotStore
from protocols.state import ModelState

store = SnapshotStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
parameters = np.ones(100_000, np.float32)
try:
    store.save(ModelState("tests-" + "a" * 26, 2, parameters, {}))
except SnapshotError as error:
    print(error)
"""


def test_when_the_disk_is_full_the_old_snapshot_stays_and_one_error_says_so(store, tmp_path):
    """The kernel refuses to let the file grow, as a full disk does."""
    assert hasattr(resource, "RLIMIT_FSIZE")
    store.save(a_state(1))
    directory = tmp_path / "snapshots"
    result = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_LITTLE_SPACE, directory], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"cannot write {directory}")
    assert "free some space" in result.stdout
    assert [path.name for path in directory.iterdir()] == ["epoch-000000000001.safetensors"]
    assert store.latest(**SHAPE).digest == a_state(1).digest


def test_an_exported_model_loads_by_name_and_says_what_it_is(tmp_path):
    manifest = Manifest(
        name="tests",
        model=Model(architecture="mlp"),
        data=Data(dataset="text", shards=(Shard(name="a.txt", size_bytes=3, digest=b"\xff" * 32),)),
        training=DataParallel(target_batch=8, optimizer=AdamW(learning_rate=0.1)),
        epochs=2,
    )
    state = initial_state(manifest)
    model = FlatModel.of(manifest.model)
    path = tmp_path / "model.safetensors"
    export_model(state, manifest, model.layout, path)
    exported = load_file(path)
    model.load(state.parameters)
    for name, parameter in model.module.state_dict().items():
        assert np.array_equal(exported.pop(name), parameter.numpy())
    assert not exported
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert (metadata["run"], metadata["epoch"]) == (manifest.run_id, "0")
    assert metadata["digest"] == state.digest.hex()
    described = json.loads(metadata["manifest"])
    assert described["model"]["architecture"] == "mlp"
    assert described["data"]["shards"][0]["digest"] == "ff" * 32


def test_an_export_to_nowhere_is_one_clear_error(tmp_path):
    manifest = Manifest(
        name="tests",
        model=Model(architecture="mlp"),
        data=Data(dataset="digits"),
        training=DataParallel(target_batch=8, optimizer=AdamW(learning_rate=0.1)),
        epochs=2,
    )
    state = initial_state(manifest)
    path = tmp_path / "nowhere" / "model.safetensors"
    with pytest.raises(SnapshotError, match=r"cannot write .*nowhere"):
        export_model(state, manifest, FlatModel.of(manifest.model).layout, path)
