"""Nodes find each other: started together, late, after a loss, and through a plain hivemind-dht process."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dht.bootstrap import Bootstrap
from dht.border import TASK_FAILED
from dht.hivemind_quietly import PeerID
from dht.node import Node
from tests.dht.test_records import names, sign
from tests.dht.worlds import identity, run_real, running_node


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def where(port: int) -> str:
    return f"/ip4/127.0.0.1/tcp/{port}"


def who(number: int, port: int) -> str:
    return f"{where(port)}/p2p/{identity(number).peer_id}"


def knows(node: Node, number: int) -> bool:
    return PeerID.from_base58(identity(number).peer_id) in node.dht.protocol.routing_table


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a state of hivemind's routing table, of which there are no events."""
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_known(node: Node, number: int) -> None:
    """Waits until `node` has that peer in its routing table."""
    await until(lambda: knows(node, number))


@pytest.mark.parametrize("attempt", range(3))
def test_two_started_together_with_each_other_as_initial_peers_become_one(attempt: int, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    initial_peers = [who(1, ports[0]), who(2, ports[1])]

    async def start(number: int) -> Node:
        async with running_node(
            tmp_path, identity(number), listen=[where(ports[number - 1])], initial_peers=initial_peers
        ) as node:
            assert await node.bootstrap.wait_connected(30)
            await until_known(node, 3 - number)
            both_there.release()
            await everybody.wait()
            return node

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(start(1))
            group.create_task(start(2))
            await both_there.acquire()
            await both_there.acquire()
            everybody.set()

    both_there, everybody = asyncio.Semaphore(0), asyncio.Event()
    run_real(main())


def test_initial_peer_that_comes_up_late_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        async with running_node(tmp_path, identity(1), initial_peers=[who(2, port)]) as early:
            assert not await early.bootstrap.wait_connected(2)
            async with running_node(tmp_path, identity(2), listen=[where(port)]):
                assert await early.bootstrap.wait_connected(30)

    run_real(main())


def test_peer_that_restarts_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.bootstrap.CHECK_SECONDS", 0.5)

    async def main() -> None:
        port = free_port()
        async with running_node(tmp_path, identity(1), initial_peers=[who(2, port)]) as staying:
            for _ in range(2):
                async with running_node(tmp_path, identity(2), listen=[where(port)]) as other:
                    await until_known(other, 1)
                await until(lambda: not staying.bootstrap.connected)

    run_real(main())


def test_two_dhts_merge_when_a_member_of_one_meets_a_member_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dht.bootstrap.CHECK_SECONDS", 0.5)

    async def main() -> None:
        async with (
            running_node(tmp_path, identity(1)) as one,
            running_node(tmp_path, identity(2), initial_peers=one.addresses()) as two,
            running_node(tmp_path, identity(3)) as three,
            running_node(tmp_path, identity(4), initial_peers=three.addresses()) as four,
        ):
            await until_known(two, 1)
            await until_known(four, 3)
            for number, node in ((2, two), (4, four)):
                record = sign(identity(number), name=str(number))
                assert await node.records.publish(record, record.body.expires)
            assert await names(one) == {identity(2).peer_id: "2"}
            assert await names(three) == {identity(4).peer_id: "4"}
            two.bootstrap.add(three.addresses())
            await until_known(one, 3)
            await until_known(two, 4)
            for node in (one, two, three, four):
                assert set(await names(node)) == {identity(2).peer_id, identity(4).peer_id}

    run_real(main())


def test_malformed_and_own_addresses_are_ignored(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, identity(1)) as node:
            bootstrap: Bootstrap = node.bootstrap
            bootstrap.add(["nonsense", "", "/ip4/127.0.0.1/tcp/1", f"/p2p/{identity(2).peer_id}", *node.addresses()])
            assert not await bootstrap.wait_connected(0.2)
            assert not bootstrap.connected

    run_real(main())


def test_plain_hivemind_dht_process_serves_as_initial_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.bootstrap.CHECK_SECONDS", 0.5)

    async def main() -> None:
        async with (
            plain_hivemind_dht() as addresses,
            running_node(tmp_path, identity(1), initial_peers=addresses) as one,
            running_node(tmp_path, identity(2), initial_peers=addresses) as two,
        ):
            assert await one.bootstrap.wait_connected(30)
            assert await two.bootstrap.wait_connected(30)
            await until_known(one, 2)
            for number, node in ((1, one), (2, two)):
                record = sign(identity(number), name=str(number))
                assert await node.records.publish(record, record.body.expires)
            expected = {identity(1).peer_id: "1", identity(2).peer_id: "2"}
            assert await names(one) == await names(two) == expected
            await one.transport.connect(two.peer_id, two.addresses())

    run_real(main())


@asynccontextmanager
async def plain_hivemind_dht() -> AsyncIterator[list[str]]:
    """A process of hivemind's own command; its multiaddrs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hivemind.hivemind_cli.run_dht",
        "--host_maddrs",
        "/ip4/127.0.0.1/tcp/0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                if found := re.findall(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+", line.decode()):
                    break
        yield found
    finally:
        process.terminate()
        await process.wait()


def test_a_mistake_of_ours_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a peer nor for neighbours, each of which is one task for as long as the node lives."""
    monkeypatch.setattr("dht.bootstrap.CHECK_SECONDS", 0.1)
    failed: list[str] = []

    async def main() -> None:
        async with (
            running_node(tmp_path, identity(1)) as one,
            running_node(tmp_path, identity(2), on_rejected=lambda peer, reason, message: failed.append(reason)) as two,
        ):
            reach, look = two.bootstrap._reach, two.dht.find_nearest_nodes
            mistakes = [KeyError(), KeyError()]

            async def stumble(*arguments: Any) -> Any:
                raise mistakes.pop()

            monkeypatch.setattr(two.bootstrap, "_reach", stumble)
            monkeypatch.setattr(two.dht, "find_nearest_nodes", stumble)
            two.bootstrap.add(one.addresses())
            await until(lambda: not mistakes)
            monkeypatch.setattr(two.bootstrap, "_reach", reach)
            monkeypatch.setattr(two.dht, "find_nearest_nodes", look)
            await until_known(two, 1)
            assert failed == [TASK_FAILED] * 2

    run_real(main())


def test_who_is_forgotten_makes_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.bootstrap.MAX_PEERS", 1)

    async def main() -> None:
        async with running_node(tmp_path, identity(1)) as one, running_node(tmp_path, identity(2)) as two:
            gone = who(3, free_port())
            one.bootstrap.add([gone])
            one.bootstrap.add(two.addresses())
            assert not await one.bootstrap.wait_connected(0.5)
            one.bootstrap.forget(identity(3).peer_id)
            one.bootstrap.add(two.addresses())
            assert await one.bootstrap.wait_connected(20)

    run_real(main())
