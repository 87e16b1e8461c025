"""npz, safetensors and Hugging Face data: read right, or refused in one sentence that names what is wrong."""

import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from peer.data.dataset import DatasetError
from peer.data.registry import open_dataset
from peer.errors import UsageError
from peer.home import Home
from peer.organise import create_run
from peer.recipes import read_recipe
from peer.shards import locate_shards, shard_of
from protocols.manifest import Data

RECIPE = """
name = "arrays"
epochs = 3

[model]
architecture = "mlp"
options = { inputs = 6, width = 8, classes = 5 }

[data]
dataset = "npz"
files = ["*.npz"]

[training]
mode = "data_parallel"
target_batch = 64
optimizer = { algorithm = "sgd", learning_rate = 0.1 }
"""
HUGGINGFACE = RECIPE.replace(
    'dataset = "npz"\nfiles = ["*.npz"]',
    'dataset = "huggingface"\ndirectory = "saved"\noptions = { inputs = "pixels", targets = "label" }',
)


def arrays(samples=20, first=0):
    """Inputs and targets that say which sample they are."""
    numbers = np.arange(first, first + samples)
    return {"inputs": np.repeat(numbers[:, None], 6, 1).astype(np.float32), "targets": numbers % 5}


def write_npz(path: Path, **values) -> Path:
    np.savez(path, **values)
    return path


def write_safetensors(path: Path, **values) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in values.items()}, path)
    return path


WRITERS = {"npz": write_npz, "safetensors": write_safetensors}


def opened(kind, *files, **options):
    return open_dataset(Data(dataset=kind, options=options, shards=tuple(map(shard_of, files))), files)


@pytest.fixture(params=sorted(WRITERS))
def kind(request):
    return request.param


def test_every_tenth_sample_of_a_file_is_held_out(kind, tmp_path):
    files = [
        WRITERS[kind](tmp_path / f"{n}.{kind}", **arrays(size, first)) for n, size, first in ((0, 20, 0), (1, 15, 20))
    ]
    data = opened(kind, *files)
    inputs, targets = data.batch(np.arange(data.train_size))
    assert inputs[:, 0].tolist() == [number for number in range(35) if number not in (9, 19, 29)]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert targets.tolist() == [number % 5 for number in inputs[:, 0].tolist()]
    seen = []

    def know(batch):
        seen.extend(batch[:, 0].tolist())
        return torch.nn.functional.one_hot(batch[:, 0].long() % 5, 5).float()

    assert data.evaluate(know, limit=100) == {"accuracy": 1.0}
    assert seen == [9, 19, 29]


def test_a_batch_is_in_the_order_that_was_asked_for(kind, tmp_path):
    files = [WRITERS[kind](tmp_path / f"{n}.{kind}", **arrays(20, 20 * n)) for n in range(3)]
    inputs, _ = opened(kind, *files).batch(np.array([50, 0, 20, 3, 19]))
    assert inputs[:, 0].tolist() == [55, 0, 22, 3, 21]


def test_bytes_become_numbers_between_0_and_1(kind, tmp_path):
    values = {"inputs": np.full((20, 1, 2, 2), 255, np.uint8), "targets": np.zeros(20, np.int32)}
    inputs, _ = opened(kind, WRITERS[kind](tmp_path / f"a.{kind}", **values), scale=1 / 255).batch(np.arange(3))
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs, torch.ones(3, 1, 2, 2))


def test_tokens_stay_whole_and_each_position_has_a_label(kind, tmp_path):
    values = {"inputs": np.arange(80).reshape(20, 4), "targets": np.arange(1, 81).reshape(20, 4)}
    data = opened(kind, WRITERS[kind](tmp_path / f"a.{kind}", **values), tokens=True)
    inputs, targets = data.batch(np.arange(2))
    assert inputs.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    outputs = torch.nn.functional.one_hot(targets, 90).float() * 100
    assert data.loss(outputs, targets) == pytest.approx(0)


def test_values_are_met_as_closely_as_can_be(kind, tmp_path):
    values = {"inputs": np.ones((20, 3)), "targets": np.full(20, 2.0)}
    data = opened(kind, WRITERS[kind](tmp_path / f"a.{kind}", **values))
    _, targets = data.batch(np.arange(4))
    assert targets.dtype == torch.float32
    assert data.loss(torch.zeros(4, 1), targets) == 4
    assert data.evaluate(lambda batch: batch[:, :1] * 3, limit=9) == {"mean_squared_error": 1}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"targets": np.zeros(19, int)}, {}, r"a\.\w+: there are 20 inputs and 19 targets"),
        ({"targets": np.arange(20) - 1}, {}, r"targets hold the label -1; labels begin at 0"),
        ({"targets": np.full(20, np.nan)}, {}, r"targets are not finite"),
        ({"inputs": np.full((20, 6), np.inf)}, {}, r"inputs are not finite"),
        ({"inputs": np.zeros((20, 6))}, {"tokens": True}, r"inputs are .*float64, and data\.options\.tokens asks"),
        ({"inputs": np.full((20, 6), -1)}, {"tokens": True}, r"inputs hold the token -1"),
        ({"inputs": np.zeros((20, 6), np.complex64)}, {}, r"inputs are .*complex64, which cannot be trained on"),
        ({"inputs": None}, {}, r"has no (array|tensor) 'inputs', only: targets"),
        ({"inputs": np.zeros((9, 6)), "targets": np.zeros(9)}, {}, r"no file has 10 samples"),
    ],
)
def test_arrays_that_cannot_be_trained_on_are_refused(kind, tmp_path, change, options, message):
    values = {name: array for name, array in (arrays() | change).items() if array is not None}
    if kind == "safetensors" and any(array.dtype == np.complex64 for array in values.values()):
        pytest.skip("safetensors has no complex numbers")
    file = WRITERS[kind](tmp_path / f"a.{kind}", **values)
    with pytest.raises(DatasetError, match=message):
        opened(kind, file, **options)


def test_files_of_another_shape_are_no_data_set(kind, tmp_path):
    one = WRITERS[kind](tmp_path / f"one.{kind}", **arrays())
    other = WRITERS[kind](tmp_path / f"other.{kind}", **arrays() | {"inputs": np.zeros((20, 7), np.float32)})
    with pytest.raises(DatasetError, match=r"other\.\w+: inputs are float32 \(7,\), and those of .*one"):
        opened(kind, one, other)


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("something was unpickled",)


def test_pickled_objects_are_refused_and_not_unpacked(tmp_path):
    file = write_npz(tmp_path / "a.npz", inputs=np.array([Explosive()] * 20, object), targets=np.zeros(20, int))
    with pytest.raises(
        DatasetError, match=r"^\S*a\.npz: inputs are pickled Python objects, which are never unpacked; "
    ):
        opened("npz", file)
    bare = tmp_path / "bare.npz"
    bare.write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(DatasetError, match=r"bare\.npz is not an npz file: File is not a zip file"):
        opened("npz", bare)


def test_what_is_neither_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(DatasetError, match=r"a\.safetensors is not a safetensors file"):
        opened("safetensors", file)
    words = write_npz(tmp_path / "words.npz", inputs=np.array(["one"] * 20), targets=np.zeros(20, int))
    with pytest.raises(
        DatasetError, match=r"words\.npz: inputs are <U3, which cannot be trained on; make them numbers"
    ):
        opened("npz", words)


def test_an_npz_that_says_it_is_huge_is_refused_before_it_is_unpacked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50, 6)})
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs.npy", header.getvalue())
        archive.writestr("targets.npy", header.getvalue())
    with pytest.raises(DatasetError, match=r"a\.npz: inputs cannot be read"):
        opened("npz", file)


def test_an_npz_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 1024}[name])
    with pytest.raises(
        DatasetError, match=r"unpack to 8\.\d+e-07 GB, more than half of this machine's memory; safetensors"
    ):
        opened("npz", write_npz(tmp_path / "a.npz", **arrays()))


# -- recipes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def write(tmp_path):
    def write_recipe(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return read_recipe(str(path))

    return write_recipe


def test_a_recipe_names_arrays_by_content(home, write, tmp_path):
    file = write_npz(tmp_path / "a.npz", **arrays())
    manifest = create_run(home, write(RECIPE))
    assert manifest.data.shards == (shard_of(file),)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            ("inputs = 6", "inputs = 7"),
            "model.options: the model does not fit the data, whose samples have the shape (6,)",
        ),
        (("classes = 5", "classes = 4"), "it tells 4 classes apart, and the labels go to 4"),
        (('"npz"', '"npz"\noptions = { scale = 0 }'), "data.options.scale: must be greater than 0"),
        (('"npz"', '"npz"\noptions = { token = true }'), "data.options.token: unknown; did you mean 'tokens'?"),
        (('"npz"', '"safetensors"'), "a.npz is not a safetensors file"),
        (('files = ["*.npz"]', ""), "data.files: name the npz to train on, there or with --data FILE"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_by_its_field(home, write, tmp_path, wrong, sentence):
    write_npz(tmp_path / "a.npz", **arrays())
    with pytest.raises(UsageError) as raised:
        create_run(home, write(RECIPE.replace(*wrong, 1)))
    assert sentence in str(raised.value)
    assert home.runs() == []


# -- Hugging Face -----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    values = arrays()
    columns = {"pixels": values["inputs"], "label": values["targets"], "ragged": [[1] * (n % 3) for n in range(20)]}
    dataset = datasets.Dataset.from_dict(columns)
    dataset.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(tmp_path / "parts"))


@pytest.mark.usefixtures("saved")
def test_a_hugging_face_data_set_becomes_shards_that_members_read_without_it(home, write, monkeypatch):
    monkeypatch.setattr("peer.data.huggingface.SHARD_BYTES", 10 * 32)
    manifest = create_run(home, write(HUGGINGFACE))
    assert manifest.data.dataset == "safetensors"
    assert [shard.name for shard in manifest.data.shards] == ["part-0000.safetensors", "part-0001.safetensors"]
    located = locate_shards(manifest.data.shards, [], home.run_directory(manifest.run_id))
    data = open_dataset(manifest.data, [file.path for file in located])
    inputs, targets = data.batch(np.arange(data.train_size))
    assert inputs[:, 0].tolist() == [number for number in range(20) if number not in (9, 19)]
    assert targets.tolist() == [number % 5 for number in inputs[:, 0].tolist()]
    assert create_run(home, write(HUGGINGFACE)).run_id == manifest.run_id
    assert not list(home.path.glob(".converted-*"))


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (('directory = "saved"\n', ""), "data.directory: missing"),
        (('"saved"', '"nowhere"'), "data.directory: Directory"),
        (('"saved"', '"parts"'), "has the parts test, train; name one of them"),
        (('"saved"', "3"), "data.directory: must be a text, not 3"),
        (('targets = "label"', 'targets = "labl"'), "data.options.targets: there is no column 'labl', only: pixels"),
        (('targets = "label"', 'target = "label"'), "data.options.targets: missing"),
        (
            ('targets = "label"', 'targets = "ragged"'),
            "data.options.targets: the column 'ragged' has no numbers of one",
        ),
        (('targets = "label"', 'targets = "label", scal = 2'), "data.options.scal: unknown; did you mean 'scale'?"),
    ],
)
def test_a_mistake_in_a_hugging_face_recipe_is_named_by_its_field(home, write, wrong, sentence):
    with pytest.raises(UsageError) as raised:
        create_run(home, write(HUGGINGFACE.replace(*wrong, 1)))
    assert sentence in str(raised.value)
    assert home.runs() == []


def test_without_the_extra_it_is_said_how_to_get_it(home, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"data\.dataset: 'huggingface' needs .* pip install 'peer\[huggingface\]'"):
        create_run(home, write(HUGGINGFACE))
