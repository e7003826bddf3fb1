"""Futures: settled by hand, once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import Boom, in_foreign_thread
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    FutureCancelledException,
    FutureNeverSetException,
    FutureSetAgainException,
    TaskCancelledException,
    TaskFailedException,
)

if TYPE_CHECKING:
    from collections.abc import Callable


SETTLING: dict[str, Callable[[Future[Any]], object]] = {
    "set_result": lambda future: future.set_result(4),
    "set_exception": lambda future: future.set_exception(Boom()),
    "set_outcome with a value": lambda future: future.set_outcome(outcome.Value(4)),
    "set_outcome with an error": lambda future: future.set_outcome(outcome.Error(Boom())),
}
CALLS: dict[str, Callable[[Future[Any]], object]] = {**SETTLING, "cancel": lambda future: future.cancel()}


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("second", SETTLING)
async def test_a_future_can_be_settled_only_once(first: str, second: str) -> None:
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


def test_set_outcome_leaves_the_outcome_usable() -> None:
    given = outcome.Value(3)
    future = Future[int]()
    future.set_outcome(given)
    assert future.result() == given.unwrap() == 3  # an outcome can be unwrapped only once
    error = outcome.Error(Boom())
    future = Future[int]()
    future.set_outcome(error)
    assert future.exception() is error.error
    with pytest.raises(Boom):
        error.unwrap()


def test_passing_anything_of_the_wrong_type_raises_an_error_and_changes_nothing() -> None:
    future = Future[int]()
    wrong: Any
    for wrong, right in (
        (ValueError, r"ValueError\(\)"),
        (3, r"ValueError\('what went wrong'\)"),
        (None, r"ValueError\('what went wrong'\)"),
    ):
        with pytest.raises(TypeError, match=rf"; call 'set_exception\({right}\)'$"):
            future.set_exception(wrong)
    wrong = 3
    with pytest.raises(TypeError, match=r"^set_outcome takes .*, not 3"):
        future.set_outcome(wrong)
    with pytest.raises(TypeError, match=r"^the reason for a cancellation must be a string, not 3"):
        future.cancel(wrong)
    assert not future.is_done()


# ---- cancelling


async def test_cancel_settles_only_a_pending_future(nursery: trio.Nursery) -> None:
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
    with pytest.raises(TaskCancelledException, match="reason: 'no longer needed'"):
        await future


def test_a_cancellation_needs_no_reason() -> None:
    future = Future[int]()
    assert future.cancel()
    error = future.exception()
    assert isinstance(error, FutureCancelledException)
    assert error.reason is None
    with pytest.raises(TaskCancelledException, match=r"^this Future was cancelled$"):
        future.result()


async def test_cancelling_a_future_does_not_cancel_tasks() -> None:
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


def test_if_the_block_settles_the_future_must_set_changes_nothing() -> None:
    future = Future[int]()
    with future.must_set() as same:
        assert same is future
        future.set_result(3)
    assert future.result() == 3
    with pytest.raises(Boom), future.must_set():
        raise Boom
    assert future.result() == 3


def test_if_the_block_ends_without_settling_its_future_the_future_fails() -> None:
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
def test_an_exception_raised_in_the_block_settles_the_future_and_is_passed_on(kind: type[BaseException]) -> None:
    future = Future[int]()
    error = kind()
    with pytest.raises(kind) as caught, future.must_set():
        raise error
    assert caught.value is error
    assert future.exception() is error


async def test_if_the_block_is_cancelled_so_is_the_future() -> None:
    future = Future[int]()
    with trio.CancelScope() as scope, future.must_set():
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert future.cancelled()
    assert isinstance(future.exception(), trio.Cancelled)


async def test_must_set_wakes_waiting_tasks() -> None:
    future = Future[int]()

    async def wait() -> None:
        with pytest.raises(Boom) as caught:
            await future
        assert caught.value is future.exception()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(Boom), future.must_set():
            raise Boom


async def test_if_a_group_of_cancellations_ends_the_block_the_future_is_cancelled() -> None:
    future = Future[int]()
    with trio.CancelScope() as scope, future.must_set():
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert future.cancelled()


async def test_if_a_callback_fails_the_block_still_ends_with_its_own_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future = Future[int]()
    future.add_done_callback(lambda _: 1 // 0)
    with pytest.raises(Boom), future.must_set():
        raise Boom
    assert [record.name for record in caplog.records] == ["triores"]
    assert isinstance(future.exception(), Boom)


async def test_a_block_that_ends_in_another_thread_raises_an_error_and_its_future_stays_pending() -> None:
    future = Future[int]()

    def use_block(error: BaseException | None) -> None:
        with future.must_set():
            if error is not None:
                raise error

    for error in (None, Boom()):
        with pytest.raises(RuntimeError, match="belongs to another Trio run") as caught:
            await in_foreign_thread(partial(use_block, error))
        assert caught.value.__context__ is error
        assert not future.is_done()
