"""The read side: reading, waiting for one result, callbacks, and whose a result is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import Boom, in_foreign_run, in_foreign_thread, is_free
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import (
    Future,
    FutureCancelledException,
    ResultBase,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    as_completed,
    isfuture,
    results_to_channel,
    wait_all,
    wait_any,
)
from triores._result import _Several

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def failed(error: BaseException) -> Future[Any]:
    future = Future[Any]()
    future.set_exception(error)
    return future


def done(value: object = 3) -> Future[Any]:
    future = Future[Any]()
    future.set_result(value)
    return future


async def a_cancelled() -> trio.Cancelled:
    """The exception of a wait that was cancelled."""
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


def test_a_pending_result_can_not_be_read() -> None:
    future = Future[int]()
    assert not future.is_done()
    assert not future.done()
    assert not future.cancelled()
    for read in (future.result, future.exception, lambda: future.outcome):
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
        assert future.exception() is None
        assert not future.cancelled()
        assert future.outcome.unwrap() is value


def test_each_read_of_a_failure_raises_a_fresh_exception_from_the_same_cause() -> None:
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


def test_reading_a_failure_does_not_grow_the_traceback_of_the_original() -> None:
    try:
        raise Boom
    except Boom as error:
        original = error
    before = traceback.format_tb(original.__traceback__)
    future = failed(original)
    for _ in range(100):
        with pytest.raises(TaskFailedException):
            future.result()
        assert future.exception() is original
    assert traceback.format_tb(original.__traceback__) == before
    assert original.__context__ is None
    assert original.__cause__ is None


def test_each_access_gives_an_outcome_of_its_own() -> None:
    for result in (done(), failed(Boom())):
        assert result.outcome is not result.outcome
        assert result.outcome == result.outcome
    assert done().outcome == outcome.Value(3)
    future = failed(Boom())
    for _ in range(3):
        with pytest.raises(Boom):
            future.outcome.unwrap()
    assert isinstance(future.outcome, outcome.Error)


def test_what_looks_like_an_exception_may_be_a_value() -> None:
    for value in (Boom(), outcome.Error(Boom()), outcome.Value(1), None, Future[int]()):
        future = done(value)
        assert future.result() is value
        assert future.exception() is None


def test_a_failure_with_an_exception_that_ends_iteration_can_be_read() -> None:
    for error in (StopIteration(3), StopAsyncIteration(), GeneratorExit()):
        with pytest.raises(TaskFailedException) as caught:
            failed(error).result()
        assert caught.value.__cause__ is error


async def test_a_stored_cancelled_read_elsewhere_does_no_harm() -> None:
    error = await a_cancelled()
    future = failed(error)
    with trio.CancelScope() as scope:
        for _ in range(2):
            with pytest.raises(TaskCancelledException) as caught:
                await future
            assert caught.value.__cause__ is error
            assert not isinstance(caught.value, trio.Cancelled)
    assert not scope.cancelled_caught

    # A scope that is cancelled itself would take a stray `Cancelled` for its own.
    reached = False
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(TaskCancelledException):
            future.result()
        reached = True
    assert reached
    assert not scope.cancelled_caught


async def test_cancelled_tells_a_cancellation_from_a_failure() -> None:
    cancelled = await a_cancelled()
    group = nested(cancelled, 3000)  # deeper than the interpreter can recurse
    inner: list[BaseException] = [FutureCancelledException(), cancelled]
    mixed = BaseExceptionGroup("mixed", [cancelled, BaseExceptionGroup("inner", inner)])
    for error in (cancelled, FutureCancelledException(), group, mixed):
        assert failed(error).cancelled()
        with pytest.raises(TaskCancelledException):
            failed(error).result()
    inner = [cancelled, Boom()]
    also_failed = BaseExceptionGroup("also failed", [cancelled, BaseExceptionGroup("inner", inner)])
    for error in (Boom(), KeyboardInterrupt(), also_failed, ExceptionGroup("failed", [Boom()])):
        assert not failed(error).cancelled()
        with pytest.raises(TaskFailedException) as caught:
            failed(error).result()
        assert type(caught.value) is TaskFailedException


def test_isfuture_knows_the_results_of_triores_only() -> None:
    assert isfuture(Future[int]())
    assert isfuture(ResultCapture(trio.sleep, 1))
    assert isfuture(ResultBase[int]())
    assert not isfuture(Future)
    assert not isfuture(None)
    assert not isfuture(concurrent.futures.Future[int]())


# ---- showing


def test_repr_and_format_show_the_state() -> None:
    assert repr(Future[int]()) == "Future(is_done=False)"
    assert repr(done("text")) == "Future(result=text)"
    assert repr(failed(KeyError(3))) == "Future(exception=KeyError(3))"
    assert f"{done()}" == f"{done():#}" == "Future(result=3)"
    assert repr(ResultBase[int]()) == "ResultBase(is_done=False)"
    with pytest.raises(ValueError, match=r"^a result is formatted with '' or '#', not with 'x'$"):
        format(done(), "x")


def test_a_value_that_holds_the_result_itself_can_be_shown() -> None:
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
    with pytest.raises(TaskFailedException, match=r"^Future\(exception=Boom\(\.\.\.\)\) failed"):
        future.result()
    error.args = ()


class Unshowable(Exception):
    def __repr__(self) -> str:
        raise Boom("in repr")

    __str__ = __repr__


def test_what_a_repr_raises_does_not_hide_the_error_that_is_told() -> None:
    assert repr(done(Unshowable())) == "Future(result=<Unshowable whose str() raised Boom>)"
    future = failed(Unshowable())
    assert repr(future) == "Future(exception=<Unshowable whose repr() raised Boom>)"
    with pytest.raises(TaskFailedException) as caught:
        future.result()
    assert str(caught.value).startswith("Future(exception=<Unshowable whose repr() raised Boom>) failed")
    with pytest.raises(Exception, match=r"^Future\(exception=<Unshowable whose .* can be settled only once"):
        future.set_result(1)


# ---- waiting


async def test_waiting_for_a_done_result_is_a_checkpoint() -> None:
    for result in (done(), failed(Boom())):
        with assert_checkpoints():
            await result.wait_done()
    with assert_checkpoints():
        assert await done() == 3
    with assert_checkpoints(), pytest.raises(TaskFailedException):
        await failed(Boom())


async def test_waiting_for_a_pending_result_is_a_checkpoint() -> None:
    async with trio.open_nursery() as nursery:
        for error in (None, Boom()):
            future = Future[int]()
            nursery.start_soon(set_later, future, error)
            with assert_checkpoints():
                await future.wait_done()  # raises nothing
            assert future.exception() is error


async def set_later(future: Future[int], error: BaseException | None = None) -> None:
    await wait_all_tasks_blocked()
    if error is None:
        future.set_result(3)
    else:
        future.set_exception(error)


async def test_a_wait_in_a_cancelled_scope_is_cancelled_even_for_a_done_result() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await done().wait_done()
        pytest.fail("not reached")
    assert scope.cancelled_caught


async def test_await_gives_the_value_or_raises_what_reading_raises(nursery: trio.Nursery) -> None:
    future = Future[int]()
    nursery.start_soon(set_later, future)
    assert await future == 3
    future = Future[int]()
    nursery.start_soon(set_later, future, Boom())
    with pytest.raises(TaskFailedException) as caught:
        await future
    assert caught.value.args == (future,)


async def test_all_who_wait_are_woken_and_see_the_result_done() -> None:
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


async def test_one_cancelled_wait_does_not_disturb_the_others() -> None:
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


async def test_who_begins_to_wait_while_a_cancelled_wait_ends_is_woken(nursery: trio.Nursery) -> None:
    future = Future[int]()
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await future

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    nursery.start_soon(set_later, future)
    scope.cancel()
    assert await future == 3  # the other task has not run since, and this one waits beside it


async def test_who_waits_anew_while_others_are_cancelled_too_is_woken() -> None:
    future = Future[int]()
    scopes: list[trio.CancelScope] = []
    woken: list[int] = []

    async def wait_again() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await future
        woken.append(await future)  # while the second of the two has not noticed yet that it was cancelled

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


async def test_a_wait_whose_result_is_settled_and_which_is_cancelled_in_one_tick() -> None:
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
    needs_trio = r"^triores needs Trio: call this from inside trio\.run\(\.\.\.\)$"
    for result in (Future[int](), done()):
        with pytest.raises(RuntimeError, match=needs_trio):
            asyncio.run(read(result))
        with pytest.raises(RuntimeError, match=needs_trio):
            result.wait_done().send(None)
        assert is_free(result)
    with pytest.raises(RuntimeError, match=needs_trio):
        Future[int]().add_done_callback(print)


# ---- callbacks


async def test_callbacks_run_in_order_once_when_the_result_is_stored_and_the_waiters_are_woken() -> None:
    future = Future[int]()
    calls: list[object] = []

    def call(number: int, result: Future[int]) -> None:
        assert result is future
        assert result.result() == 3
        assert trio.lowlevel.current_statistics().tasks_runnable == 2
        calls.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        nursery.start_soon(wait_any, [future])
        await wait_all_tasks_blocked()
        for number in range(5):
            future.add_done_callback(partial(call, number))
        assert not calls
        future.set_result(3)
        assert calls == [0, 1, 2, 3, 4]
    assert is_free(future)
    assert calls == [0, 1, 2, 3, 4]


def test_a_callback_of_a_done_result_runs_at_once_also_outside_trio() -> None:
    calls: list[object] = []
    future = done()
    future.add_done_callback(calls.append)
    assert calls == [future]
    with pytest.raises(Boom):
        future.add_done_callback(raise_boom)
    assert future.remove_done_callback(calls.append) == 0


def raise_boom(_result: object) -> None:
    raise Boom


variable = contextvars.ContextVar("variable", default="outside")


async def test_a_callback_runs_in_a_copy_of_the_context_at_its_registration() -> None:
    seen: list[str] = []

    def call(_result: object) -> None:
        seen.append(variable.get())
        variable.set("changed by a callback")

    future = Future[int]()
    variable.set("first")
    future.add_done_callback(call)
    variable.set("second")
    future.add_done_callback(call)
    given = contextvars.Context()
    future.add_done_callback(call, context=given)
    variable.set("third")
    future.set_result(3)
    assert seen == ["first", "second", "outside"]
    assert variable.get() == "third"
    assert given[variable] == "changed by a callback"
    future.add_done_callback(call, context=given)
    future.add_done_callback(call)
    assert seen[3:] == ["changed by a callback", "third"]
    assert variable.get() == "third"


async def test_callbacks_can_be_removed() -> None:
    calls: list[object] = []
    other: list[object] = []
    future = Future[int]()
    assert future.remove_done_callback(calls.append) == 0
    future.add_done_callback(calls.append)
    future.add_done_callback(other.append)
    future.add_done_callback(calls.append)
    assert future.remove_done_callback(calls.append) == 2
    assert future.remove_done_callback(calls.append) == 0
    assert not is_free(future)
    assert future.remove_done_callback(other.append) == 1
    assert is_free(future)
    future.add_done_callback(other.append)
    future.set_result(3)
    assert calls == []
    assert other == [future]


async def test_a_callback_can_remove_those_that_have_not_begun_to_run() -> None:
    calls: list[str] = []
    removed: list[int] = []
    future = Future[int]()

    def first(result: Future[int]) -> None:
        calls.append("first")
        removed.append(result.remove_done_callback(second))
        removed.append(result.remove_done_callback(first))

    def second(_result: object) -> None:
        pytest.fail("was removed")

    def third(_result: object) -> None:
        calls.append("third")

    for callback in (first, second, third, second):
        future.add_done_callback(callback)
    future.set_result(3)
    assert calls == ["first", "third"]
    assert removed == [2, 0]
    assert is_free(future)


async def test_a_callback_that_is_registered_by_a_callback_runs_at_once() -> None:
    calls: list[str] = []
    future = Future[int]()

    def first(result: Future[int]) -> None:
        result.add_done_callback(lambda _: calls.append("inner"))
        calls.append("first")

    future.add_done_callback(first)
    future.add_done_callback(lambda _: calls.append("second"))
    future.set_result(3)
    assert calls == ["inner", "first", "second"]


async def test_callbacks_can_settle_other_results_and_wait_for_none() -> None:
    futures = [Future[int]() for _ in range(20)]
    order: list[int] = []

    def settle(number: int, _result: object) -> None:
        order.append(number)
        if number + 1 < len(futures):
            futures[number + 1].set_result(number)

    for number, future in enumerate(futures):
        future.add_done_callback(partial(settle, number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_all, futures)
        await wait_all_tasks_blocked()
        futures[0].set_result(0)
    assert order == list(range(20))
    assert all(map(is_free, futures))


async def test_a_callback_can_not_settle_its_own_result_again() -> None:
    future = Future[int]()
    future.add_done_callback(lambda _: future.set_result(4))
    with pytest.raises(ExceptionGroup) as caught:
        future.set_result(3)
    (error,) = caught.value.exceptions
    assert type(error).__name__ == "FutureSetAgainException"
    assert future.result() == 3


async def test_what_callbacks_raise_is_raised_together_and_stops_no_other_callback() -> None:
    future = Future[int]()
    calls: list[object] = []
    errors = [Boom(1), ValueError(2)]

    def fail(error: BaseException, _result: object) -> None:
        raise error

    future.add_done_callback(partial(fail, errors[0]))
    future.add_done_callback(calls.append)
    future.add_done_callback(partial(fail, errors[1]))
    future.add_done_callback(calls.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        nursery.start_soon(wait_all, [future])
        await wait_all_tasks_blocked()
        with pytest.raises(ExceptionGroup, match=r"^callbacks of a result failed") as caught:
            future.set_result(3)
    assert list(caught.value.exceptions) == errors
    assert calls == [future, future]
    assert future.result() == 3
    assert is_free(future)

    future = Future[int]()
    future.add_done_callback(partial(fail, errors[0]))
    future.add_done_callback(partial(fail, KeyboardInterrupt()))
    with pytest.raises(BaseExceptionGroup) as caught_base:
        future.set_exception(Boom(3))
    assert not isinstance(caught_base.value, Exception)
    assert [type(error) for error in caught_base.value.exceptions] == [Boom, KeyboardInterrupt]


async def test_what_is_no_synchronous_function_is_refused_as_a_callback() -> None:
    class AsyncCallable:
        async def __call__(self, result: object) -> None: ...

    async def async_function(result: object) -> None: ...

    future = Future[int]()
    wrong: Any
    for wrong in (async_function, partial(async_function, 1), AsyncCallable(), AsyncCallable().__call__, 3, None):
        with pytest.raises(
            TypeError, match=r"^a done callback is a synchronous function of one argument, not .*wait_done"
        ):
            future.add_done_callback(wrong)
    wrong = 3
    with pytest.raises(
        TypeError, match=r"^context is a contextvars.Context, not 3; pass 'contextvars.copy_context\(\)'$"
    ):
        future.add_done_callback(print, context=wrong)
    assert is_free(future)


# ---- whose it is


async def test_a_result_belongs_to_a_run_while_something_is_registered_on_it() -> None:
    token = trio.lowlevel.current_trio_token()
    future = Future[int]()
    assert future.trio_token is None
    future.add_done_callback(print)
    assert future.trio_token is token
    assert not is_free(future)
    future.remove_done_callback(print)
    assert is_free(future)
    assert future.trio_token is token  # to which it last belonged

    async def wait_in_another_run() -> trio.lowlevel.TrioToken:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(future.wait_done)
                await wait_all_tasks_blocked()
                scope.cancel()
        return trio.lowlevel.current_trio_token()

    assert future.trio_token is not await in_foreign_run(wait_in_another_run)
    assert future.trio_token is not token
    assert is_free(future)
    await in_foreign_thread(partial(future.set_result, 3))
    assert await future == 3


async def test_a_done_result_can_be_read_and_waited_for_anywhere() -> None:
    future = Future[int]()
    future.add_done_callback(id)
    future.set_result(3)
    calls: list[object] = []
    assert future.trio_token is trio.lowlevel.current_trio_token()
    assert await in_foreign_thread(future.result) == 3
    await in_foreign_thread(partial(future.add_done_callback, calls.append))
    assert calls == [future]
    assert await in_foreign_run(partial(read, future)) == 3
    assert await in_foreign_run(partial(wait_any, [future])) is future
    await in_foreign_run(partial(wait_all, [future]))


class Owned:
    """A pending future on which one thing of each kind is registered."""

    def __init__(self) -> None:
        self.future = Future[int]()
        self.calls: list[object] = []
        self.woken: list[str] = []
        self.iterator = as_completed([self.future])
        self.future.add_done_callback(self.calls.append)

    async def wait_done(self) -> None:
        await self.future.wait_done()
        self.woken.append("wait_done")

    async def wait_all(self) -> None:
        await wait_all([self.future])
        self.woken.append("wait_all")

    async def wait_any(self) -> None:
        assert await wait_any([self.future]) is self.future
        self.woken.append("wait_any")

    async def iterate(self) -> None:
        assert [result async for result in self.iterator] == [self.future]
        self.woken.append("as_completed")

    async def check_unchanged(self, nursery: trio.Nursery) -> None:
        """Settle the future, and see that everything is told of it."""
        assert not self.future.is_done()
        assert not self.calls
        await wait_all_tasks_blocked()
        assert not self.woken
        assert self.future.trio_token is trio.lowlevel.current_trio_token()
        self.future.set_result(3)
        assert self.calls == [self.future]
        await wait_all_tasks_blocked()
        assert sorted(self.woken) == ["as_completed", "wait_all", "wait_any", "wait_done"]


@pytest.fixture
async def owned(nursery: trio.Nursery) -> Owned:
    owned = Owned()
    for wait in (owned.wait_done, owned.wait_all, owned.wait_any, owned.iterate):
        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    return owned


def must_set(future: Future[int]) -> None:
    with future.must_set():
        pass


SYNC_CALLS: dict[str, Callable[[Future[int]], object]] = {
    "set_result": lambda future: future.set_result(4),
    "set_exception": lambda future: future.set_exception(Boom()),
    "set_outcome": lambda future: future.set_outcome(outcome.Value(4)),
    "cancel": lambda future: future.cancel(),
    "must_set": must_set,
    "add_done_callback": lambda future: future.add_done_callback(print),
    "remove_done_callback": lambda future: future.remove_done_callback(print),
}


@pytest.mark.parametrize("name", SYNC_CALLS)
async def test_a_foreign_thread_and_a_foreign_run_are_refused_and_change_nothing(
    name: str, owned: Owned, nursery: trio.Nursery
) -> None:
    call = partial(SYNC_CALLS[name], owned.future)

    async def call_in_a_run() -> None:
        call()

    message = (
        r"^Future\(is_done=False\) belongs to another Trio run, and can't be .* from here; nothing was changed\. "
        r".*trio\.from_thread\.run_sync\(fn, trio_token=result\.trio_token\).*result\.trio_token\.run_sync_soon\(fn\)"
    )
    with pytest.raises(RuntimeError, match=message):
        await in_foreign_thread(call)
    with pytest.raises(RuntimeError, match=message):
        await in_foreign_run(call_in_a_run)
    await owned.check_unchanged(nursery)


async def send_results(result: Future[int]) -> None:
    channel, _receiver = trio.open_memory_channel[Future[int]](1)
    await results_to_channel([Future[int](), result], channel)


async def iterate(result: Future[int]) -> None:
    async for _ in as_completed([Future[int](), result]):
        pytest.fail("not reached")


WAITS: dict[str, Callable[[Future[int]], Awaitable[object]]] = {
    "wait_done": lambda future: future.wait_done(),
    "await": read,
    "wait_all": lambda future: wait_all([Future[int](), future]),
    "wait_any": lambda future: wait_any([Future[int](), future]),
    "as_completed": iterate,
    "results_to_channel": send_results,
}


@pytest.mark.parametrize("name", WAITS)
async def test_a_wait_in_a_foreign_run_is_refused_and_changes_nothing(
    name: str, owned: Owned, nursery: trio.Nursery
) -> None:
    with pytest.raises(RuntimeError, match=r"belongs to another Trio run, and can't be waited for from here"):
        await in_foreign_run(partial(WAITS[name], owned.future))
    await owned.check_unchanged(nursery)


async def test_the_ways_that_the_refusal_names_work(owned: Owned) -> None:
    future = owned.future
    await in_foreign_thread(
        lambda: trio.from_thread.run_sync(future.set_result, 3, trio_token=future.trio_token),
    )
    assert future.result() == 3

    other = Owned().future
    asked = Future[int]()
    asked.add_done_callback(id)

    async def settle_from_another_run() -> None:
        for each in (other, asked):
            assert each.trio_token is not None
            each.trio_token.run_sync_soon(each.set_result, 4)

    await in_foreign_run(settle_from_another_run)
    assert await other == 4


def test_what_belonged_to_a_run_that_ended_is_free() -> None:
    future = Future[int]()

    async def wait_in_vain() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await future.wait_done()
        with trio.move_on_after(0):
            await wait_all([future, future])

    trio.run(wait_in_vain)
    trio.run(wait_in_vain)
    assert is_free(future)
    future.set_result(3)
    assert trio.run(read, future) == 3


# ---- the stack and the garbage collector


async def test_settling_near_the_end_of_the_stack_is_whole_or_not_at_all() -> None:
    def dive(depth: int, call: Callable[[], None]) -> None:
        if depth:
            dive(depth - 1, call)
        else:
            call()

    def depth_here() -> int:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        return depth

    limit = sys.getrecursionlimit()
    outcomes: set[bool] = set()
    for room in range(4, 40):
        future = Future[int]()
        calls: list[object] = []
        future.add_done_callback(calls.append)
        async with trio.open_nursery() as nursery:
            woken = [
                ResultCapture.start_soon(nursery, future.wait_done),
                ResultCapture.start_soon(nursery, wait_all, [future]),
            ]
            await wait_all_tasks_blocked()
            depth = 100 - room
            sys.setrecursionlimit(depth_here() + 100)
            try:
                dive(depth, partial(future.set_result, 3))
            except RecursionError:
                assert not future.is_done()
                assert not calls
            else:
                assert calls == [future]
            finally:
                sys.setrecursionlimit(limit)
            outcomes.add(future.is_done())
            if not future.is_done():
                future.set_result(3)
        assert all(wait.result() is None for wait in woken)
    assert outcomes == {True, False}


async def test_a_dropped_iterator_that_is_collected_during_a_registration_does_not_undo_it() -> None:
    """The garbage collector may run `as_completed`'s finalizer inside a call that registers something else."""
    future = Future[int]()

    class Finalizing:
        """Stands for the garbage collector: drops an iterator when something asks for a hash or makes a list."""

        def __init__(self) -> None:
            self.iterator: object = as_completed([future])

        def __hash__(self) -> int:
            self.iterator = None
            return 1

        def settled(self, result: object, times: int, /) -> None:
            told.append((result, times))

    told: list[object] = []
    waiter = Finalizing()
    assert future._register((trio.lowlevel.current_trio_token(), waiter))
    assert waiter.iterator is None
    registered: Any = future._home
    assert list(registered.waiters) == [waiter]
    future.set_result(3)
    assert told == [(future, 1)]


async def test_a_dropped_iterator_that_is_collected_while_a_task_registers_does_not_undo_the_wait(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    future = Future[int]()
    iterators: list[object] = [as_completed([future])]
    make = _Several.__init__

    def make_and_collect(several: _Several, token: trio.lowlevel.TrioToken) -> None:
        iterators.clear()
        gc.collect()
        make(several, token)

    monkeypatch.setattr(_Several, "__init__", make_and_collect)
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    assert not iterators
    assert not is_free(future)
    future.set_result(3)
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert is_free(future)
