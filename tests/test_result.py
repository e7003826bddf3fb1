"""The read side: reading, showing and waiting for one result."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import pytest
import trio
from _helpers import Boom, is_free
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import triores
from triores import (
    Future,
    FutureCancelledException,
    FutureNeverSetException,
    FutureSetAgainException,
    ResultBase,
    ResultCapture,
    ResultStatistics,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    as_completed,
    isfuture,
    wait_all,
    wait_any,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

T = TypeVar("T")


def failed(error: BaseException) -> Future[Any]:
    future = Future[Any]()
    future.set_exception(error)
    return future


def done(value: object = 3) -> Future[Any]:
    future = Future[Any]()
    future.set_result(value)
    return future


async def a_cancelled() -> trio.Cancelled:
    """An exception raised by a cancelled wait."""
    with trio.CancelScope() as scope:
        scope.cancel(reason="enough")
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            return error
    raise AssertionError


def nested(error: BaseException, depth: int) -> BaseException:
    for _ in range(depth):
        error = BaseExceptionGroup("nested", [error])
    return error


# ---- reading


def test_a_pending_result_cannot_be_read() -> None:
    future = Future[int]()
    assert not future.is_done()
    assert not future.done()
    assert not future.cancelled()
    for read in (future.result, future.unwrap, future.exception, lambda: future.outcome):
        with pytest.raises(TaskNotDoneException) as caught:
            read()
        assert caught.value.args == (future,)
    assert not future.is_done()


def test_a_value_can_be_read_any_number_of_times() -> None:
    value = object()
    future = done(value)
    for _ in range(3):
        assert future.is_done()
        assert future.done()
        assert future.result() is value
        assert future.unwrap() is value
        assert future.exception() is None
        assert not future.cancelled()
        assert future.outcome.unwrap() is value


def test_each_result_call_on_a_failure_raises_a_new_exception_from_the_same_cause() -> None:
    error = Boom("no")
    future = failed(error)
    raised: list[TaskFailedException] = []
    for _ in range(3):
        with pytest.raises(TaskFailedException) as caught:
            future.result()
        raised.append(caught.value)
        assert type(caught.value) is TaskFailedException
        assert caught.value.args == (future,)
        assert caught.value.__cause__ is error
    assert len(set(map(id, raised))) == 3
    assert future.exception() is error
    assert not future.cancelled()


def raised_and_caught(error: BaseException) -> BaseException:
    """An exception with a traceback, and with a context."""
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise error  # without 'from None': the context is part of the test
    except BaseException as caught:
        return caught


async def test_unwrap_and_await_raise_the_original_exception_and_its_traceback_does_not_grow() -> None:
    original = raised_and_caught(Boom("no"))
    before, context = traceback.format_tb(original.__traceback__), original.__context__
    future = failed(original)

    async def read_while_another_exception_is_handled(reading: Callable[[], Awaitable[object]]) -> None:
        try:
            raise ValueError("of the reader")
        except ValueError:
            with pytest.raises(Boom) as caught:
                await reading()
            assert caught.value is original

    lengths: set[int] = set()
    for _ in range(1000):
        await read_while_another_exception_is_handled(partial(read, future))
        await read_while_another_exception_is_handled(partial(unwrap, future))
        lengths.add(len(traceback.extract_tb(original.__traceback__)))
        with pytest.raises(TaskFailedException):
            future.result()
        assert future.exception() is original
        assert original.__context__ is context
        assert original.__cause__ is None
    assert len(lengths) == 1
    assert traceback.format_tb(original.__traceback__)[-len(before) :] == before
    future.outcome  # sets the traceback back to what it was when the result was settled
    assert traceback.format_tb(original.__traceback__) == before


async def unwrap(result: ResultBase[object]) -> object:
    return result.unwrap()


async def test_readers_in_several_tasks_get_the_same_exception_but_not_each_others_frames() -> None:
    future = Future[int]()
    depths: set[int] = set()

    async def wait() -> None:
        with pytest.raises(Boom) as caught:
            await future
        depths.add(len(traceback.extract_tb(caught.value.__traceback__)))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        future.set_exception(Boom())
    assert len(depths) == 1


async def test_a_failure_keeps_its_cause() -> None:
    original = Boom()
    original.__cause__ = KeyError()
    with pytest.raises(Boom) as caught:
        await failed(original)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__context__ is None


async def test_an_exception_that_allows_no_attributes_can_be_read() -> None:
    class FrozenError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    original = FrozenError()
    for _ in range(3):
        with pytest.raises(FrozenError) as caught:
            await failed(original)
        assert caught.value is original


HARMFUL: list[BaseException] = [
    StopIteration(3),
    StopAsyncIteration(),
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(3),
    BaseExceptionGroup("mixed", [Boom(), KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", HARMFUL, ids=repr)
async def test_an_exception_that_could_do_harm_in_another_task_is_raised_only_as_a_cause(error: BaseException) -> None:
    future = failed(error)
    for reading in (read, unwrap, result):
        with pytest.raises(TaskFailedException) as caught:
            await reading(future)
        assert type(caught.value) is TaskFailedException
        assert caught.value.__cause__ is error
        assert caught.value.args == (future,)
    assert future.exception() is error
    assert not future.cancelled()


async def result(result: ResultBase[object]) -> object:
    return result.result()


async def test_an_exception_group_is_raised_unchanged() -> None:
    group = ExceptionGroup("several", [Boom(), ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        await failed(group)
    assert caught.value is group


def test_each_access_returns_a_new_outcome() -> None:
    for result in (done(), failed(Boom())):
        assert result.outcome is not result.outcome
        assert result.outcome == result.outcome
    assert done().outcome == outcome.Value(3)
    future = failed(Boom())
    for _ in range(3):
        with pytest.raises(Boom):
            future.outcome.unwrap()
    assert isinstance(future.outcome, outcome.Error)


def test_a_value_may_be_an_exception_or_an_outcome() -> None:
    for value in (Boom(), outcome.Error(Boom()), outcome.Value(1), None, Future[int]()):
        future = done(value)
        assert future.result() is value
        assert future.exception() is None


async def test_a_stored_cancelled_does_no_harm_when_it_is_read_elsewhere() -> None:
    error = await a_cancelled()
    future = failed(error)
    with trio.CancelScope() as scope:
        for reading in (read, unwrap, result):
            with pytest.raises(TaskCancelledException) as caught:
                await reading(future)
            assert caught.value.__cause__ is error
            assert not isinstance(caught.value, trio.Cancelled)
    assert not scope.cancelled_caught

    # A cancelled scope would mistake a stray `Cancelled` for its own.
    reached = False
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(TaskCancelledException):
            future.result()
        with pytest.raises(TaskCancelledException):
            future.unwrap()
        reached = True
    assert reached
    assert not scope.cancelled_caught


async def test_cancelled_and_failed_results_can_be_told_apart() -> None:
    cancelled = await a_cancelled()
    nested_deeply = nested(cancelled, 3000)  # deeper than Python can recurse
    several = BaseExceptionGroup("several", [cancelled, BaseExceptionGroup("inner", [cancelled])])
    for error in (cancelled, FutureCancelledException(), nested_deeply, several):
        assert failed(error).cancelled()
        for reading in (read, unwrap, result):
            with pytest.raises(TaskCancelledException) as caught:
                await reading(failed(error))
            assert caught.value.__cause__ is error
    also_failed = BaseExceptionGroup("also failed", [cancelled, BaseExceptionGroup("inner", [cancelled, Boom()])])
    for error in (
        Boom(),
        KeyboardInterrupt(),
        also_failed,
        ExceptionGroup("failed", [Boom()]),
        ExceptionGroup("of futures", [FutureCancelledException()]),
    ):
        assert not failed(error).cancelled()
        with pytest.raises(TaskFailedException) as failure:
            failed(error).result()
        assert type(failure.value) is TaskFailedException


async def test_statistics_count_waits_and_callbacks(nursery: trio.Nursery) -> None:
    future = Future[int]()
    assert future.statistics() == ResultStatistics(waiters=0, callbacks=0)
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    assert future.statistics() == ResultStatistics(waiters=1, callbacks=0)
    nursery.start_soon(wait_all, [future, future])
    future.add_done_callback(id)
    future.add_done_callback(id)
    await wait_all_tasks_blocked()
    assert future.statistics() == ResultStatistics(waiters=2, callbacks=2)
    future.set_result(3)
    assert future.statistics() == ResultStatistics(waiters=0, callbacks=0)


def test_isfuture_is_true_only_for_results_of_triores() -> None:
    assert isfuture(Future[int]())
    assert isfuture(ResultCapture(trio.sleep, 1))
    assert isfuture(ResultBase[int]())
    assert not isfuture(Future)
    assert not isfuture(None)
    assert not isfuture(concurrent.futures.Future[int]())


# ---- showing


def test_repr_and_format_show_the_state() -> None:
    assert repr(Future[int]()) == "Future(is_done=False)"
    assert repr(done("text")) == "Future(result='text')"
    assert repr(failed(KeyError(3))) == "Future(exception=KeyError(3))"
    assert f"{done()}" == f"{done():#}" == "Future(result=3)"
    assert repr(ResultBase[int]()) == "ResultBase(is_done=False)"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"x" * 10_000_000,
        bytearray(10_000_000),
        [list(range(100))] * 100,
        {n: "x" * n for n in range(999)},
    ],
    ids=["str", "bytes", "bytearray", "lists", "dict"],
)
def test_reprs_and_messages_are_short_whatever_the_value_is(value: Any) -> None:
    assert len(repr(done(value))) < 400
    assert len(repr(failed(Boom(value)))) < 400
    with pytest.raises(TaskFailedException) as caught:
        failed(Boom(value)).result()
    assert len(str(caught.value)) < 400
    assert len(repr(caught.value)) < 100


def test_a_long_value_is_cut_to_a_hundred_characters_and_nested_containers_to_three_hundred() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 120 + "y"

    assert repr(done(Long())) == f"Future(result={'x' * 80}...{'x' * 16}y)"
    assert len(repr(done([["x" * 90] * 5] * 5))) == len("Future(result=)") + 300


async def test_the_message_for_a_chain_of_failures_stays_short() -> None:
    async def depend(before: ResultBase[int] | None) -> int:
        return 1 // 0 if before is None else before.result()

    lengths: list[int] = []
    async with trio.open_nursery() as nursery:
        capture: ResultCapture[int] | None = None
        for _ in range(150):
            capture = ResultCapture.start_soon(nursery, depend, capture, suppress_exception=True)
            await capture.wait_done()
            with pytest.raises(TaskFailedException) as caught:
                capture.result()
            lengths.append(len(str(caught.value)))
            assert len(repr(capture)) < 400
    assert max(lengths) < 500
    assert len(set(lengths[5:])) == 1


def test_a_value_that_contains_its_own_result_can_be_shown() -> None:
    future = Future[Any]()
    future.set_result(future)
    assert repr(future) == "Future(result=...)"
    assert "Future(result=" in f"{future}"
    assert future.result() is future
    future = Future[Any]()
    future.set_result([future])
    assert repr(future) == "Future(result=[...])"
    future = Future[Any]()
    error = Boom(future)
    future.set_exception(error)
    assert repr(future) == "Future(exception=Boom(...))"
    with pytest.raises(TaskFailedException, match=r"^this Future failed: Boom\("):
        future.result()
    error.args = ()


class Unshowable(Exception):
    def __repr__(self) -> str:
        raise Boom("in repr")

    __str__ = __repr__


def test_an_error_whose_message_needs_a_failing_repr_is_still_raised() -> None:
    assert repr(done(Unshowable())) == "Future(result=<Unshowable whose repr() raised Boom>)"
    future = failed(Unshowable())
    assert repr(future) == "Future(exception=<Unshowable whose repr() raised Boom>)"
    with pytest.raises(TaskFailedException, match=r"^this Future failed: <Unshowable whose repr\(\) raised Boom>$"):
        future.result()


# ---- waiting


async def test_waiting_for_a_done_result_is_a_checkpoint() -> None:
    for result in (done(), failed(Boom())):
        with assert_checkpoints():
            await result.wait_done()
    with assert_checkpoints():
        assert await done() == 3
    with assert_checkpoints(), pytest.raises(Boom):
        await failed(Boom())


async def test_waiting_for_a_pending_result_is_a_checkpoint() -> None:
    async with trio.open_nursery() as nursery:
        for error in (None, Boom()):
            future = Future[int]()
            nursery.start_soon(set_later, future, error)
            with assert_checkpoints():
                await future.wait_done()  # this raises nothing
            assert future.exception() is error


async def set_later(future: Future[int], error: BaseException | None = None) -> None:
    await wait_all_tasks_blocked()
    if error is None:
        future.set_result(3)
    else:
        future.set_exception(error)


async def test_in_a_cancelled_scope_even_a_wait_for_a_done_result_is_cancelled() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await done().wait_done()
        pytest.fail("not reached")
    assert scope.cancelled_caught


async def test_await_returns_the_value_or_raises_the_exception(nursery: trio.Nursery) -> None:
    future = Future[int]()
    nursery.start_soon(set_later, future)
    assert await future == 3
    future = Future[int]()
    error = Boom()
    nursery.start_soon(set_later, future, error)
    with pytest.raises(Boom) as caught:
        await future
    assert caught.value is error


async def test_all_waiting_tasks_are_woken_once_the_result_is_done() -> None:
    future = Future[int]()
    seen: list[int] = []

    async def wait() -> None:
        seen.append(await future)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not is_free(future)
        future.set_result(3)
        assert is_free(future)
    assert seen == [3] * 5


async def test_a_cancelled_wait_raises_a_plain_cancelled_and_leaves_nothing_registered() -> None:
    future = Future[int]()
    for wait in (future.wait_done, partial(read, future)):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_plain_cancelled, wait)
                await wait_all_tasks_blocked()
                assert not is_free(future)
                scope.cancel()
        assert is_free(future)
        assert not future.is_done()


async def read(result: ResultBase[object]) -> object:
    return await result


async def expect_plain_cancelled(wait: Callable[[], Awaitable[object]]) -> None:
    try:
        await wait()
    except BaseException as error:
        assert type(error) is trio.Cancelled
        raise
    pytest.fail("not reached")


async def test_cancelling_one_wait_does_not_disturb_the_others() -> None:
    future = Future[int]()
    scopes = [trio.CancelScope() for _ in range(4)]
    woken: list[int] = []

    async def wait(number: int) -> None:
        with scopes[number]:
            await future
            woken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(wait, number)
        await wait_all_tasks_blocked()
        scopes[1].cancel()
        scopes[2].cancel()
        await wait_all_tasks_blocked()
        assert not is_free(future)
        future.set_result(3)
    assert sorted(woken) == [0, 3]


async def test_a_task_that_starts_waiting_while_a_cancelled_wait_ends_is_woken(nursery: trio.Nursery) -> None:
    future = Future[int]()
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await future

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    nursery.start_soon(set_later, future)
    scope.cancel()
    assert await future == 3  # the cancelled task hasn't run since, and is still registered


async def test_tasks_that_are_cancelled_together_and_wait_again_are_woken() -> None:
    future = Future[int]()
    scopes: list[trio.CancelScope] = []
    woken: list[int] = []

    async def wait_again() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await future
        woken.append(await future)  # the other task hasn't noticed its cancellation yet

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(wait_again)
        await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await wait_all_tasks_blocked()
        future.set_result(3)
    assert woken == [3, 3]


async def test_a_hundred_cancelled_waits_leave_nothing_registered() -> None:
    future = Future[int]()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(future.wait_done)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert is_free(future)
    for _ in range(100):
        with trio.CancelScope() as scope:
            scope.cancel()
            await future.wait_done()
    assert is_free(future)


async def test_a_wait_settled_and_cancelled_in_the_same_tick_ends_with_whichever_came_first() -> None:
    for settle_first in (True, False):
        future = Future[int]()
        async with trio.open_nursery() as nursery:
            wait = ResultCapture.start_soon(nursery, future.wait_done, cancel_scope=trio.CancelScope())
            await wait_all_tasks_blocked()
            assert wait.cancel_scope is not None
            if settle_first:
                future.set_result(3)
            wait.cancel_scope.cancel()
            if not settle_first:
                future.set_result(3)
        assert wait.cancelled() is not settle_first
        assert is_free(future)


def test_outside_a_trio_run_a_wait_says_that_it_needs_trio() -> None:
    needs_trio = "triores needs Trio"
    for result in (Future[int](), done()):
        with pytest.raises(RuntimeError, match=needs_trio):
            asyncio.run(read(result))
        with pytest.raises(RuntimeError, match=needs_trio):
            result.wait_done().send(None)
        assert is_free(result)


# ---- finalizers
#
# The garbage collector may run finalizers, and so any code at all, whenever a function begins or has returned. So each
# test does one thing just as the n-th function of the package begins or returns, for every n.

PACKAGE = str(Path(triores.__file__).parent)


class Finalizer:
    """A profile function that makes a call as the n-th function of the package begins or returns."""

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        self.left = number
        self.call = call

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "c_call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.left -= 1
            if self.left == 0:
                self.call()

    def run(self, call: Callable[[], T]) -> T:
        sys.setprofile(self)
        try:
            return call()
        finally:
            sys.setprofile(None)


async def iterate(results: list[Future[int]]) -> None:
    iterator = as_completed(results)
    assert {await anext(iterator) for _ in results} == set(results)


WAITS: dict[str, Callable[[list[Future[int]]], Awaitable[object]]] = {
    "wait_done": lambda futures: futures[-1].wait_done(),
    "await": lambda futures: read(futures[-1]),
    "wait_all": wait_all,
    "wait_any": wait_any,
    "as_completed": iterate,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("already_waited_for", [False, True])
@pytest.mark.parametrize("settled", [0, 1])
async def test_a_wait_ends_even_if_a_finalizer_settles_a_result_as_it_begins(
    wait: Callable[[list[Future[int]]], Awaitable[object]], already_waited_for: bool, settled: int
) -> None:
    for number in itertools.count(1):
        futures = [Future[int](), Future[int]()]
        async with trio.open_nursery() as nursery:
            if already_waited_for:
                for future in futures:
                    nursery.start_soon(future.wait_done)
            await wait_all_tasks_blocked()
            waiting = ResultCapture(wait, futures)
            nursery.start_soon(waiting.run)
            finalizer = Finalizer(number, partial(futures[settled].set_result, 3))
            sys.setprofile(finalizer)
            await wait_all_tasks_blocked()
            sys.setprofile(None)
            assert not waiting.is_done() or wait is not wait_all
            for future in futures:
                if not future.is_done():
                    future.set_result(3)
            await wait_all_tasks_blocked()
            assert waiting.is_done()
            assert waiting.exception() is None
        assert all(map(is_free, futures))
        if finalizer.left > 0:
            return


@pytest.mark.parametrize("already_waited_for", [False, True])
async def test_a_callback_runs_even_if_a_finalizer_settles_the_result_as_it_is_registered(
    already_waited_for: bool, nursery: trio.Nursery
) -> None:
    for number in itertools.count(1):
        future = Future[int]()
        calls: list[object] = []
        if already_waited_for:
            nursery.start_soon(future.wait_done)
        await wait_all_tasks_blocked()
        finalizer = Finalizer(number, partial(future.set_result, 3))
        finalizer.run(partial(future.add_done_callback, calls.append))
        if finalizer.left > 0:
            future.set_result(3)
        assert calls == [future]
        if finalizer.left > 0:
            return


async def test_a_result_is_settled_once_even_if_a_finalizer_settles_it_meanwhile() -> None:
    def set_result() -> bool:
        try:
            future.set_result(3)
        except FutureSetAgainException:
            return False
        return True

    def cancel() -> bool:
        return future.cancel()

    def must_set() -> bool:
        with future.must_set():
            pass
        return isinstance(future.exception(), FutureNeverSetException)

    def finalize() -> None:
        settled["finalizer"] = cancel()

    for settle in (set_result, cancel, must_set):
        for number in itertools.count(1):
            future = Future[int]()
            outcomes: list[str] = []
            future.add_done_callback(lambda result: outcomes.append(repr(result)))
            settled = {"finalizer": False}
            finalizer = Finalizer(number, finalize)
            settled["call"] = finalizer.run(settle)
            assert sum(settled.values()) == 1
            assert outcomes == [repr(future)]
            if finalizer.left > 0:
                break


def test_a_finalizer_may_settle_another_result_of_a_run_that_has_ended() -> None:
    async def made() -> Future[int]:
        return Future[int]()

    for number in itertools.count(1):
        future, other = trio.run(made), trio.run(made)
        finalizer = Finalizer(number, partial(other.set_result, 3))
        # If the thread waited for itself, that would be forever.
        thread = threading.Thread(target=finalizer.run, args=[partial(future.set_result, 3)], daemon=True)
        thread.start()
        thread.join(timeout=5)
        assert future.is_done()
        if finalizer.left > 0:
            return
        assert other.is_done()


async def test_callbacks_run_even_if_a_finalizer_settles_another_result_as_they_begin() -> None:
    for number in itertools.count(1):
        futures = [Future[int](), Future[int]()]
        calls: list[Future[int]] = []
        for future in futures:
            for _ in range(2):
                future.add_done_callback(calls.append)
        finalizer = Finalizer(number, partial(futures[1].set_result, 3))
        finalizer.run(partial(futures[0].set_result, 3))
        if finalizer.left > 0:
            return
        assert sorted(futures.index(future) for future in calls) == [0, 0, 1, 1]


@pytest.mark.parametrize("callbacks", [0, 1])
async def test_a_wait_is_not_undone_if_an_iterator_is_dropped_as_it_begins(callbacks: int) -> None:
    for number in itertools.count(1):
        future = Future[int]()
        for _ in range(callbacks):
            future.add_done_callback(id)
        iterators = [as_completed([future])]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(future.wait_done)
            finalizer = Finalizer(number, iterators.clear)
            sys.setprofile(finalizer)
            await wait_all_tasks_blocked()
            sys.setprofile(None)
            iterators.clear()
            assert future.statistics() == ResultStatistics(waiters=1, callbacks=callbacks)
            future.set_result(3)
        if finalizer.left > 0:
            return
