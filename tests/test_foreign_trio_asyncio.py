"""Bridges to the event loop of trio-asyncio, which runs in the Trio thread."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from triores import wrap_future

if TYPE_CHECKING:
    import asyncio

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def trio_asyncio() -> Any:
    """Imported here, since it replaces parts of asyncio, which the tests before this run without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("trio_asyncio", reason="trio-asyncio does not run on Python 3.14")


async def test_a_future_of_a_trio_asyncio_loop_is_awaited_in_the_same_thread(trio_asyncio: Any) -> None:
    async with trio_asyncio.open_loop() as loop:
        source: asyncio.Future[int] = loop.create_future()
        future = wrap_future(source)
        loop.call_soon(source.set_result, 3)
        assert await future == 3
        assert wrap_future(source).result() == 3


async def test_a_task_of_a_trio_asyncio_loop_is_cancelled_with_its_wrapper(trio_asyncio: Any) -> None:
    async with trio_asyncio.open_loop() as loop:

        async def sleep() -> None:
            await loop.create_future()

        task = loop.create_task(sleep())
        future = wrap_future(task)
        await wait_all_tasks_blocked()
        future.cancel()
        await wait_all_tasks_blocked()
        assert task.cancelled()


async def test_a_pending_future_of_a_closed_trio_asyncio_loop_is_refused(trio_asyncio: Any) -> None:
    async with trio_asyncio.open_loop() as loop:
        source: asyncio.Future[int] = loop.create_future()
    with pytest.raises(RuntimeError, match=r"^the event loop of this asyncio future is closed"):
        wrap_future(source)
