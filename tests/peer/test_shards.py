"""Which files of this machine are the run's data, and what is said of those that are not."""

import json

import pytest
from structlog.testing import capture_logs

from peer.errors import UsageError
from peer.shards import locate_shards, record_shard_files, shard_of


@pytest.fixture
def shard(tmp_path):
    file = tmp_path / "right" / "a.txt"
    file.parent.mkdir()
    file.write_text("the run's data")
    return shard_of(file)


def located(shards, places, run_directory):
    """The paths that were found, and the files that the user is warned of."""
    with capture_logs() as lines:
        files = locate_shards(shards, places, run_directory)
    return [file and file.path for file in files], [line["file"] for line in lines if line["log_level"] == "warning"]


def write(directory, name, text):
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", ["not it, as long", "longer than the run's data"])
def test_a_users_file_of_other_content_is_named_and_not_used(shard, tmp_path, text):
    wrong = write(tmp_path / "wrong", "a.txt", text)
    assert located([shard], [wrong], tmp_path) == ([None], [str(wrong)])
    assert located([shard], [wrong.parent], tmp_path) == ([None], [str(wrong)])
    right = tmp_path / "right" / "a.txt"
    assert located([shard], [wrong.parent, right.parent], tmp_path) == ([right], [])


def test_a_users_file_of_another_name_is_named(shard, tmp_path):
    other = write(tmp_path / "other", "b.txt", "the run's data")
    assert located([shard], [other], tmp_path) == ([None], [str(other)])
    assert located([shard], [other.parent], tmp_path) == ([None], [])


def test_an_organisers_file_that_has_changed_is_named_and_not_used(shard, tmp_path):
    file = write(tmp_path / "mine", "a.txt", "the run's data")
    record_shard_files(tmp_path, [file])
    assert located([shard], [], tmp_path) == ([file], [])
    file.write_text("the run's date")
    assert located([shard], [], tmp_path) == ([None], [str(file)])
    file.unlink()
    assert located([shard], [], tmp_path) == ([None], [])


def test_a_place_that_is_not_there_is_an_error(shard, tmp_path):
    with pytest.raises(UsageError, match=r"--data .*nowhere: there is no such file or directory"):
        located([shard], [tmp_path / "nowhere"], tmp_path)


def test_a_damaged_record_of_files_is_an_error_that_says_what_to_do(shard, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([3]))
    with pytest.raises(Exception, match=r"data\.json is damaged .*; remove it, and join with --data"):
        located([shard], [], tmp_path)
