"""Pairs of tasks: whose error it is that ends both, and that nothing is left of it."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from peer.tasks import beside


class Big:
    """Something that a frame holds."""


class Failed(Exception):
    pass


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def fail_with(kept: list["weakref.ref[Big]"]) -> None:
    big = Big()
    kept.append(weakref.ref(big))
    raise Failed


async def wait() -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("in_body", [True, False])
def test_what_a_failed_pair_held_is_gone_once_its_error_is_handled(in_body: bool) -> None:
    kept: list[weakref.ref[Big]] = []

    async def main() -> None:
        try:
            async with beside(wait() if in_body else fail_with(kept)):
                await (fail_with(kept) if in_body else wait())
        except Failed:
            pass
        await asyncio.sleep(0)

    asyncio.run(main())
    assert kept[0]() is None


async def test_an_error_of_either_ends_both_and_comes_as_it_is() -> None:
    with pytest.raises(Failed):
        async with beside(fail_with([])):
            await wait()
    with pytest.raises(Failed):
        async with beside(wait()) as other:
            await fail_with([])
    assert other.cancelled()
