"""run_in_executor: thread pools, process pools and other executors."""

from __future__ import annotations

import asyncio
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
from _helpers import Boom
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import Future, ResultCapture, run_in_executor, wrap_future

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

LIMIT = 20  # seconds to wait for a thread that should have been woken

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class OurBaseError(BaseException):
    pass


async def async_three() -> int:
    await trio.lowlevel.checkpoint()
    return 3


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
    """A function that runs until ``may_end`` is set."""

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
    function.may_end.set()  # otherwise a failing test would wait for its thread forever


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---- run_in_executor


async def test_run_in_executor_returns_the_value_of_the_function(
    threads: concurrent.futures.ThreadPoolExecutor,
) -> None:
    def where(*args: int) -> tuple[int, tuple[int, ...]]:
        return threading.get_ident(), args

    thread, args = await run_in_executor(threads, where, 1, 2)
    assert thread != threading.get_ident()
    assert args == (1, 2)


@pytest.mark.parametrize("error", [Boom(), OurBaseError(), KeyError("x")])
async def test_run_in_executor_raises_the_original_exception(
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
        raise Boom

    async def failure() -> weakref.ref[Boom]:
        try:
            await run_in_executor(threads, fails)
        except Boom as error:
            return weakref.ref(error)
        raise AssertionError

    error = await failure()
    await run_in_executor(threads, int)  # the pool's thread keeps its last call until it takes the next one
    assert error() is None


async def test_run_in_executor_is_a_checkpoint_on_every_path(threads: concurrent.futures.ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise Boom

    with assert_checkpoints():
        await run_in_executor(threads, int)
    with assert_checkpoints(), pytest.raises(Boom):
        await run_in_executor(threads, fails)
    threads.shutdown()
    with assert_checkpoints(), pytest.raises(RuntimeError, match="after shutdown"):
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
    """An executor that runs each call inside ``submit``, and notes the functions it was given."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        self.given.append(fn)
        future = concurrent.futures.Future[Any]()
        future.set_result(fn(*args, **kwargs))
        return future


async def test_any_other_executor_gets_the_bare_function() -> None:
    executor = AtOnce()
    with assert_checkpoints():
        assert await run_in_executor(executor, max, 1, 3) == 3
    assert executor.given == [max]


async def test_an_interpreter_pool_gets_the_bare_function(monkeypatch: pytest.MonkeyPatch) -> None:
    class InterpreterPoolExecutor(AtOnce, concurrent.futures.ThreadPoolExecutor):
        """Like that of Python 3.14: a thread pool to which no context can be passed."""

    module = types.ModuleType("concurrent.futures.interpreter")
    module.InterpreterPoolExecutor = InterpreterPoolExecutor  # type: ignore[attr-defined] # modules take any attribute
    monkeypatch.setitem(sys.modules, module.__name__, module)
    executor = InterpreterPoolExecutor()
    assert await run_in_executor(executor, max, 1, 3) == 3
    assert executor.given == [max]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        colour.set("green")
        assert await run_in_executor(threads, colour.get) == "green"


async def test_a_call_cancelled_before_it_has_begun_never_runs(
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


@pytest.mark.parametrize("answer", ["done", Boom()])
async def test_a_cancelled_call_that_has_begun_is_awaited_to_its_end(
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


async def test_with_abandon_on_cancel_a_call_that_has_begun_is_abandoned(
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
    await wait_all_tasks_blocked()  # by now, the value of the abandoned call has arrived and been dropped


def test_if_an_abandoned_call_ends_after_the_run_nothing_is_logged(
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


async def test_if_the_executor_cancels_a_call_its_cancelled_error_is_raised(
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


async def test_a_function_that_cannot_be_pickled_raises_an_error_in_a_process_pool(
    processes: concurrent.futures.ProcessPoolExecutor,
) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
        await run_in_executor(processes, lambda: 3)
    assert await wrap_future(processes.submit(pow, 2, 5)) == 32


async def test_if_a_worker_process_dies_its_call_and_later_calls_fail() -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            await run_in_executor(pool, os._exit, 1)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            await run_in_executor(pool, os.getpid)


# ---- other executors, and objects that aren't executors


class Submits:
    """An object that has only one method of an executor, ``submit``."""

    def __init__(self, submit: Callable[..., Any]) -> None:
        self.submit = submit

    def __repr__(self) -> str:
        return "Submits()"


async def test_any_object_with_a_submit_that_returns_a_concurrent_future_is_an_executor(
    threads: concurrent.futures.ThreadPoolExecutor,
) -> None:
    assert await run_in_executor(Submits(threads.submit), max, 1, 3) == 3
    with pytest.raises(ZeroDivisionError):
        await run_in_executor(Submits(threads.submit), divmod, 1, 0)


@pytest.mark.parametrize("wrong", [None, Future[int](), concurrent.futures.ThreadPoolExecutor])
async def test_passing_an_object_without_submit_or_a_class_raises_an_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^run_in_executor takes an executor, not .*; pass .*, call 'trio.to_thread"):
        await run_in_executor(wrong, int)


async def refused(submit: Callable[..., Any], executor_type: type[Submits] = Submits) -> str:
    """The rest of the error message for an executor with this ``submit``."""
    with pytest.raises(TypeError) as caught:
        await run_in_executor(executor_type(submit), int)
    start = "run_in_executor takes an executor whose 'submit' returns a concurrent.futures.Future, but Submits().submit"
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


async def test_an_executor_with_an_async_submit_raises_an_error_and_its_coroutine_is_closed() -> None:
    async def submit(*_: object) -> None:
        raise AssertionError

    message = await refused(submit)
    assert message.startswith(" returned <coroutine object ")
    assert message.endswith("; its 'submit' is async, so call that: 'await executor.submit(fn, ...)'")
    gc.collect()  # a coroutine that was never awaited would warn when it is freed, and warnings are errors


async def test_an_executor_that_returns_an_asyncio_future_raises_an_error() -> None:
    loop = asyncio.new_event_loop()
    message = await refused(lambda *_: loop.create_future())
    loop.close()
    assert message.endswith("; its 'submit' belongs to asyncio, so call 'await wrap_future(executor.submit(fn, ...))'")


async def test_for_a_dask_client_the_error_suggests_its_executor() -> None:
    class Client(Submits):
        def get_executor(self) -> None:
            raise AssertionError

    class DaskFuture:
        def __await__(self) -> Generator[Any, Any, None]:
            raise AssertionError

    message = await refused(lambda *_: DaskFuture(), Client)
    assert message.endswith("; if it is a Dask client, pass 'client.get_executor(pure=False)'")
    assert (await refused(lambda *_: None)).startswith(" returned None; if it is a Dask client")


async def test_passing_anything_but_a_synchronous_function_raises_an_error() -> None:
    executor = AtOnce()
    wrong: Any = 3
    with pytest.raises(TypeError, match="but got 3"):
        await run_in_executor(executor, wrong)
    with pytest.raises(TypeError, match=r"^expected a synchronous function, but 'async_three' is async, and"):
        await run_in_executor(executor, async_three)  # type: ignore[unused-coroutine] # mypy sees the mistake too
    wrong = functools.partial(async_three)
    with pytest.raises(TypeError, match=r"but 'async_three' is async, and executors can't run async functions"):
        await run_in_executor(executor, wrong)
    wrong = async_three()
    with pytest.raises(TypeError, match="got <coroutine object async_three"):
        await run_in_executor(executor, wrong)
    assert not executor.given

    def hides_it() -> Any:
        return async_three()

    with pytest.raises(TypeError, match=r"hides_it' is async, and executors can't run async functions"):
        await run_in_executor(executor, hides_it)
    gc.collect()
