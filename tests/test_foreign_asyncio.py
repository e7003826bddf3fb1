"""asyncio's futures: from a loop in another thread, and from the host of a guest run; and asyncio without Trio."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import triores
from triores import (
    Future,
    FutureCancelledException,
    ResultCapture,
    TaskCancelledException,
    ensure_future,
    run_in_executor,
    start_from_thread,
    to_concurrent_future,
    wrap_future,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import outcome

LIMIT = 20  # seconds to wait for a thread that should have been woken


class OurError(Exception):
    pass


class LoopInThread:
    """An asyncio event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(True)  # so that it raises an error if another thread calls it
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.complaints: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the loop's thread, and return its value."""

        async def run() -> Any:
            return fn(*args)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(LIMIT)

    def close(self) -> None:
        self.call(int)  # everything scheduled before this has run by now
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(LIMIT)
        self.loop.close()


@pytest.fixture
def other() -> Iterator[LoopInThread]:
    other = LoopInThread()
    yield other
    if not other.loop.is_closed():
        other.close()
    assert not other.complaints


# ---- a loop in another thread


class Guarded(asyncio.Future[Any]):
    """A future that can be used only in its loop's thread."""

    def _check(self) -> None:
        assert asyncio.get_running_loop() is self.get_loop()

    def add_done_callback(self, fn: Any, /, **keywords: Any) -> None:
        self._check()
        super().add_done_callback(fn, **keywords)

    def cancel(self, msg: Any = None) -> bool:
        self._check()
        return super().cancel(msg)

    def cancelled(self) -> bool:
        self._check()
        return super().cancelled()

    def done(self) -> bool:
        self._check()
        return super().done()

    def exception(self) -> BaseException | None:
        self._check()
        return super().exception()

    def result(self) -> Any:
        self._check()
        return super().result()


def guarded(other: LoopInThread) -> Guarded:
    return other.call(lambda: Guarded(loop=other.loop))  # type: ignore[no-any-return] # call() returns Any


async def test_a_value_from_a_loop_in_another_thread_arrives_in_the_trio_thread(other: LoopInThread) -> None:
    source = guarded(other)
    future = wrap_future(source)
    threads: list[int] = []
    future.add_done_callback(lambda _: threads.append(threading.get_ident()))
    other.call(source.set_result, 3)
    assert not future.is_done()
    assert await future == 3
    assert threads == [threading.get_ident()]


async def test_an_exception_from_a_loop_in_another_thread_arrives_unchanged(other: LoopInThread) -> None:
    source, error = guarded(other), OurError()
    future = wrap_future(source)
    other.call(source.set_exception, error)
    with pytest.raises(OurError) as failed:
        await future
    assert failed.value is error
    del source
    gc.collect()  # now asyncio would complain if nobody had read the exception


async def test_if_the_asyncio_future_is_cancelled_so_is_the_wrapper(other: LoopInThread) -> None:
    source = guarded(other)
    future = wrap_future(source)
    other.call(source.cancel)
    with pytest.raises(TaskCancelledException, match=r"'the asyncio.Future that it wraps was cancelled'$"):
        await future


async def test_the_reason_for_a_cancellation_by_asyncio_arrives_in_trio(other: LoopInThread) -> None:
    source = guarded(other)
    future = wrap_future(source)
    other.call(source.cancel, "the user left")
    with pytest.raises(TaskCancelledException, match=r"reason: 'the user left'$"):
        await future
    error = future.exception()
    assert isinstance(error, FutureCancelledException)
    assert error.reason == "the user left"


async def test_a_reason_that_is_not_a_string_arrives_as_a_string(other: LoopInThread) -> None:
    source = guarded(other)
    future = wrap_future(source)
    other.call(source.cancel, ("the user left", 3))
    await future.wait_done()
    assert getattr(future.exception(), "reason", None) == "('the user left', 3)"


@pytest.mark.parametrize("reason", [None, "no longer wanted"])
async def test_the_reason_for_a_cancellation_by_trio_arrives_in_asyncio(
    other: LoopInThread, reason: str | None
) -> None:
    source = guarded(other)
    assert wrap_future(source).cancel(reason)
    other.call(int)  # by now, the future has been cancelled

    def read() -> object:
        try:
            return source.result()
        except asyncio.CancelledError as error:
            return error.args

    assert other.call(read) == (() if reason is None else (reason,))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio forgets the reason when a task ends")
async def test_the_reason_for_cancelling_a_wrapped_task_reaches_both_trio_and_asyncio(other: LoopInThread) -> None:
    async def sleep() -> None:
        await asyncio.get_running_loop().create_future()

    async def wait(task: asyncio.Task[object]) -> object:
        try:
            return await task
        except asyncio.CancelledError as error:
            return error.args

    task = other.call(lambda: asyncio.get_running_loop().create_task(sleep()))
    future = wrap_future(task)
    other.call(int)  # so that the wrapper's callback is registered first
    waits = asyncio.run_coroutine_threadsafe(wait(task), other.loop)
    other.call(int)
    other.call(task.cancel, "the user left")
    with pytest.raises(TaskCancelledException, match=r"reason: 'the user left'$"):
        await future
    assert await wrap_future(waits) == ("the user left",)


async def test_an_asyncio_future_wrapped_500_times_has_one_wrapper_and_one_callback(other: LoopInThread) -> None:
    added: list[object] = []

    class Counting(Guarded):
        def add_done_callback(self, fn: Any, /, **keywords: Any) -> None:
            added.append(fn)
            super().add_done_callback(fn, **keywords)

    source = other.call(lambda: Counting(loop=other.loop))
    wrapper = wrap_future(source)
    for _ in range(500):
        assert wrap_future(source) is wrapper
    other.call(source.set_result, 3)
    assert await wrapper == 3
    assert wrap_future(source) is wrapper
    assert len(added) == 1


async def test_the_reason_arrives_even_if_the_future_allows_no_private_attributes(other: LoopInThread) -> None:
    class Sealed(Guarded):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    source = other.call(lambda: Sealed(loop=other.loop))
    future = wrap_future(source)
    other.call(source.cancel, "the user left")
    await future.wait_done()
    assert getattr(future.exception(), "reason", None) == "the user left"


async def test_the_wrapper_of_a_done_future_of_another_threads_loop_is_soon_done(other: LoopInThread) -> None:
    source = guarded(other)
    other.call(source.set_result, 3)
    assert await wrap_future(source) == 3


async def test_ensure_future_wraps_a_future_of_a_loop_in_another_thread(
    other: LoopInThread, nursery: trio.Nursery
) -> None:
    source = guarded(other)
    future = ensure_future(source, nursery)
    assert not nursery.child_tasks
    other.call(source.set_result, 3)
    assert await future == 3


async def test_cancelling_the_wrapper_cancels_the_asyncio_task(other: LoopInThread) -> None:
    async def sleep() -> None:
        await asyncio.get_running_loop().create_future()

    task = other.call(lambda: asyncio.get_running_loop().create_task(sleep()))
    future = wrap_future(task)
    assert future.cancel()
    other.call(int)  # by now, the cancellation has been requested
    other.call(int)  # and by now, the task has ended
    assert other.call(task.cancelled)


async def test_the_future_returned_by_run_coroutine_threadsafe_can_be_wrapped(other: LoopInThread) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 3

    assert await wrap_future(asyncio.run_coroutine_threadsafe(answer(), other.loop)) == 3


async def test_an_asyncio_task_can_wait_for_a_trio_result(other: LoopInThread) -> None:
    result = Future[int]()
    handed_out = to_concurrent_future(result)

    async def wait() -> int:
        return await asyncio.wrap_future(handed_out)

    async with trio.open_nursery() as nursery:
        answer = ensure_future(asyncio.run_coroutine_threadsafe(wait(), other.loop), nursery)
        result.set_result(3)
    assert await answer == 3


async def test_an_asyncio_task_can_start_a_trio_task(other: LoopInThread, nursery: trio.Nursery) -> None:
    token = trio.lowlevel.current_trio_token()

    async def three() -> int:
        await trio.lowlevel.checkpoint()
        return 3

    async def start() -> int:
        return await asyncio.wrap_future(start_from_thread(nursery, three, trio_token=token))

    assert await wrap_future(asyncio.run_coroutine_threadsafe(start(), other.loop)) == 3


async def test_wrapping_a_pending_future_of_a_closed_loop_raises_an_error(other: LoopInThread) -> None:
    source: asyncio.Future[int] = other.loop.create_future()
    other.close()
    with pytest.raises(RuntimeError) as caught:
        wrap_future(source)
    assert str(caught.value) == (
        "the event loop of this asyncio future is closed, so neither the future nor a wrapper would ever be done; "
        "call wrap_future while the loop is running"
    )


async def test_the_wrapper_of_a_done_future_of_a_closed_loop_is_done_at_once(other: LoopInThread) -> None:
    source: asyncio.Future[int] = other.call(other.loop.create_future)
    other.call(source.set_result, 3)
    other.close()
    assert wrap_future(source).result() == 3


async def test_cancelling_the_wrapper_of_a_future_whose_loop_is_closed_logs_nothing(
    other: LoopInThread, caplog: pytest.LogCaptureFixture
) -> None:
    source = guarded(other)
    future = wrap_future(source)
    other.close()
    assert future.cancel()
    assert not caplog.records


def test_results_that_arrive_after_the_trio_run_has_ended_are_dropped_silently(
    other: LoopInThread, caplog: pytest.LogCaptureFixture
) -> None:
    source = guarded(other)

    async def main() -> Future[int]:
        return wrap_future(source)

    future = trio.run(main)
    other.call(source.set_result, 3)
    other.call(int)
    assert not future.is_done()
    assert not caplog.records


# ---- Trio as a guest of asyncio


def run_as_guest(
    trio_main: Callable[[], Awaitable[Any]], host: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]
) -> Any:
    """Run an asyncio program that hosts a Trio run, and return what that run returned."""

    async def main() -> outcome.Outcome[Any]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[outcome.Outcome[Any]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            trio_main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=ended.set_result
        )
        await host(loop)
        return await ended

    return asyncio.run(main(), debug=True).unwrap()


def test_a_guest_can_wait_for_a_future_of_its_host() -> None:
    sources: list[asyncio.Future[int]] = []
    waiting = threading.Event()

    async def guest() -> tuple[int, bool, bool]:
        future, cancelled = wrap_future(sources[0]), wrap_future(sources[1])
        cancelled.cancel()
        waiting.set()
        return await future, sources[1].cancelled(), wrap_future(sources[0]).is_done()

    async def host(loop: asyncio.AbstractEventLoop) -> None:
        sources.extend(loop.create_future() for _ in range(2))
        await loop.run_in_executor(None, waiting.wait, LIMIT)
        sources[0].set_result(3)

    assert run_as_guest(guest, host) == (3, True, True)


def test_the_host_of_a_guest_run_can_settle_results_and_wait_for_them() -> None:
    result = Future[int]()
    waiting = threading.Event()

    async def three() -> int:
        await trio.lowlevel.checkpoint()
        return 3

    async def guest() -> int:
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            waiting.set()
            return await result

    async def host(loop: asyncio.AbstractEventLoop) -> None:
        await loop.run_in_executor(None, waiting.wait, LIMIT)
        while result.trio_token is None:
            await asyncio.sleep(0)
        handed_out = to_concurrent_future(result)
        started = start_from_thread(nurseries[0], three)
        assert await asyncio.wrap_future(started) == 3
        with pytest.raises(RuntimeError, match="can't be settled from here"):
            await asyncio.to_thread(result.set_result, 5)
        result.set_result(4)  # asyncio runs in the Trio thread here, so this is like settling it in a Trio task
        assert await asyncio.wrap_future(handed_out) == 4

    nurseries: list[trio.Nursery] = []
    assert run_as_guest(guest, host) == 4


def test_when_a_guest_run_ends_the_host_gets_an_exception() -> None:
    handed_out: list[Any] = []
    waiting = threading.Event()

    async def guest() -> None:
        handed_out.append(to_concurrent_future(Future[int]()))
        waiting.set()

    async def host(loop: asyncio.AbstractEventLoop) -> None:
        await loop.run_in_executor(None, waiting.wait, LIMIT)
        with pytest.raises(trio.RunFinishedError):
            await asyncio.wrap_future(handed_out[0])

    run_as_guest(guest, host)


# ---- asyncio without Trio


async def nothing() -> None:
    raise AssertionError


async def drain(iterator: Any) -> None:
    async for _ in iterator:
        pass


async def enter(manager: Any) -> None:
    async with manager:
        pass


async def read(future: Future[int]) -> int:
    return await future


def a_done_future() -> Future[int]:
    future = Future[int]()
    future.set_result(3)
    return future


class Channel:
    async def send(self, value: object, /) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


def a_closed_nursery() -> trio.Nursery:
    async def main() -> trio.Nursery:
        async with trio.open_nursery() as nursery:
            pass
        return nursery

    return trio.run(main)


NONE: list[Future[int]] = []
NOTHING: list[Callable[[], Awaitable[None]]] = []
CALLS: dict[str, list[Callable[[trio.Nursery], Any]]] = {
    "Future": [
        lambda _: Future[int]().wait_done(),
        lambda _: read(Future[int]()),
        lambda _: a_done_future().wait_done(),
        lambda _: read(a_done_future()),
        lambda _: Future[int]().add_done_callback(print),
    ],
    "ResultCapture": [
        lambda nursery: ResultCapture.start_soon(nursery, nothing),
        lambda nursery: ResultCapture.start_soon(nursery, nothing, cancel_scope=trio.CancelScope()),
        lambda nursery: ResultCapture.capture_start_and_done_results(nursery, nothing),
        lambda _: ResultCapture[None](nothing).run(),
        lambda _: ResultCapture[None](nothing).wait_done(),
    ],
    "SingleFlight": [lambda nursery: triores.SingleFlight[int, None](nursery).run(1, nothing)],
    "amap": [lambda _: triores.amap(drain, [1]), lambda _: triores.amap(drain, [])],
    "as_completed": [lambda _: triores.as_completed(NONE), lambda _: triores.as_completed([Future[int]()])],
    "ensure_future": [
        lambda nursery: ensure_future(nothing(), nursery),
        lambda nursery: ensure_future(Future[int](), nursery),
    ],
    "first_success": [lambda _: triores.first_success(nothing)],
    "gather": [lambda _: triores.gather(nothing), lambda _: triores.gather(*NOTHING)],
    "gather_outcomes": [lambda _: triores.gather_outcomes(nothing), lambda _: triores.gather_outcomes(*NOTHING)],
    "open_amap": [lambda _: enter(triores.open_amap(drain, [1], limit=1))],
    "race": [lambda _: triores.race(nothing)],
    "results_to_channel": [
        lambda _: triores.results_to_channel([], Channel()),
        lambda _: triores.results_to_channel([Future[int]()], Channel()),
    ],
    "run_in_executor": [lambda _: run_in_executor(triores, print)],  # type: ignore[arg-type] # the missing Trio run is noticed first
    "start_from_thread": [lambda nursery: start_from_thread(nursery, nothing)],
    "to_concurrent_future": [
        lambda _: to_concurrent_future(Future[int]()),
        lambda _: to_concurrent_future(a_done_future()),
    ],
    "wait_all": [lambda _: triores.wait_all([]), lambda _: triores.wait_all([Future[int]()])],
    "wait_any": [lambda _: triores.wait_any([a_done_future()]), lambda _: triores.wait_any([Future[int]()])],
    "wrap_future": [
        lambda _: wrap_future(Future[int]()),
        lambda _: wrap_future(asyncio.get_running_loop().create_future()),
    ],
}
# Futures may be made and settled outside a Trio run, and done results may be read there.
NEED_NO_TRIO = {
    "AmapResults",
    "FutureMap",
    "ItemCapture",
    "ResultBase",
    "ResultStatistics",
    "WaitCycleError",
    "isfuture",
}


@pytest.mark.parametrize(
    "name", [name for name in triores.__all__ if not name.endswith(("Exception", "Error")) and name not in NEED_NO_TRIO]
)
def test_under_asyncio_without_trio_each_public_call_says_that_it_needs_trio(name: str) -> None:
    nursery = a_closed_nursery()

    async def main() -> None:
        for call in CALLS[name]:
            with pytest.raises(RuntimeError, match=r"^triores needs Trio"):
                returned = call(nursery)
                assert inspect.iscoroutine(returned)  # a call that returns no coroutine has to raise the error itself
                await returned

    asyncio.run(main())
    gc.collect()
