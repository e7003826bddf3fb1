"""Scenarios of round trips to threads: run_in_executor and wrap_future."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

import trio

import triores

from .measuring import ASYNCIO, BY_HAND, TRIORES, Clock, Scenario


def work_in_thread(item: int) -> int:
    return item


# ---- calls in an executor, one after another


async def calls_in_triores(n: int, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as executor:
        await triores.run_in_executor(executor, work_in_thread, 0)  # starts the thread
        with clock:
            values = [await triores.run_in_executor(executor, work_in_thread, item) for item in range(n)]
    assert values == list(range(n))


async def calls_in_trio(n: int, clock: Clock) -> None:
    await trio.to_thread.run_sync(work_in_thread, 0)  # starts the thread
    with clock:
        values = [await trio.to_thread.run_sync(work_in_thread, item) for item in range(n)]
    assert values == list(range(n))


async def calls_in_asyncio(n: int, clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        await loop.run_in_executor(executor, work_in_thread, 0)  # starts the thread
        with clock:
            values = [await loop.run_in_executor(executor, work_in_thread, item) for item in range(n)]
    assert values == list(range(n))


# ---- concurrent futures, wrapped and awaited


async def wrapped_in_triores(n: int, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as executor:
        await triores.wrap_future(executor.submit(work_in_thread, 0))  # starts the thread
        with clock:
            values = [await triores.wrap_future(executor.submit(work_in_thread, item)) for item in range(n)]
    assert values == list(range(n))


async def wrapped_in_asyncio(n: int, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as executor:
        await asyncio.wrap_future(executor.submit(work_in_thread, 0))  # starts the thread
        with clock:
            values = [await asyncio.wrap_future(executor.submit(work_in_thread, item)) for item in range(n)]
    assert values == list(range(n))


# ---- the same without threads, so that only the bridge itself is timed


async def settled_here_in_triores(n: int, clock: Clock) -> None:
    with clock:
        for item in range(n):
            source = Future[int]()
            wrapped = triores.wrap_future(source)
            source.set_result(item)
            assert await wrapped == item


async def settled_here_in_asyncio(n: int, clock: Clock) -> None:
    with clock:
        for item in range(n):
            source = Future[int]()
            wrapped = asyncio.wrap_future(source)
            source.set_result(item)
            assert await wrapped == item


# ---- a long-lived future, wrapped again and again


async def again_in_triores(n: int, clock: Clock) -> None:
    source = Future[int]()
    with clock:
        wrapped = [triores.wrap_future(source) for _ in range(n)]
    source.set_result(3)
    assert await wrapped[-1] == 3


async def again_in_asyncio(n: int, clock: Clock) -> None:
    source = Future[int]()
    with clock:
        wrapped = [asyncio.wrap_future(source) for _ in range(n)]
    source.set_result(3)
    assert await wrapped[-1] == 3


EXECUTOR = Scenario(
    "run_in_executor, compared with trio.to_thread.run_sync",
    1_000,
    {TRIORES: calls_in_triores, BY_HAND: calls_in_trio, ASYNCIO: calls_in_asyncio},
)
WRAP_FUTURE = Scenario("wrap_future, there and back", 1_000, {TRIORES: wrapped_in_triores, ASYNCIO: wrapped_in_asyncio})
WRAP_SETTLED_HERE = Scenario(
    "wrap_future, settled in the same thread",
    1_000,
    {TRIORES: settled_here_in_triores, ASYNCIO: settled_here_in_asyncio},
)
WRAP_AGAIN = Scenario(
    "wrap_future, of the same future again", 1_000, {TRIORES: again_in_triores, ASYNCIO: again_in_asyncio}
)
SCENARIOS = (EXECUTOR, WRAP_FUTURE, WRAP_SETTLED_HERE, WRAP_AGAIN)
