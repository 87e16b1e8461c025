"""A p2pd that dies is started again, and whoever uses the node need not know."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dht.addresses import with_ports
from dht.border import TASK_FAILED
from dht.interfaces import TransportError, Unreachable
from dht.node import Node
from dht.p2pd import _LINE_BYTES, P2pdError, _lines
from tests.dht.test_bootstrap import knows, until
from tests.dht.test_records import names, sign
from tests.dht.worlds import identity, run_real, running_node


async def echo(_peer: object, body: bytes) -> bytes:
    return body


async def kill(node: Node) -> None:
    """Kills the node's p2pd; returns when the next one runs."""
    before = node.p2pd.process_id
    os.kill(before, signal.SIGKILL)
    await until(lambda: node.p2pd.process_id not in (None, before))


async def ask(one: Node, other: Node, body: bytes) -> bytes:
    """A request, again as long as it breaks: until the other side has noticed that the old connection is gone, a new
    stream may end with it, and every caller has to reckon with that."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await one.transport.request(other.peer_id, "echo", body, 10)
            except Unreachable:
                continue


def test_requests_go_on_in_both_directions_at_the_same_addresses(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, identity(1)) as one, running_node(tmp_path, identity(2)) as two:
            for node in (one, two):
                await node.transport.serve_requests("echo", echo)
            await one.transport.connect(two.peer_id, two.addresses())
            two.transport.remember(one.peer_id, one.addresses())
            addresses = one.addresses()
            for _ in range(2):
                await kill(one)
                assert await ask(one, two, b"out") == b"out"
                assert await ask(two, one, b"in") == b"in"
                assert one.addresses() == addresses

    run_real(main())


def test_exchanges_under_way_break_and_new_ones_wait(tmp_path: Path) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def never_answer(_peer: object, body: bytes) -> bytes:
            reached.set()
            await asyncio.Event().wait()
            return body

        async with running_node(tmp_path, identity(1)) as one, running_node(tmp_path, identity(2)) as two:
            await two.transport.serve_requests("silence", never_answer)
            await two.transport.serve_requests("echo", echo)
            await one.transport.connect(two.peer_id, two.addresses())
            waiting = asyncio.ensure_future(one.transport.request(two.peer_id, "silence", b"", 60))
            await reached.wait()
            os.kill(one.p2pd.process_id, signal.SIGKILL)
            with pytest.raises(TransportError):
                await waiting
            assert await ask(one, two, b"x") == b"x"

    run_real(main())


def test_node_is_in_the_dht_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.bootstrap.CHECK_SECONDS", 0.5)

    async def main() -> None:
        async with (
            running_node(tmp_path, identity(1)) as one,
            running_node(tmp_path, identity(2), initial_peers=one.addresses()) as two,
        ):
            for node, other in ((one, 2), (two, 1)):
                await until(lambda node=node, other=other: knows(node, other))  # type: ignore[misc]
            for victim in (one, two):
                await kill(victim)
                await until(lambda: two.bootstrap.connected)
            record = sign(identity(1), name="one")
            assert await one.records.publish(record, record.body.expires)
            async with asyncio.timeout(20):
                while (await names(two)).get(one.peer_id) != "one":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    run_real(main())


def test_a_p2pd_that_comes_up_useless_is_stopped_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    def stumbling(step: Callable[[], Awaitable[None]], *errors: Exception) -> Callable[[], Awaitable[None]]:
        left = list(errors)

        async def stumble() -> None:
            if left:
                raise left.pop()
            await step()

        return stumble

    async def main() -> None:
        async with (
            running_node(tmp_path, identity(1), on_rejected=lambda peer, reason, message: failed.append(reason)) as one,
            running_node(tmp_path, identity(2)) as two,
        ):
            await two.transport.serve_requests("echo", echo)
            await one.transport.connect(two.peer_id, two.addresses())
            attach, resume = one._p2p.attach_again, one.transport.resume
            monkeypatch.setattr(one._p2p, "attach_again", stumbling(attach, P2pdError("gone again"), KeyError("x")))
            monkeypatch.setattr(one.transport, "resume", stumbling(resume, Unreachable("no handler taken")))
            os.kill(one.p2pd.process_id, signal.SIGKILL)
            await one.p2pd.ended()
            assert await ask(one, two, b"x") == b"x"
            assert failed == [TASK_FAILED]

    run_real(main())


def test_node_can_be_closed_while_p2pd_is_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_node(tmp_path, identity(1)) as node:
            os.kill(node.p2pd.process_id, signal.SIGKILL)
        async with running_node(tmp_path, identity(1)) as node:
            os.kill(node.p2pd.process_id, signal.SIGKILL)
            await node.p2pd.ended()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run_real(main())


@pytest.mark.parametrize(
    ("listen", "found", "expected"),
    [
        ("/ip4/127.0.0.1/tcp/0", ["/ip4/127.0.0.1/tcp/4001"], "/ip4/127.0.0.1/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0", ["/ip4/203.0.113.7/tcp/9", "/ip4/127.0.0.1/tcp/4001"], "/ip4/0.0.0.0/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0", ["/ip4/10.0.0.1/tcp/4001"], "/ip4/0.0.0.0/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0", ["/ip6/::1/tcp/4001"], "/ip4/0.0.0.0/tcp/0"),
        ("/ip4/10.0.0.2/tcp/0", ["/ip4/10.0.0.1/tcp/4001"], "/ip4/10.0.0.2/tcp/0"),
        ("/ip4/0.0.0.0/tcp/4001", ["/ip4/127.0.0.1/tcp/4002"], "/ip4/0.0.0.0/tcp/4001"),
        ("/ip4/0.0.0.0/udp/0/quic-v1", ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1"],
         "/ip4/0.0.0.0/udp/2/quic-v1"),
    ],
)  # fmt: skip
def test_a_port_left_open_becomes_the_port_it_had(listen: str, found: list[str], expected: str) -> None:
    assert with_ports([listen], found) == [expected]


def test_output_without_end_of_line_is_read_in_pieces() -> None:
    async def main() -> None:
        output = asyncio.StreamReader()
        for data in (b"one\n", b"x" * 200_000, b"\nlast\r\n", b"y" * 100_000, b"\n\nend"):
            output.feed_data(data)
        output.feed_eof()
        lines = [line async for line in _lines(output)]
        assert [line[:4] for line in lines] == ["one", "xxxx", "last", "yyyy", "", "end"]
        assert max(map(len, lines)) == _LINE_BYTES

    run_real(main())
