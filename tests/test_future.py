"""Futures: settled by hand, once."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import Boom, in_foreign_thread, is_free
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    FutureCancelledException,
    FutureNeverSetException,
    FutureSetAgainException,
    TaskCancelledException,
    TaskFailedException,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_future_can_be_made_and_settled_outside_a_trio_run() -> None:
    future = Future[int]()
    future.set_result(3)
    assert future.result() == 3
    assert future.trio_token is None


def raise_boom(_result: object) -> None:
    raise Boom


SETTLING: dict[str, Callable[[Future[Any]], object]] = {
    "set_result": lambda future: future.set_result(4),
    "set_exception": lambda future: future.set_exception(Boom()),
    "set_outcome with a value": lambda future: future.set_outcome(outcome.Value(4)),
    "set_outcome with an error": lambda future: future.set_outcome(outcome.Error(Boom())),
}
CALLS: dict[str, Callable[[Future[Any]], object]] = {**SETTLING, "cancel": lambda future: future.cancel()}


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("second", SETTLING)
async def test_a_future_is_settled_once(first: str, second: str) -> None:
    future = Future[int]()
    calls: list[object] = []
    future.add_done_callback(calls.append)
    CALLS[first](future)
    before = repr(future), future.outcome
    with pytest.raises(FutureSetAgainException) as caught:
        SETTLING[second](future)
    assert caught.value.args == (future,)
    assert (repr(future), future.outcome) == before
    assert calls == [future]
    assert not future.cancel()
    assert (repr(future), future.outcome) == before


@pytest.mark.parametrize("name", CALLS)
async def test_what_a_callback_raises_comes_from_the_call_that_settled(name: str, nursery: trio.Nursery) -> None:
    future = Future[int]()
    future.add_done_callback(raise_boom)
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    with pytest.raises(ExceptionGroup) as caught:
        CALLS[name](future)
    assert [type(error) for error in caught.value.exceptions] == [Boom]
    assert future.is_done()
    assert is_free(future)


def test_an_outcome_stays_as_it_is() -> None:
    given = outcome.Value(3)
    future = Future[int]()
    future.set_outcome(given)
    assert future.result() == given.unwrap() == 3  # an outcome can be unwrapped once
    error = outcome.Error(Boom())
    future = Future[int]()
    future.set_outcome(error)
    assert future.exception() is error.error
    with pytest.raises(Boom):
        error.unwrap()


def test_what_is_no_exception_is_refused_and_changes_nothing() -> None:
    future = Future[int]()
    wrong: Any
    for wrong, right in (
        (ValueError, r"ValueError\(\)"),
        (3, r"ValueError\('what went wrong'\)"),
        (None, r"ValueError\('what went wrong'\)"),
    ):
        with pytest.raises(
            TypeError, match=rf"^a future is given an exception object, not .*; call 'set_exception\({right}\)'$"
        ):
            future.set_exception(wrong)
    wrong = 3
    with pytest.raises(TypeError, match=r"^an outcome is an outcome\.Value or an outcome\.Error, not 3; call 'set_out"):
        future.set_outcome(wrong)
    with pytest.raises(
        TypeError, match=r"^the reason of a cancellation is a text, not 3; call 'future\.cancel\(\"why\""
    ):
        future.cancel(wrong)
    assert not future.is_done()


# ---- cancelling


async def test_cancel_settles_a_pending_future_and_no_other(nursery: trio.Nursery) -> None:
    future = Future[int]()
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    assert future.cancel("no longer needed")
    assert not future.cancel("again")
    assert future.cancelled()
    assert future.is_done()
    error = future.exception()
    assert type(error) is FutureCancelledException
    assert error.reason == "no longer needed"
    assert error.args == ("no longer needed",)
    with pytest.raises(TaskCancelledException, match=r"was cancelled: the future was cancelled: no longer needed$"):
        await future


def test_a_cancellation_needs_no_reason() -> None:
    future = Future[int]()
    assert future.cancel()
    error = future.exception()
    assert isinstance(error, FutureCancelledException)
    assert error.reason is None
    with pytest.raises(TaskCancelledException, match=r"was cancelled: the future was cancelled$"):
        future.result()


async def test_cancelling_a_future_cancels_no_task() -> None:
    future = Future[int]()
    reached: list[int] = []

    async def wait() -> None:
        with pytest.raises(TaskCancelledException):
            await future
        await trio.lowlevel.checkpoint()
        reached.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        future.cancel()
    assert reached == [1]
    assert not nursery.cancel_scope.cancelled_caught


# ---- must_set


def test_must_set_leaves_a_future_alone_that_its_block_settled() -> None:
    future = Future[int]()
    with future.must_set() as same:
        assert same is future
        future.set_result(3)
    assert future.result() == 3
    with pytest.raises(Boom), future.must_set():
        raise Boom
    assert future.result() == 3


def test_a_block_that_ends_without_settling_its_future_fails_it() -> None:
    future = Future[int]()
    with future.must_set():
        pass
    error = future.exception()
    assert type(error) is FutureNeverSetException
    assert error.args == ()
    assert error.__cause__ is None
    assert not future.cancelled()
    with pytest.raises(TaskFailedException) as caught:
        future.result()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [Boom, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_the_exception_that_ends_the_block_is_the_futures_and_goes_on(kind: type[BaseException]) -> None:
    future = Future[int]()
    error = kind()
    with pytest.raises(kind) as caught, future.must_set():
        raise error
    assert caught.value is error
    assert future.exception() is error


async def test_a_block_that_is_cancelled_cancels_its_future() -> None:
    future = Future[int]()
    with trio.CancelScope() as scope, future.must_set():
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert future.cancelled()
    assert isinstance(future.exception(), trio.Cancelled)


async def test_must_set_wakes_those_who_wait() -> None:
    future = Future[int]()

    async def wait() -> None:
        with pytest.raises(TaskFailedException):
            await future

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(Boom), future.must_set():
            raise Boom


async def test_what_ended_the_block_and_what_callbacks_raise_go_on_together() -> None:
    future = Future[int]()
    future.add_done_callback(raise_boom)
    error = KeyError(3)
    with (
        pytest.raises(ExceptionGroup, match=r"^a result failed, and so did callbacks of it") as caught,
        future.must_set(),
    ):
        raise error
    assert [type(each) for each in caught.value.exceptions] == [KeyError, Boom]
    assert future.exception() is error

    future = Future[int]()
    future.add_done_callback(raise_boom)
    with pytest.raises(BaseExceptionGroup) as caught_base, trio.CancelScope() as scope, future.must_set():
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught  # the scope takes its own part of the group
    assert [type(each) for each in caught_base.value.exceptions] == [Boom]

    future = Future[int]()
    future.add_done_callback(raise_boom)
    with pytest.raises(ExceptionGroup, match=r"^callbacks of a result failed"), future.must_set():
        pass


async def test_a_block_ends_with_a_refusal_where_its_future_belongs_to_another_run() -> None:
    future = Future[int]()
    future.add_done_callback(id)

    def use_block(error: BaseException | None) -> None:
        with future.must_set():
            if error is not None:
                raise error

    for error in (None, Boom()):
        with pytest.raises(RuntimeError, match="belongs to another Trio run") as caught:
            await in_foreign_thread(partial(use_block, error))
        assert caught.value.__context__ is error
        assert not future.is_done()
