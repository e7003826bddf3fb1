"""What the exceptions hold and tell."""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from _helpers import Boom

from triores import (
    Future,
    FutureCancelledException,
    FutureNeverSetException,
    FutureSetAgainException,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
)
from triores._exceptions import is_cancellation, leaves

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable

ABOUT_A_RESULT = [TaskNotDoneException, TaskFailedException, TaskCancelledException, FutureSetAgainException]


@pytest.mark.parametrize("kind", ABOUT_A_RESULT)
def test_who_is_told_of_a_result_gets_that_result_alone(kind: Callable[[Future[int]], Exception]) -> None:
    future = Future[int]()
    error = kind(future)
    assert error.args == (future,)
    assert repr(error) == f"{kind.__name__}(Future(is_done=False))"
    assert isinstance(error, Exception)


def test_a_cancellation_is_a_failure_too() -> None:
    assert issubclass(TaskCancelledException, TaskFailedException)
    assert not issubclass(TaskFailedException, TaskCancelledException)


def test_each_message_says_which_result_what_happened_and_what_to_do() -> None:
    future = Future[int]()
    assert str(TaskNotDoneException(future)) == (
        "Future(is_done=False) was read before it was done; call 'await result.wait_done()' before reading it"
    )
    future.set_exception(KeyError(3))
    with pytest.raises(TaskFailedException) as failed:
        future.result()
    assert str(failed.value) == (
        "Future(exception=KeyError(3)) failed; the exception it failed with is the cause of this one"
    )
    with pytest.raises(FutureSetAgainException) as again:
        future.set_result(3)
    assert str(again.value) == (
        "Future(exception=KeyError(3)) can be settled only once, and a capture run only once; "
        "ask 'result.is_done()' first where several parties may settle it"
    )


async def test_a_cancellation_is_told_with_its_source_and_its_reason() -> None:
    async with trio.open_nursery() as nursery:
        captures = [
            ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.move_on_after(0)),
            ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope()),
        ]
        assert captures[1].cancel_scope is not None
        captures[1].cancel_scope.cancel(reason="the user left")
    told: list[str] = []
    for capture in captures:
        with pytest.raises(TaskCancelledException) as caught:
            capture.result()
        assert str(caught.value).startswith(f"{capture!r} was cancelled: ")
        told.append(str(caught.value))
    assert "deadline" in told[0]
    assert "explicit" in told[1]
    assert "the user left" in told[1]


def test_each_cancellation_in_a_group_is_told_once() -> None:
    future = Future[int]()
    errors = [FutureCancelledException("one"), FutureCancelledException("two"), FutureCancelledException("one")]
    future.set_exception(BaseExceptionGroup("several", [errors[0], BaseExceptionGroup("inner", errors[1:])]))
    with pytest.raises(TaskCancelledException, match=r"was cancelled: the future was cancelled: one; the .*: two$"):
        future.result()


def test_a_cancellation_that_was_made_by_hand_can_be_shown() -> None:
    assert str(TaskCancelledException(Future[int]())) == "Future(is_done=False) was cancelled: "


def test_a_cancelled_future_tells_the_reason() -> None:
    assert str(FutureCancelledException()) == "the future was cancelled"
    assert FutureCancelledException().reason is None
    error = FutureCancelledException("too late")
    assert str(error) == "the future was cancelled: too late"
    assert error.reason == "too late"
    assert error.args == ("too late",)


def test_a_future_that_was_never_set_tells_what_happened() -> None:
    assert str(FutureNeverSetException()) == "the block that had to settle this future ended without doing so"
    assert str(FutureNeverSetException("the connection was closed")) == "the connection was closed"


def test_what_is_stored_in_a_future_does_not_hold_it() -> None:
    cancelled, never_set = Future[int](), Future[int]()
    cancelled.cancel()
    with never_set.must_set():
        pass
    for future in (cancelled, never_set):
        error = future.exception()
        assert error is not None
        assert future not in error.args
        assert not vars(error) or vars(error) == {"reason": None}
        assert error.__traceback__ is None


@pytest.mark.parametrize("error", [FutureCancelledException("too late"), FutureNeverSetException("gone")])
def test_what_is_stored_in_a_future_can_be_pickled(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_the_leaves_of_a_group_are_found_in_order_at_any_depth() -> None:
    errors = [Boom(number) for number in range(4)]
    group = BaseExceptionGroup("", [errors[0], BaseExceptionGroup("", [*errors[1:3]]), errors[3]])
    for _ in range(2000):
        group = BaseExceptionGroup("", [group])
    assert list(leaves(group)) == errors
    assert list(leaves(errors[0])) == errors[:1]
    assert list(leaves(None)) == []
    assert not is_cancellation(group)
