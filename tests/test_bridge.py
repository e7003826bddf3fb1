"""wrap_future, ensure_future and run_in_executor."""

from __future__ import annotations

import concurrent.futures
import contextvars
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import (
    Future,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
    as_completed,
    ensure_future,
    run_in_executor,
    wrap_future,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

LIMIT = 20  # seconds, after which a thread that should have been woken is given up

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class OurError(Exception):
    pass


class OurBaseError(BaseException):
    pass


def in_thread(fn: Callable[..., object], *args: object) -> None:
    """Call a function in another thread, and wait for it here, which blocks Trio."""
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


def here(fn: Callable[..., object], *args: object) -> None:
    fn(*args)


def cancel(source: concurrent.futures.Future[Any]) -> None:
    assert source.cancel()


@pytest.fixture
def threads() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """A pool of one thread, so that a second call has to wait for the first."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def processes() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


class Busy:
    """A function that runs until it is told to end."""

    def __init__(self, answer: object = "done") -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.answer = answer

    def __call__(self) -> object:
        self.began.set()
        assert self.may_end.wait(LIMIT)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def busy() -> Iterator[Busy]:
    function = Busy()
    yield function
    function.may_end.set()  # or a test that failed would wait for its thread


# ---- wrap_future: concurrent futures


@pytest.mark.parametrize("where", [here, in_thread])
async def test_a_value_crosses_the_bridge(where: Callable[..., None]) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    assert type(future) is Future
    where(source.set_result, 3)
    assert not future.is_done()  # it is settled in the Trio thread, and not in the middle of this task's step
    assert await future == 3


@pytest.mark.parametrize("where", [here, in_thread])
@pytest.mark.parametrize("error", [OurError(), OurBaseError(), concurrent.futures.CancelledError()])
async def test_an_exception_crosses_the_bridge_as_it_is(where: Callable[..., None], error: BaseException) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    where(source.set_exception, error)
    with pytest.raises(TaskFailedException) as failed:
        await future
    assert failed.value.__cause__ is error
    assert not future.cancelled()


@pytest.mark.parametrize("where", [here, in_thread])
async def test_a_cancellation_crosses_the_bridge_and_stays_one(where: Callable[..., None]) -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    where(cancel, source)
    with pytest.raises(TaskCancelledException, match=r"the concurrent future behind it was cancelled$"):
        await future
    assert future.cancelled()


async def test_a_future_that_is_done_already_is_wrapped_at_once() -> None:
    value, failed, cancelled = (concurrent.futures.Future[int]() for _ in range(3))
    value.set_result(3)
    failed.set_exception(OurError())
    cancelled.cancel()
    assert wrap_future(value).result() == 3
    assert isinstance(wrap_future(failed).exception(), OurError)
    assert wrap_future(cancelled).cancelled()


async def test_callbacks_run_in_the_trio_thread_wherever_the_other_side_was_done() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    threads: list[int] = []
    future.add_done_callback(lambda _: threads.append(threading.get_ident()))
    in_thread(source.set_result, 3)
    await future.wait_done()
    assert threads == [threading.get_ident()]


async def test_futures_are_settled_in_the_order_in_which_the_others_were() -> None:
    sources = [concurrent.futures.Future[int]() for _ in range(20)]
    futures = [wrap_future(source) for source in sources]
    completed = as_completed(futures)

    def settle() -> None:
        for n in reversed(range(20)):
            sources[n].set_result(n)

    in_thread(settle)
    assert [future.result() async for future in completed] == list(reversed(range(20)))


async def test_cancelling_the_future_cancels_the_other_side() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    assert future.cancel("no longer wanted")
    assert source.cancelled()
    await wait_all_tasks_blocked()
    with pytest.raises(TaskCancelledException, match=r"no longer wanted$"):
        future.result()


async def test_where_the_other_side_runs_already_it_goes_on_and_its_result_is_dropped() -> None:
    source = concurrent.futures.Future[int]()
    source.set_running_or_notify_cancel()
    future = wrap_future(source)
    future.cancel()
    assert not source.cancelled()
    in_thread(source.set_result, 3)
    await wait_all_tasks_blocked()
    assert future.cancelled()


async def test_cancelling_a_wait_cancels_nothing_else() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    with trio.move_on_after(0):
        await future
    assert not source.cancelled()
    source.set_result(3)
    assert await future == 3


async def test_a_future_that_was_settled_by_hand_leaves_the_other_side_alone() -> None:
    source = concurrent.futures.Future[int]()
    future = wrap_future(source)
    future.set_result(4)
    assert not source.cancelled()
    source.set_result(3)
    await wait_all_tasks_blocked()
    assert future.result() == 4


def test_what_is_done_after_the_run_ended_is_dropped_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    sources = [concurrent.futures.Future[int]() for _ in range(3)]

    async def main() -> list[Future[int]]:
        return [wrap_future(source) for source in sources]

    futures = trio.run(main)
    sources[0].set_result(3)
    in_thread(sources[1].set_exception, OurError())
    in_thread(sources[2].cancel)
    assert not any(future.is_done() for future in futures)
    assert not caplog.records


def test_a_pending_wrapper_belongs_to_the_run_that_will_settle_it() -> None:
    source = concurrent.futures.Future[int]()

    async def main() -> Future[int]:
        return wrap_future(source)

    future = trio.run(main)

    async def other() -> None:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be waited for from here"):
            await future

    trio.run(other)


def test_a_callback_that_raises_ends_the_run() -> None:
    source = concurrent.futures.Future[int]()

    async def main() -> None:
        future = wrap_future(source)

        def raises(_: object) -> None:
            raise OurError

        future.add_done_callback(raises)
        source.set_result(3)
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError) as ended:
        trio.run(main)
    assert pytest.RaisesGroup(OurError, flatten_subgroups=True).matches(ended.value.__cause__)


async def test_a_failed_future_is_freed_without_the_garbage_collector(
    threads: concurrent.futures.ThreadPoolExecutor, no_collector: None
) -> None:
    def fails() -> None:
        raise OurError

    future = wrap_future(threads.submit(fails))
    await future.wait_done()
    error = weakref.ref(future.exception() or OurError())
    assert error() is not None
    await run_in_executor(threads, int)  # the pool's thread lets go of a call when it takes the next one
    del future
    await wait_all_tasks_blocked()
    assert error() is None


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("wrong", [3, None, Future[int]()])
async def test_wrap_future_takes_nothing_but_the_two_kinds(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^wrap_future takes a concurrent.futures.Future or an asyncio.Future, not "):
        wrap_future(wrong)


# ---- ensure_future


async def async_three() -> int:
    await trio.lowlevel.checkpoint()
    return 3


class OurAwaitable:
    def __await__(self) -> Generator[Any, Any, int]:
        return async_three().__await__()

    def __repr__(self) -> str:
        return "OurAwaitable()"


async def test_ensure_future_returns_a_result_as_it_is(nursery: trio.Nursery) -> None:
    future = Future[int]()
    capture = ResultCapture.start_soon(nursery, async_three)
    assert ensure_future(future, nursery) is future
    assert ensure_future(capture, nursery) is capture


async def test_ensure_future_starts_a_coroutine_also_where_nobody_has_imported_asyncio(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    assert await ensure_future(async_three(), nursery) == 3


async def test_ensure_future_wraps_a_concurrent_future(nursery: trio.Nursery) -> None:
    source = concurrent.futures.Future[int]()
    future = ensure_future(source, nursery)
    in_thread(source.set_result, 3)
    assert await future == 3


@pytest.mark.parametrize("make", [async_three, OurAwaitable])
async def test_ensure_future_starts_what_can_be_awaited(
    make: Callable[[], Awaitable[int]], nursery: trio.Nursery
) -> None:
    capture = ensure_future(make(), nursery)
    assert type(capture) is ResultCapture
    assert [task.name for task in nursery.child_tasks] == [make.__qualname__ + "()" * (make is OurAwaitable)]
    assert await capture == 3


async def test_the_exception_of_what_ensure_future_starts_goes_on_into_the_nursery() -> None:
    async def fails() -> None:
        raise OurError

    captures: list[ResultCapture[None]] = []
    with pytest.RaisesGroup(OurError):
        async with trio.open_nursery() as nursery:
            captures.append(ensure_future(fails(), nursery))
    assert isinstance(captures[0].exception(), OurError)


async def test_ensure_future_closes_the_coroutine_that_a_closed_nursery_refuses() -> None:
    async with trio.open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        ensure_future(async_three(), nursery)
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        ensure_future(OurAwaitable(), nursery)
    gc.collect()  # a coroutine that was never awaited warns when it is freed, and warnings are errors


async def test_ensure_future_closes_the_coroutine_that_it_is_given_with_no_nursery() -> None:
    wrong: Any = None
    with pytest.raises(
        TypeError, match=r"^expected a nursery, but got None; .* 'ensure_future\(awaitable, nursery\)'$"
    ):
        ensure_future(async_three(), wrong)
    gc.collect()


@pytest.mark.parametrize("wrong", [3, async_three])
async def test_ensure_future_refuses_what_cannot_be_awaited(wrong: Any, nursery: trio.Nursery) -> None:
    with pytest.raises(TypeError, match=r"^ensure_future takes something that can be awaited, not .*start_soon"):
        ensure_future(wrong, nursery)
    assert not nursery.child_tasks


# ---- run_in_executor


async def test_run_in_executor_returns_what_the_function_returned(
    threads: concurrent.futures.ThreadPoolExecutor,
) -> None:
    def where(*args: int) -> tuple[int, tuple[int, ...]]:
        return threading.get_ident(), args

    thread, args = await run_in_executor(threads, where, 1, 2)
    assert thread != threading.get_ident()
    assert args == (1, 2)


@pytest.mark.parametrize("error", [OurError(), OurBaseError(), KeyError("x")])
async def test_run_in_executor_raises_the_exception_as_it_is(
    threads: concurrent.futures.ThreadPoolExecutor, error: BaseException
) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as failed:
        await run_in_executor(threads, fails)
    assert failed.value is error


async def test_a_failed_call_is_freed_without_the_garbage_collector(
    threads: concurrent.futures.ThreadPoolExecutor, no_collector: None
) -> None:
    def fails() -> None:
        raise OurError

    async def failure() -> weakref.ref[OurError]:
        try:
            await run_in_executor(threads, fails)
        except OurError as error:
            return weakref.ref(error)
        raise AssertionError

    error = await failure()
    await run_in_executor(threads, int)  # the pool's thread lets go of a call when it takes the next one
    assert error() is None


async def test_run_in_executor_is_a_checkpoint_on_every_path(threads: concurrent.futures.ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise OurError

    with assert_checkpoints():
        await run_in_executor(threads, int)
    with assert_checkpoints(), pytest.raises(OurError):
        await run_in_executor(threads, fails)
    threads.shutdown()
    with assert_checkpoints(), pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        await run_in_executor(threads, int)


async def test_a_thread_pool_runs_the_function_in_a_copy_of_the_context(
    threads: concurrent.futures.ThreadPoolExecutor,
) -> None:
    def repaint() -> str:
        before = colour.get()
        colour.set("blue")
        return before

    colour.set("red")
    assert await run_in_executor(threads, repaint) == "red"
    assert colour.get() == "red"
    assert await run_in_executor(threads, colour.get) == "red"


class AtOnce(concurrent.futures.Executor):
    """An executor that runs the call in the middle of ``submit``, and tells what it was given."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        self.given.append(fn)
        future = concurrent.futures.Future[Any]()
        future.set_result(fn(*args, **kwargs))
        return future


async def test_any_other_executor_is_given_the_bare_function() -> None:
    executor = AtOnce()
    with assert_checkpoints():
        assert await run_in_executor(executor, max, 1, 3) == 3
    assert executor.given == [max]


async def test_a_pool_of_interpreters_is_given_the_bare_function(monkeypatch: pytest.MonkeyPatch) -> None:
    class InterpreterPoolExecutor(AtOnce, concurrent.futures.ThreadPoolExecutor):
        """As from Python 3.14 on: it is a pool of threads, but a context can't be passed to it."""

    module = types.ModuleType("concurrent.futures.interpreter")
    module.InterpreterPoolExecutor = InterpreterPoolExecutor  # type: ignore[attr-defined]  # modules take any
    monkeypatch.setitem(sys.modules, module.__name__, module)
    executor = InterpreterPoolExecutor()
    assert await run_in_executor(executor, max, 1, 3) == 3
    assert executor.given == [max]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        colour.set("green")
        assert await run_in_executor(threads, colour.get) == "green"


async def test_a_cancelled_call_that_has_not_begun_never_runs(
    threads: concurrent.futures.ThreadPoolExecutor, busy: Busy
) -> None:
    ran: list[int] = []
    threads.submit(busy)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_in_executor, threads, ran.append, 3)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    busy.may_end.set()
    await run_in_executor(threads, int)
    assert not ran


@pytest.mark.parametrize("abandon", [False, True])
async def test_nothing_is_submitted_in_a_cancelled_scope(abandon: bool) -> None:
    executor = AtOnce()
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_in_executor(executor, int, abandon_on_cancel=abandon)
    assert scope.cancelled_caught
    assert not executor.given


@pytest.mark.parametrize("answer", ["done", OurError()])
async def test_a_cancelled_call_that_has_begun_is_waited_for(
    threads: concurrent.futures.ThreadPoolExecutor, busy: Busy, answer: object
) -> None:
    busy.answer = answer
    capture = ResultCapture[object](run_in_executor, threads, busy, suppress_exception=True)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(capture.run)
            await trio.to_thread.run_sync(busy.began.wait, LIMIT)
            scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                assert not capture.is_done()
                busy.may_end.set()
                await capture.wait_done()
    assert (capture.exception() or capture.result()) is answer


async def test_a_call_that_has_begun_is_abandoned_where_that_is_asked_for(
    threads: concurrent.futures.ThreadPoolExecutor, busy: Busy
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(run_in_executor, threads, busy, abandon_on_cancel=True))
            await trio.to_thread.run_sync(busy.began.wait, LIMIT)
            scope.cancel()
    assert scope.cancelled_caught
    busy.may_end.set()
    await run_in_executor(threads, int)
    await wait_all_tasks_blocked()  # what the abandoned call ended with has arrived by now, and was dropped


def test_an_abandoned_call_that_ends_after_the_run_is_dropped_in_silence(
    threads: concurrent.futures.ThreadPoolExecutor, busy: Busy, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(run_in_executor, threads, busy, abandon_on_cancel=True))
            await trio.to_thread.run_sync(busy.began.wait, LIMIT)
            nursery.cancel_scope.cancel()

    trio.run(main)
    busy.may_end.set()
    threads.submit(int).result(LIMIT)
    assert not caplog.records


def test_ctrl_c_cancels_a_call_that_has_not_begun(threads: concurrent.futures.ThreadPoolExecutor, busy: Busy) -> None:
    ran: list[int] = []

    async def interrupt() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        threads.submit(busy)
        trio.lowlevel.spawn_system_task(interrupt)
        await run_in_executor(threads, ran.append, 3)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    busy.may_end.set()
    threads.submit(int).result(LIMIT)
    assert not ran


async def test_a_call_that_the_executor_cancels_raises_its_cancelled_error(
    threads: concurrent.futures.ThreadPoolExecutor, busy: Busy, nursery: trio.Nursery
) -> None:
    threads.submit(busy)
    capture = ResultCapture[int](run_in_executor, threads, int, suppress_exception=True)
    nursery.start_soon(capture.run)
    await wait_all_tasks_blocked()
    threads.shutdown(wait=False, cancel_futures=True)
    await capture.wait_done()
    assert type(capture.exception()) is concurrent.futures.CancelledError
    assert not capture.cancelled()


async def test_a_process_pool_runs_the_function(processes: concurrent.futures.ProcessPoolExecutor) -> None:
    assert await run_in_executor(processes, os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        await run_in_executor(processes, divmod, 1, 0)


async def test_a_process_pool_refuses_what_cannot_be_pickled(
    processes: concurrent.futures.ProcessPoolExecutor,
) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
        await run_in_executor(processes, lambda: 3)
    assert await wrap_future(processes.submit(pow, 2, 5)) == 32


async def test_a_worker_that_dies_breaks_the_pool() -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            await run_in_executor(pool, os._exit, 1)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            await run_in_executor(pool, os.getpid)


@pytest.mark.parametrize("wrong", [None, Future[int](), concurrent.futures.ThreadPoolExecutor])
async def test_run_in_executor_refuses_what_is_no_executor(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^run_in_executor takes a concurrent.futures.Executor, not .*to_thread"):
        await run_in_executor(wrong, int)


async def test_run_in_executor_refuses_what_is_no_synchronous_function() -> None:
    executor = AtOnce()
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"^expected a synchronous function, but got 3; .*\(executor, fn, \.\.\.\)'$"):
        await run_in_executor(executor, wrong)
    with pytest.raises(TypeError, match=r"^expected a synchronous function, but 'async_three' is an async one"):
        await run_in_executor(executor, async_three)  # type: ignore[unused-coroutine]  # mypy sees the mistake too
    wrong = functools.partial(async_three)  # has no name
    with pytest.raises(TypeError, match=r"but 'functools\.partial\(.*' is an async one, which no executor runs"):
        await run_in_executor(executor, wrong)
    wrong = async_three()
    with pytest.raises(TypeError, match=r"^expected a synchronous function, but got <coroutine object async_three"):
        await run_in_executor(executor, wrong)
    assert not executor.given

    def hides_it() -> Any:
        return async_three()

    with pytest.raises(TypeError, match=r"hides_it' is an async one, which no executor runs"):
        await run_in_executor(executor, hides_it)
    gc.collect()
