"""Threads use the bridges without a pause, while the Trio run starts, ends and starts again."""

from __future__ import annotations

import concurrent.futures
import random
import sys
import threading
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from _helpers import SOAK

from triores import Future, ResultCapture, start_from_thread, to_concurrent_future, wrap_future

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = 1000 if SOAK else 8
THREADS = 4
LIMIT = 30  # seconds to wait for a thread that should have been woken


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Make Python switch between threads a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


class Shared:
    """The state shared by the Trio run and the threads."""

    def __init__(self) -> None:
        self.run: tuple[trio.Nursery, trio.lowlevel.TrioToken] | None = None  # of the current run, or of the latest one
        self.handed_out: deque[concurrent.futures.Future[int]] = deque()
        self.to_complete: deque[concurrent.futures.Future[int]] = deque()
        self.is_over = False
        self.seen: Counter[str] = Counter()
        self.wrong: list[object] = []


async def work(n: int) -> int:
    for _ in range(n % 5):
        await trio.lowlevel.checkpoint()
    if n % 7 == 0:
        raise ValueError(n)
    return n


def use_bridges(shared: Shared, choose: random.Random) -> None:
    """Start, complete, cancel and await futures until the test is over."""
    mine: list[tuple[int, concurrent.futures.Future[int]]] = []
    while not shared.is_over:
        n = choose.randrange(100)
        if shared.run is not None:
            nursery, token = shared.run
            mine.append((n, start_from_thread(nursery, work, n, trio_token=token)))
        with suppress(IndexError):
            shared.to_complete.pop().set_result(n)
        with suppress(IndexError):
            mine.append((1, shared.handed_out.pop()))
        if n % 5 == 0 and mine:
            choose.choice(mine)[1].cancel()
        while len(mine) > 9:
            note_end(shared, *mine.pop(choose.randrange(len(mine))))
    for n, future in mine:
        note_end(shared, n, future)


def note_end(shared: Shared, n: int, future: concurrent.futures.Future[int]) -> None:
    """Wait for a future, and note how it ended."""
    try:
        value = future.result(LIMIT)
    except concurrent.futures.CancelledError:
        shared.seen["cancelled"] += 1
    except trio.RunFinishedError:
        shared.seen["the run ended"] += 1
    except ValueError as error:
        shared.seen["failed"] += 1
        if error.args != (n,):
            shared.wrong.append(error)
    except RuntimeError as error:  # the nursery was closed, or the run was over
        shared.seen["refused"] += 1
        if "closed to new arrivals" not in str(error) and "another Trio run" not in str(error):
            shared.wrong.append(error)
    except BaseException as error:
        shared.wrong.append(error)
    else:
        shared.seen["value"] += 1
        if value not in (n, 1):
            shared.wrong.append((n, value))


async def run(shared: Shared, choose: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        shared.run = nursery, trio.lowlevel.current_trio_token()
        for _ in range(choose.randrange(20)):
            pending: Future[int] = Future()
            shared.handed_out.append(to_concurrent_future(pending))
            capture: ResultCapture[int] = ResultCapture.start_soon(nursery, work, 1, cancel_scope=trio.CancelScope())
            shared.handed_out.append(to_concurrent_future(capture))
            theirs: concurrent.futures.Future[int] = concurrent.futures.Future()
            wrap_future(theirs).add_done_callback(partial(settle, pending))
            shared.to_complete.append(theirs)
            for _ in range(choose.randrange(4)):
                await trio.to_thread.run_sync(bool)  # gives the threads a chance to run
        if choose.random() < 0.5:
            nursery.cancel_scope.cancel()


def settle(ours: Future[int], theirs: Future[int]) -> None:
    if not ours.is_done():
        ours.set_result(1)


def test_no_thread_waits_forever_while_the_run_starts_ends_and_starts_again(
    many_switches: None, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Shared()
    choose = random.Random(1)
    threads = [threading.Thread(target=use_bridges, args=(shared, random.Random(n))) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(RUNS):
            with suppress(ExceptionGroup):  # from tasks that failed while their futures were cancelled
                trio.run(run, shared, choose)
    finally:
        shared.is_over = True
        for thread in threads:
            thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert not shared.wrong
    assert not caplog.records
    assert shared.seen["value"]
    assert shared.seen["the run ended"] or not SOAK
