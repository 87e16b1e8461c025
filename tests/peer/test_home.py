import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from peer.demo import demo_manifest
from peer.errors import PeerError, UsageError
from peer.home import Home, runtime_directory
from protocols.identity import Identity
from tests.small_disk import fill, small_disk

RUN = "text-" + "a" * 26
OTHER_RUN = "text-" + "b" * 26


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_identity_is_made_once_and_only_its_owner_may_read_it(home):
    first = home.identity()
    assert Home(home.path).identity().peer_id == first.peer_id
    assert mode(home.identity_path) == 0o600
    assert mode(home.path) == 0o700
    assert Identity.from_libp2p(home.identity_path.read_bytes()).peer_id == first.peer_id


def test_processes_that_start_at_once_agree_on_one_identity(home):
    program = (
        "import sys; from pathlib import Path; from peer.home import Home\n"
        "print(Home(Path(sys.argv[1])).identity().peer_id)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(home.path)], stdout=subprocess.PIPE) for _ in range(6)
    ]
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)


def test_an_identity_that_others_can_read_is_refused(home):
    home.identity()
    home.identity_path.chmod(0o644)
    with pytest.raises(PeerError, match=r"can be read by others \(mode 644\); run: chmod 600"):
        home.identity()


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(range(68))])
def test_a_file_that_is_no_identity_is_refused_and_kept(home, content):
    home.identity()
    home.identity_path.write_bytes(content)
    with pytest.raises(PeerError, match=r"identity\.key: .*restore it from a backup"):
        home.identity()
    assert home.identity_path.read_bytes() == content


def test_a_home_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    for action in (Home.identity, lambda home: home.run_directory(RUN)):
        with pytest.raises(PeerError, match="cannot be used for its"):
            action(Home(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_explained(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PeerError, match="Permission denied"):
        Home(tmp_path / "home").identity()


def test_a_home_on_a_full_disk_is_explained(tmp_path):
    with small_disk(tmp_path / "home") as disk:
        fill(disk)
        with pytest.raises(PeerError, match="its identity: No space left on device; free some space"):
            Home(disk).identity()


def test_a_home_into_which_others_may_write_is_refused(tmp_path):
    (tmp_path / "something").write_text("")
    tmp_path.chmod(0o770)
    with pytest.raises(PeerError, match="chmod go-w"):
        Home(tmp_path).identity()


def test_looking_into_a_home_makes_no_file(home):
    assert home.runs() == []
    assert home.manifest(RUN) is None
    assert not home.is_locked(RUN)
    assert not home.path.exists()


def test_a_manifest_is_kept_and_checked_when_it_is_read(home):
    manifest = demo_manifest().model_copy(update={"seed": 5})
    home.store_manifest(manifest)
    assert home.manifest(manifest.run_id) == manifest
    assert home.runs() == [manifest.run_id]
    path = home.run_directory(manifest.run_id) / "manifest.msgpack"
    path.write_bytes(demo_manifest().to_bytes())
    with pytest.raises(PeerError, match=r"is damaged \(wrong_digest"):
        home.manifest(manifest.run_id)


def test_the_built_in_manifest_is_always_known(home):
    assert home.manifest(demo_manifest().run_id) == demo_manifest()


def test_one_daemon_of_a_home_is_in_a_run(home):
    taken = rf"\(pid {os.getpid()}\) .* is already in run {RUN}"
    with home.lock(RUN), home.lock(OTHER_RUN):
        assert home.is_locked(RUN)
        with pytest.raises(PeerError, match=taken), home.lock(RUN):
            pass
    assert not home.is_locked(RUN)
    with home.lock(RUN):
        pass


def test_the_lock_goes_with_a_killed_process(home):
    program = (
        "import sys; from pathlib import Path; from peer.home import Home\n"
        f"with Home(Path(sys.argv[1])).lock({RUN!r}): print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"locked\n"
    assert home.is_locked(RUN)
    holder.kill()
    holder.communicate(timeout=10)
    assert not home.is_locked(RUN)


def test_a_run_is_named_by_its_id_its_name_or_its_beginning(home):
    home.run_directory(RUN)
    home.run_directory("digits-" + "c" * 26)
    assert home.resolve_run(RUN) == RUN
    assert home.resolve_run("text") == RUN
    assert home.resolve_run("text-aa") == RUN
    assert home.resolve_run("demo") == demo_manifest().run_id
    assert home.resolve_run(OTHER_RUN) == OTHER_RUN  # whole: it may be known to the swarm


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dmeo", "did you mean 'demo'?"),
        ("txt", "did you mean 'text'?"),
        ("text", "could be any of the runs"),
        ("zzz", "known here: demo, text-"),
        ("", "known here"),
        ("../../etc", "is neither a run id nor a run known"),
    ],
)
def test_a_run_that_is_not_known_is_explained(home, text, sentence):
    home.run_directory(RUN)
    home.run_directory(OTHER_RUN)
    with pytest.raises(UsageError) as raised:
        home.resolve_run(text)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("slip", [RUN[:-1] + "b", "tezt-" + RUN[5:-1] + "c", "txet-" + RUN[5:], "tex-" + RUN[5:]])
def test_an_id_that_is_nearly_a_known_one_is_a_slip(home, slip):
    home.run_directory(RUN)
    with pytest.raises(UsageError, match=f"did you mean '{RUN}'"):
        home.resolve_run(slip)
    built_in = demo_manifest().run_id
    with pytest.raises(UsageError, match=f"did you mean '{built_in}'"):
        home.resolve_run(f"{built_in[:-1]}{'a' if built_in[-1] != 'a' else 'b'}")


def test_another_run_of_a_known_name_is_no_slip(home):
    name = "a-name-as-long-as-a-name-may-be-"[:31] + "x"
    runs = [demo_manifest().model_copy(update={"name": name, "seed": seed}).run_id for seed in range(40)]
    home.run_directory(runs[0])
    assert [home.resolve_run(run) for run in runs] == runs


def test_a_run_whose_manifest_never_came_is_forgotten(home):
    with home.lock(RUN):
        home.forget_unknown(RUN)
        assert home.runs() == [RUN]  # its daemon still looks for it
    home.log_path(RUN).write_text("nobody was there")
    home.forget_unknown(RUN)
    assert home.runs() == []
    home.forget_unknown(RUN)


@pytest.mark.parametrize("kept", ["sequence", "snapshots"])
def test_a_run_of_which_something_is_known_is_not_forgotten(home, kept):
    with home.lock(RUN):
        (home.run_directory(RUN) / kept).touch()
    home.forget_unknown(RUN)
    assert home.runs() == [RUN]
    built_in = demo_manifest().run_id
    home.run_directory(built_in)
    home.log_path(built_in).write_text("the port was in use")
    home.forget_unknown(built_in)
    assert home.log_path(built_in).exists()


def test_sockets_are_short_and_differ_by_home_and_run(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="peer-") as short:
        runtime = Path(short) / "run"
        monkeypatch.setenv("PEER_RUNTIME_DIR", str(runtime))
        long = tmp_path / ("x" * 200)
        sockets = {Home(path).control_socket(run) for path in (tmp_path, long) for run in (RUN, OTHER_RUN)}
        assert len(sockets) == 4
        assert all(path.parent == runtime for path in sockets)
        assert mode(runtime) == 0o700


def test_a_runtime_directory_that_is_too_long_for_a_socket_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PEER_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(UsageError, match="set PEER_RUNTIME_DIR to a shorter path"):
        Home(tmp_path).control_socket(RUN)


def test_a_runtime_directory_open_to_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PEER_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o755)
    with pytest.raises(PeerError, match="must be a directory of yours with mode 700"):
        runtime_directory()


def test_a_runtime_directory_that_is_a_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("PEER_RUNTIME_DIR", str(tmp_path / "link"))
    with pytest.raises(PeerError, match="must be a directory of yours"):
        runtime_directory()


def test_sockets_outlast_the_login_session(tmp_path, monkeypatch):
    monkeypatch.delenv("PEER_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert runtime_directory() == tmp_path / f"peer-{os.geteuid()}"


def test_the_session_directory_is_used_where_somebody_else_was_first(tmp_path, monkeypatch):
    monkeypatch.delenv("PEER_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"peer-{os.geteuid()}").mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "peer"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    with pytest.raises(PeerError, match="must be a directory of yours"):
        runtime_directory()
