"""Scenarios for the cost of the check for cycles of waits: the same calls with and without the check."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

import triores
from triores import _cycles

from .measuring import TRIORES, UNCHECKED, Clock, Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def work() -> None:
    """What the tasks that are waited for do: run one checkpoint."""
    await trio.lowlevel.checkpoint()


async def captures(n: int, clock: Clock) -> None:
    with clock:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                triores.ResultCapture.start_soon(nursery, work)


async def pending_captures(n: int, clock: Clock) -> None:
    """Wait for one sleeping task after another."""
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            ended = trio.Event()
            capture = triores.ResultCapture.start_soon(nursery, ended.wait)
            await trio.lowlevel.checkpoint()
            with clock:
                nursery.start_soon(_set, ended)
                await capture.wait_done()


async def _set(event: trio.Event) -> None:
    event.set()


async def wait_all_of_ten(n: int, clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            ended = trio.Event()
            some = [triores.ResultCapture.start_soon(nursery, ended.wait) for _ in range(10)]
            await trio.lowlevel.checkpoint()
            with clock:
                nursery.start_soon(_set, ended)
                await triores.wait_all(some)


async def chain(n: int, clock: Clock) -> None:
    """Start tasks that each wait for the one before: the search checks 32 of them, again and again."""

    async def wait(result: triores.ResultBase[None]) -> None:
        await result.wait_done()

    first = triores.Future[None]()
    last: triores.ResultBase[None] = first
    with clock:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                last = triores.ResultCapture.start_soon(nursery, wait, last)
                await trio.lowlevel.checkpoint()
            first.set_result(None)
    assert last.is_done()


async def _checked(contender: Callable[..., Awaitable[None]], enabled: bool, n: int, clock: Clock) -> None:
    before = _cycles.enabled
    _cycles.enabled = enabled
    try:
        await contender(n, clock)
    finally:
        _cycles.enabled = before


def _scenario(name: str, contender: Callable[..., Awaitable[None]], results: int) -> Scenario:
    contenders: dict[str, Any] = {
        TRIORES: partial(_checked, contender, True),
        UNCHECKED: partial(_checked, contender, False),
    }
    return Scenario(name, results, contenders)


CAPTURES = _scenario("check: captured tasks, nobody waits", captures, 10_000)
PENDING = _scenario("check: a wait for a pending capture", pending_captures, 10_000)
WAIT_ALL = _scenario("check: wait_all of ten pending captures", wait_all_of_ten, 2_000)
CHAIN = _scenario("check: a chain of blocked tasks", chain, 400)
SCENARIOS = (CAPTURES, PENDING, WAIT_ALL, CHAIN)
