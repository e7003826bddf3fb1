"""Who waits for what, and what happens if that is a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from triores import Future, ResultBase, ResultCapture, as_completed, results_to_channel, wait_all, wait_any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


async def _first_of(results: Sequence[ResultBase[Any]]) -> None:
    async for _ in as_completed(results):
        pass


async def _sent(results: Sequence[ResultBase[Any]]) -> None:
    send, receive = trio.open_memory_channel[ResultBase[Any]](10)
    with receive:
        await results_to_channel(results, send)


async def test_a_task_that_sleeps_in_a_wait_for_one_result_says_so() -> None:
    future = Future[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        assert task.custom_sleep_data is future
        assert future._awaited() == (future,)
        future.set_result(1)
        assert task.custom_sleep_data is None


async def test_a_task_that_sleeps_in_wait_all_says_for_what() -> None:
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
async def test_a_task_that_sleeps_until_the_next_of_several_says_so(wait: Callable[..., Any]) -> None:
    first, second = Future[int](), Future[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, [first, second])
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        slept_on: Any = task.custom_sleep_data
        assert type(slept_on).__name__ == "Arrivals"
        assert not hasattr(slept_on, "_awaited")  # it needs only one of them
        assert first._registered() == second._registered() == [slept_on]
        first.set_result(1)
        second.set_result(2)


async def test_a_capture_knows_its_task_while_it_runs() -> None:
    seen: list[trio.lowlevel.Task | None] = []

    async def look() -> None:
        seen.append(capture._owner())
        seen.append(trio.lowlevel.current_task())

    async with trio.open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, look)
        assert capture._owner() is None
    assert seen[0] is seen[1] is not None
    assert capture._owner() is None
    assert Future[int]()._owner() is None
