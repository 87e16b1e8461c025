import math

import numpy as np
import pytest
import torch

from peer.data.dataset import DatasetError
from peer.data.registry import open_dataset
from peer.plugins import PluginError
from peer.shards import shard_of
from protocols.manifest import Data

CONTEXT = 8


def text_of(files, context=CONTEXT, **changes):
    shards = tuple(shard_of(file) for file in files)
    return Data(**{"dataset": "text", "options": {"context": context}, "shards": shards} | changes)


@pytest.fixture
def files(tmp_path):
    """Two texts whose bytes say where they stand, an empty one between them."""
    contents = [bytes(range(200)), b"", bytes(range(100, 220))]
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture(scope="module")
def digits():
    return open_dataset(Data(dataset="digits"))


def test_digits_hold_a_fifth_out_and_train_on_each_image_five_times(digits):
    assert digits.train_size == 5 * 1435
    inputs, targets = digits.batch(np.arange(digits.train_size))
    assert inputs.shape == (digits.train_size, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert 0 <= inputs.min() < inputs.max() <= 1
    assert targets.bincount().tolist() == [5 * count for count in targets[:1435].bincount().tolist()]


def test_moved_digits_are_the_same_digits_moved(digits):
    inputs, _ = digits.batch(np.arange(5) * 1435 + 17)
    original, right, left, down, up = inputs[:, 0]
    assert torch.equal(right[:, 1:], original[:, :-1])
    assert torch.equal(left[:, :-1], original[:, 1:])
    assert torch.equal(down[1:], original[:-1])
    assert torch.equal(up[:-1], original[1:])
    assert right[:, 0].sum() == left[:, -1].sum() == down[0].sum() == up[-1].sum() == 0


def test_accuracy_counts_what_is_right(digits):
    def always_three(inputs):
        return torch.nn.functional.one_hot(torch.full((len(inputs),), 3), 10).float()

    assert 0.05 < digits.evaluate(always_three, limit=4096)["accuracy"] < 0.15


def test_digits_read_no_files(files):
    with pytest.raises(DatasetError, match="reads no files"):
        open_dataset(Data(dataset="digits"), files)


def test_every_window_of_the_text_is_a_sample_and_the_tails_are_held_out(files):
    text = open_dataset(text_of(files), files)
    assert text.train_size == (180 - CONTEXT) + (108 - CONTEXT)
    inputs, targets = text.batch(np.arange(text.train_size))
    assert inputs.dtype == torch.int64
    assert inputs.shape == targets.shape == (text.train_size, CONTEXT)
    assert torch.equal(targets, inputs + 1)  # no window crosses from one file into the next
    starts = inputs[:, 0].tolist()
    assert starts == [*range(180 - CONTEXT), *range(100, 208 - CONTEXT)]


def test_bits_per_byte_of_a_model_that_knows_nothing_is_eight(files):
    text = open_dataset(text_of(files), files)
    seen = []

    def guess(inputs):
        seen.append(inputs)
        return torch.zeros(*inputs.shape, 256)

    assert text.evaluate(guess, limit=100)["bits_per_byte"] == pytest.approx(8)
    held_out = torch.cat(seen).flatten().tolist()
    assert set(held_out) <= set(range(180, 200)) | set(range(208, 220))
    assert len(set(held_out)) == len(held_out) == 3 * CONTEXT


def test_bits_per_byte_is_the_cross_entropy_in_bits(files):
    text = open_dataset(text_of(files), files)

    def half_sure(inputs):
        logits = torch.full((*inputs.shape, 256), -math.inf)
        logits.scatter_(2, (inputs + 1).unsqueeze(2), 0.0)
        return logits.scatter_(2, inputs.unsqueeze(2), 0.0)

    assert text.evaluate(half_sure, limit=2)["bits_per_byte"] == pytest.approx(1)


def test_a_missing_file_is_named_in_the_error(files):
    data = text_of(files)
    files[0].unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*0\.txt: No such file"):
        open_dataset(data, files)
    with pytest.raises(DatasetError, match="cannot read"):
        shard_of(files[0].parent)


def test_all_files_must_be_given(files):
    with pytest.raises(DatasetError, match="3 files, 2 were given"):
        open_dataset(text_of(files), files[:2])


def test_texts_shorter_than_a_sample_are_refused(files):
    with pytest.raises(DatasetError, match="too short for samples of 50 bytes"):
        open_dataset(text_of(files, context=50), files)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(dataset="imagenet"), "no data set 'imagenet'.*digits, npz, safetensors, text.*peer.datasets"),
        (Data(dataset="digits", options={"size": 3}), "data.options.size"),
        (Data(dataset="text", options={"context": 0}), "data.options.context"),
    ],
)
def test_a_wrong_data_set_is_named_in_the_error(data, message):
    with pytest.raises(PluginError, match=message):
        open_dataset(data)
