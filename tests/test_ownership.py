"""Which run owns a result: the one it was made in or, if it was made outside any run, the first one that uses it.

Anywhere else, trying to change a result or to wait for it raises an error, and nothing changes.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import Boom, in_foreign_run, in_foreign_thread, is_free, traced_by
from trio.testing import wait_all_tasks_blocked

import triores
from triores import (
    Future,
    FutureSetAgainException,
    ResultBase,
    ResultCapture,
    ResultStatistics,
    as_completed,
    results_to_channel,
    wait_all,
    wait_any,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType


async def read(result: ResultBase[object]) -> object:
    return await result


async def iterate(result: ResultBase[Any]) -> None:
    async for _ in as_completed([result]):
        pass


async def send(result: ResultBase[Any]) -> None:
    channel, _receiver = trio.open_memory_channel[Any](1)
    await results_to_channel([result], channel)


WAITS: dict[str, Callable[[ResultBase[Any]], Awaitable[object]]] = {
    "wait_done": lambda result: result.wait_done(),
    "await": read,
    "wait_all": lambda result: wait_all([result]),
    "wait_any": lambda result: wait_any([result]),
    "as_completed": iterate,
    "results_to_channel": send,
}
each_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


def must_set(future: Future[int]) -> None:
    with future.must_set():
        pass


CHANGES: dict[str, Callable[[Future[int]], object]] = {
    "set_result": lambda future: future.set_result(4),
    "set_exception": lambda future: future.set_exception(Boom()),
    "set_outcome": lambda future: future.set_outcome(outcome.Value(4)),
    "cancel": lambda future: future.cancel(),
    "must_set": must_set,
    "add_done_callback": lambda future: future.add_done_callback(print),
    "remove_done_callback": lambda future: future.remove_done_callback(print),
}
each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


# ---- the run that a result belongs to


async def test_a_result_belongs_to_the_run_it_was_made_in() -> None:
    token = trio.lowlevel.current_trio_token()
    for result in (Future[int](), ResultCapture(trio.sleep, 0), ResultBase[int]()):
        assert result.trio_token is token


USES: dict[str, Callable[[Future[int]], Awaitable[object]]] = {
    **WAITS,
    "add_done_callback": lambda future: as_async(partial(future.add_done_callback, id)),
}


async def as_async(call: Callable[[], object]) -> None:
    call()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_result_made_outside_any_run_belongs_to_the_first_run_that_uses_it(
    use: Callable[[Future[int]], Awaitable[object]],
) -> None:
    future = Future[int]()
    assert future.trio_token is None

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, future)
            await wait_all_tasks_blocked()
            assert future.trio_token is trio.lowlevel.current_trio_token()
            nursery.cancel_scope.cancel()
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be settled from here"):
            await in_foreign_thread(partial(future.set_result, 4))  # even though nobody is waiting any more
        future.set_result(3)

    trio.run(main)
    assert future.result() == 3


def test_a_capture_made_outside_any_run_belongs_to_the_run_that_starts_it() -> None:
    capture = ResultCapture(trio.sleep, 0)
    assert capture.trio_token is None

    async def main() -> None:
        await capture.run()
        assert capture.trio_token is trio.lowlevel.current_trio_token()

    trio.run(main)
    assert capture.result() is None


def test_a_future_made_outside_any_run_can_be_settled_and_cancelled_there() -> None:
    future, other = Future[int](), Future[int]()
    future.set_result(3)
    assert other.cancel()
    assert future.result() == 3
    assert other.cancelled()
    assert future.trio_token is other.trio_token is None


async def test_a_done_result_can_be_read_waited_for_and_given_a_callback_anywhere() -> None:
    future = Future[int]()
    future.set_result(3)
    calls: list[object] = []
    assert await in_foreign_thread(future.result) == 3
    await in_foreign_thread(partial(future.add_done_callback, calls.append))
    assert calls == [future]
    assert not await in_foreign_thread(future.cancel)
    assert await in_foreign_thread(partial(future.remove_done_callback, calls.append)) == 0
    assert await in_foreign_run(partial(read, future)) == 3
    for wait in WAITS.values():
        await in_foreign_run(partial(wait, future))
    assert future.trio_token is trio.lowlevel.current_trio_token()


# ---- calls from another thread or run


class Owned:
    """A pending future of this run, with or without one registration of each kind."""

    def __init__(self, nursery: trio.Nursery, *, waits: bool) -> None:
        self.future = Future[int]()
        self.calls: list[object] = []
        self.woken: list[str] = []
        self.expected = list(WAITS) if waits else []
        if waits:
            self.future.add_done_callback(self.calls.append)
        for name in self.expected:
            nursery.start_soon(self._wait, name)

    async def _wait(self, name: str) -> None:
        await WAITS[name](self.future)
        self.woken.append(name)

    async def check_unchanged(self) -> None:
        """Settle the future, and check that all waiters are woken."""
        await wait_all_tasks_blocked()
        assert not self.calls
        assert not self.woken
        assert not self.future.is_done()
        assert self.future.trio_token is trio.lowlevel.current_trio_token()
        assert self.future.statistics() == ResultStatistics(len(self.expected), min(1, len(self.expected)))
        self.future.set_result(3)
        assert self.calls == [self.future][: len(self.expected)]
        await wait_all_tasks_blocked()
        assert sorted(self.woken) == sorted(self.expected)


@pytest.fixture(params=[True, False], ids=["waited for", "not waited for"])
async def owned(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Owned:
    owned = Owned(nursery, waits=request.param)
    await wait_all_tasks_blocked()
    return owned


REFUSED = (
    r"^Future\(is_done=False\) belongs to another Trio run, and can't be .* from here; nothing was changed\. "
    r".*trio\.from_thread\.run_sync\(fn, trio_token=result\.trio_token\).*result\.trio_token\.run_sync_soon\(fn\)"
)


@each_change
async def test_another_thread_or_run_cannot_change_a_pending_result(
    change: Callable[[Future[int]], object], owned: Owned
) -> None:
    call = partial(change, owned.future)
    registers = change is CHANGES["add_done_callback"]  # add_done_callback needs a run
    with pytest.raises(RuntimeError, match="^triores needs Trio" if registers else REFUSED):
        await in_foreign_thread(call)
    with pytest.raises(RuntimeError, match=REFUSED):
        await in_foreign_run(partial(as_async, call))
    await owned.check_unchanged()


@each_wait
async def test_another_run_cannot_wait_for_a_pending_result(
    wait: Callable[[Future[int]], Awaitable[object]], owned: Owned
) -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        await in_foreign_run(partial(wait, owned.future))
    await owned.check_unchanged()


async def test_another_run_cannot_start_a_capture() -> None:
    runs: list[int] = []

    async def routine() -> None:
        runs.append(1)

    capture = ResultCapture(routine)
    with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be run from here; nothing was ch"):
        await in_foreign_run(capture.run)
    assert not runs
    await capture.run()
    assert runs == [1]


async def test_the_ways_suggested_by_the_error_message_work(owned: Owned) -> None:
    future = owned.future
    await in_foreign_thread(lambda: trio.from_thread.run_sync(future.set_result, 3, trio_token=future.trio_token))
    assert future.result() == 3

    asked = Future[int]()

    async def settle_from_another_run() -> None:
        assert asked.trio_token is not None
        asked.trio_token.run_sync_soon(asked.set_result, 4)

    await in_foreign_run(settle_from_another_run)
    assert await asked == 4


# ---- after the run has ended


def left_pending(*, waiting: bool, calls: list[object]) -> Future[int]:
    """A pending future of a run that has ended, with a callback, and with an iterator that waits if ``waiting``."""

    async def main() -> Future[int]:
        future = Future[int]()
        if waiting:
            iterators.append(as_completed([future]))
        future.add_done_callback(calls.append)
        return future

    return trio.run(main)


iterators: list[object] = []  # iterators that outlive their runs


@pytest.mark.parametrize("waiting", [False, True])
def test_once_its_run_has_ended_a_result_can_be_settled_anywhere_and_its_callbacks_run(waiting: bool) -> None:
    calls: list[object] = []
    future = left_pending(waiting=waiting, calls=calls)
    assert future.trio_token is not None
    future.set_result(3)
    assert calls == [future]
    assert future.trio_token is None
    assert is_free(future)
    iterators.clear()


@each_wait
def test_once_its_run_has_ended_a_result_can_be_waited_for_in_another_run(
    wait: Callable[[Future[int]], Awaitable[object]],
) -> None:
    calls: list[object] = []
    future = left_pending(waiting=True, calls=calls)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, future)
            await wait_all_tasks_blocked()
            assert future.trio_token is trio.lowlevel.current_trio_token()
            assert future.statistics() == ResultStatistics(waiters=1, callbacks=1)  # the old wait is gone
            future.set_result(3)
        assert calls == [future]

    trio.run(main)
    iterators.clear()


def test_once_the_run_of_a_result_has_ended_its_only_wait_is_no_longer_registered() -> None:
    async def main() -> Future[int]:
        future = Future[int]()
        iterators.append(as_completed([future]))
        return future

    future = trio.run(main)
    assert future.statistics().waiters == 1
    assert future.remove_done_callback(print) == 0
    assert is_free(future)
    iterators.clear()


def test_once_its_run_has_ended_a_capture_can_be_run_in_another_one() -> None:
    async def make() -> ResultCapture[None]:
        return ResultCapture(trio.sleep, 0)

    capture = trio.run(make)
    trio.run(capture.run)
    assert capture.result() is None


# ---- a thread that settles a future just as a task begins to wait for it
#
# Only a future made outside any run can be settled by a thread at that moment. Either the call has to raise an error,
# or the task has to be woken. Each test stops one side before the n-th line of the package that it runs, lets the other
# side run to its end, and then continues. It does this for every n, until there are no more lines.

PACKAGE = str(Path(triores.__file__).parent)


async def wait_for_callback(future: Future[int]) -> None:
    called = trio.Event()
    future.add_done_callback(lambda _: called.set())
    await called.wait()


STEPPED = {**WAITS, "add_done_callback": wait_for_callback}
each_stepped_wait = pytest.mark.parametrize("wait", STEPPED.values(), ids=STEPPED)


class Stop:
    """A trace function that makes a call just before this thread runs its n-th line of the package.

    Lines that run while this thread holds the lock don't count: another thread would have to wait there.
    """

    def __init__(self, line: int, call: Callable[[], object]) -> None:
        self.left = line
        self.call = call

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not triores._result._claiming._is_owned():  # type: ignore[attr-defined] # as `threading.Condition` does
            self.left -= 1
            if self.left == 0:
                self.call()
        return self


class Race:
    """A future, a thread that settles it, and a task that waits for it."""

    def __init__(self, wait: Callable[[Future[int]], Awaitable[object]]) -> None:
        self.future = Future[int]()
        self.wait = wait
        self.woken = False
        self.refused = False

    def settle(self) -> None:
        try:
            self.future.set_result(3)
        except RuntimeError as error:
            assert "belongs to another Trio run" in str(error)
            self.refused = True

    async def task(self) -> None:
        await self.wait(self.future)
        self.woken = True

    async def check(self, nursery: trio.Nursery) -> None:
        await wait_all_tasks_blocked()
        assert self.future.is_done() is self.woken is not self.refused
        nursery.cancel_scope.cancel()


@each_stepped_wait
def test_a_thread_that_settles_while_a_task_begins_to_wait_gets_an_error_or_wakes_the_task(
    wait: Callable[[Future[int]], Awaitable[object]],
) -> None:
    async def main(race: Race, line: int) -> bool:

        def settle_meanwhile() -> None:
            thread = threading.Thread(target=race.settle)
            thread.start()
            thread.join()

        stop = Stop(line, settle_meanwhile)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race.task)
            with traced_by(stop):
                await wait_all_tasks_blocked()
            if stop.left > 0:
                settle_meanwhile()
            await race.check(nursery)
        refused.add(race.refused)
        return stop.left > 0

    refused: set[bool] = set()
    lines = next(line for line in itertools.count(1) if trio.run(main, Race(wait), line))
    assert lines > 10
    assert refused == {True, False}  # which one depends on the line


@each_stepped_wait
def test_a_task_that_begins_to_wait_while_a_thread_settles_is_woken_or_the_thread_gets_an_error(
    wait: Callable[[Future[int]], Awaitable[object]],
) -> None:
    async def main(race: Race, line: int) -> bool:
        stopped, go_on = threading.Event(), threading.Event()

        def wait_in_thread() -> None:
            stopped.set()
            go_on.wait()

        stop = Stop(line, wait_in_thread)

        def settle() -> None:
            with traced_by(stop):
                race.settle()
            stopped.set()

        thread = threading.Thread(target=settle)
        thread.start()
        stopped.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race.task)
            await wait_all_tasks_blocked()
            go_on.set()
            thread.join()
            await race.check(nursery)
        refused.add(race.refused)
        return stop.left > 0

    refused: set[bool] = set()
    lines = next(line for line in itertools.count(1) if trio.run(main, Race(wait), line))
    assert lines > 5
    assert refused == {True, False}


class ClaimedMeanwhile(Exception):
    """An exception that makes a call while it is being stored in a future."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    @property
    def __traceback__(self) -> None:  # type: ignore[override] # a property, since reading it has to make the call
        self.call()


async def make_future() -> Future[int]:
    return Future()


@pytest.mark.parametrize("had_a_run", [False, True])
def test_if_a_run_claims_a_result_while_a_thread_settles_it_the_run_wakes_the_waiters(had_a_run: bool) -> None:
    future = trio.run(make_future) if had_a_run else Future[int]()
    waiting, settled = threading.Event(), threading.Event()
    threads: list[int] = []

    async def main() -> None:
        future.add_done_callback(lambda _: threads.append(threading.get_ident()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(future.wait_done)
            await wait_all_tasks_blocked()
            waiting.set()
            await trio.to_thread.run_sync(settled.wait)

    def begin_to_wait() -> None:
        run.start()
        waiting.wait()

    run = threading.Thread(target=trio.run, args=(main,))
    future.set_exception(ClaimedMeanwhile(begin_to_wait))
    assert is_done_and_untouched(future, threads)
    settled.set()
    run.join()
    assert threads == [run.ident]


def test_a_result_settled_by_a_thread_is_done_even_if_a_run_claimed_it_and_no_longer_waits() -> None:
    future = Future[int]()
    claimed, settled = threading.Event(), threading.Event()

    async def main() -> None:
        with trio.move_on_after(0):
            await future.wait_done()
        claimed.set()
        await trio.to_thread.run_sync(settled.wait)
        await future.wait_done()

    def claim() -> None:
        run.start()
        claimed.wait()

    run = threading.Thread(target=trio.run, args=(main,))
    future.set_exception(ClaimedMeanwhile(claim))
    settled.set()
    run.join()
    assert future.is_done()


def test_a_result_settled_by_a_thread_is_done_even_if_a_run_claimed_it_and_has_ended() -> None:
    future = Future[int]()

    async def main() -> None:
        with trio.move_on_after(0):
            await future.wait_done()

    def claim() -> None:
        run = threading.Thread(target=trio.run, args=(main,))
        run.start()
        run.join()

    future.set_exception(ClaimedMeanwhile(claim))
    assert future.is_done()
    assert is_free(future)


def is_done_and_untouched(future: Future[int], threads: list[int]) -> bool:
    return future.is_done() and threading.get_ident() not in threads


async def test_if_two_runs_claim_a_result_at_once_one_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    registered, refused = threading.Event(), threading.Event()

    async def register_and_stay() -> None:
        future.add_done_callback(id)
        registered.set()
        await trio.to_thread.run_sync(refused.wait)

    other_run = threading.Thread(target=trio.run, args=(register_and_stay,))

    class OtherRunComesFirst:
        """Replaces the lock: just before this run takes it, another run claims the result."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            other_run.start()
            registered.wait()

        def __exit__(self, *_: object) -> None: ...

    future = await in_foreign_thread(Future[int])
    assert future.trio_token is None
    monkeypatch.setattr(triores._result, "_claiming", OtherRunComesFirst())
    with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be waited for from here"):
        await future.wait_done()
    assert future.statistics() == ResultStatistics(waiters=0, callbacks=1)
    refused.set()
    other_run.join()


def test_two_threads_may_notice_at_once_that_the_run_of_a_result_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherThreadComesFirst:
        """Replaces the lock: just before this thread takes it, another one notices that the run has ended."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            thread = threading.Thread(target=future.remove_done_callback, args=(print,))
            thread.start()
            thread.join()

        def __exit__(self, *_: object) -> None: ...

    calls: list[object] = []
    future = left_pending(waiting=False, calls=calls)
    monkeypatch.setattr(triores._result, "_claiming", OtherThreadComesFirst())
    future.set_result(3)
    assert calls == [future]


def test_if_two_threads_settle_a_result_of_no_run_at_once_one_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherThreadComesFirst:
        """Replaces the lock: just before this thread takes it, another one settles the result."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            thread = threading.Thread(target=future.set_result, args=(2,))
            thread.start()
            thread.join()

        def __exit__(self, *_: object) -> None: ...

    future = Future[int]()
    monkeypatch.setattr(triores._result, "_claiming", OtherThreadComesFirst())
    with pytest.raises(FutureSetAgainException):
        future.set_result(1)
    assert future.result() == 2


_CRASH = """
import gc
import trio
import trio.testing
from triores import Future, as_completed

def crash(deadline):
    raise ValueError

async def main():
    global settled, dropped, completed
    settled, dropped = Future(), Future()
    completed = as_completed([dropped])
    await trio.sleep(1)

clock = trio.testing.MockClock()
clock.deadline_to_sleep_time = crash
try:
    trio.run(main, clock=clock)
except trio.TrioInternalError:
    settled.set_result(3)
    del completed
    gc.collect()
    print(settled, dropped.statistics())
"""


def test_once_its_run_has_crashed_a_result_can_be_settled_anywhere() -> None:
    # In a separate process, since what such a run leaves behind prints complaints when it is freed.
    run = subprocess.run([sys.executable, "-c", _CRASH], check=True, capture_output=True, text=True)
    assert run.stdout == "Future(result=3) ResultStatistics(waiters=0, callbacks=0)\n"
