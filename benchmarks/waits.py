"""Scenarios with futures that one task settles and other tasks wait for."""

# trio_util has no type hints:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aioresult
import anyio
import trio
import trio_util  # type: ignore[import-untyped]  # trio_util has no type hints
from trio.testing import wait_all_tasks_blocked

import triores

from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, TRIO_UTIL, TRIORES, Clock, Scenario
from .slots import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

WAITERS = 100  # how many tasks wait for futures, each of them one after another


# ---- a future set by one task, awaited by another


async def futures_in_triores(n: int, clock: Clock) -> None:
    """Use calls that aioresult has too, and that take no more Python code than the hand-written event."""
    inbox: list[triores.Future[int]] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            future: triores.Future[int] = triores.Future()  # `Future[int]()` would be slower, for all contenders
            inbox.append(future)
            await future.wait_done()
            total += future.result()

    def settle() -> None:
        for future in inbox:
            future.set_result(1)

    await _settled_in_turn(n, clock, inbox, wait, settle)
    assert total == n


async def awaited_futures_in_triores(n: int, clock: Clock) -> None:
    inbox: list[triores.Future[int]] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            future: triores.Future[int] = triores.Future()
            inbox.append(future)
            value = await future
            total += value

    def settle() -> None:
        for future in inbox:
            future.set_result(1)

    await _settled_in_turn(n, clock, inbox, wait, settle)
    assert total == n


async def futures_by_hand(n: int, clock: Clock) -> None:
    inbox: list[Slot] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            slot = Slot()
            inbox.append(slot)
            await slot.event.wait()
            total += slot.value

    def settle() -> None:
        for slot in inbox:
            slot.value = 1
            slot.event.set()

    await _settled_in_turn(n, clock, inbox, wait, settle)
    assert total == n


async def futures_in_aioresult(n: int, clock: Clock) -> None:
    inbox: list[aioresult.Future[int]] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            future: aioresult.Future[int] = aioresult.Future()
            inbox.append(future)
            await future.wait_done()
            total += future.result()

    def settle() -> None:
        for future in inbox:
            future.set_result(1)

    await _settled_in_turn(n, clock, inbox, wait, settle)
    assert total == n


async def futures_in_anyio(n: int, clock: Clock) -> None:
    inbox: list[anyio.Future[int]] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            future: anyio.Future[int] = anyio.Future()
            inbox.append(future)
            value = await future
            total += value

    def settle() -> None:
        for future in inbox:
            future.return_value = 1

    await _settled_in_turn(n, clock, inbox, wait, settle)
    assert total == n


async def _settled_in_turn(
    n: int, clock: Clock, inbox: list[Any], wait: Callable[[], Awaitable[None]], settle: Callable[[], None]
) -> None:
    with clock:
        async with trio.open_nursery() as nursery:
            for _ in range(WAITERS):
                nursery.start_soon(wait)
            left = n - n % WAITERS
            while left:
                await trio.lowlevel.checkpoint()
                settle()
                left -= len(inbox)
                inbox.clear()


async def futures_in_asyncio(n: int, clock: Clock) -> None:
    inbox: list[asyncio.Future[int]] = []
    total = 0

    async def wait() -> None:
        nonlocal total
        for _ in range(n // WAITERS):
            future = asyncio.get_running_loop().create_future()
            inbox.append(future)
            value = await future
            total += value

    with clock:
        async with asyncio.TaskGroup() as group:
            for _ in range(WAITERS):
                group.create_task(wait())
            left = n - n % WAITERS
            while left:
                await asyncio.sleep(0)
                for future in inbox:
                    future.set_result(1)
                left -= len(inbox)
                inbox.clear()
    assert total == n


# ---- wait_any: all are pending, then one is set


async def wait_any_in_triores(n: int, clock: Clock) -> None:
    futures: list[triores.Future[int]] = [triores.Future() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, futures[n // 2].set_result, 1)
        with clock:
            first = await triores.wait_any(futures)
    assert first is futures[n // 2]


async def wait_any_by_hand(n: int, clock: Clock) -> None:
    """Start a task for each event."""
    slots = [Slot() for _ in range(n)]
    first = None

    async def wait(slot: Slot) -> None:
        nonlocal first
        await slot.event.wait()
        if first is None:
            first = slot
        waiters.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, slots[n // 2].put, 1)
        with clock:
            async with trio.open_nursery() as waiters:
                for slot in slots:
                    waiters.start_soon(wait, slot)
    assert first is slots[n // 2]


async def wait_any_in_aioresult(n: int, clock: Clock) -> None:
    futures: list[aioresult.Future[int]] = [aioresult.Future() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, futures[n // 2].set_result, 1)
        with clock:
            first = await aioresult.wait_any(futures)
    assert first is futures[n // 2]


async def wait_any_in_trio_util(n: int, clock: Clock) -> None:
    """trio_util waits for async functions, and doesn't say which of them was the first to end."""
    slots = [Slot() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, slots[n // 2].put, 1)
        with clock:
            await trio_util.wait_any(*[slot.event.wait for slot in slots])
    assert slots[n // 2].value == 1


async def wait_any_in_asyncio(n: int, clock: Clock) -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(n)]
    asyncio.get_running_loop().call_soon(futures[n // 2].set_result, 1)
    with clock:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    assert done == {futures[n // 2]}


# ---- wait_all: all are done


async def wait_all_done_in_triores(n: int, clock: Clock) -> None:
    futures: list[triores.Future[int]] = [triores.Future() for _ in range(n)]
    _set_all(futures)
    with clock:
        await triores.wait_all(futures)


async def wait_all_done_by_hand(n: int, clock: Clock) -> None:
    slots = [Slot() for _ in range(n)]
    _put_all(slots)
    with clock:
        for slot in slots:
            await slot.event.wait()


async def wait_all_done_in_aioresult(n: int, clock: Clock) -> None:
    futures: list[aioresult.Future[int]] = [aioresult.Future() for _ in range(n)]
    _set_all(futures)
    with clock:
        await aioresult.wait_all(futures)


async def wait_all_done_in_trio_util(n: int, clock: Clock) -> None:
    slots = [Slot() for _ in range(n)]
    _put_all(slots)
    with clock:
        await trio_util.wait_all(*[slot.event.wait for slot in slots])


async def wait_all_done_in_asyncio(n: int, clock: Clock) -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(n)]
    _set_all(futures)
    with clock:
        await asyncio.wait(futures)


# ---- wait_all: all are pending, then all are set


async def wait_all_in_triores(n: int, clock: Clock) -> None:
    futures: list[triores.Future[int]] = [triores.Future() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _set_all, futures)
        with clock:
            await triores.wait_all(futures)
    assert all(future.is_done() for future in futures)


async def wait_all_by_hand(n: int, clock: Clock) -> None:
    slots = [Slot() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _put_all, slots)
        with clock:
            for slot in slots:
                await slot.event.wait()


async def wait_all_in_aioresult(n: int, clock: Clock) -> None:
    futures: list[aioresult.Future[int]] = [aioresult.Future() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _set_all, futures)
        with clock:
            await aioresult.wait_all(futures)
    assert all(future.is_done() for future in futures)


async def wait_all_in_trio_util(n: int, clock: Clock) -> None:
    slots = [Slot() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _put_all, slots)
        with clock:
            await trio_util.wait_all(*[slot.event.wait for slot in slots])


async def wait_all_in_asyncio(n: int, clock: Clock) -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(n)]
    asyncio.get_running_loop().call_soon(_set_all, futures)
    with clock:
        await asyncio.wait(futures)


# ---- as_completed over futures: all are pending, then all are set


async def as_completed_in_triores(n: int, clock: Clock) -> None:
    futures: list[triores.Future[int]] = [triores.Future() for _ in range(n)]
    total = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _set_all, futures)
        with clock:
            async for future in triores.as_completed(futures):
                total += future.result()
    assert total == n


async def as_completed_in_asyncio(n: int, clock: Clock) -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(n)]
    total = 0
    asyncio.get_running_loop().call_soon(_set_all, futures)
    with clock:
        for next_one in asyncio.as_completed(futures):
            total += await next_one
    assert total == n


# ---- results_to_channel: all are pending, then all are set


async def channel_in_triores(n: int, clock: Clock) -> None:
    futures: list[triores.Future[int]] = [triores.Future() for _ in range(n)]
    send, receive = trio.open_memory_channel[triores.Future[int]](1)
    total = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _set_all, futures)
        with clock:
            nursery.start_soon(triores.results_to_channel, futures, send)
            async for future in receive:
                total += future.result()
    assert total == n


async def channel_by_hand(n: int, clock: Clock) -> None:
    slots = [Slot() for _ in range(n)]
    send, receive = trio.open_memory_channel[Slot](1)
    total = 0

    async def wait(slot: Slot) -> None:
        await slot.event.wait()
        await send.send(slot)

    async def wait_for_each() -> None:
        with send:
            async with trio.open_nursery() as waiters:
                for slot in slots:
                    waiters.start_soon(wait, slot)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _put_all, slots)
        with clock:
            nursery.start_soon(wait_for_each)
            async for slot in receive:
                total += slot.value
    assert total == n


async def channel_in_aioresult(n: int, clock: Clock) -> None:
    futures: list[aioresult.Future[int]] = [aioresult.Future() for _ in range(n)]
    send, receive = trio.open_memory_channel[aioresult.ResultBase[int]](1)
    total = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_once_all_wait, _set_all, futures)
        with clock:
            nursery.start_soon(aioresult.results_to_channel, futures, send)
            async for future in receive:
                total += future.result()
    assert total == n


async def _once_all_wait(fn: Callable[[Any], object], argument: object) -> None:
    await wait_all_tasks_blocked()
    fn(argument)


def _set_all(futures: Iterable[triores.Future[int] | aioresult.Future[int] | asyncio.Future[int]]) -> None:
    for future in futures:
        future.set_result(1)


def _put_all(slots: Iterable[Slot]) -> None:
    for slot in slots:
        slot.value = 1
        slot.event.set()


FUTURES = Scenario(
    "future set by one task, awaited by another",
    10_000,
    {
        TRIORES: futures_in_triores,
        BY_HAND: futures_by_hand,
        AIORESULT: futures_in_aioresult,
        ANYIO: futures_in_anyio,
        ASYNCIO: futures_in_asyncio,
    },
)
AWAITED_FUTURES = Scenario(
    "the same by 'await future'",
    10_000,
    {
        TRIORES: awaited_futures_in_triores,
        BY_HAND: futures_by_hand,
        AIORESULT: futures_in_aioresult,
        ANYIO: futures_in_anyio,
        ASYNCIO: futures_in_asyncio,
    },
)
WAIT_ANY = Scenario(
    "wait_any, pending, then one is set",
    10_000,
    {
        TRIORES: wait_any_in_triores,
        BY_HAND: wait_any_by_hand,
        AIORESULT: wait_any_in_aioresult,
        TRIO_UTIL: wait_any_in_trio_util,
        ASYNCIO: wait_any_in_asyncio,
    },
    growth=True,
    large=(TRIORES, ASYNCIO),
)
WAIT_ALL_DONE = Scenario(
    "wait_all, done",
    10_000,
    {
        TRIORES: wait_all_done_in_triores,
        BY_HAND: wait_all_done_by_hand,
        AIORESULT: wait_all_done_in_aioresult,
        TRIO_UTIL: wait_all_done_in_trio_util,
        ASYNCIO: wait_all_done_in_asyncio,
    },
    growth=True,
)
WAIT_ALL = Scenario(
    "wait_all, pending, then all are set",
    10_000,
    {
        TRIORES: wait_all_in_triores,
        BY_HAND: wait_all_by_hand,
        AIORESULT: wait_all_in_aioresult,
        TRIO_UTIL: wait_all_in_trio_util,
        ASYNCIO: wait_all_in_asyncio,
    },
    growth=True,
)
AS_COMPLETED = Scenario(
    "as_completed, pending, then all are set",
    10_000,
    {TRIORES: as_completed_in_triores, ASYNCIO: as_completed_in_asyncio},
    growth=True,
    large=(TRIORES, ASYNCIO),
)
CHANNEL = Scenario(
    "results_to_channel, pending, then all are set",
    10_000,
    {TRIORES: channel_in_triores, BY_HAND: channel_by_hand, AIORESULT: channel_in_aioresult},
    growth=True,
    large=(TRIORES,),
)
SCENARIOS = (FUTURES, AWAITED_FUTURES, WAIT_ANY, WAIT_ALL_DONE, WAIT_ALL, AS_COMPLETED, CHANNEL)
