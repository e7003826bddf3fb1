"""Done callbacks: when they run, in which context, and what happens to their exceptions."""

from __future__ import annotations

import contextvars
import itertools
import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Boom, is_free
from trio.testing import wait_all_tasks_blocked

from triores import Future, FutureSetAgainException, ResultCapture, ResultStatistics, wait_all, wait_any

if TYPE_CHECKING:
    from collections.abc import Callable


def raise_error(error: BaseException, _result: object) -> None:
    raise error


def raise_boom(_result: object) -> None:
    raise Boom


def logged(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    """The exceptions logged by the library, after checking that each is logged as an error with its traceback."""
    errors: list[BaseException] = []
    for record in caplog.records:
        assert (record.name, record.levelno) == ("triores", logging.ERROR)
        assert record.exc_info
        assert record.exc_info[1] is not None
        errors.append(record.exc_info[1])
    return errors


async def test_callbacks_run_once_and_in_order_after_the_outcome_is_stored_and_waiters_are_woken() -> None:
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
        assert future.statistics() == ResultStatistics(waiters=2, callbacks=5)
        assert not calls
        future.set_result(3)
        assert calls == [0, 1, 2, 3, 4]
    assert is_free(future)
    assert calls == [0, 1, 2, 3, 4]


def test_a_callback_on_a_done_result_runs_at_once_even_outside_trio(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[object] = []
    future = Future[int]()
    future.set_result(3)
    future.add_done_callback(calls.append)
    assert calls == [future]
    future.add_done_callback(raise_boom)
    assert [type(error) for error in logged(caplog)] == [Boom]
    assert future.remove_done_callback(calls.append) == 0


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
    assert future.statistics().callbacks == 1
    assert future.remove_done_callback(other.append) == 1
    assert is_free(future)
    future.add_done_callback(other.append)
    future.set_result(3)
    assert calls == []
    assert other == [future]


async def test_a_callback_can_remove_callbacks_that_have_not_run_yet() -> None:
    calls: list[str] = []
    removed: list[int] = []
    future, other = Future[int](), Future[int]()

    def first(result: Future[int]) -> None:
        calls.append("first")
        result.add_done_callback(second)
        other.set_result(3)
        removed.append(result.remove_done_callback(second))
        removed.append(result.remove_done_callback(first))

    def second(_result: object) -> None:
        calls.append("second")

    def third(_result: object) -> None:
        calls.append("third")

    other.add_done_callback(second)
    for callback in (first, second, third, second):
        future.add_done_callback(callback)
    future.set_result(3)
    assert calls == ["first", "second", "third"]  # 'second' ran as a callback of the other future
    assert removed == [3, 0]
    assert is_free(future)


async def test_only_a_synchronous_function_can_be_a_callback() -> None:
    class AsyncCallable:
        async def __call__(self, result: object) -> None: ...

    async def async_function(result: object) -> None: ...

    future = Future[int]()
    wrong: Any
    for wrong in (async_function, partial(async_function, 1), AsyncCallable(), AsyncCallable().__call__, 3, None):
        with pytest.raises(
            TypeError, match=r"^a done callback must be a synchronous function that takes one argument, not .*wait_done"
        ):
            future.add_done_callback(wrong)
    wrong = 3
    with pytest.raises(TypeError, match=r"^context must be a contextvars.Context, not 3"):
        future.add_done_callback(print, context=wrong)
    assert is_free(future)


def test_outside_a_trio_run_no_callback_can_be_added_to_a_pending_result() -> None:
    future = Future[int]()
    with pytest.raises(RuntimeError, match="triores needs Trio"):
        future.add_done_callback(print)
    assert is_free(future)


# ---- contexts

variable = contextvars.ContextVar("variable", default="outside")


async def test_a_callback_runs_in_a_copy_of_the_context_it_was_added_in() -> None:
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


async def test_callbacks_of_several_results_can_share_one_context(caplog: pytest.LogCaptureFixture) -> None:
    outer, inner = Future[int](), Future[int]()
    calls: list[object] = []
    context = contextvars.copy_context()
    outer.add_done_callback(lambda _: inner.set_result(3), context=context)
    inner.add_done_callback(calls.append, context=context)
    outer.set_result(3)
    assert calls == [inner]
    assert not caplog.records


async def test_a_result_can_be_settled_inside_the_context_of_its_callback(caplog: pytest.LogCaptureFixture) -> None:
    future = Future[int]()
    context = contextvars.Context()
    context.run(variable.set, "in the context")
    seen: list[str] = []

    def call(_result: object) -> None:
        seen.append(variable.get())
        variable.set("changed by a callback")

    future.add_done_callback(call, context=context)
    context.run(future.set_result, 3)
    assert seen == ["in the context"]
    assert context[variable] == "in the context"  # the callback ran in a copy
    assert not caplog.records


# ---- callbacks that settle results and add callbacks


async def test_a_callback_added_by_a_callback_runs_right_after_it() -> None:
    calls: list[str] = []
    future = Future[int]()

    def first(result: Future[int]) -> None:
        result.add_done_callback(lambda _: calls.append("inner 1"))
        result.add_done_callback(lambda _: calls.append("inner 2"))
        calls.append("first")

    future.add_done_callback(first)
    future.add_done_callback(lambda _: calls.append("second"))
    future.set_result(3)
    assert calls == ["first", "inner 1", "inner 2", "second"]


async def test_if_a_callback_settles_another_result_the_callbacks_of_that_result_run_right_after_it() -> None:
    calls: list[str] = []
    outer, one, two = Future[int](), Future[int](), Future[int]()

    def settle(_result: object) -> None:
        two.set_result(2)
        one.set_result(1)
        assert one.is_done()
        assert two.is_done()
        calls.append("settled")

    outer.add_done_callback(settle)
    outer.add_done_callback(lambda _: calls.append("last"))
    one.add_done_callback(lambda _: calls.append("one"))
    two.add_done_callback(lambda _: calls.append("two 1"))
    two.add_done_callback(lambda _: calls.append("two 2"))
    outer.set_result(0)
    assert calls == ["settled", "two 1", "two 2", "one", "last"]


def settle_next(following: Future[int], result: Future[int]) -> None:
    following.set_result(result.result() + 1)


async def test_a_chain_of_thousands_of_futures_settles_in_one_call(caplog: pytest.LogCaptureFixture) -> None:
    futures = [Future[int]() for _ in range(10 * sys.getrecursionlimit())]
    for future, following in itertools.pairwise(futures):
        future.add_done_callback(partial(settle_next, following))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_all, futures)
        await wait_all_tasks_blocked()
        futures[0].set_result(0)
        assert futures[-1].result() == len(futures) - 1
    assert all(map(is_free, futures))
    assert not caplog.records


# ---- exceptions

SETTLE: dict[str, Callable[[Future[int]], object]] = {
    "set_result": lambda future: future.set_result(3),
    "set_exception": lambda future: future.set_exception(ValueError()),
    "cancel": lambda future: future.cancel(),
}


async def test_a_callback_does_not_hold_up_the_callbacks_of_another_thread() -> None:
    threads: list[int] = []

    async def other_run() -> None:
        other = Future[int]()
        other.add_done_callback(lambda _: threads.append(threading.get_ident()))
        other.set_result(3)

    def run_in_thread(_result: object) -> None:
        thread = threading.Thread(target=trio.run, args=(other_run,))
        thread.start()
        thread.join()
        assert threads == [thread.ident]

    future = Future[int]()
    future.add_done_callback(run_in_thread)
    future.set_result(3)
    assert threads not in ([], [threading.get_ident()])


@pytest.mark.parametrize("name", SETTLE)
async def test_if_a_callback_fails_its_exception_is_logged_and_everything_else_continues(
    name: str, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    future = Future[int]()
    calls: list[object] = []
    errors: list[BaseException] = [Boom(1), KeyError(2)]
    for error in errors:
        future.add_done_callback(partial(raise_error, error))
        future.add_done_callback(calls.append)
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    SETTLE[name](future)
    assert calls == [future, future]
    assert logged(caplog) == errors
    assert "callback raise_error of Future(" in caplog.messages[0]
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert is_free(future)


async def test_if_logging_fails_its_exception_is_raised_once_all_callbacks_have_run() -> None:
    errors = [ValueError(1), ValueError(2)]

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise errors[len(calls)]

    logger, handler = logging.getLogger("triores"), Handler()
    calls: list[object] = []
    future = Future[int]()
    for _ in errors:
        future.add_done_callback(raise_boom)
        future.add_done_callback(calls.append)
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError, match="1"):
            future.set_result(3)
    finally:
        logger.removeHandler(handler)
    assert calls == [future, future]


async def test_a_callback_cannot_settle_its_own_result_again(caplog: pytest.LogCaptureFixture) -> None:
    future = Future[int]()
    future.add_done_callback(lambda _: future.set_result(4))
    future.set_result(3)
    assert [type(error) for error in logged(caplog)] == [FutureSetAgainException]
    assert future.result() == 3


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_exceptions_such_as_keyboard_interrupt_are_raised_once_all_callbacks_have_run(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    future, other = Future[int](), Future[int]()
    calls: list[object] = []
    first, second = kind(1), SystemExit(2)
    other.add_done_callback(partial(raise_error, first))  # the second callback to run, called by the first
    future.add_done_callback(lambda _: other.set_result(3))
    future.add_done_callback(raise_boom)
    future.add_done_callback(partial(raise_error, second))
    future.add_done_callback(calls.append)
    nursery.start_soon(future.wait_done)
    await wait_all_tasks_blocked()
    with pytest.raises(kind) as caught:
        future.set_result(3)
    assert caught.value is first
    assert [type(error) for error in logged(caplog)] == [Boom, SystemExit]
    assert calls == [future]
    assert future.result() == 3
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    future.add_done_callback(calls.append)  # later callbacks run as usual
    assert calls == [future, future]


async def test_if_a_callback_of_a_capture_fails_neither_result_nor_nursery_is_affected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        value = ResultCapture.start_soon(nursery, trio.sleep, 0)
        failure = ResultCapture.start_soon(nursery, fail, suppress_exception=True)
        cancelled = ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.move_on_after(0))
        for capture in (value, failure, cancelled):
            capture.add_done_callback(raise_boom)
    assert len(logged(caplog)) == 3
    assert value.result() is None
    assert isinstance(failure.exception(), KeyError)
    assert cancelled.cancelled()


async def fail() -> None:
    raise KeyError


async def test_a_system_exit_raised_by_a_callback_of_a_capture_reaches_the_nursery() -> None:
    captures: list[ResultCapture[None]] = []
    with pytest.raises(BaseException) as caught:  # the group is checked below
        async with trio.open_nursery() as nursery:
            captures.append(ResultCapture.start_soon(nursery, trio.sleep, 0))
            captures[0].add_done_callback(partial(raise_error, SystemExit(3)))
    (error,) = getattr(caught.value, "exceptions")  # Python 3.10 has no exception groups
    assert isinstance(error, SystemExit)
    assert captures[0].result() is None
