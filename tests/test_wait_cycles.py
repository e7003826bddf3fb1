"""Tasks that need one another, and the error if they wait in a cycle."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from contextlib import ExitStack, nullcontext
from functools import partial
from operator import attrgetter
from types import FrameType
from typing import TYPE_CHECKING, Any

import _programs
import pytest
import trio
from _helpers import SOAK, leaf_types, no_cycles, seed_scheduler
from trio.testing import MockClock, wait_all_tasks_blocked

from triores import (
    Future,
    ResultBase,
    ResultCapture,
    SingleFlight,
    WaitCycleError,
    _cycles,
    amap,
    as_completed,
    first_success,
    gather,
    gather_outcomes,
    open_amap,
    race,
    results_to_channel,
    wait_all,
    wait_any,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


class Tasks(dict[str, ResultCapture[Any]]):
    """Captured tasks by name. Their exceptions don't reach the nursery."""

    def start(self, nursery: trio.Nursery, name: str, fn: Callable[[], Awaitable[object]], **kwargs: Any) -> None:
        self[name] = ResultCapture.start_soon(nursery, fn, name=name, suppress_exception=True, **kwargs)

    def waiting_for(self, *names: str, after: float | None = None) -> Callable[[], Awaitable[None]]:
        """A function that waits for these tasks in turn, after some seconds if they are given."""

        async def wait() -> None:
            if after is not None:
                await trio.sleep(after)
            for name in names:
                await self[name].wait_done()

        return wait

    def refused(self) -> list[str]:
        """The names of the tasks that got the error."""
        return [name for name, task in self.items() if WaitCycleError in leaf_types(task.exception() or ValueError())]


@pytest.fixture(name="tasks")
def make_tasks() -> Tasks:
    return Tasks()


@pytest.fixture(name="nursery")
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery with a time limit, so that no test hangs."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 1000
        yield nursery


async def call(fn: Callable[[], Awaitable[None]]) -> None:
    await fn()


async def all_ended(tasks: Tasks) -> None:
    """Wait until all tasks have ended; fail if they hang."""
    with trio.fail_after(500):
        while not all(task.is_done() for task in tasks.values()):
            await trio.sleep(1)


# ---- what each task waits for


async def _first_of(results: Sequence[ResultBase[Any]]) -> None:
    async for _ in as_completed(results):
        pass


async def _sent(results: Sequence[ResultBase[Any]]) -> None:
    send, receive = trio.open_memory_channel[ResultBase[Any]](10)
    with receive:
        await results_to_channel(results, send)


async def test_the_sleep_data_of_a_task_that_waits_for_one_result_is_that_result() -> None:
    future = Future[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        assert task.custom_sleep_data is future
        assert future._awaited() == (future,)
        future.set_result(1)
        assert task.custom_sleep_data is None


async def test_the_sleep_data_of_a_task_in_wait_all_lists_its_results() -> None:
    done, first, second = Future[int](), Future[int](), Future[int]()
    done.set_result(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_all, [done, first, second])
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        assert task.custom_sleep_data._awaited() == [done, first, second]
        first.set_result(1)
        second.set_result(2)
        assert task.custom_sleep_data is None


@pytest.mark.parametrize("wait", [wait_any, _first_of, _sent])
async def test_the_sleep_data_of_a_task_that_needs_any_one_of_several_results_lists_none(
    wait: Callable[..., Any],
) -> None:
    first, second = Future[int](), Future[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, [first, second])
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        slept_on: Any = task.custom_sleep_data
        assert type(slept_on).__name__ == "Arrivals"
        assert not hasattr(slept_on, "_awaited")  # since the task needs only one of them
        assert first._registered() == second._registered() == [slept_on]
        first.set_result(1)
        second.set_result(2)


async def test_a_capture_knows_its_task_while_it_runs() -> None:
    seen: list[trio.lowlevel.Task | None] = []

    async def look() -> None:
        seen.append(capture._owner)
        seen.append(trio.lowlevel.current_task())

    async with trio.open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, look)
        assert capture._owner is None
    assert seen[0] is seen[1] is not None
    assert capture._owner is None
    assert Future[int]()._owner is None


# ---- cycles that are refused


async def test_a_task_cannot_wait_for_its_own_result(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    tasks.start(nursery, "own", tasks.waiting_for("own"))
    await all_ended(tasks)
    assert tasks.refused() == ["own"]


async def test_two_tasks_cannot_wait_for_each_other(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def second() -> None:
        await trio.sleep(1)
        await wait_all([tasks["third"], tasks["first"]])

    tasks.start(nursery, "first", tasks.waiting_for("second"))
    tasks.start(nursery, "second", second)
    tasks.start(nursery, "third", partial(trio.sleep, 10))
    await all_ended(tasks)
    assert tasks.refused() == ["second"]


@pytest.mark.parametrize("siblings", [0, 1])
@pytest.mark.parametrize("how", ["nursery", "gather", "gather_outcomes", "amap"])
async def test_a_child_cannot_wait_for_a_task_that_waits_until_the_child_has_ended(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery, how: str, siblings: int
) -> None:
    fns: list[Callable[[], Awaitable[None]]] = [tasks.waiting_for("parent"), *[partial(trio.sleep, 1)] * siblings]

    async def parent() -> None:
        if how == "gather":
            await gather(*fns)
        elif how == "gather_outcomes":
            outcomes = await gather_outcomes(*fns)
            outcomes[0].unwrap()
        elif how == "amap":
            await amap(call, fns, limit=2)
        else:
            async with trio.open_nursery() as inner:
                for fn in fns:
                    inner.start_soon(fn)

    tasks.start(nursery, "parent", parent)
    await all_ended(tasks)
    assert tasks.refused() == ["parent"]


async def test_a_child_in_the_inner_of_two_nurseries_cannot_wait_for_its_parent(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery(), trio.open_nursery() as inner:
            inner.start_soon(tasks.waiting_for("parent"))

    tasks.start(nursery, "parent", parent)
    await all_ended(tasks)
    assert tasks.refused() == ["parent"]


async def test_a_grandchild_cannot_wait_for_a_task_with_many_children(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def grandparent() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(trio.sleep, 1)
            nursery.start_soon(parent)

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            tasks.start(nursery, "grandchild", tasks.waiting_for("grandparent"))

    tasks.start(nursery, "grandparent", grandparent)
    await all_ended(tasks)
    assert tasks.refused() == ["grandchild"]


@pytest.mark.parametrize("given", [True, False])
async def test_a_shared_call_cannot_ask_for_its_own_key(given: bool, nursery: trio.Nursery) -> None:
    async def page() -> None:
        await flights.run("key", page)

    flights = SingleFlight[str, None](nursery) if given else SingleFlight[str, None]()
    async with nullcontext() if given else flights:
        with pytest.raises(WaitCycleError, match=r"its own result:\n  page\(\) waits for page\(\)"):
            await flights.run("key", page)


async def test_two_shared_calls_cannot_ask_for_each_others_keys() -> None:
    async def first() -> None:
        await flights.run("second", second)

    async def second() -> None:
        await flights.run("first", first)

    async with SingleFlight[str, None]() as flights:
        with pytest.raises(WaitCycleError, match=r"second\(\) waits for first\(\).*\n.*first\(\) waits for second\(\)"):
            await flights.run("first", first)


@pytest.mark.parametrize("how", ["in turn", "wait_all", "gather", "flights"])
async def test_packages_that_need_one_another_get_an_error_instead_of_hanging(
    how: str, tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    needs = {"app": ["web", "json"], "web": ["json", "log"], "json": ["log"], "log": ["app"], "cli": ["app"]}

    async def built(package: str) -> None:
        await tasks[package]

    async def build(package: str) -> None:
        if how == "in turn":
            for need in needs[package]:
                await built(need)
        elif how == "wait_all":
            await wait_all([tasks[need] for need in needs[package]])
        elif how == "gather":
            await gather(*[partial(built, need) for need in needs[package]])
        else:
            await gather(*[partial(flights.run, need, build, need) for need in needs[package]])

    flights = SingleFlight[str, None](nursery)
    for package in needs:
        shared: Any = partial(flights.run, package)
        tasks.start(nursery, package, partial(shared, build, package) if how == "flights" else partial(build, package))
    await all_ended(tasks)
    assert len(tasks.refused()) == len(needs) or how == "wait_all"  # with `await`, the error spreads to other tasks
    assert tasks.refused()


async def test_a_time_limit_around_the_whole_cycle_makes_no_difference(tasks: Tasks, autojump_clock: MockClock) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 5
            tasks.start(nursery, "first", tasks.waiting_for("second"))
            tasks.start(nursery, "second", tasks.waiting_for("first"))
    assert len(tasks.refused()) == 1


async def test_a_nursery_around_part_of_the_cycle_counts_if_no_other_task_is_in_it(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            tasks.start(inner, "child", tasks.waiting_for("other"))

    tasks.start(nursery, "parent", parent)
    tasks.start(nursery, "other", tasks.waiting_for("parent"))
    await all_ended(tasks)
    assert len(tasks.refused()) == 1


@pytest.mark.parametrize("depth", [0, 2])
async def test_a_nursery_counts_too_if_its_task_waits_for_the_cycle_to_end(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery, depth: int
) -> None:
    async def group(depth: int) -> None:
        async with trio.open_nursery() as inner:
            if depth:
                inner.start_soon(group, depth - 1)
            else:
                tasks.start(inner, "first", tasks.waiting_for("second"))

    tasks.start(nursery, "group", partial(group, depth))
    tasks.start(nursery, "second", tasks.waiting_for("first", after=1))
    await all_ended(tasks)
    assert len(tasks.refused()) == 1


async def test_a_cycle_inside_thousands_of_nested_scopes_is_refused(tasks: Tasks, autojump_clock: MockClock) -> None:
    with ExitStack() as stack:
        for _ in range(3000):  # Trio's own `effective_deadline` recurses
            stack.enter_context(trio.CancelScope())
        async with trio.open_nursery() as nursery:
            tasks.start(nursery, "own", tasks.waiting_for("own"))
    assert tasks.refused() == ["own"]


# ---- waits that are not refused


async def not_refused(tasks: Tasks) -> None:
    await all_ended(tasks)
    assert tasks.refused() == []


async def test_a_future_may_be_set_by_a_task_that_waits_for_the_one_that_waits_for_it(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    future = Future[int]()
    tasks.start(nursery, "first", future.wait_done)
    tasks.start(nursery, "second", tasks.waiting_for("first"))
    await trio.sleep(1)
    future.set_result(1)
    await not_refused(tasks)


async def test_a_cycle_through_wait_any_may_have_a_way_out(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def first() -> None:
        await wait_any([tasks["second"], way_out])

    way_out = Future[int]()
    tasks.start(nursery, "first", first)
    tasks.start(nursery, "second", tasks.waiting_for("first"))
    await trio.sleep(1)
    way_out.set_result(1)
    await not_refused(tasks)


@pytest.mark.parametrize("how", ["deadline", "cancelled by another task", "shield", "cancel_scope"])
@pytest.mark.parametrize("closing", ["first", "second"])
async def test_a_task_may_end_its_own_wait(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery, how: str, closing: str
) -> None:
    async def first() -> None:
        if closing == "first":
            await trio.sleep(1)
        with nullcontext() if how == "cancel_scope" else scope:
            await tasks["second"].wait_done()

    async def second() -> None:
        if closing == "second":
            await trio.sleep(1)
        await tasks["first"].wait_done()

    scope = trio.move_on_after(10) if how == "deadline" else trio.CancelScope(shield=how == "shield")
    tasks.start(nursery, "first", first, cancel_scope=scope if how == "cancel_scope" else None)
    tasks.start(nursery, "second", second)
    if how != "deadline":
        await trio.sleep(10)
        scope.cancel()
    await not_refused(tasks)


async def test_another_task_may_end_part_of_the_cycle(tasks: Tasks, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outer:
        outer.cancel_scope.deadline = trio.current_time() + 100
        tasks.start(outer, "outer", tasks.waiting_for("inner"))
        with trio.move_on_after(5):
            async with trio.open_nursery() as inner:
                tasks.start(inner, "inner", tasks.waiting_for("outer"))
    await not_refused(tasks)
    assert not tasks["outer"].cancelled()


@pytest.mark.parametrize("how", ["deadline", "cancelled by a task in it", "cancelled by its own task"])
async def test_a_nursery_around_part_of_the_cycle_may_end_before_the_cycle(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery, how: str
) -> None:
    async def group() -> None:
        async with trio.open_nursery() as inner:
            tasks.start(inner, "first", first)
            if how == "deadline":
                inner.cancel_scope.deadline = trio.current_time() + 5
            elif how == "cancelled by a task in it":
                inner.start_soon(cancel, inner)
            else:
                await cancel(inner)

    async def first() -> None:
        await trio.sleep(2)
        await tasks["second"].wait_done()

    async def cancel(inner: trio.Nursery) -> None:
        await trio.sleep(5)
        inner.cancel_scope.cancel()

    nursery.start_soon(group)
    tasks.start(nursery, "second", tasks.waiting_for("first", after=1))
    await not_refused(tasks)


async def test_a_task_in_nursery_start_may_go_on_before_the_task_that_it_starts_has_ended(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def first(task_status: trio.TaskStatus[None]) -> None:
        nursery.start_soon(call_started, task_status)
        await tasks["second"].wait_done()

    async def call_started(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5)
        task_status.started()

    async def start_first(target: trio.Nursery) -> None:
        async with trio.open_nursery():
            await target.start(tasks["first"].run)
        target.cancel_scope.cancel()

    async with trio.open_nursery() as target:
        tasks["first"] = ResultCapture(first)
        nursery.start_soon(start_first, target)
        tasks.start(nursery, "second", tasks.waiting_for("first"))
        await trio.sleep(50)
    await not_refused(tasks)


async def test_a_parent_may_put_a_time_limit_around_its_nursery(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        with trio.move_on_after(5):
            async with trio.open_nursery() as inner:
                tasks.start(inner, "child", tasks.waiting_for("parent"))

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


async def test_a_parent_may_give_its_nursery_a_deadline(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.cancel_scope.deadline = trio.current_time() + 5
            tasks.start(inner, "child", tasks.waiting_for("parent"))

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


async def test_a_parent_may_cancel_a_child_that_waits_for_it(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            tasks.start(inner, "child", tasks.waiting_for("parent"))
            await trio.sleep(1)
            inner.cancel_scope.cancel()

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


@pytest.mark.parametrize("how", ["cancels", "fails", "starts"])
async def test_a_sibling_may_end_part_of_the_cycle(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery, how: str
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            tasks.start(inner, "child", tasks.waiting_for("other"))
            if how == "starts":
                nursery.start_soon(start_sibling, inner)
            else:
                inner.start_soon(sibling, inner)

    async def sibling(inner: trio.Nursery, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.sleep(5)
        task_status.started()
        if how == "fails":
            raise ValueError
        inner.cancel_scope.cancel()

    async def start_sibling(inner: trio.Nursery) -> None:
        await inner.start(sibling, inner)

    tasks.start(nursery, "parent", parent)
    tasks.start(nursery, "other", tasks.waiting_for("parent", after=1))
    await not_refused(tasks)


async def test_a_function_of_a_gather_may_fail_and_so_end_part_of_the_cycle(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        await gather(tasks.waiting_for("other"), sibling)

    async def sibling() -> None:
        await trio.sleep(5)
        raise ValueError

    tasks.start(nursery, "parent", parent)
    tasks.start(nursery, "other", tasks.waiting_for("parent", after=1))
    await not_refused(tasks)


async def test_a_scope_around_a_wait_lets_a_service_be_stopped_with_a_nursery_scope_that_was_passed_around(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def service(other: str, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(stop_with, other, inner)
            task_status.started(inner.cancel_scope)

    async def stop_with(other: str, inner: trio.Nursery) -> None:
        with trio.CancelScope():
            await tasks[other].wait_done()
        inner.cancel_scope.cancel()

    tasks["first"], tasks["second"] = ResultCapture(service, "second"), ResultCapture(service, "first")
    scope = await nursery.start(tasks["first"].run)
    await nursery.start(tasks["second"].run)
    await trio.sleep(5)
    scope.cancel()
    await not_refused(tasks)


async def test_a_shielded_nursery_may_outlast_a_cancellation_of_the_others(
    tasks: Tasks, autojump_clock: MockClock
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.cancel_scope.shield = True
            tasks.start(inner, "child", tasks.waiting_for("other", after=1))

    async with trio.open_nursery() as nursery:
        tasks.start(nursery, "parent", parent)
        tasks.start(nursery, "other", tasks.waiting_for("parent"))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    await not_refused(tasks)
    assert not tasks["child"].cancelled()


async def test_a_parent_with_two_nurseries_waits_only_for_the_tasks_of_the_inner_one(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as outer:
            tasks.start(outer, "child", tasks.waiting_for("parent"))
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep, 5)
            outer.cancel_scope.cancel()

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


async def test_a_parent_does_not_wait_for_the_end_of_a_task_that_it_is_starting(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def helper(task_status: trio.TaskStatus[None]) -> None:
        nursery.start_soon(start_later, task_status)
        await tasks["parent"].wait_done()

    async def start_later(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        task_status.started()

    async def parent() -> None:
        await nursery.start(helper)

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


@pytest.mark.parametrize("stagger", [None, 1])
async def test_a_loser_of_a_race_may_wait_for_the_task_that_started_it(
    stagger: float | None, tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        fns: list[Callable[[], Awaitable[None]]] = [tasks.waiting_for("parent"), partial(trio.sleep, 5)]
        if stagger is None:
            await race(*fns)
        else:
            await first_success(*fns, stagger=stagger)

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


async def test_a_call_of_open_amap_may_wait_for_the_task_that_leaves_the_block(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        fns: list[Callable[[], Awaitable[None]]] = [partial(trio.sleep, 1), tasks.waiting_for("parent")]
        async with open_amap(call, fns, limit=2) as results:
            await anext(results)

    tasks.start(nursery, "parent", parent)
    await not_refused(tasks)


async def test_a_task_may_wait_for_another_one_along_two_paths(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    tasks.start(nursery, "top", tasks.waiting_for("left", "right"))
    tasks.start(nursery, "left", tasks.waiting_for("bottom"))
    tasks.start(nursery, "right", tasks.waiting_for("bottom"))
    tasks.start(nursery, "bottom", partial(trio.sleep, 1))
    await not_refused(tasks)


async def test_a_task_that_is_already_cancelled_may_wait(tasks: Tasks, autojump_clock: MockClock) -> None:
    async def wait() -> None:
        await tasks["own"].wait_done()

    async with trio.open_nursery() as nursery:
        tasks.start(nursery, "own", wait)
        nursery.cancel_scope.cancel()
    assert tasks["own"].cancelled()


async def test_a_task_whose_deadline_has_passed_may_wait(tasks: Tasks, autojump_clock: MockClock) -> None:
    async def wait() -> None:
        autojump_clock.jump(10)
        await tasks["own"].wait_done()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 5
        tasks.start(nursery, "own", wait)
    assert tasks["own"].cancelled()


async def test_other_code_may_store_anything_in_custom_sleep_data(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    def wake(_: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.SUCCEEDED

    async def foreign() -> None:
        trio.lowlevel.current_task().custom_sleep_data = object()
        with trio.move_on_after(5):
            await trio.lowlevel.wait_task_rescheduled(wake)

    tasks.start(nursery, "foreign", foreign)
    tasks.start(nursery, "other", tasks.waiting_for("foreign"))
    await not_refused(tasks)


def test_in_guest_mode_a_cycle_is_refused_and_other_waits_are_not() -> None:
    todo: list[Callable[[], object]] = []
    ended: list[object] = []
    tasks = Tasks()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            tasks.start(nursery, "own", tasks.waiting_for("own"))
            tasks.start(nursery, "other", tasks.waiting_for("own"))

    trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=todo.append, done_callback=ended.append)
    while not ended:
        if todo:
            todo.pop(0)()
    assert tasks.refused() == ["own"]


async def test_a_cycle_of_more_tasks_than_the_check_looks_at_hangs(tasks: Tasks, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(33):
            tasks.start(nursery, str(number), tasks.waiting_for(str((number + 1) % 33)))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert tasks.refused() == []


async def test_a_cycle_of_as_many_tasks_as_the_check_looks_at_is_refused(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    for number in range(32):
        tasks.start(nursery, str(number), tasks.waiting_for(str((number + 1) % 32)))
    await all_ended(tasks)
    assert len(tasks.refused()) == 1


@pytest.mark.parametrize(("depth", "refused"), [(20, ["leaf"]), (40, [])])
async def test_the_check_looks_at_only_so_many_parents(
    depth: int, refused: list[str], tasks: Tasks, autojump_clock: MockClock
) -> None:
    async def nest(depth: int) -> None:
        async with trio.open_nursery() as inner:
            if depth:
                inner.start_soon(nest, depth - 1)
            else:
                tasks.start(inner, "leaf", tasks.waiting_for("top"))

    async with trio.open_nursery() as nursery:
        tasks.start(nursery, "top", partial(nest, depth))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert tasks.refused() == refused


# ---- the error


async def test_the_message_shows_the_whole_cycle(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(child, name="child")

    async def child() -> None:
        await tasks["other"].wait_done()

    async def other() -> None:
        await trio.sleep(1)
        await tasks["parent"].wait_done()

    tasks.start(nursery, "parent", parent)
    tasks.start(nursery, "other", other)
    await all_ended(tasks)
    first, *lines = str(tasks["other"].exception()).splitlines()
    assert first.startswith("this wait would never end, because these tasks wait for each other in a cycle; ")
    firsts = {fn.__name__: fn.__code__.co_firstlineno for fn in (parent, child, other)}
    assert lines == [
        f'  other() waits for parent(): File "{__file__}", line {firsts["other"] + 2}, in other',
        f'  parent() waits for its child, task child: File "{__file__}", line {firsts["parent"] + 1}, in parent',
        f'  task child waits for other(): File "{__file__}", line {firsts["child"] + 1}, in child',
    ]


async def test_the_message_names_no_place_in_a_library(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def start() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(tasks["own"].wait_done, name="waiter")

    tasks.start(nursery, "own", start)
    await all_ended(tasks)
    group: Any = tasks["own"].exception()
    assert str(group.exceptions[0]).splitlines()[1] == "  task waiter waits for start()"


async def test_the_error_can_be_pickled(tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    tasks.start(nursery, "own", tasks.waiting_for("own"))
    await all_ended(tasks)
    error = tasks["own"].exception()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_a_refused_wait_leaves_nothing_behind(
    tasks: Tasks, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    seen: list[object] = []

    async def wait() -> None:
        other = Future[int]()
        for wait in (tasks["own"].wait_done, partial(wait_all, [other, tasks["own"]])):
            with pytest.raises(WaitCycleError):
                await wait()
            seen.append(trio.lowlevel.current_task().custom_sleep_data)
            seen.append(tasks["own"].statistics().waiters + other.statistics().waiters)

    tasks.start(nursery, "own", wait)
    await all_ended(tasks)
    assert seen == [None, 0, None, 0]


HELD = (ResultBase, trio.lowlevel.Task, FrameType, list, dict)


@pytest.mark.parametrize("how", ["one", "several"])
def test_the_error_keeps_nothing_alive(how: str) -> None:
    errors: list[WaitCycleError] = []

    def run(watch: Callable[[Any], Any]) -> None:
        async def wait(name: str) -> None:
            watch(trio.lowlevel.current_task())
            try:
                await (tasks[name].wait_done() if how == "one" else wait_all([tasks[name]]))
            except WaitCycleError as error:
                errors.append(error)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                tasks.start(nursery, "first", partial(wait, "second"))
                tasks.start(nursery, "second", partial(wait, "first"))
                watch(tasks["first"])
                watch(tasks["second"])

        tasks = Tasks()
        trio.run(main)
        tasks.clear()  # each task holds a function that refers to this

    with no_cycles() as watch:
        run(watch)
        (error,) = errors
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"] != __name__:
                assert not [value for value in frame.f_locals.values() if isinstance(value, HELD)]
            del frame
        error.__traceback__ = None  # it holds the frame of the function that waited


# ---- without the check


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cycles, "enabled", False)


@pytest.mark.usefixtures("off")
async def test_the_check_can_be_turned_off(tasks: Tasks, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        tasks.start(nursery, "own", tasks.waiting_for("own"))
        await trio.sleep(5)
        assert not tasks["own"].is_done()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("value", "enabled"), [("0", "False"), ("1", "True"), (None, "True")])
def test_an_environment_variable_turns_the_check_off(value: str | None, enabled: str) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRIORES_WAIT_CYCLES"}
    if value is not None:
        environment["TRIORES_WAIT_CYCLES"] = value
    program = "from triores import _cycles; print(_cycles.enabled)"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == enabled


NEEDED_OF_TRIO = [name for name, value in vars(_cycles).items() if isinstance(value, attrgetter)]


@pytest.mark.leaves_results
@pytest.mark.parametrize("name", NEEDED_OF_TRIO)
async def test_if_trio_lacks_a_name_that_the_check_needs_no_wait_is_refused(
    name: str, tasks: Tasks, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            tasks.start(inner, "child", tasks.waiting_for("other"))

    monkeypatch.setattr(_cycles, name, attrgetter("no_longer_there"))
    async with trio.open_nursery() as nursery:
        tasks.start(nursery, "parent", parent)
        tasks.start(nursery, "other", tasks.waiting_for("parent"))
        await trio.sleep(5)
        assert not any(task.is_done() for task in tasks.values())
        nursery.cancel_scope.cancel()
    assert len(NEEDED_OF_TRIO) == 7


# ---- random programs


@pytest.mark.leaves_results
@pytest.mark.parametrize(("mix", "least"), [("PLAIN", 85), ("MIXED", 55), ("HOSTILE", 30), ("OUTSIDERS", 30)])
def test_no_wait_that_would_succeed_is_refused(
    mix: str, least: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed_scheduler(0, monkeypatch)
    findings = _programs.run_programs(range(20_000 if SOAK else 200), getattr(_programs, mix))
    with capsys.disabled():
        sys.stdout.write(f"\n{mix}: {findings}\n" * SOAK)
    assert not findings.false_alarms
    assert findings.ended > findings.hanging / 2
    assert findings.hanging_refused > findings.hanging * least / 100
    assert findings.hopeless_refused > findings.hopeless * 0.75
