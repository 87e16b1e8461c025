"""Shards from other members: whole, verified, resumed, repaired, passed on while they come."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dht.interfaces import Frame, Stream
from dht.simulated import SimulatedNetwork, run_simulation
from dht.simulated_link import Link
from peer.block_file import BlockFile
from peer.contents import BLOCKS_KIND, INDEX_KIND, ContentStore
from peer.errors import PeerError
from peer.locks import locked
from peer.rejections import Rejections
from peer.shard_fetch import ShardFetcher
from peer.shard_store import ShardStore
from protocols.blocks import BLOCK_BYTES, BlockIndex
from protocols.identity import PeerId
from protocols.manifest import Shard
from tests.protocols.round.simulation import PEERS


def shard_of(content: bytes) -> Shard:
    return Shard(name="text.txt", size_bytes=len(content), digest=BlockIndex.of([content]).digest)


CONTENT = b"".join(bytes([number]) * BLOCK_BYTES for number in range(1, 6)) + b"and a little more"
BLOCKS = 6
SHARD = shard_of(CONTENT)

Answer = Callable[[int], Awaitable[bytes | None]]
"""What a scripted holder gives for a block; None: it breaks off."""


class Volunteer:
    """A member without the file, which serves what it has fetched."""

    def __init__(self, scene: "Scene", number: int, quota_bytes: int) -> None:
        self.transport = scene.network.join(PEERS[number])
        self.directory = scene.directory / f"data-{number}"
        self.partial = self.directory / scene.shard.digest.hex() / "text.txt.partial"
        self.rejections = Rejections()
        self.contents = ContentStore(self.transport.in_thread)
        self.store = ShardStore(self.directory, quota_bytes)
        self._scene = scene
        self._fetcher = ShardFetcher(self.store, self.contents, self.transport, self._members, self.rejections)

    async def fetch(self) -> Path:
        [file] = await self._fetcher.fetch([self._scene.shard], [None])
        return file.path

    async def _members(self) -> list[PeerId]:
        others = {peer: addresses for peer, addresses in self._scene.members.items() if peer != self.transport.peer_id}
        for member, addresses in others.items():
            await self.transport.connect(member, addresses)
        return list(others)


class Scene:
    """A volunteer, and members that may have what it wants."""

    def __init__(
        self, network: SimulatedNetwork, directory: Path, quota_bytes: int = 10**9, content: bytes = CONTENT
    ) -> None:
        self.network, self.directory = network, directory
        self.content, self.shard = content, shard_of(content)
        self.members: dict[PeerId, tuple[str, ...]] = {}
        self.served: dict[int, list[int]] = {}
        """Holder → the blocks that it was asked for."""
        self.volunteer = Volunteer(self, 0, quota_bytes)

    async def add_holder(self, number: int, answer: Answer | None = None, link: Link | None = None) -> None:
        """One that has the file, or does as `answer` says."""
        transport = self.network.join(PEERS[number], link=link)
        asked = self.served[number] = []
        contents = ContentStore(transport.in_thread)
        file = self.directory / f"of-{number}.txt"
        file.write_bytes(self.content)
        contents.pin(self.shard.digest, BlockFile.whole(file))

        async def serve(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                block = int.from_bytes(frame.header[32:], "big")
                asked.append(block)
                content = self.content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
                if (data := content if answer is None else await answer(block)) is None:
                    return stream.abort()
                await stream.send(Frame(b"", data))
            return None

        await transport.serve_requests(INDEX_KIND, contents.serve_index)
        await transport.serve_streams(BLOCKS_KIND, serve)
        self.members[PEERS[number]] = transport.addresses

    async def add_volunteer(self, number: int) -> Volunteer:
        volunteer = Volunteer(self, number, 10**9)
        await self.serve(volunteer)
        return volunteer

    async def serve(self, volunteer: Volunteer) -> None:
        await volunteer.contents.serve(volunteer.transport)
        self.members[volunteer.transport.peer_id] = volunteer.transport.addresses


def test_a_missing_shard_comes_from_the_members_and_stays(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        file = await scene.volunteer.fetch()
        assert file.read_bytes() == CONTENT
        assert file.name == "text.txt"
        assert list(file.parent.iterdir()) == [file]
        assert await scene.volunteer.fetch() == file
        assert len(scene.served[1]) == BLOCKS

    run_simulation(main, seed=1)


def test_two_holders_share_the_work(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        await scene.add_holder(2)
        assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert all(len(blocks) >= 2 for blocks in scene.served.values())
        assert sorted(scene.served[1] + scene.served[2]) == list(range(BLOCKS))

    run_simulation(main, seed=2)


def test_a_holder_that_crashes_half_way_is_finished_by_another(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)

        async def crash_at_the_third(block: int) -> bytes | None:
            if len(scene.served[1]) < 3:
                return CONTENT[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            network.crash(PEERS[1])
            del scene.members[PEERS[1]]
            await scene.add_holder(2)  # comes up only now
            return None

        await scene.add_holder(1, crash_at_the_third)
        assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert len(scene.served[1]) == 3
        assert len(scene.served[2]) == BLOCKS - 2
        assert not set(scene.served[1][:2]) & set(scene.served[2])

    run_simulation(main, seed=3)


def test_who_is_killed_resumes_with_what_is_missing(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        reached = asyncio.Event()

        async def hang_at_the_fourth(block: int) -> bytes:
            if len(scene.served[1]) == 4:
                reached.set()
                await asyncio.Event().wait()
            return CONTENT[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]

        await scene.add_holder(1, hang_at_the_fourth)
        fetching = asyncio.ensure_future(scene.volunteer.fetch())
        await reached.wait()
        fetching.cancel()
        await asyncio.wait([fetching])
        assert scene.volunteer.partial.exists()
        await scene.add_holder(2)
        del scene.members[PEERS[1]]
        assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert sorted(scene.served[1][:3] + scene.served[2]) == list(range(BLOCKS))

    run_simulation(main, seed=4)


@pytest.mark.parametrize("damage", ["a bit", "an end cut off"])
def test_of_a_damaged_shard_only_the_wrong_blocks_are_fetched(tmp_path: Path, damage: str) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        file = await scene.volunteer.fetch()
        scene.served[1].clear()
        with file.open("r+b") as opened:
            if damage == "a bit":
                opened.seek(2 * BLOCK_BYTES + 17)
                opened.write(b"\x02")
            else:
                opened.truncate(4 * BLOCK_BYTES)
        with capture_logs() as lines:
            assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert sorted(scene.served[1]) == ([2] if damage == "a bit" else [4, 5])
        [warning] = [line for line in lines if line["log_level"] == "warning"]
        assert warning == {
            "event": "the data is damaged; what is wrong in it is fetched again",
            "file": str(file),
            "log_level": "warning",
        }

    run_simulation(main, seed=5)


def test_a_block_that_goes_bad_while_it_is_served_is_not_served(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        file = await scene.volunteer.fetch()
        await scene.serve(scene.volunteer)
        file.write_bytes(CONTENT[:BLOCK_BYTES] + b"x" + CONTENT[BLOCK_BYTES + 1 :])
        scene.served[1].clear()
        other = await scene.add_volunteer(3)
        with capture_logs() as lines:
            assert (await other.fetch()).read_bytes() == CONTENT
        assert 1 in scene.served[1]
        assert not other.rejections.by_reason
        assert [line["block"] for line in lines if line["log_level"] == "warning"] in ([], [1])

    run_simulation(main, seed=6)


def test_a_wrong_block_is_refused_and_its_holder_not_asked_again(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)

        async def lie(_block: int) -> bytes:
            return bytes(BLOCK_BYTES)

        await scene.add_holder(1, lie)
        await scene.add_holder(2)
        assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert len(scene.served[1]) == 1
        assert scene.volunteer.rejections.by_reason["wrong_digest"] == 1

    run_simulation(main, seed=7)


def test_a_holder_may_be_away_for_a_week(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        fetching = asyncio.ensure_future(scene.volunteer.fetch())
        with capture_logs() as lines:
            await network.clock.sleep(7 * 24 * 3600)
        [warning] = [line for line in lines if line["log_level"] == "warning"]
        assert warning["event"].startswith("no member that is up has more of the data; waiting for one.")
        await scene.add_holder(1)
        came_up = network.clock.monotonic()
        assert (await fetching).read_bytes() == CONTENT
        assert network.clock.monotonic() - came_up < 90

    run_simulation(main, seed=8)


def test_who_start_together_draw_on_each_other(tmp_path: Path) -> None:
    blocks = 32
    content = b"".join(bytes([number + 1]) * BLOCK_BYTES for number in range(blocks))

    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path, content=content)
        await scene.add_holder(1, link=Link(upload_bytes_per_second=1e6))
        volunteers = [await scene.add_volunteer(number) for number in range(2, 6)]
        files = await asyncio.gather(*(volunteer.fetch() for volunteer in volunteers))
        assert all(file.read_bytes() == content for file in files)
        assert set(scene.served[1]) == set(range(blocks))
        assert len(scene.served[1]) <= 2 * blocks  # without each other, they would have drawn all blocks four times
        assert not any(volunteer.rejections.by_reason for volunteer in volunteers)

    run_simulation(main, seed=9)


def test_a_second_daemon_of_the_home_waits_for_the_first(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path)
        await scene.add_holder(1)
        with ExitStack() as first:
            first.enter_context(scene.volunteer.store.claim(SHARD))
            fetching = asyncio.ensure_future(scene.volunteer.fetch())
            await network.clock.sleep(60)
            assert not fetching.done()
            assert scene.served[1] == []
        assert (await fetching).read_bytes() == CONTENT

    run_simulation(main, seed=10)


# -- the quota --------------------------------------------------------------------------------------------------------


def test_the_quota_is_kept(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path, quota_bytes=BLOCK_BYTES)
        await scene.add_holder(1)
        with pytest.raises(PeerError, match=r"over the quota of 0\.00105 GB; raise it with --data-quota GB"):
            await scene.volunteer.fetch()

    run_simulation(main, seed=11)


def test_a_part_counts_for_what_it_takes_on_the_disk(tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, tmp_path, quota_bytes=len(CONTENT) + 8192)
        partial = scene.volunteer.partial
        partial.parent.mkdir(parents=True)
        with partial.open("wb") as opened:
            opened.write(CONTENT[: 3 * BLOCK_BYTES])
            opened.truncate(len(CONTENT))
        await scene.add_holder(1)
        assert (await scene.volunteer.fetch()).read_bytes() == CONTENT
        assert sorted(scene.served[1]) == [3, 4, 5]

    run_simulation(main, seed=12)


def lay(directory: Path, number: int, name: str = "old.txt") -> Shard:
    """A shard of one block that was used `number` days after the first one, as a file of the store."""
    content = bytes([number]) * BLOCK_BYTES
    shard = Shard(name=name, size_bytes=BLOCK_BYTES, digest=BlockIndex.of([content]).digest)
    file = directory / shard.digest.hex() / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    for path in (file, file.parent):
        os.utime(path, (86400 * number, 86400 * number))
    return shard


def names(directory: Path) -> set[bytes]:
    return {bytes.fromhex(path.name) for path in directory.iterdir()}


def test_what_no_run_needs_goes_first_that_was_used_longest_ago(tmp_path: Path) -> None:
    needed, older, newer = lay(tmp_path, 1), lay(tmp_path, 2), lay(tmp_path, 3)
    store = ShardStore(tmp_path, len(CONTENT) + 2 * BLOCK_BYTES, lambda: {needed.digest})
    store.make_room([SHARD], [SHARD])
    assert names(tmp_path) == {needed.digest, newer.digest}
    assert older.digest not in names(tmp_path)
    store.make_room([SHARD], [SHARD])
    assert names(tmp_path) == {needed.digest, newer.digest}


def test_an_unfinished_part_of_another_run_goes_when_nobody_is_fetching_it(tmp_path: Path) -> None:
    stale, busy = lay(tmp_path, 1, "one.txt.partial"), lay(tmp_path, 2, "two.txt.partial")
    store = ShardStore(tmp_path, len(CONTENT) + BLOCK_BYTES, lambda: {stale.digest, busy.digest})
    with locked(tmp_path / busy.digest.hex(), wait=False):
        store.make_room([SHARD], [SHARD])
    assert names(tmp_path) == {busy.digest}


def test_nothing_is_removed_in_vain(tmp_path: Path) -> None:
    unneeded = lay(tmp_path, 1)
    with pytest.raises(PeerError, match=r"0\.00105 GB are kept already, over the quota"):
        ShardStore(tmp_path, BLOCK_BYTES).make_room([SHARD], [SHARD])
    assert names(tmp_path) == {unneeded.digest}


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three blocks."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={3 * BLOCK_BYTES}", "none", str(place)]
    if os.geteuid() != 0 or mount is None or subprocess.run([mount, *options], check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_without_room_is_told_before_anything_is_fetched(small_disk: Path) -> None:
    with pytest.raises(PeerError, match=r"takes 0\.00524 GB, .* has 0\.00315 GB free; free some space"):
        ShardStore(small_disk / "data", 10**9).make_room([SHARD], [SHARD])


def test_a_disk_that_fills_meanwhile_is_one_sentence_and_what_has_come_stays(small_disk: Path, tmp_path: Path) -> None:
    async def main(network: SimulatedNetwork) -> None:
        scene = Scene(network, small_disk.parent)
        await scene.add_holder(1)
        volunteer = scene.volunteer
        volunteer.directory.symlink_to(small_disk)
        volunteer.store.make_room = lambda _shards, _missing: None  # somebody else's files came after the look
        with pytest.raises(PeerError, match=r"^the disk of .* is full; free some space and join again: what has come"):
            await volunteer.fetch()
        assert len(BlockFile.partial(volunteer.partial, BlockIndex.of([CONTENT])).held) >= 2

    run_simulation(main, seed=13)
