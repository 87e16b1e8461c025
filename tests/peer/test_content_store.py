"""Which contents a peer keeps to serve, and for how long."""

import pytest

from dht.interfaces import Frame, Transport, TransportError
from peer.contents import BLOCKS_KIND, MOST_FETCHED, ContentStore
from protocols.blocks import BlockIndex
from tests.dht.worlds import World, run_on_simulation

SMALL = 1000


def content(number: int) -> tuple[BlockIndex, list[bytes]]:
    data = bytes([number]) * SMALL
    return BlockIndex.of([data]), [data]


async def block_of(transport: Transport, holder: Transport, index: BlockIndex) -> bytes:
    async with await transport.open_stream(holder.peer_id, BLOCKS_KIND) as stream:
        await stream.send(Frame(index.digest + bytes(8)))
        frame = await stream.receive()
        assert frame is not None
        return bytes(frame.payload)


def test_the_newest_stays_whatever_it_takes_and_older_ones_as_long_as_there_is_room() -> None:
    async def scenario(world: World) -> None:
        asker, holder = await world.pair()
        contents = ContentStore(holder.in_thread, limit_bytes=2 * SMALL)
        await holder.serve_streams(BLOCKS_KIND, contents.serve_blocks)
        for number in range(4):
            contents.put(*content(number))
        for number in (2, 3):
            assert await block_of(asker, holder, content(number)[0]) == content(number)[1][0]
        for number in (0, 1):
            with pytest.raises(TransportError):
                await block_of(asker, holder, content(number)[0])
        assert contents.whole(content(3)[0].digest) == content(3)[1][0]
        assert contents.whole(content(0)[0].digest) is None
        contents = ContentStore(holder.in_thread, limit_bytes=SMALL // 2)
        contents.put(*content(0))
        assert contents.held == {content(0)[0].digest}

    run_on_simulation(scenario)


def test_what_is_being_fetched_stays_until_it_is_fetched() -> None:
    async def scenario(world: World) -> None:
        asker, holder = await world.pair()
        contents = ContentStore(holder.in_thread, limit_bytes=SMALL)
        await holder.serve_streams(BLOCKS_KIND, contents.serve_blocks)
        index, [data] = content(0)
        contents.put(index, [data])
        async with await asker.open_stream(holder.peer_id, BLOCKS_KIND) as stream:
            for number in range(1, 5):
                await stream.send(Frame(index.digest + bytes(8)))
                frame = await stream.receive()
                assert frame is not None
                assert bytes(frame.payload) == data
                contents.put(*content(number))
        while index.digest in contents.held:
            await asker.clock.sleep(0.1)
        assert contents.held == {content(4)[0].digest}

    run_on_simulation(scenario)


def test_who_fetches_slowly_cannot_make_it_keep_everything() -> None:
    async def scenario(world: World) -> None:
        asker, holder = await world.pair()
        contents = ContentStore(holder.in_thread, limit_bytes=SMALL)
        await holder.serve_streams(BLOCKS_KIND, contents.serve_blocks)
        streams = []
        for number in range(6):
            contents.put(*content(number))
            streams.append(await asker.open_stream(holder.peer_id, BLOCKS_KIND))
            await streams[-1].send(Frame(content(number)[0].digest + bytes(8)))
            await streams[-1].receive()
        assert len(contents.held) <= MOST_FETCHED + 1
        for stream in streams:
            stream.abort()

    run_on_simulation(scenario)
