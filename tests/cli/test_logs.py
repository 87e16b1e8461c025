import pytest

from peer.demo import demo_manifest
from peer.errors import PeerError
from peer.log_file import open_new_log, read_log

RUN = demo_manifest().run_id
OTHER_RUN = "text-" + "b" * 26


def write_log(home, run, text):
    home.run_directory(run)
    home.log_path(run).write_text(text)


def test_logs_prints_what_the_last_daemon_said(peer, home):
    write_log(home, RUN, "one\ntwo\nthree")
    assert peer("logs").stdout == "one\ntwo\nthree"
    assert peer("logs", "--lines", "1", "--run-id", "demo").stdout == "three"


def test_following_ends_when_no_daemon_writes(peer, home):
    write_log(home, RUN, "one\n")
    assert peer("logs", "--follow").stdout == "one\n"


def test_logs_of_several_runs_are_told_apart(peer, refuses, home):
    write_log(home, RUN, "demo\n")
    write_log(home, OTHER_RUN, "text\n")
    assert "say which with --run-id" in refuses(2, "logs")
    assert peer("logs", "--run-id", "text").stdout == "text\n"
    with home.lock(OTHER_RUN):
        assert peer("logs").stdout == "text\n"


def test_without_a_log_it_is_said_how_to_get_one(refuses, home):
    assert "with: peer join --detach --run-id demo" in refuses(3, "logs")
    assert f"no log of run {RUN}" in refuses(3, "logs", "--run-id", "demo")


def test_what_is_written_while_following_is_read_to_the_last_word(tmp_path):
    path = tmp_path / "daemon.log"
    path.write_text("one\n")
    writes = iter(["two\n", "three\n"])

    def writer_lives():
        text = next(writes, None)
        if text is not None:
            with path.open("a") as file:
                file.write(text)
        return text is not None

    assert list(read_log(path, 0, writer_lives)) == ["two\n", "three\n"]


def test_a_new_log_keeps_the_last_one(tmp_path):
    path = tmp_path / "daemon.log"
    for text in (b"first", b"second", b"third"):
        with open(open_new_log(path), "wb") as file:
            file.write(text)
    assert path.read_text() == "third"
    assert path.with_name("daemon.log.1").read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_explained(tmp_path):
    with pytest.raises(PeerError, match=r"cannot be written: .*; give another --home"):
        open_new_log(tmp_path / "no" / "daemon.log")
