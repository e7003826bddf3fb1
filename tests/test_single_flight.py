"""SingleFlight."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import math
import signal
import sys
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import hypothesis.strategies as st
import pytest
import trio
from _faults import SOAK
from _helpers import seed_scheduler
from hypothesis import given, settings
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
    """An async function that ends when it is told to, and keeps count of its calls."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.reasons: list[str | None] = []  # those of its cancellations
        self.go_on = trio.Event()
        self.error: BaseException | None = None
        self.clean_up: trio.Event | None = None  # what a cancelled call waits for
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
    """Flights, their nursery, and one for callers around it."""
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        yield SingleFlight[Any, Any](nursery), nursery, callers


@pytest.fixture
def no_collector() -> Iterator[None]:
    if sys.implementation.name != "cpython":
        pytest.skip("only CPython frees objects by reference counts")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


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
        with pytest.raises(TaskFailedException):
            await flights.run("a", work)
        work.error = None
        assert await flights.run("a", work) == (2,)


async def test_a_flight_is_forgotten_before_any_of_its_callers_runs() -> None:
    found: list[str] = []

    async def work() -> None:
        capture = flights._flights["a"].capture
        capture.add_done_callback(lambda _: found.append(repr(flights)))
        await wait_all_tasks_blocked()

    async with open_flights() as (flights, _, _):
        await flights.run("a", work)
    assert found == ["SingleFlight(in_flight=0)"]


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
async def test_a_caller_that_arrives_in_the_tick_in_which_the_flight_is_done_starts_a_new_one(
    seed: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    landed = trio.Event()

    async def land() -> int:
        await wait_all_tasks_blocked()
        landed.set()
        return 0

    async def arrive() -> object:
        await landed.wait()
        return await flights.run("a", work)

    work.go_on.set()
    async with open_flights() as (flights, _, callers):
        first = [ResultCapture.start_soon(callers, flights.run, "a", land) for _ in range(3)]
        late = ResultCapture.start_soon(callers, arrive)
        await late.wait_done()
    assert [result.result() for result in first] == [0] * 3
    assert late.result() == (1,)


# ---- leaving


async def test_the_first_callers_cancellation_is_its_own(work: Work) -> None:
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


async def test_a_callers_deadline_is_its_own(work: Work, autojump_clock: trio.testing.MockClock) -> None:
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


async def test_callers_that_leave_in_one_tick_cancel_the_task_once(work: Work) -> None:
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


async def test_a_caller_that_comes_while_the_task_is_being_cancelled_starts_a_new_one(work: Work) -> None:
    work.clean_up = trio.Event()
    async with open_flights() as (flights, nursery, callers):
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", work)
        assert is_idle(flights)
        late = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        assert (work.begun, work.ended, len(nursery.child_tasks)) == (2, 0, 2)
        work.clean_up.set()  # the old task's end does not take the new one's place in the table
        await wait_all_tasks_blocked()
        joined = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        assert (work.begun, work.ended) == (2, 1)
        work.go_on.set()
    assert late.result() == joined.result() == (2,)


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_caller_that_leaves_before_the_task_has_begun_cancels_it(work: Work) -> None:
    async with open_flights() as (flights, _, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await flights.run("a", work)
        assert is_idle(flights)
    assert scope.cancelled_caught
    assert (work.begun, len(work.reasons)) == (1, 1)


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
async def test_a_caller_that_arrives_in_the_tick_in_which_the_last_one_leaves_gets_a_value(
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


# ---- where the task runs


async def test_the_task_is_a_child_of_the_nursery_in_none_of_the_first_callers_cancel_scopes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def look() -> tuple[object, float]:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.current_task().parent_nursery, trio.current_effective_deadline()

    async with open_flights() as (flights, nursery, _):
        with trio.move_on_after(5):
            assert await flights.run("a", look) == (nursery, math.inf)


async def test_the_task_has_the_context_variables_of_the_flights_and_none_of_its_callers() -> None:
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
        assert await flights.run("a", change) == "the nursery's"  # each task has a copy of its own
        assert colour.get() == "the nursery's"
    assert first.result() == "the nursery's"


async def test_the_task_carries_the_name_of_its_function() -> None:
    async def name() -> str:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.current_task().name

    async with open_flights() as (flights, _, _):
        expected = f"{__name__}.{name.__qualname__}"
        assert await flights.run("a", name) == expected
        assert await flights.run("a", functools.partial(name)) == expected


async def test_an_anyio_task_group_is_a_nursery(work: Work) -> None:
    async with trio.open_nursery() as callers, anyio.create_task_group() as group:
        flights = SingleFlight[str, object](group)
        results = [ResultCapture.start_soon(callers, flights.run, "a", work) for _ in range(2)]
        await wait_all_tasks_blocked()
        work.go_on.set()
        await wait_all_tasks_blocked()
        assert [result.result() for result in results] == [(1,)] * 2
        work.error = OurError()
        with pytest.raises(TaskFailedException):
            await flights.run("a", work)
        work.go_on = trio.Event()
        with trio.CancelScope() as scope:
            callers.start_soon(cancel_when_blocked, scope)
            await flights.run("a", work)
        await wait_all_tasks_blocked()
        assert len(work.reasons) == 1


# ---- failures


async def test_a_failure_reaches_every_caller_and_not_the_nursery(work: Work) -> None:
    work.error = OurError()
    async with open_flights() as (flights, nursery, callers):
        results = [ResultCapture.start_soon(callers, flights.run, "a", work, suppress_exception=True) for _ in range(3)]
        await wait_all_tasks_blocked()
        work.go_on.set()
        await wait_all_tasks_blocked()
        assert not nursery.cancel_scope.cancel_called
        errors = [result.exception() for result in results]
        assert [type(error) for error in errors] == [TaskFailedException] * 3
        assert len(set(map(id, errors))) == 3
        for error in errors:
            assert error is not None
            assert error.__cause__ is work.error
        assert is_idle(flights)


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_failure_after_the_last_caller_left_does_not_reach_the_nursery(grouped: bool, work: Work) -> None:
    async def work_in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:  # what it raises is a group of a cancellation and a failure
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
async def test_what_is_no_exception_goes_on_into_the_nursery_too(error: BaseException, work: Work) -> None:
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


async def test_what_is_no_exception_goes_on_into_the_nursery_also_after_the_last_caller_left(work: Work) -> None:
    work.error_after_cancel = OurBaseError()
    with pytest.RaisesGroup(OurBaseError, flatten_subgroups=True):
        async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
            flights = SingleFlight[str, object](nursery)
            with trio.CancelScope() as scope:
                callers.start_soon(cancel_when_blocked, scope)
                await flights.run("a", work)
            await trio.sleep_forever()


async def test_a_cancel_scope_that_the_function_left_open_is_told_to_the_nursery() -> None:
    async def leave_open() -> None:
        trio.CancelScope().__enter__()
        await trio.lowlevel.checkpoint()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="Cancel scope stack corrupted")):
        async with trio.open_nursery() as nursery:
            await SingleFlight[str, None](nursery).run("a", leave_open)


# ---- the nursery's cancellation


async def test_the_nurserys_cancellation_reaches_callers_outside_as_task_cancelled_exception(work: Work) -> None:
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


async def test_the_nurserys_cancellation_reaches_callers_inside_as_their_own(work: Work) -> None:
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


async def test_a_caller_that_is_cancelled_raises_a_plain_cancelled(work: Work) -> None:
    async with open_flights() as (flights, _, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(trio.Cancelled) as caught:
                await flights.run("a", work)
            assert type(caught.value) is trio.Cancelled
            raise caught.value


# ---- checkpoints


async def test_every_call_is_a_checkpoint() -> None:
    async def answer() -> int:
        return 3

    async def fail() -> int:
        raise OurError

    async with open_flights() as (flights, _, callers):
        with assert_checkpoints():
            assert await flights.run("a", answer) == 3
        with assert_checkpoints(), contextlib.suppress(TaskFailedException):
            await flights.run("a", fail)
        other = ResultCapture.start_soon(callers, flights.run, "a", answer)
        with assert_checkpoints():
            await flights.run("a", answer)
    assert other.result() == 3


# ---- mistakes


async def test_a_closed_nursery_is_refused_with_nothing_changed(work: Work) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
    with pytest.raises(RuntimeError, match=r"^Nursery is closed to new arrivals$"):
        await flights.run("a", work)
    assert is_idle(flights)


async def test_a_coroutine_object_is_refused_with_nothing_changed() -> None:
    async def fetch() -> int:
        raise AssertionError

    async with open_flights() as (flights, nursery, _):
        coroutine: Any = fetch()
        with pytest.raises(
            TypeError,
            match=r"^expected an async function, but got the coroutine that calling 'fetch' made; "
            r"not 'flights\.run\(key, fetch\(\.\.\.\), \.\.\.\)' but 'flights\.run\(key, fetch, \.\.\.\)'",
        ):
            await flights.run("a", coroutine)
        assert coroutine.cr_frame is None  # closed, or Python would warn of it
        assert is_idle(flights)
        assert not nursery.child_tasks


async def test_a_mistake_is_refused_also_where_a_flight_could_be_joined(work: Work) -> None:
    async with open_flights() as (flights, _, callers):
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()
        with pytest.raises(TypeError, match=r"^expected an async function, but got 3; the right call is "):
            await flights.run("a", 3)  # type: ignore[arg-type]  # the mistake that is tested
        assert flights._flights["a"].callers == 1
        work.go_on.set()
    assert result.result() == (1,)


async def test_a_synchronous_function_is_told_to_its_callers() -> None:
    not_async: Any = len
    async with open_flights() as (flights, _, _):
        with pytest.raises(TaskFailedException) as caught:
            await flights.run("a", not_async, "text")
        assert str(caught.value.__cause__).startswith("expected an async function, but 'len' is a synchronous one")


async def test_an_unhashable_key_is_refused_with_nothing_changed(work: Work) -> None:
    async with open_flights() as (flights, nursery, _):
        with pytest.raises(TypeError, match="hashable"):
            await flights.run([], work)
        assert is_idle(flights)
        assert not nursery.child_tasks
    assert not work.begun


async def test_what_is_no_nursery_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"^expected a nursery, but got .*; the right call is 'SingleFlight\(nursery\)'$"
    ):
        SingleFlight[str, int](trio.open_nursery())  # type: ignore[arg-type]  # the mistake that is tested


def test_without_a_trio_run_it_can_be_neither_made_nor_used(work: Work) -> None:
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


async def test_another_trio_run_is_refused_with_nothing_changed(work: Work) -> None:
    async with open_flights() as (flights, nursery, callers):
        result = ResultCapture.start_soon(callers, flights.run, "a", work)
        await wait_all_tasks_blocked()

        async def elsewhere() -> None:
            for key in "ab":
                with pytest.raises(
                    RuntimeError,
                    match=r"^SingleFlight\(in_flight=1\) belongs to another Trio run, where its nursery is, and no "
                    r"task was started; make a SingleFlight with a nursery of this run$",
                ):
                    await flights.run(key, work)

        await trio.to_thread.run_sync(trio.run, elsewhere)
        assert (work.begun, len(nursery.child_tasks)) == (1, 1)
        work.go_on.set()
    assert result.result() == (1,)


# ---- Ctrl-C


def test_ctrl_c_in_the_only_caller_cancels_the_task() -> None:
    works: list[Work] = []
    found: list[bool] = []

    async def press_ctrl_c() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)  # for the main task, as this one is protected

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
    """A key during whose lookup, the first one or a later one, Ctrl-C is pressed."""

    def __init__(self, lookups: int) -> None:
        self.lookups = lookups

    def __hash__(self) -> int:
        if not self.lookups:
            signal.raise_signal(signal.SIGINT)
        self.lookups -= 1
        return 1


@pytest.mark.parametrize("lookups", [0, 1])
def test_ctrl_c_while_a_caller_joins_a_flight_has_it_leave_again(lookups: int) -> None:
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
    seen: list[TaskFailedException] = []

    async def call() -> None:
        try:
            await flights.run("a", failing_in_a_frame)
        except TaskFailedException as error:
            seen.append(error)

    async with open_flights() as (flights, _, callers):
        for _ in range(2):
            callers.start_soon(call)
        await wait_all_tasks_blocked()
        gone: list[weakref.ref[Any]] = [
            weakref.ref(seen[0]),
            weakref.ref(seen[0].args[0]),
            weakref.ref(seen[0].__cause__ or seen[0]),
        ]
        seen.clear()
        assert [ref() for ref in gone] == [None] * 3


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("grouped", [False, True])
async def test_an_abandoned_flight_is_freed_at_once(grouped: bool) -> None:
    gone: list[weakref.ref[Any]] = []

    async def fail_after_cancel() -> None:
        gone.append(weakref.ref(flights._flights["a"].capture))
        try:
            await trio.sleep_forever()
        finally:
            raise OurError

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


@pytest.mark.usefixtures("no_collector")
async def test_flights_are_freed_with_their_last_reference(work: Work) -> None:
    work.go_on.set()
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, object](nursery)
        await flights.run("a", work)
        gone = weakref.ref(flights)
        del flights
        assert gone() is None


# ---- against a model

STEP = st.one_of(
    st.tuples(st.just("call"), st.integers(0, 1)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("land"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("clean_up"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("run")),
)


class Flight:
    """What the model knows of a task."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.event = trio.Event()
        self.cleaned_up = trio.Event()
        self.error: Exception | None = None
        self.callers: list[Caller] = []
        self.state = "flying"

    async def __call__(self) -> Flight:
        assert self.state == "flying"
        try:
            await self.event.wait()
        except trio.Cancelled:
            assert self.state == "cancelled"
            with trio.CancelScope(shield=True):
                await self.cleaned_up.wait()
            self.state = "ended"
            if self.error is not None:
                raise self.error from None
            raise
        self.state = "ended"
        if self.error is not None:
            raise self.error
        return self


class Caller:
    """A task that calls, what it saw, and what the model says it must see."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.sees: list[object] = []
        self.must_see: list[object] = []
        self.leaving = False

    async def run(self, flights: SingleFlight[int, Flight], key: int, fn: Callable[[], Awaitable[Flight]]) -> None:
        with self.scope:
            try:
                self.sees.append(await flights.run(key, fn))
            except TaskFailedException as error:
                self.sees.append(error.__cause__)
            except trio.Cancelled:
                self.sees.append("cancelled")
                raise


class Model:
    """A `SingleFlight`, its callers, and a dictionary of the flights that can be joined, which must agree."""

    def __init__(self, flights: SingleFlight[int, Flight], nursery: trio.Nursery, callers: trio.Nursery) -> None:
        self.flights = flights
        self.nursery = nursery
        self.caller_nursery = callers
        self.table: dict[int, Flight] = {}
        self.all: list[Flight] = []
        self.callers: list[Caller] = []

    async def step(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        if name == "run":
            assert list(self.flights._flights) == list(self.table)
            assert len(self.nursery.child_tasks) == sum(flight.state != "ended" for flight in self.all)
            assert all(caller.sees == caller.must_see for caller in self.callers)

    async def run(self) -> None:
        for key, flight in list(self.table.items()):
            for caller in list(flight.callers):
                if caller.leaving:
                    flight.callers.remove(caller)
                    caller.must_see.append("cancelled")
            landing = flight.event.is_set()
            if landing:
                for caller in flight.callers:
                    caller.must_see.append(flight if flight.error is None else flight.error)
            elif not flight.callers:
                flight.state = "cancelled"
            if landing or not flight.callers:
                del self.table[key]
        await wait_all_tasks_blocked()

    async def call(self, key: int) -> None:
        await self.step("run")  # so that it is clear which flight this one joins
        flight = self.table.get(key)
        new = flight is None
        if flight is None:
            flight = self.table[key] = Flight(key)
            self.all.append(flight)
        caller = Caller()
        self.callers.append(caller)
        flight.callers.append(caller)
        self.caller_nursery.start_soon(caller.run, self.flights, key, flight if new else unwanted)
        await self.step("run")

    async def leave(self, number: int) -> None:
        """Cancel a caller; in the tick in which its flight lands, where that is to be."""
        waiting = [(caller, flight) for flight in self.table.values() for caller in flight.callers]
        if waiting:
            caller, _ = waiting[number % len(waiting)]
            caller.leaving = True
            caller.scope.cancel()

    async def land(self, number: int, fails: bool) -> None:
        flying = [flight for flight in self.table.values() if not flight.event.is_set()]
        if flying:
            flight = flying[number % len(flying)]
            flight.error = OurError() if fails else None
            flight.event.set()

    async def clean_up(self, number: int, fails: bool) -> None:
        cancelled = [flight for flight in self.all if flight.state == "cancelled"]
        if cancelled:
            flight = cancelled[number % len(cancelled)]
            flight.error = OurError() if fails else None
            flight.cleaned_up.set()


async def unwanted() -> Flight:
    raise AssertionError("a flight was to be joined")


@pytest.mark.usefixtures("unmeasured")
@settings(max_examples=1000 if SOAK else 50, deadline=None, derandomize=not SOAK, database=None)
@given(st.lists(STEP, max_size=40), st.booleans())
def test_at_random_steps_it_agrees_with_a_model(steps: list[tuple[Any, ...]], nursery_is_cancelled: bool) -> None:
    async def main() -> None:
        async with open_flights() as (flights, nursery, callers):
            model = Model(flights, nursery, callers)
            for step in steps:
                await model.step(*step)
            await model.step("run")
            waiting = [caller for flight in model.table.values() for caller in flight.callers]
            for flight in model.all:
                flight.cleaned_up.set()
            if nursery_is_cancelled:
                for flight in model.table.values():
                    flight.state = "cancelled"
                nursery.cancel_scope.cancel()
            else:
                for _ in waiting:
                    await model.step("leave", 0)
                    await model.step("run")
                assert not model.table
        if nursery_is_cancelled:
            assert [[type(seen) for seen in caller.sees] for caller in waiting] == [[trio.Cancelled]] * len(waiting)
        assert is_idle(flights)

    trio.run(main)
