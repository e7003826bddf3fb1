"""Captures: settled by a task."""

# Some variables are assigned in blocks that raise, and checked after them:
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import gc
import re
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import outcome
import pytest
import trio
from _helpers import Boom, is_free, leaf_types, leaves
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import (
    Future,
    FutureSetAgainException,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    wait_all,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager

    from triores._capture import NurseryLike

    OpenNursery = Callable[[], AbstractAsyncContextManager[NurseryLike]]

# Captures have to work both in a Trio nursery and in an anyio task group.
open_any_nursery = pytest.mark.parametrize("open_nursery", [trio.open_nursery, anyio.create_task_group])


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * number


async def fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


# ---- capturing is not catching


@open_any_nursery
async def test_a_capture_keeps_the_value_its_routine_returns(open_nursery: OpenNursery) -> None:
    async with open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, double, number) for number in range(5)]
        assert not any(capture.is_done() for capture in captures)
        with pytest.raises(TaskNotDoneException):
            captures[0].result()
    assert [capture.result() for capture in captures] == [0, 2, 4, 6, 8]
    assert [capture.args for capture in captures] == [(0,), (1,), (2,), (3,), (4,)]
    assert captures[0].routine is double
    assert captures[0].cancel_scope is None
    assert all(map(is_free, captures))


@open_any_nursery
@pytest.mark.parametrize("kind", [Boom, KeyboardInterrupt, SystemExit])
async def test_an_exception_is_recorded_and_passed_on(open_nursery: OpenNursery, kind: type[BaseException]) -> None:
    error = kind("no")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, fail, error)
            other = ResultCapture.start_soon(nursery, trio.sleep_forever)
    assert caught.value.exceptions == (error,)
    assert capture.exception() is error
    assert not capture.cancelled()
    assert other.cancelled()


@open_any_nursery
async def test_a_suppressed_exception_is_only_recorded(open_nursery: OpenNursery) -> None:
    for error in (Boom(), ExceptionGroup("several", [Boom(), ValueError()])):
        async with open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, fail, error, suppress_exception=True)
            other = ResultCapture.start_soon(nursery, double, 2)
        assert capture.exception() is error
        assert other.result() == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_base_exceptions_such_as_keyboard_interrupt_are_never_suppressed(kind: type[BaseException]) -> None:
    for error in (kind(), BaseExceptionGroup("mixed", [Boom(), kind()])):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                capture = ResultCapture.start_soon(nursery, fail, error, suppress_exception=True)
        assert [repr(each) for each in caught.value.exceptions] == [repr(error)]  # the nursery makes a new group
        assert capture.exception() is error


async def ended(
    routine: Callable[[], Awaitable[object]], **options: Any
) -> tuple[BaseException | None, BaseException | None]:
    """The exception that a capture recorded, and the one that reached the nursery."""
    captures: list[ResultCapture[object]] = []
    try:
        async with trio.open_nursery() as nursery:
            captures.append(ResultCapture.start_soon(nursery, routine, **options))
    except BaseExceptionGroup as group:
        reached: BaseException | None = group.exceptions[0]
    else:
        reached = None
    return captures[0].exception(), reached


@pytest.mark.parametrize("with_scope", [False, True])
@pytest.mark.parametrize(
    ("suppress", "error", "is_suppressed"),
    [
        (Boom, Boom(), True),
        (Boom, KeyError(), False),
        (LookupError, KeyError(), True),
        ((Boom, KeyError), KeyError(), True),
        ((Boom, KeyError), ValueError(), False),
        ((), Boom(), False),
        (Boom, ExceptionGroup("alike", [Boom(), ExceptionGroup("inner", [Boom()])]), True),
        ((Boom, KeyError), ExceptionGroup("mixed", [Boom(), KeyError()]), True),
        (Boom, ExceptionGroup("mixed", [Boom(), KeyError()]), False),
        (ExceptionGroup, ExceptionGroup("mixed", [Boom(), KeyError()]), True),
        (ExceptionGroup, ExceptionGroup("mixed", [Boom(), ExceptionGroup("inner", [KeyError()])]), True),
        (Boom, BaseExceptionGroup("mixed", [Boom(), KeyboardInterrupt()]), False),
    ],
    ids=repr,
)
async def test_an_exception_is_suppressed_only_if_all_of_it_has_the_given_types(
    suppress: Any, error: BaseException, is_suppressed: bool, with_scope: bool
) -> None:
    scope = trio.CancelScope() if with_scope else None
    recorded, reached = await ended(partial(fail, error), suppress_exception=suppress, cancel_scope=scope)
    assert recorded is error
    if is_suppressed:
        assert reached is None
    else:
        assert repr(reached) == repr(error)  # the nursery makes a new group


@pytest.mark.parametrize("wrong", [3, None, "ValueError", BaseException, trio.Cancelled, KeyboardInterrupt, (Boom, 3)])
async def test_suppress_exception_takes_only_subclasses_of_exception(wrong: Any, nursery: trio.Nursery) -> None:
    message = r"^suppress_exception must be True, False, a subclass of Exception or a tuple of those, not .* are never"
    with pytest.raises(TypeError, match=message):
        ResultCapture.start_soon(nursery, double, 1, suppress_exception=wrong)
    with pytest.raises(TypeError, match=message):
        ResultCapture(double, 1, suppress_exception=wrong)
    assert not nursery.child_tasks


async def fail_in_clean_up(error: BaseException) -> None:
    """When cancelled, raise a group of the cancellation and another exception."""
    async with trio.open_nursery() as inner:
        inner.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise error


async def test_if_the_rest_of_a_group_is_suppressed_a_foreign_cancellation_is_passed_on_alone() -> None:
    error = Boom()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, fail_in_clean_up, error, suppress_exception=Boom)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught  # so the nursery raised nothing else
    assert set(map(type, leaves(capture.exception()))) == {Boom, trio.Cancelled}
    assert not capture.cancelled()


async def test_an_exception_in_a_group_with_a_foreign_cancellation_is_passed_on_if_it_is_not_suppressed() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, fail_in_clean_up, Boom(), suppress_exception=KeyError)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert leaf_types(caught.value) == [Boom]
    assert set(map(type, leaves(capture.exception()))) == {Boom, trio.Cancelled}


@pytest.mark.parametrize("suppress", [False, True, Boom, KeyError])
async def test_the_cancellation_of_its_own_cancel_scope_is_not_recorded_with_the_rest(suppress: Any) -> None:
    error = Boom()
    recorded, reached = await ended(
        partial(fail_in_clean_up, error), suppress_exception=suppress, cancel_scope=trio.move_on_after(0)
    )
    assert type(recorded) is ExceptionGroup
    assert list(leaves(recorded)) == [error]
    if suppress in (True, Boom):
        assert reached is None
    else:
        assert [type(leaf) for leaf in leaves(reached)] == [Boom]


async def test_a_cancellation_is_recorded_and_passed_on() -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, trio.sleep_forever, suppress_exception=True)
            scope.cancel(reason="time to go")
    assert scope.cancelled_caught
    assert capture.cancelled()
    assert isinstance(capture.exception(), trio.Cancelled)
    with pytest.raises(TaskCancelledException, match=r"was cancelled \(source: explicit\), reason: 'time to go'$"):
        capture.result()


async def test_a_routine_that_ends_with_a_group_of_cancellations_counts_as_cancelled() -> None:
    async def sleep_twice() -> None:
        try:
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                inner.start_soon(trio.sleep_forever)
        except BaseException as error:
            raise BaseExceptionGroup("as a nursery may raise it", [error]) from None

    async with trio.open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, sleep_twice)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert isinstance(capture.exception(), BaseExceptionGroup)
    assert capture.cancelled()


async def test_what_is_not_suppressed_is_passed_on_unchanged() -> None:
    cancelled: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            cancelled.append(error)
            raise
    for raised in (Boom(), ExceptionGroup("", [Boom()]), BaseExceptionGroup("", cancelled)):

        async def fail(error: BaseException = raised) -> None:
            raise error

        capture = ResultCapture(fail)
        with pytest.raises(type(raised)) as caught:
            await capture.run()
        assert caught.value is capture.exception() is raised


async def test_a_capture_is_settled_in_the_step_in_which_its_routine_ends(nursery: trio.Nursery) -> None:
    class Steps(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if ended:
                settled.append(capture.is_done())

    async def routine() -> int:
        await trio.lowlevel.checkpoint()
        ended.append(True)
        return 4

    ended: list[bool] = []
    settled: list[bool] = []
    capture = ResultCapture.start_soon(nursery, routine)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    assert await capture == 4
    trio.lowlevel.remove_instrument(steps)
    assert settled[0]


async def test_a_routine_cannot_read_its_own_result() -> None:
    async def read_own() -> None:
        with pytest.raises(TaskNotDoneException):
            captures[0].result()

    async with trio.open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, read_own)]
    assert captures[0].exception() is None


async def test_a_routine_may_return_any_awaitable() -> None:
    class Awaits:
        def __await__(self) -> Generator[Any, Any, int]:
            return double(3).__await__()

    future = Future[int]()
    future.set_result(5)
    async with trio.open_nursery() as nursery:
        from_object = ResultCapture.start_soon(nursery, Awaits)
        from_future = ResultCapture.start_soon(nursery, lambda: future)
        from_partial = ResultCapture.start_soon(nursery, partial(double, number=4))
    assert (from_object.result(), from_future.result(), from_partial.result()) == (6, 5, 8)


async def test_start_soon_of_a_subclass_makes_an_instance_of_it() -> None:
    class Mine(ResultCapture[int]): ...

    async with trio.open_nursery() as nursery:
        capture = Mine.start_soon(nursery, double, 1)
    assert type(capture) is Mine
    assert repr(capture) == "Mine(result=2)"


async def test_start_soon_passes_its_arguments_to_a_subclass() -> None:
    class Mine(ResultCapture[int]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.given = args, kwargs

    options: Any = {"suppress_exception": True, "name": "fetch 1", "cancel_scope": trio.CancelScope()}
    async with trio.open_nursery() as nursery:
        capture: Any = Mine.start_soon(nursery, double, 1, **options)
    assert capture.given == ((double, 1), options)
    assert capture.cancel_scope is options["cancel_scope"]


# ---- showing


async def test_the_alternate_format_shows_the_routine_and_its_arguments(nursery: trio.Nursery) -> None:
    capture = ResultCapture(double, 3)
    assert repr(capture) == "ResultCapture(is_done=False)"
    assert f"{capture:#}" == "ResultCapture(routine=double, args=(3,), is_done=False)"
    await capture.run()
    assert f"{capture:#}" == "ResultCapture(routine=double, args=(3,), result=6)"
    assert f"{capture}" == repr(capture) == "ResultCapture(result=6)"
    partly = ResultCapture(partial(double, 3))
    assert f"{partly:#}" == f"ResultCapture(routine={partial(double, 3)!r}, args=(), is_done=False)"


def test_if_the_repr_of_an_argument_fails_the_rest_is_still_shown() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise Boom

        async def __call__(self, *args: object) -> None: ...

    shown = f"{ResultCapture(Unshowable(), Unshowable()):#}"
    assert shown == (
        "ResultCapture(routine=<Unshowable whose repr() raised Boom>, "
        "args=(<Unshowable whose repr() raised Boom>,), is_done=False)"
    )


# ---- run


@open_any_nursery
async def test_a_capture_can_be_run_by_hand(open_nursery: OpenNursery) -> None:
    capture = ResultCapture(double, 3)
    assert not capture.is_done()
    with assert_checkpoints():
        await capture.run()
    assert capture.result() == 6
    capture = ResultCapture(double, 4)
    async with open_nursery() as nursery:
        nursery.start_soon(capture.run)
    assert capture.result() == 8
    with pytest.raises(Boom):
        await ResultCapture(fail, Boom()).run()
    failing = ResultCapture(fail, Boom(), suppress_exception=True)
    await failing.run()
    assert isinstance(failing.exception(), Boom)


@open_any_nursery
async def test_a_capture_can_be_run_with_nursery_start(open_nursery: OpenNursery) -> None:
    async def serve(address: str, *, task_status: trio.TaskStatus[int]) -> str:
        task_status.started(80)
        await wait_all_tasks_blocked()
        return address

    async with open_nursery() as nursery:
        capture = ResultCapture(serve, "here")
        assert await nursery.start(capture.run) == 80
        assert not capture.is_done()
    assert capture.result() == "here"


class Counting:
    def __init__(self) -> None:
        self.runs = 0

    async def routine(self) -> int:
        self.runs += 1
        await wait_all_tasks_blocked()
        return self.runs


@pytest.mark.parametrize("with_scope", [False, True])
async def test_a_second_run_does_not_run_the_routine_again(with_scope: bool) -> None:
    counting = Counting()
    capture = ResultCapture(counting.routine, cancel_scope=trio.CancelScope() if with_scope else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(capture.run)
        while not counting.runs:
            await trio.lowlevel.checkpoint()
        assert not capture.is_done()
        with pytest.raises(FutureSetAgainException):
            await capture.run()
    with pytest.raises(FutureSetAgainException) as caught:
        await capture.run()
    assert caught.value.args == (capture,)
    with pytest.raises(ExceptionGroup) as caught_group:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(capture.run)
    assert [type(error) for error in caught_group.value.exceptions] == [FutureSetAgainException]
    assert counting.runs == capture.result() == 1


@pytest.mark.parametrize("with_scope", [False, True])
async def test_a_capture_made_by_start_soon_cannot_be_run_by_hand(with_scope: bool) -> None:
    counting = Counting()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope() if with_scope else None
        capture = ResultCapture.start_soon(nursery, counting.routine, cancel_scope=scope)
        with pytest.raises(FutureSetAgainException):
            await capture.run()  # before the task has begun
    with pytest.raises(FutureSetAgainException):
        await capture.run()
    assert counting.runs == capture.result() == 1


# ---- start and done results


async def start_then(
    when: str, end: BaseException | int, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> int:
    await trio.lowlevel.checkpoint()
    if when == "after":
        task_status.started("started")
        await wait_all_tasks_blocked()
    if isinstance(end, BaseException):
        raise end
    return end


@open_any_nursery
@pytest.mark.parametrize("apart", [False, True])
async def test_if_a_task_starts_and_returns_both_results_have_values(open_nursery: OpenNursery, apart: bool) -> None:
    async with open_nursery() as run_nursery, open_nursery() as start_nursery:
        start, done = ResultCapture.capture_start_and_done_results(
            run_nursery, start_then, "after", 3, start_nursery=start_nursery if apart else None
        )
        await start.wait_done()
        assert start.result() == "started"
        assert not done.is_done()
    assert done.result() == 3
    assert done.args == ("after", 3)


@open_any_nursery
async def test_a_failure_before_started_goes_to_the_start_nursery_and_both_results(open_nursery: OpenNursery) -> None:
    error = Boom()
    async with open_nursery() as run_nursery:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_nursery() as start_nursery:
                start, done = ResultCapture.capture_start_and_done_results(
                    run_nursery, start_then, "before", error, start_nursery=start_nursery
                )
        assert caught.value.exceptions == (error,)
        await trio.lowlevel.checkpoint()  # the run nursery is still running
    assert start.exception() is error
    assert done.exception() is error


@open_any_nursery
async def test_returning_before_started_fails_only_the_start_result(open_nursery: OpenNursery) -> None:
    async with open_nursery() as run_nursery:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_nursery() as start_nursery:
                start, done = ResultCapture.capture_start_and_done_results(
                    run_nursery, start_then, "before", 3, start_nursery=start_nursery
                )
        (error,) = caught.value.exceptions
        assert isinstance(error, RuntimeError)
        await trio.lowlevel.checkpoint()
    assert start.exception() is error
    assert done.result() == 3


@open_any_nursery
async def test_a_failure_after_started_goes_to_the_run_nursery_and_the_done_result(open_nursery: OpenNursery) -> None:
    error = Boom()
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as run_nursery:
            async with open_nursery() as start_nursery:
                start, done = ResultCapture.capture_start_and_done_results(
                    run_nursery, start_then, "after", error, start_nursery=start_nursery
                )
            assert start.result() == "started"
            await trio.sleep_forever()
    assert caught.value.exceptions == (error,)
    assert done.exception() is error
    assert start.exception() is None


async def test_a_start_result_cannot_be_run_by_hand(nursery: trio.Nursery) -> None:
    start_result, done_result = ResultCapture.capture_start_and_done_results(nursery, start_then, "after", 3)
    with pytest.raises(FutureSetAgainException):
        await start_result.run()  # before the task has begun
    assert await start_result == "started"
    assert await done_result == 3


@open_any_nursery
async def test_a_cancellation_before_started_cancels_both_results(open_nursery: OpenNursery) -> None:
    async def never_start(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with open_nursery() as nursery:
            start, done = ResultCapture.capture_start_and_done_results(nursery, never_start)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert start.cancelled()
    assert done.cancelled()


@open_any_nursery
async def test_both_results_fail_if_the_run_nursery_is_already_closed(
    open_nursery: OpenNursery, nursery: trio.Nursery
) -> None:
    async with open_nursery() as closed:
        pass
    runs: list[int] = []

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        runs.append(1)
        task_status.started()

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as start_nursery:
            start, done = ResultCapture.capture_start_and_done_results(closed, serve, start_nursery=start_nursery)
    (error,) = caught.value.exceptions
    assert start.exception() is error
    assert done.exception() is error
    assert not runs
    with pytest.raises(FutureSetAgainException):
        await nursery.start(done.run)
    assert not runs


@open_any_nursery
async def test_both_results_fail_if_the_run_nursery_closes_before_the_task_begins(open_nursery: OpenNursery) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as start_nursery, open_nursery() as run_nursery:
            start, done = ResultCapture.capture_start_and_done_results(
                run_nursery, start_then, "after", 3, start_nursery=start_nursery
            )
    (error,) = caught.value.exceptions
    assert start.exception() is error
    assert done.exception() is error


@open_any_nursery
async def test_cancelling_the_run_nursery_before_the_task_has_started_cancels_the_done_result(
    open_nursery: OpenNursery,
) -> None:
    go_on = trio.Event()

    async def start_late(*, task_status: trio.TaskStatus[int]) -> None:
        await go_on.wait()
        task_status.started(3)
        await trio.sleep_forever()

    async with open_nursery() as start_nursery, open_nursery() as run_nursery:
        start, done = ResultCapture.capture_start_and_done_results(run_nursery, start_late, start_nursery=start_nursery)
        await wait_all_tasks_blocked()
        run_nursery.cancel_scope.cancel()  # type: ignore[attr-defined] # both kinds have one
        go_on.set()
    assert start.result() == 3
    assert done.cancelled()


async def test_messages_about_both_results_show_the_routine(nursery: trio.Nursery) -> None:
    start, done = ResultCapture.capture_start_and_done_results(nursery, start_then, "before", 3)
    for result in (start, done):
        with pytest.raises(TaskNotDoneException, match=r"^start_then\('before', 3\) was read before it was done"):
            result.result()
    nursery.cancel_scope.cancel()


# ---- names


async def own_name() -> str:
    return trio.lowlevel.current_task().name


async def own_name_after_start(*, task_status: trio.TaskStatus[None]) -> str:
    task_status.started()
    return trio.lowlevel.current_task().name


class Named:
    async def method(self) -> str:
        return trio.lowlevel.current_task().name

    async def __call__(self) -> str:
        return trio.lowlevel.current_task().name

    def __repr__(self) -> str:
        return "an object of its own"


NAMES: list[tuple[Callable[[], Awaitable[str]], str]] = [
    (own_name, f"{__name__}.own_name"),
    (partial(own_name), f"{__name__}.own_name"),
    (Named().method, f"{__name__}.Named.method"),
    (Named(), "an object of its own"),
]


@open_any_nursery
@pytest.mark.parametrize(("routine", "name"), NAMES)
async def test_a_task_is_named_after_its_routine(
    open_nursery: OpenNursery, routine: Callable[[], Awaitable[str]], name: str
) -> None:
    async with open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, routine)]
        captures.append(ResultCapture.start_soon(nursery, routine, cancel_scope=trio.CancelScope()))
        captures.append(ResultCapture(routine))
        captures.append(ResultCapture(routine, cancel_scope=trio.CancelScope()))
        for capture in captures[2:]:
            nursery.start_soon(capture.run)
    assert [capture.result() for capture in captures] == [name] * 4
    async with trio.open_nursery() as plain:
        nursery_says = await run_in(plain, routine)
    assert nursery_says == name


async def run_in(nursery: trio.Nursery, routine: Callable[[], Awaitable[str]]) -> str:
    """The name that Trio gives a task of the routine."""
    future = Future[str]()

    def note(task: trio.lowlevel.Task) -> None:
        future.set_result(task.name)

    class NewTasks(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            note(task)

    instrument = NewTasks()
    trio.lowlevel.add_instrument(instrument)
    nursery.start_soon(routine)
    trio.lowlevel.remove_instrument(instrument)
    return await future


@open_any_nursery
async def test_a_task_can_be_given_a_name(open_nursery: OpenNursery) -> None:
    async with open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, own_name, name="fetch 1")]
        captures.append(ResultCapture.start_soon(nursery, own_name, name="fetch 1", cancel_scope=trio.CancelScope()))
        captures.append(ResultCapture(own_name, name="fetch 1"))
        nursery.start_soon(captures[-1].run)
        by_object = ResultCapture.start_soon(nursery, own_name, name=double)
        by_caller = ResultCapture(own_name, name="fetch 1")
        nursery.start_soon(by_caller.run, name="fetch 2")
    assert {capture.result() for capture in captures} == {"fetch 1"}
    assert by_object.result() == f"{__name__}.double"
    assert by_caller.result() == "fetch 2"


@open_any_nursery
async def test_a_task_started_by_nursery_start_is_named_after_its_routine(open_nursery: OpenNursery) -> None:
    async with open_nursery() as nursery:
        capture = ResultCapture(own_name_after_start)
        await nursery.start(capture.run)
        _, done = ResultCapture.capture_start_and_done_results(nursery, own_name_after_start)
        named = ResultCapture(own_name_after_start, name="server")
        await nursery.start(named.run)
    assert capture.result() == done.result() == f"{__name__}.own_name_after_start"
    assert named.result() == "server"


@open_any_nursery
async def test_both_tasks_of_start_and_done_results_are_named_after_the_routine(open_nursery: OpenNursery) -> None:
    async def routine(task_status: trio.TaskStatus[None]) -> list[str]:
        task = trio.lowlevel.current_task()
        assert task.parent_nursery is not None
        starter = task.parent_nursery.parent_task
        task_status.started()
        return [starter.name, task.name]

    async with open_nursery() as nursery:
        _, done_result = ResultCapture.capture_start_and_done_results(nursery, routine)
    assert done_result.result() == [f"{__name__}.{routine.__qualname__}"] * 2


async def test_a_task_that_runs_a_capture_by_hand_keeps_its_name() -> None:
    before = trio.lowlevel.current_task().name
    capture = ResultCapture(own_name)
    await capture.run()
    assert capture.result() == before == trio.lowlevel.current_task().name


# ---- cancel scopes


async def test_a_time_limit_ends_only_its_own_task(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        limited = ResultCapture.start_soon(nursery, trio.sleep, 10, cancel_scope=trio.move_on_after(5))
        other = ResultCapture.start_soon(nursery, trio.sleep, 7)
    assert trio.current_time() == 7
    assert not nursery.cancel_scope.cancelled_caught
    assert other.exception() is None
    assert limited.cancelled()
    assert limited.cancel_scope is not None
    assert limited.cancel_scope.cancelled_caught
    with pytest.raises(TaskCancelledException, match=r"\(source: deadline\)$"):
        limited.result()


@open_any_nursery
async def test_a_single_task_can_be_cancelled_with_a_reason(open_nursery: OpenNursery) -> None:
    async with open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope())
        by_hand = ResultCapture(trio.sleep_forever, cancel_scope=trio.CancelScope())
        nursery.start_soon(by_hand.run)
        other = ResultCapture.start_soon(nursery, double, 2)
        await wait_all_tasks_blocked()
        for each in (capture, by_hand):
            assert each.cancel_scope is not None
            each.cancel_scope.cancel(reason="not needed")
    assert other.result() == 4
    for each in (capture, by_hand):
        assert each.cancelled()
        with pytest.raises(TaskCancelledException, match="not needed"):
            each.result()


async def test_a_task_with_a_cancel_scope_can_also_return_fail_or_be_cancelled_from_outside() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            value = ResultCapture.start_soon(nursery, double, 2, cancel_scope=trio.CancelScope())
            await value
            ResultCapture.start_soon(nursery, fail, Boom(), cancel_scope=trio.CancelScope())
    assert value.result() == 4
    assert [type(error) for error in caught.value.exceptions] == [Boom]

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope())
            scope.cancel()
    assert scope.cancelled_caught
    assert capture.cancelled()


async def test_the_cancel_scope_has_to_be_one_that_was_never_entered(nursery: trio.Nursery) -> None:
    wrong: Any = 5
    not_a_scope = r"^cancel_scope must be a trio\.CancelScope, not 5"
    with pytest.raises(TypeError, match=not_a_scope):
        ResultCapture(double, 1, cancel_scope=wrong)
    with pytest.raises(TypeError, match=not_a_scope):
        ResultCapture.start_soon(nursery, double, 1, cancel_scope=wrong)
    with trio.CancelScope() as scope:  # noqa: SIM117 - it has to be entered first
        with pytest.raises(
            RuntimeError, match=r"^<trio\.CancelScope.*has been entered before.*'cancel_scope=trio\.CancelS"
        ):
            ResultCapture.start_soon(nursery, double, 1, cancel_scope=scope)
    with pytest.raises(RuntimeError, match=r"has been entered before"):
        ResultCapture(double, 1, cancel_scope=scope)
    assert not nursery.child_tasks


async def test_if_its_cancel_scope_cannot_be_entered_the_result_fails() -> None:
    scope = trio.CancelScope()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            captures = [ResultCapture.start_soon(nursery, double, 1, cancel_scope=scope) for _ in range(2)]
    (error,) = caught.value.exceptions
    assert isinstance(error, RuntimeError)
    assert sorted(capture.exception() is error for capture in captures) == [False, True]
    assert all(map(is_free, captures))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        suppressed = [
            ResultCapture.start_soon(nursery, double, 1, cancel_scope=scope, suppress_exception=True) for _ in range(2)
        ]
    assert sorted(isinstance(capture.exception(), RuntimeError) for capture in suppressed) == [False, True]


# ---- wrong callables


async def an_async_generator(number: int) -> Any:
    yield number


@open_any_nursery
async def test_passing_anything_but_an_async_function_raises_an_error_at_the_call(open_nursery: OpenNursery) -> None:
    wrong: Any
    async with open_nursery() as nursery:
        for wrong, got, right in (
            (3, "3", "async_fn"),
            (None, "None", "async_fn"),
            (double(1), "the coroutine that 'double' returned", "double"),
        ):
            call = rf"'ResultCapture\.start_soon\(nursery, {right}, \*args\)'"
            message = rf"^expected an async function, but got {got}; call {call}"
            with pytest.raises(TypeError, match=message):
                ResultCapture.start_soon(nursery, wrong)
        for wrong in (3, double(1)):
            with pytest.raises(TypeError, match=r"^expected an async function"):
                ResultCapture(wrong)
            with pytest.raises(TypeError, match=r"^expected an async function"):
                ResultCapture.capture_start_and_done_results(nursery, wrong)
        gc.collect()  # so that Python warns now about any coroutine that wasn't closed


@open_any_nursery
async def test_a_routine_that_is_not_async_fails_with_an_error_that_shows_the_right_call(
    open_nursery: OpenNursery,
) -> None:
    def sync_function(number: int) -> int:
        return number

    class Proxy:
        def __getattr__(self, name: str) -> object:
            return self

    def make_proxy(_number: int) -> Proxy:
        return Proxy()

    def choose_class(_number: int) -> type[Future[int]]:
        return Future

    cases: list[tuple[Any, str]] = [
        (sync_function, r"'.*sync_function' is synchronous, and returned 3; define it with 'async def', or run "),
        (partial(sync_function), r"'.*sync_function' is synchronous, and returned 3"),
        (make_proxy, r"'.*make_proxy' is synchronous, and returned <"),  # it seems to have every method
        (
            choose_class,
            r"'.*choose_class' is synchronous, and returned <class",
        ),  # only instances of the class can be awaited
        (an_async_generator, r"is an async generator; iterate over it with 'async for'$"),
    ]
    for wrong, message in cases:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_nursery() as nursery:
                capture = ResultCapture.start_soon(nursery, wrong, 3)
        assert caught.value.exceptions == (capture.exception(),)
        assert re.match(rf"expected an async function, but .*{message}", str(capture.exception()))


async def test_the_result_fails_if_the_arguments_are_wrong() -> None:
    wrong: Any = double
    async with trio.open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, wrong, 1, 2, suppress_exception=True)
    assert isinstance(capture.exception(), TypeError)


async def test_a_failure_that_reaches_the_nursery_has_only_one_frame_of_triores_in_its_traceback() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise Boom

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, fail)
    (error,) = caught.value.exceptions
    files = [Path(frame.filename).parent.name for frame in traceback.extract_tb(error.__traceback__)]
    assert files.count("triores") == 1


async def closed_nursery() -> trio.Nursery:
    async with trio.open_nursery() as nursery:
        pass
    return nursery


async def test_a_closed_nursery_raises_an_error() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        ResultCapture.start_soon(await closed_nursery(), double, 1)


async def test_passing_anything_but_a_nursery_raises_an_error(nursery: trio.Nursery) -> None:
    wrong: Any
    for wrong in (None, 3, double):
        with pytest.raises(TypeError, match=r"^expected a nursery, but got .*ResultCapture\.start_soon\(nursery, asy"):
            ResultCapture.start_soon(wrong, double, 1)
        nurseries: list[tuple[Any, Any]] = [(wrong, nursery), (nursery, wrong or 0)]
        for run_nursery, start_nursery in nurseries:
            with pytest.raises(TypeError, match=r"^expected a nursery, but got .*capture_start_and_done_results\("):
                ResultCapture.capture_start_and_done_results(run_nursery, double, 1, start_nursery=start_nursery)
    assert not nursery.child_tasks


# ---- waiting


async def test_a_capture_can_be_waited_for_before_it_is_run(nursery: trio.Nursery) -> None:
    capture = ResultCapture(double, 2)
    reader = ResultCapture.start_soon(nursery, wait_all, [capture, capture])
    await wait_all_tasks_blocked()
    await capture.run()
    await reader.wait_done()
    assert reader.exception() is None


def test_outside_a_trio_run_a_capture_says_that_it_needs_trio() -> None:
    nursery: Any = trio.run(closed_nursery)
    needs_trio = "triores needs Trio"
    with pytest.raises(RuntimeError, match=needs_trio):
        ResultCapture.start_soon(nursery, double, 1)
    with pytest.raises(RuntimeError, match=needs_trio):
        ResultCapture.capture_start_and_done_results(nursery, double, 1)
    with pytest.raises(RuntimeError, match=needs_trio):
        ResultCapture(double, 1).run().send(None)


async def test_a_failed_capture_can_be_read_many_times(nursery: trio.Nursery) -> None:
    error = Boom()
    capture = ResultCapture.start_soon(nursery, fail, error, suppress_exception=True)
    await capture.wait_done()
    depth = count_frames(error)
    for _ in range(10):
        with pytest.raises(Boom) as caught:
            await capture
        assert caught.value is error
        with pytest.raises(TaskFailedException) as failure:
            capture.result()
        assert failure.value.__cause__ is error
    assert isinstance(capture.outcome, outcome.Error)
    assert count_frames(error) == depth


def count_frames(error: BaseException) -> int:
    count, traceback = 0, error.__traceback__
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count
