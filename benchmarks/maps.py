"""Scenarios that call one function for many items, with a limit: amap and open_amap, compared with worker pools."""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
import trio

import triores

from .measuring import ANYIO, ASYNCIO, BY_HAND, TRIORES, Clock, Scenario, Series
from .tasks import work, work_on_asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = 100


async def return_at_once(item: int) -> int:
    """Return without waiting, so that only the map itself is measured."""
    return item


# ---- amap


async def amap_in_triores(fn: Callable[[int], Awaitable[int]], n: int, clock: Clock) -> None:
    with clock:
        values = await triores.amap(fn, range(n), limit=LIMIT)
    assert values == list(range(n))


async def amap_by_hand(fn: Callable[[int], Awaitable[int]], n: int, clock: Clock) -> None:
    with clock:
        values = [-1] * n
        source = enumerate(range(n))

        async def worker() -> None:
            for index, item in source:
                values[index] = await fn(item)

        async with trio.open_nursery() as nursery:
            for _ in range(LIMIT):
                nursery.start_soon(worker)
    assert values == list(range(n))


async def amap_in_anyio(n: int, clock: Clock) -> None:
    """Start a task for each item, as anyio does: its amap takes no limit."""
    with clock:
        values = await anyio.amap(work, range(n))
    assert values == list(range(n))


async def amap_in_asyncio(n: int, clock: Clock) -> None:
    """Use the same pool of workers as by hand, since asyncio has no such call."""
    with clock:
        values = [-1] * n
        source = enumerate(range(n))

        async def worker() -> None:
            for index, item in source:
                values[index] = await work_on_asyncio(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(LIMIT):
                group.create_task(worker())
    assert values == list(range(n))


# ---- open_amap


async def open_amap_in_triores(n: int, clock: Clock, *, ordered: bool = False) -> None:
    total = 0
    with clock:
        async with triores.open_amap(work, range(n), limit=LIMIT, ordered=ordered) as captures:
            async for capture in captures:
                total += capture.result()
    assert total == n * (n - 1) // 2


async def open_amap_by_hand(n: int, clock: Clock) -> None:
    """Have workers send to an unbuffered channel, so that each of them holds at most one item."""
    total = 0
    with clock:
        source = iter(range(n))
        send, receive = trio.open_memory_channel[int](0)

        async def worker(send: trio.MemorySendChannel[int]) -> None:
            with send:
                for item in source:
                    await send.send(await work(item))

        async with trio.open_nursery() as nursery:
            with send:
                for _ in range(LIMIT):
                    nursery.start_soon(worker, send.clone())
            async for value in receive:
                total += value
    assert total == n * (n - 1) // 2


async def open_amap_of_a_generator(n: int, clock: Clock) -> None:
    total = 0
    with clock:
        async with triores.open_amap(work, (item for item in range(n)), limit=LIMIT) as captures:
            async for capture in captures:
                total += capture.result()
    assert total == n * (n - 1) // 2


async def generator_by_hand(n: int, clock: Clock) -> None:
    """Have one task read the generator for the workers, since a scope around a ``yield`` belongs to a single task."""
    total = 0
    with clock:
        send_item, receive_item = trio.open_memory_channel[int](0)
        send, receive = trio.open_memory_channel[int](0)

        async def read() -> None:
            with send_item:
                for item in (item for item in range(n)):
                    await send_item.send(item)

        async def worker(send: trio.MemorySendChannel[int], items: trio.MemoryReceiveChannel[int]) -> None:
            with send, items:
                async for item in items:
                    await send.send(await work(item))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with send, receive_item:
                for _ in range(LIMIT):
                    nursery.start_soon(worker, send.clone(), receive_item.clone())
            async for value in receive:
                total += value
    assert total == n * (n - 1) // 2


# ---- turns of other tasks


TURN = "longest time that another task waits for its turn, during amap of a function that never waits"
TURNS = {f"{TURN}, {text}": limit for text, limit in {"limit 1": 1, "limit 100": 100, "no limit": None}.items()}


def measure_turns(calls: int, rounds: int) -> list[Series]:
    """Measure how many seconds, at most, a map whose calls never wait keeps another task from running."""
    return [
        Series(name, TRIORES, 1, [trio.run(_longest_wait, limit, calls) for _ in range(rounds)])
        for name, limit in TURNS.items()
    ]


async def _longest_wait(limit: int | None, calls: int) -> float:
    longest = 0.0

    async def wait_for_turns() -> None:
        nonlocal longest
        while True:
            began = perf_counter()
            await trio.lowlevel.checkpoint()
            longest = max(longest, perf_counter() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_turns)
        await triores.amap(return_at_once, range(calls), limit=limit)
        nursery.cancel_scope.cancel()
    return longest


AMAP = Scenario(
    "amap, limit 100",
    20_000,
    {
        TRIORES: partial(amap_in_triores, work),
        BY_HAND: partial(amap_by_hand, work),
        ANYIO: amap_in_anyio,
        ASYNCIO: amap_in_asyncio,
    },
)
AMAP_AT_ONCE = Scenario(
    "amap, limit 100, of a function that never waits",
    20_000,
    {TRIORES: partial(amap_in_triores, return_at_once), BY_HAND: partial(amap_by_hand, return_at_once)},
)
OPEN_AMAP = Scenario(
    "open_amap, limit 100", 20_000, {TRIORES: open_amap_in_triores, BY_HAND: open_amap_by_hand}, growth=True
)
OPEN_AMAP_ORDERED = Scenario(
    "open_amap, limit 100, ordered", 20_000, {TRIORES: partial(open_amap_in_triores, ordered=True)}
)
OPEN_AMAP_OF_A_GENERATOR = Scenario(
    "open_amap, limit 100, of a generator",
    20_000,
    {TRIORES: open_amap_of_a_generator, BY_HAND: generator_by_hand},
)
SCENARIOS = (AMAP, AMAP_AT_ONCE, OPEN_AMAP, OPEN_AMAP_ORDERED, OPEN_AMAP_OF_A_GENERATOR)
