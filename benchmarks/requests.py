"""Scenarios with requests in flight on one connection, and with shared work: FutureMap and SingleFlight."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aioresult
import trio

import triores

from .measuring import AIORESULT, ASYNCIO, BY_HAND, TRIORES, Clock, Scenario
from .slots import Slot

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CALLERS = 100  # how many tasks make requests, each of them one after another


# ---- registered, settled, read and removed right away, so that only the map itself is measured


async def entries_in_triores(n: int, clock: Clock) -> None:
    total = 0
    requests = triores.FutureMap[int, int]()
    with clock:
        for key in range(n):
            with requests.expect(key) as answer:
                requests.set_result(key, 1)
                total += answer.result()
    assert total == n
    assert not requests


async def entries_by_hand(n: int, clock: Clock) -> None:
    total = 0
    requests: dict[int, Slot] = {}
    with clock:
        for key in range(n):
            slot = requests[key] = Slot()
            try:
                waiting = requests.get(key)
                if waiting is not None:
                    waiting.value = 1
                    waiting.event.set()
                total += slot.value
            finally:
                del requests[key]
    assert total == n
    assert not requests


# ---- a reader task that answers a hundred callers


async def answers_in_triores(n: int, clock: Clock) -> None:
    requests = triores.FutureMap[int, int]()
    sent: list[int] = []
    total = 0

    async def call(caller: int) -> None:
        nonlocal total
        for key in range(caller, n, CALLERS):
            with requests.expect(key) as answer:
                sent.append(key)
                value = await answer
                total += value

    with clock:
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(call, caller)
            left = n
            with requests:
                while left:
                    await trio.lowlevel.checkpoint()
                    for key in sent:
                        requests.set_result(key, 1)
                    left -= len(sent)
                    sent.clear()
    assert total == n


async def answers_by_hand(n: int, clock: Clock) -> None:
    requests: dict[int, Slot] = {}
    sent: list[int] = []
    total = 0

    async def call(caller: int) -> None:
        nonlocal total
        for key in range(caller, n, CALLERS):
            slot = requests[key] = Slot()
            try:
                sent.append(key)
                await slot.event.wait()
                total += slot.value
            finally:
                del requests[key]

    with clock:
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(call, caller)
            left = n
            while left:
                await trio.lowlevel.checkpoint()
                for key in sent:
                    waiting = requests.get(key)
                    if waiting is not None:
                        waiting.value = 1
                        waiting.event.set()
                left -= len(sent)
                sent.clear()
    assert total == n


async def answers_in_aioresult(n: int, clock: Clock) -> None:
    """Use a dictionary of aioresult's futures."""
    requests: dict[int, aioresult.Future[int]] = {}
    sent: list[int] = []
    total = 0

    async def call(caller: int) -> None:
        nonlocal total
        for key in range(caller, n, CALLERS):
            answer = requests[key] = aioresult.Future()
            try:
                sent.append(key)
                await answer.wait_done()
                total += answer.result()
            finally:
                del requests[key]

    with clock:
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(call, caller)
            left = n
            while left:
                await trio.lowlevel.checkpoint()
                for key in sent:
                    waiting = requests.get(key)
                    if waiting is not None and not waiting.is_done():
                        waiting.set_result(1)
                left -= len(sent)
                sent.clear()
    assert total == n


async def answers_in_asyncio(n: int, clock: Clock) -> None:
    """Use a dictionary of asyncio's futures."""
    requests: dict[int, asyncio.Future[int]] = {}
    sent: list[int] = []
    total = 0

    async def call(caller: int) -> None:
        nonlocal total
        for key in range(caller, n, CALLERS):
            answer = requests[key] = asyncio.get_running_loop().create_future()
            try:
                sent.append(key)
                value = await answer
                total += value
            finally:
                del requests[key]

    with clock:
        async with asyncio.TaskGroup() as group:
            for caller in range(CALLERS):
                group.create_task(call(caller))
            left = n
            while left:
                await asyncio.sleep(0)
                for key in sent:
                    waiting = requests.get(key)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(1)
                left -= len(sent)
                sent.clear()
    assert total == n


# ---- all in flight at once: all registered, then all settled, then all removed


async def in_flight_in_triores(n: int, clock: Clock) -> None:
    total = 0
    requests = triores.FutureMap[int, int]()
    with clock:
        blocks: list[AbstractContextManager[triores.Future[int]]] = [requests.expect(key) for key in range(n)]
        answers = [block.__enter__() for block in blocks]
        for key in range(n):
            requests.set_result(key, 1)
        for block, answer in zip(blocks, answers, strict=True):
            total += answer.result()
            block.__exit__(None, None, None)
    assert total == n
    assert not requests


async def in_flight_by_hand(n: int, clock: Clock) -> None:
    total = 0
    requests: dict[int, Slot] = {}
    with clock:
        for key in range(n):
            requests[key] = Slot()
        slots = list(requests.values())
        for key in range(n):
            waiting = requests.get(key)
            if waiting is not None:
                waiting.value = 1
                waiting.event.set()
        for key, slot in enumerate(slots):
            total += slot.value
            del requests[key]
    assert total == n
    assert not requests


# ---- calls that nobody shares: what SingleFlight adds to the cost of a call


async def answer() -> int:
    await trio.lowlevel.checkpoint()
    return 1


async def lone_calls_in_triores(n: int, clock: Clock) -> None:
    total = 0
    async with triores.SingleFlight[int, int]() as flights:
        with clock:
            for key in range(n):
                total += await flights.run(key, answer)
    assert total == n


async def lone_calls_by_hand(n: int, clock: Clock) -> None:
    """Just make the calls."""
    total = 0
    with clock:
        for _ in range(n):
            total += await answer()
    assert total == n


ENTRIES = Scenario(
    "FutureMap: registered, settled, read, removed",
    10_000,
    {TRIORES: entries_in_triores, BY_HAND: entries_by_hand},
)
ANSWERS = Scenario(
    "FutureMap: a reader task answers 100 callers",
    10_000,
    {
        TRIORES: answers_in_triores,
        BY_HAND: answers_by_hand,
        AIORESULT: answers_in_aioresult,
        ASYNCIO: answers_in_asyncio,
    },
)
IN_FLIGHT = Scenario(
    "FutureMap: all in flight at once",
    10_000,
    {TRIORES: in_flight_in_triores, BY_HAND: in_flight_by_hand},
    growth=True,
)
LONE_CALLS = Scenario(
    "SingleFlight: calls that share with nobody",
    10_000,
    {TRIORES: lone_calls_in_triores, BY_HAND: lone_calls_by_hand},
)
SCENARIOS = (ENTRIES, ANSWERS, IN_FLIGHT, LONE_CALLS)
