"""With the garbage collector off, repeated use takes no more memory each time: no leaks, and no reference cycles."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import SOAK, Boom, is_free

from triores import (
    Future,
    FutureMap,
    ResultCapture,
    SingleFlight,
    amap,
    as_completed,
    first_success,
    gather,
    gather_outcomes,
    open_amap,
    race,
    results_to_channel,
    run_in_executor,
    start_from_thread,
    to_concurrent_future,
    wait_all,
    wait_any,
    wrap_future,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython counts the memory blocks it has allocated"
)

TIMES = 10_000
FEWER = 10_000 if SOAK else 1_000  # for tests that take longer


async def check_no_growth(use: Callable[[], Awaitable[object]], times: int = TIMES) -> None:
    """Call ``use`` many times with the garbage collector off, and check that it leaks no memory."""
    for _ in range(30):  # to fill all caches
        await use()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(times):
            await use()
        # The interpreter's own caches may take some blocks.
        assert sys.getallocatedblocks() - before < 600 + times / 10
    finally:
        gc.enable()


async def cancelled(fn: Callable[..., Awaitable[object]], *args: object) -> None:
    """Make a call that is cancelled at its first checkpoint."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await fn(*args)
    assert scope.cancelled_caught


async def drain(results: list[Future[int]]) -> None:
    async for _ in as_completed(results):
        pass


async def test_cancelled_waits_for_the_same_results_leak_nothing() -> None:
    futures = [Future[int]() for _ in range(3)]

    async def use() -> None:
        for wait in (wait_all, wait_any, drain):
            await cancelled(wait, futures)
        await cancelled(futures[0].wait_done)

    await check_no_growth(use, TIMES // 4)  # four waits each
    assert all(map(is_free, futures))


async def test_cancelled_waits_leak_nothing_while_other_waits_continue(nursery: trio.Nursery) -> None:
    futures = [Future[int]() for _ in range(2)]
    nursery.start_soon(wait_all, futures)
    nursery.start_soon(futures[0].wait_done)
    await trio.testing.wait_all_tasks_blocked()

    async def use() -> None:
        await cancelled(wait_any, futures)
        await cancelled(futures[0].wait_done)

    await check_no_growth(use, FEWER // 2)
    nursery.cancel_scope.cancel()


async def test_removed_callbacks_leak_nothing() -> None:
    future = Future[int]()

    async def use() -> None:
        callback = list[object]().append
        future.add_done_callback(callback)
        assert future.remove_done_callback(callback) == 1

    await check_no_growth(use)
    assert is_free(future)


async def fail() -> int:
    raise Boom


@pytest.mark.leaves_results
async def test_failed_captures_leak_nothing() -> None:
    async def use() -> None:
        with contextlib.suppress(BaseExceptionGroup):
            async with trio.open_nursery() as nursery:
                for scope in (None, trio.CancelScope()):
                    ResultCapture.start_soon(nursery, fail, cancel_scope=scope)
                    ResultCapture.start_soon(nursery, fail, suppress_exception=True)
                    nursery.start_soon(ResultCapture(fail).run)

    await check_no_growth(use, TIMES // 6)  # six captures each


async def read_failure(futures: list[Future[int]]) -> None:
    """Read in a frame that doesn't refer to the future, since the exception keeps the frames that it passes through."""
    with contextlib.suppress(Exception):
        await futures.pop()


async def test_failed_futures_leak_nothing() -> None:
    async def use() -> None:
        for end in ((None, None, None), (Boom, Boom(), None)):
            future = Future[int]()
            await cancelled(future.wait_done)
            # Called directly: in a `with` block, the exception would keep this frame, which refers to the future.
            future.must_set().__exit__(*end)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_failure, [future])

    await check_no_growth(use, FEWER)


async def test_flights_leak_nothing_whether_they_succeed_fail_or_are_abandoned() -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, Any](nursery)

        async def use() -> None:
            await flights.run("a", trio.lowlevel.checkpoint)
            with contextlib.suppress(Boom):
                await flights.run("a", fail)
            await cancelled(flights.run, "a", trio.sleep_forever)
            await trio.lowlevel.checkpoint()

        await check_no_growth(use, TIMES // 3)  # three flights each
        assert repr(flights) == "SingleFlight(in_flight=0)"


async def test_requests_leak_nothing_whether_they_are_answered_fail_or_are_abandoned() -> None:
    requests = FutureMap[str, int]()

    async def use() -> None:
        with requests.expect("a") as future:
            requests.set_result("a", 1)
            await future
        with requests.expect("a") as future:
            requests.set_exception("a", Boom())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_failure, [future])
        with requests.expect("a") as future:
            await cancelled(future.wait_done)

    await check_no_growth(use, FEWER)
    assert not requests


async def test_readers_that_end_leak_nothing() -> None:
    async def use() -> None:
        requests = FutureMap[str, int]()
        with requests.expect("a") as future:
            with requests:
                pass
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_failure, [future])
        with contextlib.suppress(Exception), requests.expect("b"):
            pass

    await check_no_growth(use, FEWER)


async def failing_source() -> AsyncIterator[int]:
    yield 1
    raise Boom


async def test_failed_and_cancelled_fan_out_leaks_nothing() -> None:
    async def stream() -> None:
        async with open_amap(lambda _: fail(), range(3), limit=2) as results:
            async for _ in results:
                pass

    async def leave_early() -> None:
        async with open_amap(lambda _: trio.lowlevel.checkpoint(), range(3), limit=2) as results:
            async for _ in results:
                break

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: gather(fail, trio.sleep_forever),
        lambda: gather_outcomes(fail, fail),
        lambda: race(fail, trio.sleep_forever),
        lambda: first_success(fail, fail),
        lambda: amap(lambda _: fail(), range(3)),
        lambda: amap(lambda _: trio.sleep_forever(), failing_source()),
        stream,
        leave_early,
    ]

    async def use() -> None:
        for call in calls:
            with contextlib.suppress(BaseExceptionGroup):
                await call()
        for call in calls:
            await cancelled(call)

    await check_no_growth(use, FEWER // 10)


async def test_the_memory_of_open_amap_does_not_grow_with_the_number_of_items() -> None:
    async def consume(count: int) -> int:
        tracemalloc.reset_peak()
        async with open_amap(
            lambda _: trio.lowlevel.checkpoint(), (bytes(100) for _ in range(count)), limit=10
        ) as results:
            async for _ in results:
                pass
        return tracemalloc.get_traced_memory()[1]

    gc.collect()
    gc.disable()  # so that garbage in reference cycles counts
    tracemalloc.start()
    try:
        await consume(50)
        few = await consume(50)
        assert await consume(1000) < few + 20_000, "bytes"
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_closed_channels_leak_nothing() -> None:
    done = Future[int]()
    done.set_result(1)
    futures = [done, Future[int]()]

    async def use() -> None:
        send, receive = trio.open_memory_channel[Future[int]](0)
        receive.close()
        await results_to_channel(futures, send)
        await cancelled(results_to_channel, futures, send)

    await check_no_growth(use, FEWER)
    assert is_free(futures[1])


class AtOnce(concurrent.futures.Executor):
    """An executor that runs each call inside ``submit``."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future = concurrent.futures.Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Boom as error:
            future.set_exception(error.with_traceback(None))  # its frames refer to the future
        return future


def fail_at_once() -> int:
    raise Boom


async def test_bridges_leak_nothing_whether_their_futures_fail_or_are_cancelled() -> None:
    executor = AtOnce()

    async def use() -> None:
        with contextlib.suppress(Boom):
            await run_in_executor(executor, fail_at_once)
        theirs = concurrent.futures.Future[int]()
        ours = wrap_future(theirs)
        theirs.set_exception(Boom())
        await ours.wait_done()
        wrap_future(concurrent.futures.Future[int]()).cancel()
        await trio.lowlevel.checkpoint()
        handed_out = to_concurrent_future(ours)
        assert handed_out.done()
        pending = Future[int]()
        assert to_concurrent_future(pending).cancel()
        await pending.wait_done()
        async with trio.open_nursery() as nursery:
            start_from_thread(nursery, fail)
            start_from_thread(nursery, trio.sleep_forever).cancel()

    await check_no_growth(use, FEWER // 5)
