"""The node's life: it starts and ends without leaving anything behind, whatever happens in between."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dht.node import Node
from dht.p2pd import P2pdError
from protocols.identity import Identity
from tests.dht.worlds import LOOPBACK, identity, identity_file, run_real, running_node

OURS = identity(1)


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "t"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def entries(directory: Path) -> list[str]:
    return os.listdir(directory)


def child_processes() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def running(process_id: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for a state of another process, of which there are no events."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_peer_id_is_that_of_the_identity_and_addresses_are_real(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, OURS, listen=["/ip4/0.0.0.0/tcp/0"]) as node:
            assert node.peer_id == node.transport.peer_id == OURS.peer_id
            addresses = node.addresses()
            assert any(address.startswith("/ip4/127.0.0.1/tcp/") for address in addresses)
            for address in addresses:
                assert address.endswith(f"/p2p/{OURS.peer_id}")
                assert "/tcp/0/" not in address
                assert "/ip4/0.0.0.0/" not in address
            assert await node.refresh_addresses() == addresses

    run_real(main())


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_all_threads_of_p2pd_but_none_of_ours_leave_the_processor_to_who_has_it(tmp_path: Path) -> None:
    async def main() -> None:
        before = os.sched_getscheduler(0)
        async with running_node(tmp_path, OURS):
            (p2pd,) = child_processes()
            threads = os.listdir(f"/proc/{p2pd}/task")
            assert {os.sched_getscheduler(int(thread)) for thread in threads} == {os.SCHED_BATCH}
            assert os.sched_getscheduler(0) == before

    run_real(main())


def test_announced_addresses_are_told_instead(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, OURS, announce=["/ip4/203.0.113.7/tcp/4001"]) as node:
            assert node.addresses() == (f"/ip4/203.0.113.7/tcp/4001/p2p/{OURS.peer_id}",)

    run_real(main())


def test_close_leaves_no_process_task_file_or_descriptor(tmp_path: Path, own_temporary_directory: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, OURS):
            pass  # what is loaded once, and pools of threads, are there now
        before = open_descriptors()
        for _ in range(3):
            async with (
                running_node(tmp_path, OURS) as node,
                running_node(tmp_path, identity(2), initial_peers=node.addresses()) as other,
            ):
                assert await other.bootstrap.wait_connected(20)
                process_id = node.p2pd.process_id
                lookup = asyncio.ensure_future(node.records.lookup("demo-" + "a" * 26, "roster"))
                await asyncio.sleep(0)
            await asyncio.gather(lookup, return_exceptions=True)
            assert not running(process_id)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await until(lambda: open_descriptors() <= before)
        assert entries(own_temporary_directory) == []

    run_real(main())


def test_start_that_fails_leaves_nothing(tmp_path: Path, own_temporary_directory: Path) -> None:
    async def main() -> None:
        with pytest.raises(P2pdError, match="did not start"):
            await Node.start(tmp_path / "no such identity")
        with pytest.raises(P2pdError, match="did not start"):
            await Node.start(identity_file(tmp_path, OURS), listen=["/ip4/127.0.0.1/tcp/not-a-port"])
        assert len(asyncio.all_tasks()) == 1
        assert entries(own_temporary_directory) == []

    run_real(main())


def test_start_that_is_cancelled_while_p2pd_tells_who_it_is_leaves_nothing(
    tmp_path: Path, own_temporary_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def identify(_client: object) -> None:
            asked.set()
            await asyncio.Future()

        monkeypatch.setattr("hivemind.p2p.p2p_daemon_bindings.p2pclient.Client.identify", identify)
        starting = asyncio.ensure_future(Node.start(identity_file(tmp_path, OURS), listen=[LOOPBACK]))
        async with asyncio.timeout(30):
            await asked.wait()
        starting.cancel()
        await asyncio.wait([starting])
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert entries(own_temporary_directory) == []

    run_real(main())


@pytest.mark.parametrize("seconds", [0, 0.005, 0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3])
def test_start_that_is_cancelled_leaves_nothing(seconds: float, tmp_path: Path, own_temporary_directory: Path) -> None:
    async def main() -> None:
        before = child_processes()
        starting = asyncio.ensure_future(Node.start(identity_file(tmp_path, OURS), listen=[LOOPBACK]))
        await asyncio.wait([starting], timeout=seconds)
        starting.cancel()
        for result in await asyncio.gather(starting, return_exceptions=True):
            if isinstance(result, Node):
                await result.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await until(lambda: child_processes() == before)
        assert entries(own_temporary_directory) == []

    run_real(main())


_CHILD = """
import asyncio, sys, uvloop
from pathlib import Path
from dht.node import Node

async def main():
    node = await Node.start(Path(sys.argv[1]), listen=["/ip4/127.0.0.1/tcp/0"])
    print(node.p2pd.process_id, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def start_child(path: Path, directory: Path) -> tuple[subprocess.Popen[str], int]:
    """A process with a node, in a session of its own as if on a terminal, and the number of its p2pd."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(directory)},
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def test_p2pd_dies_with_a_killed_process_and_its_sockets_are_removed_later(
    tmp_path: Path, own_temporary_directory: Path
) -> None:
    child, p2pd = start_child(identity_file(tmp_path, OURS), own_temporary_directory)
    with child:
        child.kill()
        child.wait()

    async def main() -> None:
        await until(lambda: not running(p2pd))
        (left,) = entries(own_temporary_directory)
        os.utime(own_temporary_directory / left, (0, 0))
        async with running_node(tmp_path, OURS) as node:
            assert entries(own_temporary_directory) == [node.p2pd.control_path.parent.name]

    run_real(main())


def test_terminal_interrupt_does_not_reach_p2pd(tmp_path: Path, own_temporary_directory: Path) -> None:
    child, p2pd = start_child(identity_file(tmp_path, OURS), own_temporary_directory)
    with child:
        assert os.getpgid(p2pd) == p2pd != os.getpgid(child.pid) == child.pid
        os.killpg(child.pid, signal.SIGSTOP)
        assert running(p2pd)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


_IMPORT = """
import asyncio, logging, signal, sys, warnings
logging.basicConfig(level=logging.DEBUG, format="ours %(name)s %(levelname)s %(message)s")
def state():
    return (logging.getLevelName(logging.WARNING), list(logging.root.handlers), logging.root.level, sys.excepthook,
            list(warnings.filters), signal.getsignal(signal.SIGINT), type(asyncio.get_event_loop_policy()))
import torch
before = state()
import dht.node
assert state() == before, (before, state())
logger = logging.getLogger("hivemind.dht")
logger.info("quiet")
logger.warning("loud")
"""


def test_import_of_hivemind_leaves_our_logging_and_signals_alone() -> None:
    result = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "hivemind" in line]
    assert lines == ["ours hivemind.dht WARNING loud"]


def test_two_nodes_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    async def echo(_peer: object, body: bytes) -> bytes:
        return body

    async def main() -> None:
        async with running_node(tmp_path, OURS) as staying:
            await staying.transport.serve_requests("echo", echo)
            async with running_node(tmp_path, identity(2)) as leaving:
                await leaving.transport.connect(staying.peer_id, staying.addresses())
            async with running_node(tmp_path, identity(3)) as next_one:
                await next_one.transport.connect(staying.peer_id, staying.addresses())
                assert await next_one.transport.request(staying.peer_id, "echo", b"x", 10) == b"x"

    run_real(main())


def test_identity_of_another_kind_is_not_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """p2pd takes RSA keys; a node with one has no place in a run."""
    assert Identity.from_libp2p(OURS.to_libp2p()).peer_id == OURS.peer_id
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "garbage"
    path.write_bytes(b"no key at all")

    async def main() -> None:
        with pytest.raises(P2pdError):
            await Node.start(path)

    run_real(main())


def test_a_change_of_addresses_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.node.ADDRESS_SECONDS", 0.05)

    async def main() -> None:
        async with running_node(tmp_path, OURS) as node:
            where = ""

            async def identify() -> tuple[str, tuple[str, ...]]:
                return node.peer_id, (where,)

            monkeypatch.setattr(node._control, "identify", identify)
            for host in (1, 2):
                where = f"/ip4/192.0.2.{host}/tcp/4001"
                async with asyncio.timeout(10):
                    await node.moved()
                assert node.addresses() == (f"{where}/p2p/{node.peer_id}",)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await node.moved()

    run_real(main())
