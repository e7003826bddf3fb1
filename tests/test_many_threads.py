"""Thousands of completions from many threads at once; 200,000 if TRIORES_SOAK is set."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from _helpers import SOAK

from triores import Future, ResultBase, to_concurrent_future, wrap_future

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 8
COMPLETIONS = 200_000 if SOAK else 4_800
ROUNDS = max(1, COMPLETIONS // 8_000)
LIMIT = 60  # seconds to wait for a thread that should have been woken


class OurError(Exception):
    pass


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Make Python switch between threads a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def complete(source: concurrent.futures.Future[int], number: int) -> None:
    if number % 3 == 0:
        source.set_result(number)
    elif number % 3 == 1:
        source.set_exception(OurError(number))
    else:
        source.cancel()


def arrived(future: ResultBase[int], number: int) -> bool:
    if number % 3 == 0:
        return future.result() == number
    if number % 3 == 1:
        error = future.exception()
        return isinstance(error, OurError) and error.args == (number,)
    return future.cancelled()


async def test_no_completion_from_eight_busy_threads_is_lost_or_late(
    many_switches: None, caplog: pytest.LogCaptureFixture
) -> None:
    token = trio.lowlevel.current_trio_token()
    done = 0

    def complete_all(share: list[tuple[int, concurrent.futures.Future[int]]], all_sent: trio.Event) -> None:
        for number, source in share:
            complete(source, number)
        token.run_sync_soon(all_sent.set)

    async def check(all_sent: trio.Event, share: list[tuple[int, Future[int]]]) -> None:
        nonlocal done
        await all_sent.wait()  # it was sent after all of the completions, so it must arrive after them
        done += sum(arrived(future, number) for number, future in share)

    for _ in range(ROUNDS):
        sources = [concurrent.futures.Future[int]() for _ in range(COMPLETIONS // ROUNDS)]
        async with trio.open_nursery() as nursery:
            for first in range(THREADS):
                share = list(enumerate(sources))[first::THREADS]
                all_sent = trio.Event()
                nursery.start_soon(check, all_sent, [(number, wrap_future(source)) for number, source in share])
                threading.Thread(target=complete_all, args=(share, all_sent)).start()
    assert done == COMPLETIONS
    assert not caplog.records


async def test_if_threads_cancel_while_results_are_settled_both_sides_agree(
    many_switches: None, caplog: pytest.LogCaptureFixture
) -> None:
    results = [Future[int]() for _ in range(COMPLETIONS // 16)]
    futures = [to_concurrent_future(result) for result in results]
    start = threading.Event()

    def cancel_all() -> None:
        start.wait(LIMIT)
        for future in futures:
            future.cancel()

    thread = threading.Thread(target=cancel_all)
    thread.start()
    start.set()
    for number, result in enumerate(results):
        if not result.is_done():
            result.set_result(number)
        if number % 16 == 0:
            await trio.lowlevel.checkpoint()
    await trio.to_thread.run_sync(thread.join, LIMIT)
    await trio.testing.wait_all_tasks_blocked()
    assert concurrent.futures.wait(futures, 0).done == set(futures)
    for number, (result, future) in enumerate(zip(results, futures, strict=True)):
        assert result.is_done()
        if not future.cancelled():  # if the future was cancelled first, the result keeps its own value
            assert future.result(0) == result.result() == number
    assert not caplog.records
