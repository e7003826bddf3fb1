"""wrap_future and ensure_future, with concurrent futures; asyncio's futures are in test_foreign_asyncio."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Boom, in_foreign_run, is_free, no_cycles
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    ResultCapture,
    TaskCancelledException,
    as_completed,
    ensure_future,
    wrap_future,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

LIMIT = 20  # seconds to wait for a thread that should have been woken


class OurBaseError(BaseException):
    pass


def in_thread(fn: Callable[..., object], *args: object) -> None:
    """Call a function in another thread, and block Trio until it has returned."""
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


def here(fn: Callable[..., object], *args: object) -> None:
    fn(*args)


def cancel(source: concurrent.futures.Future[Any]) -> None:
    assert source.cancel()


# ---- wrap_future: concurrent futures


@pytest.mark.parametrize("where", [here, in_thread])
async def test_the_wrapper_gets_the_value_of_a_concurrent_future(where: Callable[..., None]) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    assert type(future) is Future
    where(source.set_result, 3)
    assert not future.is_done()  # the Trio loop settles it, after this step of the task
    assert await future == 3


@pytest.mark.parametrize("where", [here, in_thread])
@pytest.mark.parametrize("error", [Boom(), OurBaseError(), concurrent.futures.CancelledError()])
async def test_the_wrapper_gets_the_original_exception(where: Callable[..., None], error: BaseException) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    where(source.set_exception, error)
    await future.wait_done()
    assert future.exception() is error
    assert not future.cancelled()


@pytest.mark.parametrize("where", [here, in_thread])
async def test_if_the_concurrent_future_is_cancelled_so_is_the_wrapper(where: Callable[..., None]) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    where(cancel, source)
    with pytest.raises(TaskCancelledException, match=r"'the concurrent.futures.Future that it wraps was cancelled'$"):
        await future
    assert future.cancelled()


async def test_the_wrapper_of_a_done_future_is_done_at_once() -> None:
    value, failed, cancelled = (concurrent.futures.Future[int]() for _ in range(3))
    value.set_result(3)
    failed.set_exception(Boom())
    cancelled.cancel()
    assert wrap_future(value).result() == 3
    assert isinstance(wrap_future(failed).exception(), Boom)
    assert wrap_future(cancelled).cancelled()


async def test_callbacks_run_in_the_trio_thread_wherever_the_concurrent_future_was_settled() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    threads: list[int] = []
    future.add_done_callback(lambda _: threads.append(threading.get_ident()))
    in_thread(source.set_result, 3)
    await future.wait_done()
    assert threads == [threading.get_ident()]


async def test_wrappers_are_settled_in_the_order_of_the_concurrent_futures() -> None:
    sources = [concurrent.futures.Future[int]() for _ in range(20)]
    futures = [wrap_future(source) for source in sources]
    completed = as_completed(futures)

    def settle() -> None:
        for n in reversed(range(20)):
            sources[n].set_result(n)

    in_thread(settle)
    assert [future.result() async for future in completed] == list(reversed(range(20)))


async def test_cancelling_the_wrapper_cancels_the_concurrent_future() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    assert future.cancel("no longer wanted")
    assert source.cancelled()
    await wait_all_tasks_blocked()
    with pytest.raises(TaskCancelledException, match=r"'no longer wanted'$"):
        future.result()


async def test_if_the_concurrent_future_is_already_running_it_continues_and_its_result_is_dropped() -> None:
    source = concurrent.futures.Future[int]()
    source.set_running_or_notify_cancel()
    future = wrap_future(source)
    future.cancel()
    assert not source.cancelled()
    in_thread(source.set_result, 3)
    await wait_all_tasks_blocked()
    assert future.cancelled()


async def test_cancelling_a_wait_cancels_neither_future() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    with trio.move_on_after(0):
        await future
    assert not source.cancelled()
    source.set_result(3)
    assert await future == 3


async def test_settling_the_wrapper_by_hand_does_not_affect_the_concurrent_future() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    future.set_result(4)
    assert not source.cancelled()
    source.set_result(3)
    await wait_all_tasks_blocked()
    assert future.result() == 4


async def test_a_wrapper_may_be_settled_just_as_the_concurrent_future_settles_it() -> None:
    class SettlesMeanwhile(Exception):
        @property
        def __traceback__(self) -> None:  # type: ignore[override] # a property, so that reading it settles the wrapper
            if not future.is_done():
                future.set_result(3)

    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    source.set_exception(SettlesMeanwhile())
    await wait_all_tasks_blocked()
    assert future.result() == 3


def test_results_that_arrive_after_the_run_has_ended_are_dropped_silently(caplog: pytest.LogCaptureFixture) -> None:
    sources = [concurrent.futures.Future[int]() for _ in range(3)]

    async def main() -> list[Future[int]]:
        return [wrap_future(source) for source in sources]

    futures = trio.run(main)
    sources[0].set_result(3)
    in_thread(sources[1].set_exception, Boom())
    in_thread(sources[2].cancel)
    assert not any(future.is_done() for future in futures)
    assert not caplog.records


async def test_a_pending_wrapper_belongs_to_the_run_that_will_settle_it() -> None:
    future = wrap_future(concurrent.futures.Future[int]())

    async def other() -> None:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be waited for from here"):
            await future

    await in_foreign_run(other)


async def test_if_a_callback_fails_its_exception_is_logged_and_the_run_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)

    def raises(_: object) -> None:
        raise Boom

    future.add_done_callback(raises)
    source.set_result(3)
    assert await future == 3
    await wait_all_tasks_blocked()
    assert [(record.name, record.levelno) for record in caplog.records] == [("triores", logging.ERROR)]


def test_a_failed_wrapper_is_freed_without_the_garbage_collector() -> None:
    def wrapped() -> Future[int]:
        source = watch(concurrent.futures.Future[int]())
        future: Future[int] = watch(wrap_future(source))
        source.set_exception(watch(Boom()))
        return future

    async def main() -> None:
        with pytest.raises(Boom):
            await wrapped()

    with no_cycles() as watch:
        trio.run(main)


@pytest.mark.parametrize("wrong", [3, None, "x"])
async def test_wrap_future_takes_only_futures(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"^wrap_future takes .*, not {wrong!r}; "):
        wrap_future(wrong)


async def test_wrap_future_returns_a_result_unchanged(nursery: trio.Nursery) -> None:
    future = Future[int]()
    capture = ResultCapture.start_soon(nursery, async_three)
    assert wrap_future(future) is future
    assert wrap_future(capture) is capture


# ---- wrapping the same future again


class AllEqual(concurrent.futures.Future[int]):
    """A future that equals everything, and can't be hashed."""

    __hash__ = None  # type: ignore[assignment] # how a class says that its objects can't be hashed

    def __eq__(self, other: object) -> bool:
        return True


def callbacks_of(source: concurrent.futures.Future[Any]) -> int:
    return len(source._done_callbacks)  # type: ignore[attr-defined] # concurrent.futures has no public way to count them


@pytest.mark.parametrize("kind", [concurrent.futures.Future, AllEqual])
async def test_a_future_wrapped_500_times_has_one_wrapper_and_one_callback(
    kind: type[concurrent.futures.Future[int]],
) -> None:
    source, other = kind(), kind()
    wrapper = wrap_future(source)
    for _ in range(500):
        assert wrap_future(source) is wrapper
    assert callbacks_of(source) == 1
    assert wrap_future(other) is not wrapper
    source.set_result(3)
    assert await wrapper == 3
    assert wrap_future(source) is wrapper
    assert is_free(wrapper)


async def test_a_future_has_one_callback_even_if_nobody_keeps_its_wrapper() -> None:
    source = concurrent.futures.Future[int]()
    for _ in range(500):
        with trio.move_on_after(0):
            await wrap_future(source)
    assert callbacks_of(source) == 1
    source.set_result(3)
    assert await wrap_future(source) == 3


async def test_a_cancelled_wrapper_remains_the_wrapper_of_its_future() -> None:
    source = concurrent.futures.Future[int]()
    source.set_running_or_notify_cancel()
    wrapper = wrap_future(source)
    wrapper.cancel()
    assert wrap_future(source) is wrapper
    assert callbacks_of(source) == 1


async def test_each_run_has_its_own_wrapper() -> None:
    source = concurrent.futures.Future[int]()
    wrapper = wrap_future(source)

    async def other() -> Future[int]:
        assert wrap_future(source) is wrap_future(source)
        return wrap_future(source)

    foreign = await in_foreign_run(other)
    assert foreign is not wrapper
    assert foreign.trio_token is not wrapper.trio_token
    source.set_result(3)
    assert await wrapper == 3


async def test_a_future_that_reuses_the_id_of_an_older_one_gets_its_own_wrapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def same_id(_: object) -> int:
        return 1

    monkeypatch.setattr("triores._weak_cache.id", same_id, raising=False)
    sources = [concurrent.futures.Future[int]() for _ in range(3)]
    wrappers = [wrap_future(source) for source in sources]
    for n, source in enumerate(sources):
        source.set_result(n)
    assert [await wrapper for wrapper in wrappers] == [0, 1, 2]


def weak_references() -> int:
    return sum(type(obj) is weakref.ref for obj in gc.get_objects())


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython frees objects by counting references")
async def test_no_entries_are_kept_for_futures_that_are_gone() -> None:
    wrap_future(concurrent.futures.Future[int]())
    gc.collect()
    before = weak_references()
    sources = [concurrent.futures.Future[int]() for _ in range(100)]
    for n in range(100):
        sources[n].set_result(n)
        wrap_future(sources[n])
    del sources
    assert weak_references() <= before + 5


def test_wrapping_keeps_neither_side_alive() -> None:
    async def main() -> None:
        source = watch(concurrent.futures.Future[int]())
        source.set_result(3)
        watch(wrap_future(source))
        wrapper = wrap_future(source)
        kept.append(weakref.ref(source))
        del source
        assert kept[0]() is None
        assert wrapper.result() == 3

    kept: list[weakref.ref[Any]] = []
    with no_cycles() as watch:
        trio.run(main)


# ---- Dask futures


class DaskFuture:
    """Stands in for Dask's own class."""

    def __await__(self) -> Generator[Any, Any, None]:
        raise AssertionError("this would block the Trio thread")

    def __repr__(self) -> str:
        return "<Future: pending>"


INSTEAD_FOR_DASK = (
    "submit the work with 'run_in_executor(client.get_executor(pure=False), fn, ...)', or wait for this future in a "
    "thread: 'await trio.to_thread.run_sync(future.result)'"
)


@pytest.fixture
def dask_future(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("distributed")
    module.Future = DaskFuture  # type: ignore[attr-defined] # modules take any attribute
    monkeypatch.setitem(sys.modules, "distributed", module)
    return DaskFuture()


async def test_for_a_dask_future_the_error_shows_two_ways_to_wait_for_it(
    dask_future: Any, nursery: trio.Nursery
) -> None:
    with pytest.raises(TypeError) as wrapped:
        wrap_future(dask_future)
    assert str(wrapped.value) == (
        "wrap_future takes a concurrent.futures.Future or an asyncio.Future, not <Future: pending>; " + INSTEAD_FOR_DASK
    )
    with pytest.raises(TypeError) as ensured:
        ensure_future(dask_future, nursery)
    assert str(ensured.value) == (
        "ensure_future can't wait for <Future: pending> without blocking Trio; " + INSTEAD_FOR_DASK
    )
    assert not nursery.child_tasks


# ---- ensure_future


async def async_three() -> int:
    await trio.lowlevel.checkpoint()
    return 3


class OurAwaitable:
    def __await__(self) -> Generator[Any, Any, int]:
        return async_three().__await__()

    def __repr__(self) -> str:
        return "OurAwaitable()"


async def test_ensure_future_returns_a_result_unchanged(nursery: trio.Nursery) -> None:
    future = Future[int]()
    capture = ResultCapture.start_soon(nursery, async_three)
    assert ensure_future(future, nursery) is future
    assert ensure_future(capture, nursery) is capture


async def test_ensure_future_starts_a_coroutine_even_if_asyncio_was_never_imported(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.delitem(sys.modules, "asyncio", raising=False)
    assert await ensure_future(async_three(), nursery) == 3


async def test_ensure_future_wraps_a_concurrent_future(nursery: trio.Nursery) -> None:
    source = concurrent.futures.Future[int]()
    future = ensure_future(source, nursery)
    in_thread(source.set_result, 3)
    assert await future == 3


@pytest.mark.parametrize("make", [async_three, OurAwaitable])
async def test_ensure_future_starts_any_awaitable(make: Callable[[], Awaitable[int]], nursery: trio.Nursery) -> None:
    capture = ensure_future(make(), nursery)
    assert type(capture) is ResultCapture
    assert [task.name for task in nursery.child_tasks] == [make.__qualname__ + "()" * (make is OurAwaitable)]
    assert await capture == 3


async def test_an_exception_of_a_task_started_by_ensure_future_reaches_the_nursery() -> None:
    async def fails() -> None:
        raise Boom

    captures: list[ResultCapture[None]] = []
    with pytest.RaisesGroup(Boom):
        async with trio.open_nursery() as nursery:
            captures.append(ensure_future(fails(), nursery))
    assert isinstance(captures[0].exception(), Boom)


async def test_if_the_nursery_is_closed_ensure_future_closes_the_coroutine() -> None:
    async with trio.open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        ensure_future(async_three(), nursery)
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        ensure_future(OurAwaitable(), nursery)
    gc.collect()  # a coroutine that was never awaited would warn when it is freed, and warnings are errors


async def test_without_a_nursery_ensure_future_closes_the_coroutine() -> None:
    wrong: Any = None
    with pytest.raises(TypeError, match=r"^expected a nursery, but got None; .* 'ensure_future"):
        ensure_future(async_three(), wrong)
    gc.collect()


@pytest.mark.parametrize("wrong", [3, async_three])
async def test_passing_anything_but_an_awaitable_to_ensure_future_raises_an_error(
    wrong: Any, nursery: trio.Nursery
) -> None:
    with pytest.raises(TypeError, match=r"^ensure_future takes something that can be awaited, not .*start_soon"):
        ensure_future(wrong, nursery)
    assert not nursery.child_tasks
