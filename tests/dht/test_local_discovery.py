"""Daemons of one user find each other by files, and trust neither their content nor their directory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dht.local_discovery import MAX_FILE_BYTES, LocalDiscovery, LocalDiscoveryError
from tests.dht.worlds import identity
from tests.protocols.test_records import OTHER_RUN, RUN

ONE, TWO, THREE = (identity(number).peer_id for number in (1, 2, 3))
ADDRESS = "/ip4/127.0.0.1/tcp/4001"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "runtime"


def join(directory: Path, peer: str, run: str = RUN, addresses: tuple[str, ...] = (ADDRESS,)) -> LocalDiscovery:
    return LocalDiscovery(directory, run, peer, [f"{address}/p2p/{peer}" for address in addresses])


def plant(directory: Path, peer: str, content: object, name: str | None = None) -> tuple[Path, subprocess.Popen[bytes]]:
    """A file that some other process holds a lock on, as if it were a daemon's."""
    path = directory / (name or f"{RUN}.{peer}.json")
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    script = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('locked', flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    return path, holder


def test_peers_of_one_run_find_each_other(directory: Path) -> None:
    with join(directory, ONE) as one, join(directory, TWO) as two, join(directory, THREE, OTHER_RUN) as stranger:
        assert one.others() == [(TWO, (f"{ADDRESS}/p2p/{TWO}",))]
        assert two.others() == [(ONE, (f"{ADDRESS}/p2p/{ONE}",))]
        assert stranger.others() == []
    assert list(directory.iterdir()) == []


def test_directory_and_files_are_private(directory: Path) -> None:
    with join(directory, ONE):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_file_of_a_killed_peer_is_ignored_and_removed(directory: Path) -> None:
    with join(directory, ONE) as one:
        content = {"version": 1, "run": RUN, "peer_id": TWO, "addresses": [ADDRESS]}
        path, holder = plant(directory, TWO, content)
        with holder:
            assert one.others() == [(TWO, (f"{ADDRESS}/p2p/{TWO}",))]
            holder.kill()
            holder.wait()
        assert one.others() == []
        assert not path.exists()


def test_own_file_is_written_again_when_somebody_cleans_up(directory: Path) -> None:
    with join(directory, ONE) as one, join(directory, TWO) as two:
        for path in directory.iterdir():
            path.unlink()
        assert two.others() == []
        one.others()
        assert [peer for peer, _ in two.others()] == [ONE]


def test_a_directory_that_goes_with_the_login_session_ends_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with join(directory / "session" / "peer", ONE) as one:
        shutil.rmtree(directory)
        directory.write_text("where nobody may make a directory")
        for _ in range(3):
            assert one.others() == []
        assert len(caplog.records) == 1
        directory.unlink()
        with join(directory / "session" / "peer", TWO) as two:
            assert [peer for peer, _ in one.others()] == [TWO]
            assert [peer for peer, _ in two.others()] == [ONE]


def test_peer_that_closes_is_gone(directory: Path) -> None:
    with join(directory, ONE) as one:
        two = join(directory, TWO)
        assert len(one.others()) == 1
        two.close()
        two.close()
        assert one.others() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 10_000,
        b"x" * (MAX_FILE_BYTES + 1),
        [],
        "text",
        {"run": RUN, "peer_id": TWO},
        {"run": RUN, "peer_id": 5, "addresses": []},
        {"run": RUN, "peer_id": "12D3KooWnobody", "addresses": []},
        {"run": OTHER_RUN, "peer_id": TWO, "addresses": [ADDRESS]},
        {"run": RUN, "peer_id": THREE, "addresses": [ADDRESS]},
        {"run": RUN, "peer_id": TWO, "addresses": "text"},
    ],
)
def test_content_is_not_trusted(content: object, directory: Path) -> None:
    with join(directory, ONE) as one:
        _, holder = plant(directory, TWO, content)
        with holder:
            assert one.others() == []
            holder.kill()


def test_addresses_that_are_none_or_somebody_elses_are_dropped(directory: Path) -> None:
    with join(directory, ONE) as one:
        addresses = ["nonsense", 7, f"{ADDRESS}/p2p/{THREE}", ADDRESS, *[ADDRESS] * 100]
        _, holder = plant(directory, TWO, {"run": RUN, "peer_id": TWO, "addresses": addresses})
        with holder:
            ((peer, found),) = one.others()
            assert peer == TWO
            assert set(found) == {f"{ADDRESS}/p2p/{TWO}"}
            assert len(found) <= 16
            holder.kill()


def test_links_and_pipes_are_not_followed(directory: Path, tmp_path: Path) -> None:
    with join(directory, ONE) as one:
        secret = tmp_path / "secret"
        secret.write_text(json.dumps({"run": RUN, "peer_id": TWO, "addresses": [ADDRESS]}))
        (directory / f"{RUN}.{TWO}.json").symlink_to(secret)
        os.mkfifo(directory / f"{RUN}.{THREE}.json")
        assert one.others() == []
        assert secret.exists()


def test_unsafe_directory_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    with pytest.raises(LocalDiscoveryError, match="0700"):
        join(shared, ONE)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(private)
    with pytest.raises(LocalDiscoveryError, match="not a directory"):
        join(link, ONE)
