"""Shards from other members: whole, verified, resumed, within the quota."""

from pathlib import Path

import pytest

from dht.interfaces import Frame, Stream, StreamHandler
from dht.simulated import SimulatedNetwork, run_simulation
from peer.contents import BLOCKS_KIND, INDEX_KIND, ContentStore
from peer.errors import PeerError
from peer.participant import Rejections
from peer.shard_fetch import ShardFetcher, pin_shards
from protocols.blocks import BLOCK_BYTES, BlockIndex
from protocols.identity import PeerId
from protocols.manifest import Shard
from tests.protocols.round.simulation import PEERS
from tests.small_disk import empty, fill, small_disk

CONTENT = bytes(range(256)) * (5 * BLOCK_BYTES // 256) + b"and a little more"
SHARD = Shard(name="text.txt", size_bytes=len(CONTENT), digest=BlockIndex.of([CONTENT]).digest)


class Scene:
    """A volunteer without the file, and members that may have it."""

    def __init__(self, network: SimulatedNetwork, directory: Path, quota_bytes: int = 10**9) -> None:
        self.network, self.directory = network, directory
        self.volunteer = network.join(PEERS[0])
        self.members: dict[PeerId, tuple[str, ...]] = {}
        self.rejections = Rejections()
        self.fetcher = ShardFetcher(
            directory / "data", quota_bytes, self.volunteer, self._connected_members, self.rejections
        )

    async def add_holder(self, number: int, serve_blocks: StreamHandler | None = None) -> None:
        transport = self.network.join(PEERS[number])
        file = self.directory / f"of-{number}.txt"
        file.write_bytes(CONTENT)
        contents = ContentStore()
        pin_shards(contents, [file])
        await transport.serve_requests(INDEX_KIND, contents.serve_index)
        await transport.serve_streams(BLOCKS_KIND, serve_blocks or contents.serve_blocks)
        self.members[PEERS[number]] = transport.addresses

    async def _connected_members(self) -> list[PeerId]:
        for member, addresses in self.members.items():
            await self.volunteer.connect(member, addresses)
        return list(self.members)


def test_a_missing_shard_comes_from_the_members_and_stays(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        await scene.add_holder(2)
        [file] = await scene.fetcher.fetch([SHARD], [None])
        assert file.read_bytes() == CONTENT
        assert file.name == "text.txt"
        assert list(file.parent.iterdir()) == [file]

    run_simulation(main, seed=1)


def test_a_break_loses_no_block_that_was_there(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        partial = tmp_path / "data" / SHARD.digest.hex() / "text.txt.partial"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(CONTENT[: 3 * BLOCK_BYTES] + b"\0" * BLOCK_BYTES)
        asked: list[int] = []

        async def count(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                number = int.from_bytes(frame.header[32:], "big")
                asked.append(number)
                await stream.send(Frame(b"", CONTENT[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]))

        await scene.add_holder(1, count)
        [file] = await scene.fetcher.fetch([SHARD], [None])
        assert file.read_bytes() == CONTENT
        assert sorted(asked) == [3, 4, 5]

    run_simulation(main, seed=2)


def test_a_wrong_block_is_refused_and_its_holder_not_asked_again(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        lies = 0

        async def lie(stream: Stream) -> None:
            nonlocal lies
            while await stream.receive() is not None:
                lies += 1
                await stream.send(Frame(b"", b"\0" * BLOCK_BYTES))

        await scene.add_holder(1, lie)
        await scene.add_holder(2)
        [file] = await scene.fetcher.fetch([SHARD], [None])
        assert file.read_bytes() == CONTENT
        assert lies == 1
        assert scene.rejections.by_reason["wrong_digest"] == 1

    run_simulation(main, seed=3)


def test_nobody_has_it(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        with pytest.raises(PeerError, match=r"no member that is up holds text\.txt whole .* --data PATH"):
            await Scene(network, tmp_path).fetcher.fetch([SHARD], [None])

    run_simulation(main, seed=4)


def test_the_quota_is_kept(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path, quota_bytes=BLOCK_BYTES)
        await scene.add_holder(1)
        with pytest.raises(PeerError, match=r"over the quota of 0\.00105 GB; raise it with --data-quota GB"):
            await scene.fetcher.fetch([SHARD], [None])

    run_simulation(main, seed=5)


def test_a_disk_that_fills_up_before_the_data_comes_is_told(tmp_path: Path) -> None:
    """The space was there when it was looked for; a file with holes would kill whoever writes into it then."""

    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        scene.fetcher._make_room = lambda missing: fill(scene.directory / "data")
        await scene.add_holder(1)
        with pytest.raises(PeerError, match=r"data: No space left on device; free some space"):
            await scene.fetcher.fetch([SHARD], [None])
        empty(scene.directory / "data")
        file = await scene.fetcher._fetch_one(SHARD)
        assert file.read_bytes() == CONTENT

    with small_disk(tmp_path / "data"):
        run_simulation(main, seed=6)


def test_what_has_been_fetched_of_a_shard_needs_no_space_again(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        partial = tmp_path / "data" / SHARD.digest.hex() / "text.txt.partial"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(CONTENT[:BLOCK_BYTES] + bytes(len(CONTENT) - BLOCK_BYTES))
        fill(tmp_path / "data")
        [file] = await scene.fetcher.fetch([SHARD], [None])
        assert file.read_bytes() == CONTENT

    with small_disk(tmp_path / "data"):
        run_simulation(main, seed=7)
