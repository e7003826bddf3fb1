"""Copies and pickles of results, and of exceptions with a result."""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import multiprocessing
import pickle
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import is_free
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    FutureCancelledException,
    FutureNeverSetException,
    FutureSetAgainException,
    ResultBase,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    run_in_executor,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def pickled_twice(value: Any) -> Any:
    return pickled(pickled(value))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "pickle twice": pickled_twice,
}
each_copy = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)


async def fetch(url: str) -> str:
    await trio.lowlevel.checkpoint()
    if url == "bad":
        raise ValueError("bad page")
    return url


# ---- results


@each_copy
def test_a_copy_of_a_done_result_is_a_done_future_with_the_same_outcome(make: Callable[[Any], Any]) -> None:
    value, failure, cancelled = Future[int](), Future[int](), Future[int]()
    value.set_result(3)
    failure.set_exception(KeyError(3))
    cancelled.cancel("why")
    captures = [ResultCapture(fetch, "http://x"), ResultCapture(fetch, "bad", suppress_exception=True)]
    for capture in captures:
        trio.run(capture.run)
    results: list[ResultBase[object]] = [value, failure, cancelled, *captures]
    for result in results:
        again = make(result)
        assert type(again) is Future
        assert again is not result
        assert again.is_done()
        assert repr(again.exception()) == repr(result.exception())
        assert again.exception() or again.result() == result.result()
        assert again.cancelled() is result.cancelled()
    with pytest.raises(TaskCancelledException, match="reason: 'why'"):
        make(cancelled).result()


@each_copy
async def test_a_pending_result_cannot_be_copied(make: Callable[[Any], Any], nursery: trio.Nursery) -> None:
    future = Future[int]()
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    for result in (future, ResultCapture(fetch, "http://x"), ResultBase[int]()):
        with pytest.raises(
            TypeError, match=r"\(is_done=False\) is pending, so it can't be copied or pickled: .*; call"
        ):
            make(result)
    assert not future.is_done()
    future.set_result(3)
    assert is_free(future)


def test_a_dataclass_with_a_result_can_be_converted_to_a_dict_once_the_result_is_done() -> None:
    @dataclasses.dataclass
    class Page:
        text: Future[str]

    page = Page(Future())
    with pytest.raises(TypeError, match="is pending, so it can't be copied"):
        dataclasses.asdict(page)
    page.text.set_result("text")
    assert dataclasses.asdict(page)["text"].result() == "text"


# ---- exceptions


def raised(read: Callable[[], object]) -> Any:
    with pytest.raises(Exception) as caught:  # the exceptions of the library have no other base in common
        read()
    return caught.value


@each_copy
def test_a_copy_of_an_exception_keeps_its_message_its_cause_and_the_outcome(make: Callable[[Any], Any]) -> None:
    capture = ResultCapture(fetch, "bad", suppress_exception=True)
    trio.run(capture.run)
    error = raised(capture.result)
    again = make(error)
    assert type(again) is TaskFailedException
    assert str(again) == str(error) == "fetch('bad') failed: ValueError('bad page')"
    assert type(again.args[0]) is (ResultCapture if make is copy.copy else Future)
    assert repr(again.args[0].exception()) == "ValueError('bad page')"
    assert repr(again.__cause__) == "ValueError('bad page')"


@each_copy
def test_copies_of_exceptions_with_a_result_keep_their_type_and_message(make: Callable[[Any], Any]) -> None:
    pending, done, cancelled, failed = Future[int](), Future[int](), Future[int](), Future[int]()
    done.set_result(3)
    cancelled.cancel("why")
    failed.set_exception(TypeError())
    errors = {
        TaskNotDoneException: raised(pending.result),
        FutureSetAgainException: raised(partial(done.set_result, 4)),
        TaskCancelledException: raised(cancelled.result),
        TaskFailedException: raised(failed.result),
    }
    for kind, error in errors.items():
        again = make(error)
        assert type(again) is type(error) is kind
        assert str(again) == str(error)
        assert repr(again) == repr(error)
        assert isinstance(again.args[0], Future)
        assert again.args[0].is_done() is error.args[0].is_done()


@each_copy
async def test_a_copy_of_an_exception_keeps_attributes_added_by_the_user(make: Callable[[Any], Any]) -> None:
    future = Future[int]()
    future.set_exception(KeyError(3))
    error = raised(future.result)
    error.attempts = 3
    assert make(error).attempts == 3
    assert str(make(ExceptionGroup("several", [error])).exceptions[0]) == str(error)


@each_copy
@pytest.mark.parametrize("error", [FutureCancelledException("too late"), FutureNeverSetException("gone")])
def test_exceptions_stored_in_futures_can_be_copied(make: Callable[[Any], Any], error: Exception) -> None:
    again = make(error)
    assert type(again) is type(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def read_in_a_run() -> None:
    """Run in a worker process: a task fails in a Trio run of that process, and its result is read."""

    async def main() -> None:
        capture = ResultCapture(fetch, "bad", suppress_exception=True)
        await capture.run()
        capture.result()

    trio.run(main)


async def test_a_failure_in_a_worker_process_arrives_with_its_message() -> None:
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor,
        pytest.raises(TaskFailedException) as caught,
    ):
        await run_in_executor(executor, read_in_a_run)
    error: Any = caught.value
    while type(error.__cause__) is TaskFailedException:
        error = error.__cause__
    assert str(error) == "fetch('bad') failed: ValueError('bad page')"
    assert repr(error.args[0].exception()) == "ValueError('bad page')"
