"""A place for what is received: works of one trainer, its bytes, and those of all."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from dht.interfaces import Frame, Stream
from peer.swarm.receiving import MOST_BYTES, MOST_BYTES_OF_ONE, MOST_WORKS_OF_ONE, Receiving
from protocols.identity import PeerId
from protocols.rejection import Rejected

FIRST = Frame(payload=b"x")


class Arriving(Stream):
    """What comes on it, the test says."""

    def __init__(self, peer: str = "trainer") -> None:
        self.peer = PeerId(peer)
        self.frames: asyncio.Queue[Frame | None] = asyncio.Queue()

    async def send(self, frame: Frame) -> None:
        raise NotImplementedError

    async def receive(self) -> Frame | None:
        return await self.frames.get()

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.frames.put_nowait(None)


@asynccontextmanager
async def under_way(receiving: Receiving, *works: tuple[str, int]):
    """Works of (trainer, bytes) of which one byte has come; broken off at the end."""
    streams = [Arriving(peer) for peer, _ in works]
    both = zip(streams, works, strict=True)
    tasks = [asyncio.create_task(receiving.receive(stream, FIRST, [size])) for stream, (_, size) in both]
    await asyncio.sleep(0)
    yield
    for stream in streams:
        stream.abort()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, Rejected) for each in ended), ended


async def has_place(receiving: Receiving, peer: str = "trainer") -> bool:
    """For two bytes more."""
    stream = Arriving(peer)
    stream.frames.put_nowait(Frame(payload=b"y"))
    received = await receiving.receive(stream, FIRST, [2])
    assert stream.frames.empty()  # read in either case
    assert received in (None, [b"xy"])
    return received is not None


async def test_of_one_trainer_so_many_works_come_at_once() -> None:
    receiving = Receiving()
    async with under_way(receiving, *[("trainer", 1000)] * MOST_WORKS_OF_ONE):
        assert not await has_place(receiving)
        assert await has_place(receiving, "another")
    assert await has_place(receiving)


@pytest.mark.parametrize(("held", "fits"), [(MOST_BYTES_OF_ONE - 2, True), (MOST_BYTES_OF_ONE - 1, False)])
async def test_of_one_trainer_so_many_bytes_come_at_once(held: int, fits: bool) -> None:
    receiving = Receiving()
    async with under_way(receiving, ("trainer", held)):
        assert await has_place(receiving) == fits
        assert await has_place(receiving, "another")


async def test_a_work_that_is_larger_than_any_limit_comes_alone() -> None:
    receiving = Receiving()
    async with under_way(receiving, ("trainer", 2 * MOST_BYTES)):
        assert not await has_place(receiving)
        assert not await has_place(receiving, "another")
    assert await has_place(receiving)


async def test_of_all_trainers_so_many_bytes_come_at_once() -> None:
    receiving, trainers = Receiving(), MOST_BYTES // MOST_BYTES_OF_ONE
    async with under_way(receiving, *[(f"trainer {number}", MOST_BYTES_OF_ONE) for number in range(trainers)]):
        assert not await has_place(receiving, "another")
    assert await has_place(receiving, "another")


async def test_a_work_whose_end_never_comes_gives_its_place_back_when_its_stream_breaks() -> None:
    receiving = Receiving()
    for _ in range(3):
        async with under_way(receiving, *[("trainer", 10)] * MOST_WORKS_OF_ONE):
            pass
        assert await has_place(receiving)


@pytest.mark.parametrize(("untaken", "fits"), [(MOST_BYTES_OF_ONE - 2, True), (MOST_BYTES_OF_ONE - 1, False)])
async def test_who_does_not_take_its_answers_sends_no_more_works(untaken: int, fits: bool) -> None:
    receiving = Receiving()
    with receiving.answering(PeerId("trainer"), untaken):
        assert await has_place(receiving) == fits
        assert await has_place(receiving, "another")
    assert await has_place(receiving)
