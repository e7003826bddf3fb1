"""Bridges to the event loop of trio-asyncio, which runs in the Trio thread.

Importing trio-asyncio makes asyncio itself run on Trio permanently. So this file runs in a separate session, and its
name is one that pytest doesn't collect.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from triores import wrap_future

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    trio_asyncio: Any = importlib.import_module("trio_asyncio")  # it has no types

if TYPE_CHECKING:
    import asyncio


async def test_a_future_of_a_trio_asyncio_loop_can_be_awaited_in_the_same_thread() -> None:
    async with trio_asyncio.open_loop() as loop:
        source: asyncio.Future[int] = loop.create_future()
        future = wrap_future(source)
        loop.call_soon(source.set_result, 3)
        assert await future == 3
        assert wrap_future(source).result() == 3


async def test_cancelling_the_wrapper_cancels_the_task_of_a_trio_asyncio_loop() -> None:
    async with trio_asyncio.open_loop() as loop:

        async def sleep() -> None:
            await loop.create_future()

        task = loop.create_task(sleep())
        future = wrap_future(task)
        await wait_all_tasks_blocked()
        future.cancel()
        await wait_all_tasks_blocked()
        assert task.cancelled()


async def test_wrapping_a_pending_future_of_a_closed_trio_asyncio_loop_raises_an_error() -> None:
    async with trio_asyncio.open_loop() as loop:
        source: asyncio.Future[int] = loop.create_future()
    with pytest.raises(RuntimeError, match=r"^the event loop of this asyncio future is closed"):
        wrap_future(source)
