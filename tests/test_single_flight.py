"""SingleFlight: what callers share, how they leave, where tasks run, and how they fail."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import math
import signal
import sys
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from _helpers import in_foreign_run, seed_scheduler
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import ResultCapture, SingleFlight, TaskCancelledException, TaskFailedException

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class OurError(Exception):
    pass


class OurBaseError(BaseException):
    pass


class Work:
    """An async function whose calls end when ``go_on`` is set, and are counted."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.reasons: list[str | None] = []  # why its calls were cancelled
        self.go_on = trio.Event()
        self.error: BaseException | None = None
        self.clean_up: trio.Event | None = None  # if set, a cancelled call waits for it
        self.error_after_cancel: BaseException | None = None

    async def __call__(self, *args: object) -> object:
        self.begun += 1
        number = self.begun
        try:
            await self.go_on.wait()
        except trio.Cancelled as cancelled:
            self.reasons.append(cancelled.reason)
            if self.clean_up is not None:
                with trio.CancelScope(shield=True):
                    await self.clean_up.wait()
            if self.error_after_cancel is not None:
                raise self.error_after_cancel from None
            raise
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return (number, *args)


@pytest.fixture
def work() -> Work:
    return Work()


@contextlib.asynccontextmanager
async def open_flights() -> AsyncGenerator[tuple[SingleFlight[Any, Any], trio.Nursery, trio.Nursery], None]:
    """Flights, their nursery, and the nursery of their callers, which is around it."""
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        yield SingleFlight[Any, Any](nursery), nursery, callers


@pytest.fixture
def no_collector() -> Iterator[None]:
    if sys.implementation.name != "cpython":
        pytest.skip("only CPython frees objects by counting references")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def call_and_fail(
    flights: SingleFlight[str, Any], fn: Callable[[], Awaitable[Any]], error: type[Exception]
) -> None:
    """Call `run`, which has to raise this exception."""
    with pytest.raises(error) as caught:
        await flights.run("a", fn)
    assert type(caught.value) is error


def is_idle(flights: SingleFlight[Any, Any]) -> bool:
    return repr(flights) == "SingleFlight(in_flight=0)"


# ---- sharing


async def test_concurrent_callers_of_a_key_share_one_task_and_its_value(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        results = [ResultCapture.start_soon(callers, flights.run, "a", work, "x") for _ in range(5)]
        await wait_all_tasks_blocked()
        results.append(ResultCapture.start_soon(callers, flights.run, "a", work, "another argument"))
        await wait_all_tasks_blocked()
        assert work.begun == 1
        assert len(nursery.child_tasks) == 1
        work.go_on.set()
    assert [result.result() for result in results] == [(1, "x")] * 6
    assert len({id(result.result()) for result in results}) == 1


async def test_callers_of_different_keys_share_nothing(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        results = [ResultCapture.start_soon(callers, flights.run, key, work, key) for key in ("a", "b", None, (1,))]
        await wait_all_tasks_blocked()
        assert work.begun == len(nursery.child_tasks) == 4
        assert repr(flights) == "SingleFlight(in_flight=4)"
        work.go_on.set()
    assert {result.result()[1:] for result in results} == {("a",), ("b",), (None,), ((1,),)}
    assert is_idle(flights)


async def test_a_result_is_not_kept_after_the_flight(work: Work) -> None:
    work.go_on.set()
    async with open_flights() as (flights, _, _):
        assert await flights.run("a", work) == (1,)
        assert await flights.run("a", work) == (2,)


async def test_a_failure_is_not_kept_after_the_flight(work: Work) -> None:
    work.go_on.set()
    async with open_flights() as (flights, _, _):
        work.error = OurError()
        with pytest.raises(OurError):
            await flights.run("a", work)
        work.error = None
        assert await flights.run("a", work) == (2,)


async def test_a_flight_is_forgotten_before_any_of_its_callers_runs() -> None:
    found: list[str] = []

    async def work() -> None:
        await wait_all_tasks_blocked()

    async def call() -> None:
        await flights.run("a", work)
        found.append(repr(flights))

    async with open_flights() as (flights, _, callers):
        for _ in range(3):
            callers.start_soon(call)
        await wait_all_tasks_blocked(0.001)
    assert found == ["SingleFlight(in_flight=0)"] * 3


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
async def test_a_caller_that_arrives_in_the_tick_in_which_a_flight_ends_starts_a_new_one(
    seed: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    ended = trio.Event()

    async def end() -> int:
        await wait_all_tasks_blocked()
        ended.set()
        return 0

    async def arrive() -> object:
        await ended.wait()
        return await flights.run("a", work)

    work.go_on.set()
    async with open_flights() as (flights, _, callers):
        first = [ResultCapture.start_soon(callers, flights.run, "a", end) for _ in range(3)]
        late = ResultCapture.start_soon(callers, arrive)
        await late.wait_done()
    assert [result.result() for result in first] == [0] * 3
    assert late.result() == (1,)


# ---- leaving


async def test_cancelling_the_first_caller_does_not_affect_the_others(work: Work) -> None:
    async with open_flights() as (flights, _, callers):
        scope = trio.CancelScope()
        first = ResultCapture.start_soon(callers, flights.run, "a", work, cancel_scope=scope)
        await wait_all_tasks_blocked()
        others = [ResultCapture.start_soon(callers, flights.run, "a", work) for _ in range(2)]
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert first.cancelled()
        assert type(first.exception()) is trio.Cancelled
        assert not work.ended
        work.go_on.set()
    assert [result.result() for result in others] == [(1,)] * 2
    assert scope.cancelled_caught


async def test_the_deadline_of_a_caller_does_not_affect_the_others(
    work: Work, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_flights() as (flights, _, callers):
        hasty = ResultCapture.start_soon(callers, flights.run, "a", work, cancel_scope=trio.move_on_after(1))
        await wait_all_tasks_blocked()
        patient = ResultCapture.start_soon(callers, flights.run, "a", work)
        await trio.sleep(2)
        assert hasty.cancelled()
        work.go_on.set()
    assert patient.result() == (1,)


async def test_the_last_caller_to_leave_cancels_the_task_with_a_reason(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        scopes = [trio.CancelScope() for _ in range(3)]
        for scope in scopes:
            ResultCapture.start_soon(callers, flights.run, "a", work, cancel_scope=scope)
        await wait_all_tasks_blocked()
        for scope in scopes[:2]:
            scope.cancel()
            await wait_all_tasks_blocked()
        assert not work.ended
        scopes[2].cancel()
        await wait_all_tasks_blocked()
        assert work.reasons == ["all callers of SingleFlight.run for this key were cancelled"]
        assert not nursery.child_tasks
        assert not nursery.cancel_scope.cancel_called
    assert all(scope.cancelled_caught for scope in scopes)


async def test_if_all_callers_leave_in_the_same_tick_the_task_is_cancelled_once(work: Work) -> None:
    async with open_flights() as (flights, _, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as together:
                for _ in range(3):
                    together.start_soon(flights.run, "a", work)
                await wait_all_tasks_blocked()
                scope.cancel()
        await wait_all_tasks_blocked()
        assert len(work.reasons) == 1
        assert is_idle(flights)


async def test_a_caller_that_arrives_while_the_task_is_being_cancelled_starts_a_new_one(work: Work) -> None:
    work.clean_up = trio.Event()
    async with open_flights() as (flights, nursery, callers):
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", work)
        assert is_idle(flights)
        late = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        assert (work.begun, work.ended, len(nursery.child_tasks)) == (2, 0, 2)
        work.clean_up.set()  # the end of the old task must not remove the new flight
        await wait_all_tasks_blocked()
        joined = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        assert (work.begun, work.ended) == (2, 1)
        work.go_on.set()
    assert late.result() == joined.result() == (2,)


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_if_the_only_caller_leaves_before_the_task_has_begun_the_task_is_cancelled(work: Work) -> None:
    async with open_flights() as (flights, _, _):
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            await flights.run("a", work)
        await wait_all_tasks_blocked()
        assert is_idle(flights)
    assert scope.cancelled_caught
    assert (work.begun, len(work.reasons)) == (1, 1)


async def test_a_caller_in_a_cancelled_scope_starts_no_task(work: Work) -> None:
    async with open_flights() as (flights, nursery, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await flights.run("a", work)
        assert scope.cancelled_caught
        assert is_idle(flights)
        assert not nursery.child_tasks
    assert not work.begun


async def test_a_caller_in_a_cancelled_scope_does_not_join_a_flight(work: Work) -> None:
    async with open_flights() as (flights, _, callers):
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await flights.run("a", work)
        assert scope.cancelled_caught
        work.go_on.set()
    assert result.result() == (1,)


@pytest.mark.parametrize("handling", [False, True])
async def test_a_cancelled_task_does_not_get_an_exception_of_the_last_caller_as_its_context(handling: bool) -> None:
    contexts: list[BaseException | None] = []

    async def note() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            contexts.append(cancelled.__context__)
            raise

    async def leave() -> None:
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", note)

    async with open_flights() as (flights, _, callers):
        if handling:
            try:
                raise OurError
            except OurError:
                await leave()
        else:
            await leave()
    assert contexts == [None]


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
async def test_a_caller_that_arrives_in_the_tick_in_which_the_only_other_caller_leaves_gets_a_value(
    seed: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    async with open_flights() as (flights, _, callers):
        scope = trio.CancelScope()
        callers.start_soon(cancel_when_blocked, scope)
        ResultCapture.start_soon(callers, flights.run, "a", work, cancel_scope=scope)
        await wait_all_tasks_blocked(0.001)
        late = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        work.go_on.set()
    assert late.result() == (work.begun,)


# ---- the task's nursery, cancel scopes and context


async def test_the_task_runs_in_the_nursery_and_outside_the_first_callers_cancel_scopes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def look() -> tuple[object, float]:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.current_task().parent_nursery, trio.current_effective_deadline()

    async with open_flights() as (flights, nursery, _):
        with trio.move_on_after(5):
            assert await flights.run("a", look) == (nursery, math.inf)


async def test_the_task_has_the_context_variables_from_when_the_flights_were_made() -> None:
    async def change() -> str:
        seen = colour.get()
        colour.set("changed by the task")
        await trio.lowlevel.checkpoint()
        return seen

    async def call() -> object:
        colour.set("the first caller's")
        return await flights.run("a", change)

    colour.set("the nursery's")
    async with open_flights() as (flights, _, callers):
        first = ResultCapture.start_soon(callers, call)
        await wait_all_tasks_blocked()
        assert await flights.run("a", change) == "the nursery's"  # each task has its own copy
        assert colour.get() == "the nursery's"
    assert first.result() == "the nursery's"


async def test_the_task_is_named_after_its_function() -> None:
    async def name() -> str:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.current_task().name

    async with open_flights() as (flights, _, _):
        expected = f"{__name__}.{name.__qualname__}"
        assert await flights.run("a", name) == expected
        assert await flights.run("a", functools.partial(name)) == expected


async def test_an_anyio_task_group_can_be_the_nursery(work: Work) -> None:
    async with trio.open_nursery() as callers, anyio.create_task_group() as group:
        flights = SingleFlight[str, object](group)
        results = [ResultCapture.start_soon(callers, flights.run, "a", work) for _ in range(2)]
        await wait_all_tasks_blocked()
        work.go_on.set()
        await wait_all_tasks_blocked()
        assert [result.result() for result in results] == [(1,)] * 2
        work.error = OurError()
        with pytest.raises(OurError):
            await flights.run("a", work)
        work.go_on = trio.Event()
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", work)
        await wait_all_tasks_blocked()
        assert len(work.reasons) == 1


# ---- failures


async def test_a_failure_reaches_every_caller_but_not_the_nursery(work: Work) -> None:
    work.error = OurError()
    async with open_flights() as (flights, nursery, callers):
        results = [ResultCapture.start_soon(callers, flights.run, "a", work, suppress_exception=True) for _ in range(3)]
        await wait_all_tasks_blocked()
        work.go_on.set()
        await wait_all_tasks_blocked()
        assert not nursery.cancel_scope.cancel_called
        assert [result.exception() for result in results] == [work.error] * 3
        assert is_idle(flights)


async def test_no_caller_sees_the_frames_of_another_in_the_traceback_of_a_failure(work: Work) -> None:
    work.error = OurError()
    depths: list[int] = []

    async def call() -> None:
        try:
            await flights.run("a", work)
        except OurError as error:
            depths.append(len(list(traceback.walk_tb(error.__traceback__))))
            assert error.__context__ is None

    async with open_flights() as (flights, _, callers):
        for _ in range(3):
            callers.start_soon(call)
        await wait_all_tasks_blocked()
        work.go_on.set()
    assert len(depths) == 3
    assert len(set(depths)) == 1


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_failure_after_the_last_caller_has_left_does_not_reach_the_nursery(grouped: bool, work: Work) -> None:
    async def work_in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:  # so that a group of a cancellation and a failure is raised
            nursery.start_soon(trio.sleep_forever)
            await work()

    work.error_after_cancel = OurError()
    async with open_flights() as (flights, nursery, callers):
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", work_in_a_nursery if grouped else work)
        await wait_all_tasks_blocked()
        assert work.ended == 1
        assert not nursery.child_tasks
        assert not nursery.cancel_scope.cancel_called
        assert scope.cancelled_caught


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), OurBaseError()])
async def test_a_base_exception_reaches_the_nursery_too(error: BaseException, work: Work) -> None:
    work.error = error
    work.go_on.set()
    seen: list[TaskFailedException] = []

    async def call(flights: SingleFlight[str, object]) -> None:
        with pytest.raises(TaskFailedException) as caught:
            await flights.run("a", work)
        seen.append(caught.value)

    async with trio.open_nursery() as callers:
        with pytest.RaisesGroup(type(error)):
            async with trio.open_nursery() as nursery:
                callers.start_soon(call, SingleFlight[str, object](nursery))
                await trio.sleep_forever()
    (failure,) = seen
    assert type(failure) is TaskFailedException
    assert failure.__cause__ is error


async def test_a_base_exception_reaches_the_nursery_even_after_the_last_caller_has_left(work: Work) -> None:
    work.error_after_cancel = OurBaseError()
    with pytest.RaisesGroup(OurBaseError, flatten_subgroups=True):
        async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
            flights = SingleFlight[str, object](nursery)
            with trio.CancelScope() as scope:
                callers.start_soon(cancel_when_blocked, scope)
                await flights.run("a", work)
            await trio.sleep_forever()


async def test_if_the_function_leaves_a_cancel_scope_open_its_callers_get_an_error() -> None:
    async def leave_open() -> None:
        trio.CancelScope().__enter__()
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="Cancel scope stack corrupted"):
            await SingleFlight[str, None](nursery).run("a", leave_open)


# ---- the nursery's cancellation


async def test_if_the_nursery_is_cancelled_callers_outside_it_get_a_task_cancelled_exception(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        results = [ResultCapture.start_soon(callers, flights.run, "a", work, suppress_exception=True) for _ in range(3)]
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="closing time")
    for result in results:
        error = result.exception()
        assert type(error) is TaskCancelledException
        assert type(error.__cause__) is trio.Cancelled
        assert "closing time" in str(error)
    assert is_idle(flights)


async def test_if_the_nursery_is_cancelled_callers_inside_it_are_cancelled_too(work: Work) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        results = [ResultCapture.start_soon(nursery, flights.run, "a", work) for _ in range(3)]
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert [type(result.exception()) for result in results] == [trio.Cancelled] * 3
    assert is_idle(flights)


async def test_a_call_from_inside_a_cancelled_nursery_is_cancelled(work: Work) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        nursery.cancel_scope.cancel()
        await flights.run("a", work)
        raise AssertionError
    assert nursery.cancel_scope.cancelled_caught
    assert is_idle(flights)


@pytest.mark.parametrize("open_nursery", [trio.open_nursery, anyio.create_task_group])
async def test_nobody_joins_a_flight_whose_nursery_is_being_cancelled(open_nursery: Any, work: Work) -> None:
    work.clean_up = trio.Event()
    async with trio.open_nursery() as callers, open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        callers.start_soon(_swallowed, flights, work)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()  # the task is busy with its clean-up
            with trio.fail_after(1), pytest.raises(TaskCancelledException):
                await flights.run("a", trio.sleep_forever)
            assert work.begun == 1
            assert is_idle(flights)
        work.clean_up.set()
    assert is_idle(flights)


async def _swallowed(flights: SingleFlight[str, object], work: Work) -> None:
    with pytest.raises(TaskCancelledException):
        await flights.run("a", work)


async def test_a_cancelled_caller_raises_a_plain_cancelled(work: Work) -> None:
    raised: list[
        type[BaseException]
    ] = []  # checked here, since a cancel scope would catch a group of cancellations too
    async with open_flights() as (flights, _, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(BaseException) as caught:
                await flights.run("a", work)
            raised.append(type(caught.value))
            raise caught.value
    assert raised == [trio.Cancelled]


# ---- checkpoints


async def test_every_call_is_a_checkpoint() -> None:
    async def answer() -> int:
        return 3

    async def fail() -> int:
        raise OurError

    async with open_flights() as (flights, _, callers):
        with assert_checkpoints():
            assert await flights.run("a", answer) == 3
        with assert_checkpoints(), contextlib.suppress(OurError):
            await flights.run("a", fail)
        other = ResultCapture.start_soon(callers, flights.run, "a", answer)
        with assert_checkpoints():
            await flights.run("a", answer)
    assert other.result() == 3


# ---- mistakes


async def test_a_call_on_a_closed_nursery_raises_an_error_and_changes_nothing(work: Work) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
    with pytest.raises(RuntimeError, match=r"^Nursery is closed to new arrivals$"):
        await flights.run("a", work)
    assert is_idle(flights)


async def test_passing_a_coroutine_raises_an_error_and_changes_nothing() -> None:
    async def fetch() -> int:
        raise AssertionError

    async with open_flights() as (flights, nursery, _):
        coroutine: Any = fetch()
        with pytest.raises(TypeError, match=r"the coroutine that 'fetch' returned; call 'flights\.run\(key, fetch,"):
            await flights.run("a", coroutine)
        assert coroutine.cr_frame is None  # it was closed; otherwise, Python would warn about it
        assert is_idle(flights)
        assert not nursery.child_tasks


async def test_passing_anything_but_an_async_function_raises_an_error_even_if_there_is_a_flight_to_join(
    work: Work,
) -> None:
    async with open_flights() as (flights, _, callers):
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        with pytest.raises(TypeError, match=r"^expected an async function, but got 3; call "):
            await flights.run("a", 3)  # type: ignore[arg-type]  # this is the mistake
        work.go_on.set()
    assert result.result() == (1,)


async def test_callers_of_a_synchronous_function_get_a_helpful_error() -> None:
    not_async: Any = len
    async with open_flights() as (flights, _, _):
        with pytest.raises(TypeError, match=r"^expected an async function, but 'len' is synchronous"):
            await flights.run("a", not_async, "text")


async def test_an_unhashable_key_raises_an_error_and_changes_nothing(work: Work) -> None:
    async with open_flights() as (flights, nursery, _):
        with pytest.raises(TypeError, match="hashable"):
            await flights.run([], work)
        assert is_idle(flights)
        assert not nursery.child_tasks
    assert not work.begun


async def test_passing_anything_but_a_nursery_raises_an_error() -> None:
    with pytest.raises(TypeError, match=r"^expected a nursery"):
        SingleFlight[str, int](trio.open_nursery())  # type: ignore[arg-type]  # this is the mistake


def test_outside_a_trio_run_flights_with_a_nursery_can_be_neither_made_nor_used(work: Work) -> None:
    made: list[SingleFlight[str, object]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            made.append(SingleFlight[str, object](nursery))
            nurseries.append(nursery)

    nurseries: list[trio.Nursery] = []
    trio.run(main)
    with pytest.raises(RuntimeError, match=r"^triores needs Trio: "):
        SingleFlight[str, object](nurseries[0])
    with pytest.raises(RuntimeError, match=r"^triores needs Trio: "):
        made[0].run("a", work).send(None)


async def test_a_call_from_another_trio_run_raises_an_error_and_changes_nothing(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()

        async def elsewhere() -> None:
            for key in "ab":
                with pytest.raises(RuntimeError, match="belongs to another Trio run, that of its nursery"):
                    await flights.run(key, work)

        await trio.to_thread.run_sync(trio.run, elsewhere)
        assert (work.begun, len(nursery.child_tasks)) == (1, 1)
        work.go_on.set()
    assert result.result() == (1,)


# ---- flights that exist before their nursery

module_flights: SingleFlight[str, object] = SingleFlight()


def test_flights_without_a_nursery_can_be_made_outside_trio_and_entered_in_each_run(work: Work) -> None:
    async def main() -> object:
        async with module_flights as entered:
            assert entered is module_flights
            work.go_on = trio.Event()
            work.go_on.set()
            return await module_flights.run("a", work)

    assert [trio.run(main) for _ in range(2)] == [(1,), (2,)]


async def test_the_block_can_be_entered_again_once_it_has_ended(work: Work) -> None:
    work.go_on.set()
    flights: SingleFlight[str, object] = SingleFlight()
    for number in (1, 2):
        async with flights:
            assert await flights.run("a", work) == (number,)


NO_NURSERY = r"^SingleFlight\(in_flight=0\) has no nursery"


async def test_a_call_before_or_after_the_block_raises_an_error(work: Work) -> None:
    flights: SingleFlight[str, object] = SingleFlight()
    with pytest.raises(RuntimeError, match=NO_NURSERY):
        await flights.run("a", work)
    async with flights:
        pass
    with pytest.raises(RuntimeError, match=NO_NURSERY):
        await flights.run("a", work)
    assert not work.begun


async def test_entering_the_block_while_it_is_open_raises_an_error_and_leaves_it_open(work: Work) -> None:
    work.go_on.set()
    flights: SingleFlight[str, object] = SingleFlight()
    async with flights:
        with pytest.raises(RuntimeError, match="is already open"):
            await flights.__aenter__()
        assert await flights.run("a", work) == (1,)


async def test_while_the_block_waits_for_its_last_flights_it_can_be_neither_used_nor_entered(work: Work) -> None:
    work.clean_up = trio.Event()
    flights: SingleFlight[str, object] = SingleFlight()

    async def open_and_close() -> None:
        async with flights:
            outer.start_soon(call)
            await wait_all_tasks_blocked()

    async def call() -> None:
        with pytest.raises(TaskCancelledException):
            await flights.run("a", work)

    async with trio.open_nursery() as outer:
        outer.start_soon(open_and_close)
        await wait_all_tasks_blocked(0.01)
        assert len(work.reasons) == 1
        assert is_idle(flights)
        with pytest.raises(RuntimeError, match=NO_NURSERY):
            await flights.run("a", work)
        with pytest.raises(RuntimeError, match=r"is already open"):
            await flights.__aenter__()
        work.clean_up.set()
        await wait_all_tasks_blocked()
        async with flights:
            pass


async def test_flights_with_a_nursery_cannot_be_entered() -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        with pytest.raises(RuntimeError, match="was given a nursery"):
            await flights.__aenter__()


def test_the_block_cannot_be_entered_outside_trio() -> None:
    with pytest.raises(RuntimeError, match=r"^triores needs Trio: "):
        SingleFlight[str, object]().__aenter__().send(None)


async def test_flights_that_are_open_in_one_run_cannot_be_used_in_another(work: Work) -> None:
    flights: SingleFlight[str, object] = SingleFlight()

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, that of its nursery"):
            await flights.run("a", work)
        with pytest.raises(RuntimeError, match="is already open"):
            await flights.__aenter__()

    async with flights:
        await in_foreign_run(elsewhere)
    assert not work.begun


async def test_the_end_of_the_block_cancels_running_tasks_and_callers_outside_get_an_exception(work: Work) -> None:
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        async with flights:
            result = ResultCapture.start_soon(callers, flights.run, "a", work, suppress_exception=True)
            await wait_all_tasks_blocked()
        assert work.reasons == ["the block of 'async with flights' has ended"]
    error = result.exception()
    assert type(error) is TaskCancelledException
    assert "the block of 'async with flights' has ended" in str(error)


async def test_callers_in_a_nursery_inside_the_block_finish_first(work: Work) -> None:
    flights: SingleFlight[str, object] = SingleFlight()
    async with flights, trio.open_nursery() as callers:
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        work.go_on.set()
    assert result.result() == (1,)


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("error", [OurError(), OurBaseError(), BaseExceptionGroup("two", [OurError(), OurBaseError()])])
async def test_an_exception_raised_in_the_block_is_passed_on_unchanged(
    error: BaseException, in_flight: bool, work: Work
) -> None:
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.raises(type(error)) as caught:
            async with flights:
                if in_flight:
                    callers.start_soon(call_and_fail, flights, work, TaskCancelledException)
                    await wait_all_tasks_blocked()
                raise error
    assert caught.value is error
    assert len(work.reasons) == in_flight


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_cancellation_in_the_block_is_raised_as_a_plain_cancelled(
    in_flight: bool, seed: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    raised: list[
        type[BaseException]
    ] = []  # checked here, since a cancel scope would catch a group of cancellations too
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with trio.CancelScope() as scope:
            with pytest.raises(BaseException) as caught:
                async with flights:
                    if in_flight:
                        callers.start_soon(call_and_fail, flights, work, TaskCancelledException)
                        await wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.sleep_forever()
            raised.append(type(caught.value))
            raise caught.value
    assert raised == [trio.Cancelled]
    assert scope.cancelled_caught
    assert len(work.reasons) == in_flight


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_cancellation_as_the_block_ends_is_raised_as_a_plain_cancelled(
    in_flight: bool, seed: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    raised: list[
        type[BaseException]
    ] = []  # checked here, since a cancel scope would catch a group of cancellations too
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with trio.CancelScope() as scope:
            with pytest.raises(BaseException) as caught:
                async with flights:
                    if in_flight:
                        callers.start_soon(call_and_fail, flights, work, TaskCancelledException)
                        await wait_all_tasks_blocked()
                    scope.cancel()
            raised.append(type(caught.value))
            raise caught.value
    assert raised == [trio.Cancelled]
    assert scope.cancelled_caught
    assert len(work.reasons) == in_flight


async def test_a_task_cancelled_by_the_end_of_the_block_does_not_get_another_exception_as_its_context() -> None:
    contexts: list[BaseException | None] = []

    async def note() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            contexts.append(cancelled.__context__)
            raise

    flights: SingleFlight[str, None] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.raises(OurError):
            async with flights:
                callers.start_soon(call_and_fail, flights, note, TaskCancelledException)
                await wait_all_tasks_blocked()
                raise OurError
    assert contexts == [None]


async def test_a_base_exception_of_a_task_cancels_the_block_and_is_raised_in_a_group(work: Work) -> None:
    work.error = OurBaseError()
    work.go_on.set()
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.RaisesGroup(OurBaseError):
            async with flights:
                callers.start_soon(call_and_fail, flights, work, TaskFailedException)
                await trio.sleep_forever()
    async with flights:
        pass


async def test_a_base_exception_of_a_task_is_not_lost_if_the_block_fails_too(work: Work) -> None:
    work.error_after_cancel = OurBaseError()
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.RaisesGroup(OurError, OurBaseError):
            async with flights:
                callers.start_soon(call_and_fail, flights, work, TaskFailedException)
                await wait_all_tasks_blocked()
                raise OurError


def test_even_without_strict_exception_groups_no_exception_of_the_block_is_lost() -> None:
    async def main() -> None:
        work = Work()
        work.error_after_cancel = OurBaseError()
        with pytest.RaisesGroup(OurError, OurBaseError):
            async with SingleFlight[str, object]() as flights:
                async with trio.open_nursery() as callers:
                    callers.start_soon(flights.run, "key", work)
                    await wait_all_tasks_blocked()
                    callers.cancel_scope.cancel()
                raise OurError

    with pytest.warns(trio.TrioDeprecationWarning):
        trio.run(main, strict_exception_groups=False)


@pytest.mark.parametrize("grouped", [False, True])
async def test_if_a_base_exception_cancels_the_block_and_the_block_fails_both_are_in_one_group(
    grouped: bool, work: Work
) -> None:
    work.error = OurBaseError()
    work.go_on.set()
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.RaisesGroup(OurBaseError, OurError, flatten_subgroups=True):
            async with flights:
                callers.start_soon(call_and_fail, flights, work, TaskFailedException)
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as cancelled:
                    if grouped:
                        raise BaseExceptionGroup("both", [OurError(), cancelled]) from None
                    raise OurError from None


async def test_a_base_exception_of_a_task_as_the_block_ends_is_raised_in_a_group(work: Work) -> None:
    work.error_after_cancel = OurBaseError()
    flights: SingleFlight[str, object] = SingleFlight()
    async with trio.open_nursery() as callers:
        with pytest.RaisesGroup(OurBaseError):
            async with flights:
                callers.start_soon(call_and_fail, flights, work, TaskFailedException)
                await wait_all_tasks_blocked()


async def test_the_task_has_the_context_variables_from_when_the_block_was_entered() -> None:
    async def look() -> str:
        await trio.lowlevel.checkpoint()
        return colour.get()

    async def call() -> str:
        colour.set("the caller's")
        return await flights.run("a", look)

    colour.set("the construction's")
    flights: SingleFlight[str, str] = SingleFlight()
    colour.set("the block's")
    async with flights:
        colour.set("changed")
        async with trio.open_nursery() as callers:
            result = ResultCapture.start_soon(callers, call)
    assert result.result() == "the block's"


async def test_entering_and_leaving_the_block_are_checkpoints() -> None:
    flights: SingleFlight[str, object] = SingleFlight()
    with assert_checkpoints():
        await flights.__aenter__()
    with assert_checkpoints():
        await flights.__aexit__(None, None, None)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with flights:
            raise AssertionError
    assert scope.cancelled_caught


async def test_if_two_tasks_enter_the_block_at_once_one_of_them_gets_an_error() -> None:
    flights: SingleFlight[str, object] = SingleFlight()

    async def enter() -> None:
        async with flights:
            await trio.sleep_forever()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="is already open")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)
            nursery.start_soon(enter)


# ---- Ctrl-C


def test_ctrl_c_in_the_only_caller_cancels_the_task() -> None:
    works: list[Work] = []
    found: list[bool] = []

    async def press_ctrl_c() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)  # interrupts the main task, since this one is protected

    async def main() -> None:
        works.append(Work())
        async with open_flights() as (flights, _, _):
            trio.lowlevel.spawn_system_task(press_ctrl_c)
            with pytest.raises(KeyboardInterrupt) as caught:
                await flights.run("a", works[0])
            found.append(is_idle(flights))
            await wait_all_tasks_blocked()
            assert (works[0].begun, len(works[0].reasons)) == (1, 1)
            raise caught.value

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(KeyboardInterrupt)
    assert found == [True]


class Interrupting:
    """A key that presses Ctrl-C while it is being looked up, after the given number of earlier lookups."""

    def __init__(self, lookups: int) -> None:
        self.lookups = lookups

    def __hash__(self) -> int:
        if not self.lookups:
            signal.raise_signal(signal.SIGINT)
        self.lookups -= 1
        return 1


@pytest.mark.parametrize("lookups", [0, 1])
def test_if_ctrl_c_is_pressed_while_a_caller_joins_a_flight_the_caller_leaves_it(lookups: int) -> None:
    works: list[Work] = []

    async def main() -> None:
        works.append(Work())
        async with open_flights() as (flights, _, _):
            with pytest.raises(KeyboardInterrupt):
                await flights.run(Interrupting(lookups), works[0])
            assert is_idle(flights)
            await wait_all_tasks_blocked()

    trio.run(main)
    assert (works[0].begun, len(works[0].reasons)) == (1, 1)


# ---- references


async def failing_in_a_frame() -> None:
    await trio.lowlevel.checkpoint()
    raise OurError


@pytest.mark.usefixtures("no_collector")
async def test_a_failed_flight_is_freed_with_the_last_of_its_exceptions() -> None:
    seen: list[OurError] = []

    async def call() -> None:
        try:
            await flights.run("a", failing_in_a_frame)
        except OurError as error:
            seen.append(error)

    async with open_flights() as (flights, _, callers):
        for _ in range(2):
            callers.start_soon(call)
        await wait_all_tasks_blocked()
        gone = weakref.ref(seen[0])
        seen.clear()
        assert gone() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("grouped", [False, True])
async def test_an_abandoned_flight_is_freed_at_once(grouped: bool) -> None:
    gone: list[weakref.ref[OurError]] = []

    async def fail_after_cancel() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise watched(gone)

    async def fail_in_a_nursery() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            await fail_after_cancel()

    async with open_flights() as (flights, _, callers):
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", fail_in_a_nursery if grouped else fail_after_cancel)
        await wait_all_tasks_blocked()
        assert [ref() for ref in gone] == [None]


def watched(gone: list[weakref.ref[OurError]]) -> OurError:
    error = OurError()
    gone.append(weakref.ref(error))
    return error


@pytest.mark.usefixtures("no_collector")
async def test_flights_are_freed_with_their_last_reference(work: Work) -> None:
    work.go_on.set()
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        await flights.run("a", work)
        gone = weakref.ref(flights)
        del flights
        assert gone() is None
