"""The exceptions: their arguments, and their messages."""

from __future__ import annotations

import sys
from functools import partial
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
def test_the_result_is_the_only_argument_of_an_exception(kind: Callable[[Future[int]], Exception]) -> None:
    future = Future[int]()
    error = kind(future)
    assert error.args == (future,)
    assert repr(error) == f"{kind.__name__}(Future)"
    assert isinstance(error, Exception)


def test_a_cancellation_counts_as_a_failure_too() -> None:
    assert issubclass(TaskCancelledException, TaskFailedException)
    assert not issubclass(TaskFailedException, TaskCancelledException)


def test_each_message_says_what_happened_to_which_result() -> None:
    future = Future[int]()
    assert str(TaskNotDoneException(future)).startswith("this Future was read before it was done")
    future.set_exception(KeyError(3))
    with pytest.raises(TaskFailedException) as failed:
        future.result()
    assert str(failed.value) == "this Future failed: KeyError(3)"
    with pytest.raises(FutureSetAgainException, match=r"^this Future was already settled"):
        future.set_result(3)


async def fetch(url: str, *more: object) -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("bad page")


async def test_the_message_about_a_capture_shows_the_call() -> None:
    capture = ResultCapture(fetch, "http://x", suppress_exception=True)
    assert str(TaskNotDoneException(capture)).startswith("fetch('http://x') was read before it was done")
    await capture.run()
    with pytest.raises(TaskFailedException, match=r"^fetch\('http://x'\) failed: ValueError\('bad page'\)$") as failed:
        capture.result()
    assert repr(failed.value) == "TaskFailedException(fetch)"
    with pytest.raises(FutureSetAgainException, match=r"^fetch\('http://x'\) was already started, and a capture can"):
        await capture.run()


async def test_the_message_about_a_partial_call_shows_all_its_arguments() -> None:
    partly = partial(partial(fetch, "http://x"), 1, 2)
    capture = ResultCapture(partly, 3, 4, suppress_exception=True)
    await capture.run()
    with pytest.raises(TaskFailedException, match=r"^fetch\('http://x', 1, 2, 3, \.\.\.\) failed: ValueError"):
        capture.result()


async def test_the_message_about_a_cancellation_gives_its_source_and_reason() -> None:
    async with trio.open_nursery() as nursery:
        captures = [
            ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.move_on_after(0)),
            ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope()),
        ]
        assert captures[1].cancel_scope is not None
        captures[1].cancel_scope.cancel(reason="the user left")
    messages: list[str] = []
    for capture in captures:
        with pytest.raises(TaskCancelledException) as caught:
            capture.result()
        messages.append(str(caught.value))
    assert messages == [
        "sleep_forever() was cancelled (source: deadline)",
        "sleep_forever() was cancelled (source: explicit), reason: 'the user left'",
    ]


async def test_the_message_about_a_group_of_cancellations_gives_at_most_three_different_reasons() -> None:
    async def cancelled_for(*reasons: str) -> None:
        errors: list[BaseException] = []
        for reason in reasons:
            with trio.CancelScope() as scope:
                scope.cancel(reason=reason)
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as error:
                    errors.append(error)
        raise BaseExceptionGroup("several", [errors[0], BaseExceptionGroup("inner", errors[1:])])

    reasons_shown: list[str] = []
    for reasons in ("aba", "abc", "abcde"):
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, cancelled_for, *reasons)
        with pytest.raises(TaskCancelledException) as caught:
            capture.result()
        reasons_shown.append(str(caught.value).partition(" was cancelled")[2])
    explicit = " (source: explicit), reason: "
    assert reasons_shown[0] == f"{explicit}'a'; also{explicit}'b'"
    assert reasons_shown[1] == f"{explicit}'a'; also{explicit}'b'; also{explicit}'c'"
    assert reasons_shown[2] == f"{explicit}'a'; also{explicit}'b'; also{explicit}'c'; and 2 more"


async def test_messages_show_at_most_four_arguments_of_a_call() -> None:
    async def take(*_args: int) -> None:
        raise AssertionError("this never runs")

    for count, shown in [(4, "take(0, 1, 2, 3)"), (5, "take(0, 1, 2, 3, ...)")]:
        with pytest.raises(TaskNotDoneException) as caught:
            ResultCapture(take, *range(count)).result()
        assert str(caught.value).startswith(f"{shown} was read")


def test_the_message_about_a_cancellation_is_short_whatever_the_reason_is() -> None:
    future = Future[int]()
    future.cancel("x" * 10_000_000)
    with pytest.raises(TaskCancelledException) as caught:
        future.result()
    assert len(str(caught.value)) < 300


async def test_a_capture_that_awaited_a_cancelled_future_counts_as_failed_not_as_cancelled() -> None:
    future = Future[int]()
    future.cancel("why")

    async def wait() -> int:
        return await future

    async def reraise() -> int:
        raise FutureCancelledException

    for routine in (wait, reraise):
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, routine, suppress_exception=True)
        assert not capture.cancelled()
        with pytest.raises(TaskFailedException) as caught:
            capture.result()
        assert type(caught.value) is TaskFailedException
        assert caught.value.__cause__ is capture.exception()


def test_a_future_cancelled_exception_shows_its_reason() -> None:
    assert str(FutureCancelledException()) == "the future was cancelled"
    assert FutureCancelledException().reason is None
    error = FutureCancelledException("too late")
    assert str(error) == "the future was cancelled: too late"
    assert error.reason == "too late"
    assert error.args == ("too late",)


def test_a_future_never_set_exception_says_what_happened() -> None:
    assert str(FutureNeverSetException()) == "the block that had to settle this future ended without doing so"
    assert str(FutureNeverSetException("the connection was closed")) == "the connection was closed"


def test_an_exception_stored_in_a_future_does_not_refer_to_it() -> None:
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


def test_the_leaves_of_a_group_are_found_in_order_at_any_depth() -> None:
    errors = [Boom(number) for number in range(4)]
    group = BaseExceptionGroup("", [errors[0], BaseExceptionGroup("", [*errors[1:3]]), errors[3]])
    for _ in range(2000):
        group = BaseExceptionGroup("", [group])
    assert list(leaves(group)) == errors
    assert list(leaves(errors[0])) == errors[:1]
    assert list(leaves(None)) == []
    assert not is_cancellation(group)
