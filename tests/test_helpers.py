"""The check that `conftest` makes around every test."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from _helpers import no_task_rescheduled_twice
from trio.testing import wait_all_tasks_blocked


async def sleep(tasks: list[trio.lowlevel.Task]) -> None:
    tasks.append(trio.lowlevel.current_task())
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


@pytest.mark.parametrize("times", [1, 2])
def test_rescheduling_a_task_twice_fails_the_test_even_if_the_error_is_hidden(times: int) -> None:
    async def main() -> None:
        tasks: list[trio.lowlevel.Task] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep, tasks)
            await wait_all_tasks_blocked()
            for _ in range(times):
                with suppress(AssertionError):
                    trio.lowlevel.reschedule(tasks[0])

    if times == 1:
        with no_task_rescheduled_twice():
            trio.run(main)
    else:
        with (
            pytest.raises(AssertionError, match=r"^a task that wasn't asleep was rescheduled"),
            no_task_rescheduled_twice(),
        ):
            trio.run(main)
