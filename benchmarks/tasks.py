"""Scenarios with many tasks whose values are needed: captures, gather, as_completed."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import aioresult
import anyio
import trio

import triores

from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, TRIORES, Clock, Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def work(item: int) -> int:
    """What every task on Trio does: run one checkpoint, and return the item."""
    await trio.lowlevel.checkpoint()
    return item


async def work_on_asyncio(item: int) -> int:
    """Do the same on asyncio."""
    await asyncio.sleep(0)
    return item


# ---- a nursery of tasks; their values are read at the end


async def captures_in_triores(n: int, clock: Clock) -> None:
    with clock:
        async with trio.open_nursery() as nursery:
            captures = [triores.ResultCapture.start_soon(nursery, work, item) for item in range(n)]
        values = [capture.result() for capture in captures]
    assert values == list(range(n))


async def captures_by_hand(n: int, clock: Clock) -> None:
    with clock:
        values = [-1] * n

        async def store(item: int) -> None:
            values[item] = await work(item)

        async with trio.open_nursery() as nursery:
            for item in range(n):
                nursery.start_soon(store, item)
    assert values == list(range(n))


async def captures_in_aioresult(n: int, clock: Clock) -> None:
    with clock:
        async with trio.open_nursery() as nursery:
            captures = [aioresult.ResultCapture.start_soon(nursery, work, item) for item in range(n)]
        values = [capture.result() for capture in captures]
    assert values == list(range(n))


async def captures_in_anyio(n: int, clock: Clock) -> None:
    with clock:
        handles: list[anyio.TaskHandle[int]] = []
        async with anyio.create_task_group() as group:
            handles = [group.start_soon(work, item) for item in range(n)]
        values = [handle.return_value for handle in handles]
    assert values == list(range(n))


async def captures_in_asyncio(n: int, clock: Clock) -> None:
    with clock:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work_on_asyncio(item)) for item in range(n)]
        values = [task.result() for task in tasks]
    assert values == list(range(n))


# ---- gather


async def gather_in_triores(n: int, clock: Clock) -> None:
    fns = [partial(work, item) for item in range(n)]
    with clock:
        values = await triores.gather(*fns)
    assert values == tuple(range(n))


async def gather_by_hand(n: int, clock: Clock) -> None:
    fns = [partial(work, item) for item in range(n)]
    with clock:
        values = [-1] * n

        async def store(index: int, fn: Callable[[], Awaitable[int]]) -> None:
            values[index] = await fn()

        async with trio.open_nursery() as nursery:
            for index, fn in enumerate(fns):
                nursery.start_soon(store, index, fn)
    assert values == list(range(n))


async def gather_in_anyio(n: int, clock: Clock) -> None:
    with clock:
        values = await anyio.gather(*[work(item) for item in range(n)])
    assert values == tuple(range(n))


async def gather_in_asyncio(n: int, clock: Clock) -> None:
    with clock:
        values = await asyncio.gather(*[work_on_asyncio(item) for item in range(n)])
    assert values == list(range(n))


# ---- the values of tasks, in the order in which the tasks end


async def as_completed_in_triores(n: int, clock: Clock) -> None:
    values: list[int] = []
    with clock:
        async with trio.open_nursery() as nursery:
            captures = [triores.ResultCapture.start_soon(nursery, work, item) for item in range(n)]
            async for capture in triores.as_completed(captures):
                values.append(capture.result())  # noqa: PERF401 - stands for the body of a user's loop
    assert sorted(values) == list(range(n))


async def as_completed_by_hand(n: int, clock: Clock) -> None:
    values: list[int] = []
    with clock:
        send, receive = trio.open_memory_channel[int](math.inf)

        async def tell(item: int) -> None:
            send.send_nowait(await work(item))

        async with trio.open_nursery() as nursery:
            for item in range(n):
                nursery.start_soon(tell, item)
            for _ in range(n):
                values.append(await receive.receive())  # noqa: PERF401 - stands for the body of a user's loop
    assert sorted(values) == list(range(n))


async def as_completed_in_aioresult(n: int, clock: Clock) -> None:
    values: list[int] = []
    with clock:
        send, receive = trio.open_memory_channel[Any](1)
        async with trio.open_nursery() as nursery:
            captures = [aioresult.ResultCapture.start_soon(nursery, work, item) for item in range(n)]
            nursery.start_soon(aioresult.results_to_channel, captures, send)
            async for capture in receive:
                values.append(capture.result())  # noqa: PERF401 - stands for the body of a user's loop
    assert sorted(values) == list(range(n))


async def as_completed_in_anyio(n: int, clock: Clock) -> None:
    values: list[int] = []
    with clock:
        async with anyio.as_completed(*[work(item) for item in range(n)]) as handles:
            async for handle in handles:
                values.append(handle.return_value)  # noqa: PERF401 - stands for the body of a user's loop
    assert sorted(values) == list(range(n))


async def as_completed_in_asyncio(n: int, clock: Clock) -> None:
    values: list[int] = []
    with clock:
        for next_one in asyncio.as_completed([work_on_asyncio(item) for item in range(n)]):
            values.append(await next_one)  # noqa: PERF401 - stands for the body of a user's loop
    assert sorted(values) == list(range(n))


CAPTURES = Scenario(
    "nursery of captures",
    5_000,
    {
        TRIORES: captures_in_triores,
        BY_HAND: captures_by_hand,
        AIORESULT: captures_in_aioresult,
        ANYIO: captures_in_anyio,
        ASYNCIO: captures_in_asyncio,
    },
)
GATHER = Scenario(
    "gather",
    5_000,
    {TRIORES: gather_in_triores, BY_HAND: gather_by_hand, ANYIO: gather_in_anyio, ASYNCIO: gather_in_asyncio},
)
AS_COMPLETED = Scenario(
    "as_completed over captures",
    5_000,
    {
        TRIORES: as_completed_in_triores,
        BY_HAND: as_completed_by_hand,
        AIORESULT: as_completed_in_aioresult,
        ANYIO: as_completed_in_anyio,
        ASYNCIO: as_completed_in_asyncio,
    },
)
SCENARIOS = (CAPTURES, GATHER, AS_COMPLETED)
