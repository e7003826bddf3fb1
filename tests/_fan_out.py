"""Helpers for the tests of the fan-out calls."""

from __future__ import annotations

import contextvars
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from _helpers import Boom
from trio.testing import wait_all_tasks_blocked

from triores import ItemCapture, amap, first_success, gather, gather_outcomes, open_amap, race

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterable

Fn = Any  # an async function without arguments
Call = Any  # a function that runs several of them at once

needs_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are new in Python 3.11")
variable = contextvars.ContextVar("variable", default="unset")


class Other(Exception):
    """A second exception, raised after `Boom` or because of a cancellation."""


async def returns(value: Any, after: float = 1) -> Any:
    await trio.sleep(after)
    return value


async def fails(after: float = 1, kind: type[BaseException] = Boom) -> Any:
    await trio.sleep(after)
    raise kind


async def fails_when_cancelled(kind: type[BaseException] = Other) -> Any:
    try:
        await trio.sleep_forever()
    finally:
        raise kind


async def mixes_failure_and_cancellation() -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fails_when_cancelled)


async def at_once(value: Any = None) -> Any:
    return value


def call_it(fn: Fn) -> Any:
    return fn()


async def map_them(*fns: Fn) -> Any:
    return await amap(call_it, fns)


async def map_them_from_an_async_source(*fns: Fn) -> Any:
    return await amap(call_it, source_of(fns))


async def stream_them(*fns: Fn) -> Any:
    return [capture.result() for capture in await streamed(call_it, fns, limit=len(fns) or 1)]


async def stream_them_in_order_from_an_async_source(*fns: Fn) -> Any:
    captures = await streamed(call_it, source_of(fns), limit=len(fns) or 1, ordered=True)
    return [capture.result() for capture in captures]


async def stagger_them(*fns: Fn) -> Any:
    return await first_success(*fns, stagger=0)


async def streamed(fn: Any, items: Any, **options: Any) -> list[ItemCapture[Any, Any]]:
    async with open_amap(fn, items, **options) as results:
        return [capture async for capture in results]


async def source_of(items: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for item in items:
        await trio.lowlevel.checkpoint()
        yield item


def named(*calls: Call) -> list[Any]:
    return [pytest.param(call, id=call.__name__) for call in calls]


MAPS = [map_them, map_them_from_an_async_source, stream_them, stream_them_in_order_from_an_async_source]
CALLS = [gather, gather_outcomes, race, first_success, stagger_them, *MAPS]
each_call = pytest.mark.parametrize("call", named(*CALLS))
each_call_of_functions = pytest.mark.parametrize("call", named(gather, gather_outcomes, race, first_success))
# The calls that raise an exception as soon as one function fails.
each_strict_call = pytest.mark.parametrize("call", named(gather, race, *MAPS))


async def error_of(awaitable: Awaitable[object]) -> BaseException:
    """The exception that the call raises. It must leave no task running."""
    task = trio.lowlevel.current_task()
    nurseries = list(task.child_nurseries)
    try:
        await awaitable
    except BaseException as error:
        assert task.child_nurseries == nurseries
        return error
    raise AssertionError("the call raised nothing")


async def group_of(awaitable: Awaitable[object]) -> BaseExceptionGroup[BaseException]:
    """The exception group that the call raises."""
    error = await error_of(awaitable)
    assert isinstance(error, BaseExceptionGroup)

    return cast("Any", error)  # type: ignore[no-any-return]  # type checkers don't know what is in the group


async def never_called() -> None:
    raise AssertionError


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()
