"""`triores.debug` shows what a program is waiting for, and changes nothing."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Boom, no_cycles
from trio.testing import MockClock, wait_all_tasks_blocked

import triores.__main__
from triores import (
    Future,
    FutureMap,
    ResultBase,
    ResultCapture,
    SingleFlight,
    _inspect,
    _runs,
    _stacks,
    amap,
    as_completed,
    debug,
    first_success,
    gather,
    open_amap,
    race,
    results_to_channel,
    run_in_executor,
    to_concurrent_future,
    wait_all,
    wait_any,
    wrap_future,
)
from triores._graph import ANY_HELPER, OUTSIDE, Need, reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator

    from triores.debug import Snapshot, TaskInfo


def dumped(**options: Any) -> str:
    file = io.StringIO()
    debug.dump(file, **options)
    return file.getvalue()


def only(name: str, graph: Snapshot | None = None) -> TaskInfo:
    """Return the only task whose name ends with ``name``."""
    (task,) = (task for task in (graph or debug.snapshot()).tasks if task.name.endswith(name))
    return task


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that is cancelled at the end of the test."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def pretend(monkeypatch: pytest.MonkeyPatch, handlers: dict[int, Any]) -> None:
    """Make it look as if there were no other signal handlers than these and Trio's, which is for Ctrl-C."""
    original: Any = signal.getsignal

    def getsignal(signum: int) -> Any:
        return original(signum) if signum == signal.SIGINT else handlers.get(signum, signal.SIG_DFL)

    monkeypatch.setattr(signal, "getsignal", getsignal)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the other threads and the signal handlers that the test suite may have."""
    monkeypatch.setattr(sys, "_current_frames", lambda: {threading.get_ident(): sys._getframe()})
    pretend(monkeypatch, {})


async def blocked(nursery: trio.Nursery, fn: Callable[..., Awaitable[object]], *args: Any) -> TaskInfo:
    """Return what the dump says about a task that waits in this function."""
    nursery.start_soon(fn, *args, name="blocked")
    await wait_all_tasks_blocked()
    return only("blocked")


# ---- what a task waits for


async def test_a_task_waits_for_the_capture_that_another_task_runs(nursery: trio.Nursery) -> None:
    async def fetch(_url: str) -> None:
        await trio.sleep_forever()

    async def read(page: ResultBase[None]) -> None:
        await page

    page = ResultCapture.start_soon(nursery, fetch, "http://x")
    nursery.start_soon(read, page)
    await wait_all_tasks_blocked()
    graph = debug.snapshot()
    owner, reader = only("fetch('http://x')", graph), only("read", graph)
    assert reader.state == f"waiting for {owner.name}, which task #{owner.number} runs"
    assert (reader.function, reader.file) == ("read", __file__)
    assert owner.state == "sleeping until cancelled"
    assert graph.owner_of(page) == owner
    assert graph.waiters_of(page) == (reader,)
    assert (reader.needs, reader.verdict, owner.verdict) == ((owner.number,), "", "")


@pytest.mark.parametrize(("count", "is_cut"), [(3, False), (4, True)])
async def test_a_task_that_waits_for_several_results_shows_how_many_are_pending(
    count: int, is_cut: bool, nursery: trio.Nursery
) -> None:
    done = Future[int]()
    done.set_result(1)
    task = await blocked(nursery, wait_all, [done, *(Future[int]() for _ in range(count))])
    pending = f"waiting for {count + 1} results, {count} of them pending: "
    assert task.state.startswith(f"{pending}Future 1, which nobody has promised to settle; ")
    assert task.state.endswith("; ...") is is_cut
    assert len(task.results) == count


async def _first_of(results: list[ResultBase[Any]]) -> None:
    async for _ in as_completed(results):
        pass


async def _sent(results: list[ResultBase[Any]]) -> None:
    send, receive = trio.open_memory_channel[ResultBase[Any]](10)
    with receive:
        await results_to_channel(results, send)


@pytest.mark.parametrize("wait", [wait_any, _first_of, _sent])
async def test_a_task_waits_for_the_first_of_several_results(wait: Callable[..., Any], nursery: trio.Nursery) -> None:
    one, two = Future[int](), Future[int]()
    task = await blocked(nursery, wait, [one, two])
    assert task.state.startswith("waiting for the first of 2 pending results: Future 1, which ")
    assert debug.snapshot().waiters_of(two) == (task,)


async def test_a_parent_waits_at_the_end_of_its_nursery(nursery: trio.Nursery) -> None:
    async def parent(count: int) -> None:
        async with trio.open_nursery() as inner:
            for _ in range(count):
                inner.start_soon(trio.sleep_forever)

    task = await blocked(nursery, parent, 2)
    assert task.state == "waiting at the end of a nursery for 2 tasks"
    assert task.needs == (task.number + 1, task.number + 2)
    nursery.start_soon(parent, 1)
    await wait_all_tasks_blocked()
    assert only("parent").state == f"waiting at the end of a nursery for task #{only('parent').number + 1}"


@pytest.mark.parametrize("wait", [wait_all, wait_any])
async def test_a_wait_for_several_results_of_which_there_is_one_is_shown_like_a_wait_for_one(
    nursery: trio.Nursery, wait: Any
) -> None:
    assert (await blocked(nursery, wait, [Future[int]()])).state.startswith("waiting for Future 1, which ")


async def test_a_race_of_one_function_waits_for_its_task(nursery: trio.Nursery) -> None:
    task = await blocked(nursery, race, trio.sleep_forever)
    assert task.state == f"in race, waiting for task #{task.number + 1}"


@pytest.mark.parametrize("has_child", [True, False])
async def test_a_parent_waits_for_a_task_that_nursery_start_is_starting(nursery: trio.Nursery, has_child: bool) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            elsewhere.start_soon(inner.start, start)
            if has_child:
                inner.start_soon(trio.sleep_forever)
            await trio.sleep(0)
            await trio.sleep(0)

    async def start(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as elsewhere:
        task = await blocked(nursery, parent)
        graph = debug.snapshot()
        starter = only("Nursery.start", graph)
        child = f"task #{task.number + 1} and " if has_child else ""
        assert task.state == f"waiting at the end of a nursery for {child}1 task that nursery.start is starting"
        assert starter.state == f"waiting in nursery.start until task #{starter.number + 1} calls started()"
        elsewhere.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("call", "state"),
    [
        (gather, "in gather, waiting for 2 tasks"),
        (race, "in race, waiting for the first of 2 tasks"),
        (first_success, "in first_success, waiting for the first of 2 tasks"),
        (partial(first_success, stagger=100), "in first_success, waiting to start the next function"),
    ],
)
async def test_a_fan_out_call_waits_for_its_tasks(call: Callable[..., Any], state: str, nursery: trio.Nursery) -> None:
    assert (await blocked(nursery, call, trio.sleep_forever, trio.sleep_forever)).state == state


async def test_a_map_waits_for_its_workers_and_its_reader_for_the_next_result(nursery: trio.Nursery) -> None:
    async def stay(item: int) -> None:
        await trio.sleep_forever()

    async def items() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async def read() -> None:
        async with open_amap(stay, items()) as results:
            async for _ in results:
                pass

    assert (await blocked(nursery, amap, stay, [1, 2])).state.startswith("in a map, waiting for 2 tasks")
    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert only("read").state == "waiting for the next result of a map"
    assert "2 tasks like #" in dumped()
    assert "stay(1)" in dumped()


async def test_callers_wait_for_the_task_of_a_shared_call(nursery: trio.Nursery) -> None:
    async def load(key: str) -> None:
        await trio.sleep_forever()

    async def ask() -> None:
        await flights.run("a", load, "a")

    flights = SingleFlight[str, None](nursery)
    nursery.start_soon(ask)
    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert "2 tasks like" in dumped()
    assert "waiting for load('a'), which task #" in dumped()


async def test_a_task_waits_for_a_lock_that_another_task_holds(nursery: trio.Nursery) -> None:
    lock = trio.StrictFIFOLock()

    async def hold() -> None:
        async with lock:
            await trio.sleep_forever()

    async def enter() -> None:
        async with lock:
            pass

    nursery.start_soon(hold)
    await wait_all_tasks_blocked()
    task = await blocked(nursery, enter)
    assert task.state == f"waiting for a StrictFIFOLock that task #{only('hold').number} holds"
    assert task.needs == (only("hold").number,)


async def test_the_holder_of_a_lock_is_left_out_if_it_is_not_in_the_tree(nursery: trio.Nursery) -> None:
    lock = trio.Lock()
    release = trio.Event()

    async def hold() -> None:
        async with lock:
            await release.wait()

    trio.lowlevel.spawn_system_task(hold, name="<hidden>")
    await wait_all_tasks_blocked()
    assert (await blocked(nursery, lock.acquire)).state == "waiting for a lock"
    release.set()


async def test_a_task_waits_for_a_token_from_a_limiter(nursery: trio.Nursery) -> None:
    limiter = trio.CapacityLimiter(1)
    await limiter.acquire_on_behalf_of("somebody")
    assert (await blocked(nursery, limiter.acquire)).state == "waiting for a token from a CapacityLimiter; 1 in use"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, "1 in use, by task #0"), (3, "3 in use, by tasks #0, #1, #2"), (4, "4 in use, by tasks #0, #1, #2, ...")],
)
async def test_a_task_that_waits_for_a_token_shows_which_tasks_have_the_tokens(
    count: int, shown: str, nursery: trio.Nursery
) -> None:
    async def hold() -> None:
        async with limiter:
            await trio.sleep_forever()

    limiter = trio.CapacityLimiter(count)
    for _ in range(count):
        nursery.start_soon(hold, name="holder")
        await wait_all_tasks_blocked()
    state = (await blocked(nursery, limiter.acquire)).state
    first = next(task.number for task in debug.snapshot().tasks if task.name == "holder")
    expected = re.sub(r"#(\d)", lambda match: f"#{int(match[1]) + first}", shown)
    assert state == f"waiting for a token from a CapacityLimiter; {expected}"


async def _notified() -> None:
    condition = trio.Condition()
    async with condition:
        await condition.wait()


async def _received() -> None:
    send, receive = trio.open_memory_channel[int](0)
    with send:
        async for _ in receive:
            pass


async def _accepted() -> None:
    send, receive = trio.open_memory_channel[int](0)
    with receive:
        await send.send(1)


async def _readable() -> None:
    one, two = trio.socket.socketpair()
    with one, two:
        await one.recv(1)


async def _streamed() -> None:
    one, two = trio.socket.socketpair()
    with two:
        async with trio.SocketStream(one) as stream:
            async for _ in stream:
                pass


async def test_the_tasks_of_a_map_say_that_they_wait_for_room(nursery: trio.Nursery) -> None:
    async def call(item: int) -> None:
        if not item:
            await trio.sleep_forever()

    async def items() -> AsyncIterator[int]:
        for item in range(5):
            yield item

    async def read(source: Any) -> None:
        async with open_amap(call, source, limit=2, ordered=True) as results:
            async for _ in results:
                pass

    nursery.start_soon(read, items(), name="reads with a task")
    nursery.start_soon(read, range(5), name="reads with the workers")
    await wait_all_tasks_blocked()
    assert {task.state for task in debug.snapshot().tasks if "room" in task.state} == {
        "reading the items of a map, waiting for room in it",
        "waiting for the next item of a map, or for room in it",
    }


async def test_a_task_says_that_it_is_shielded_from_a_cancellation(nursery: trio.Nursery) -> None:
    async def clean_up(cleaned_up: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await cleaned_up.wait()

    async with trio.open_nursery() as inner:
        done = trio.Event()
        inner.start_soon(clean_up, done, name="cleaner")
        await wait_all_tasks_blocked()
        assert only("cleaner").state == "waiting for a trio.Event"
        inner.cancel_scope.cancel()
        assert only("cleaner").state == "waiting for a trio.Event, shielded from a cancellation"
        done.set()


async def test_looking_for_a_cancellation_causes_none(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def wait() -> None:
        with trio.CancelScope(deadline=trio.current_time() + 1):
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            went_on.append(trio.current_time())

    went_on: list[float] = []
    nursery.start_soon(wait, name="waits")
    await wait_all_tasks_blocked()
    autojump_clock.jump(2)  # the deadline has passed, but Trio hasn't noticed yet
    assert only("waits").state == "sleeping"
    await trio.sleep(5)
    assert went_on == [5]


@pytest.mark.parametrize(
    ("wait", "state"),
    [
        (lambda: trio.Event().wait(), "waiting for a trio.Event"),
        (lambda: trio.Semaphore(0).acquire(), "waiting for a trio.Semaphore"),
        (lambda: trio.lowlevel.ParkingLot().park(), "parked"),
        (_notified, "waiting for a trio.Condition"),
        (_received, "waiting for an item from a memory channel"),
        (_accepted, "waiting for room in a memory channel"),
        (_readable, "waiting in Trio's "),
        (_streamed, f"waiting in Trio's {'ReceiveStream.' * (sys.version_info >= (3, 11))}__anext__"),
        (partial(trio.sleep, 1000), "sleeping"),
    ],
)
async def test_each_of_trios_own_waits_is_described(wait: Callable[[], Any], state: str, nursery: trio.Nursery) -> None:
    task = await blocked(nursery, wait)
    assert task.state.startswith(state)
    assert not task.verdict


async def test_a_task_that_is_about_to_run_says_so(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep_forever, name="new")
    assert only("new").state == "about to run"
    (running,) = (task for task in debug.snapshot().tasks if task.state == "running")
    assert running.function == "test_a_task_that_is_about_to_run_says_so"


async def test_a_tasks_own_time_limit_is_shown(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    async def limited() -> None:
        with trio.move_on_after(5):
            await Future[int]()

    mock_clock.jump(100)
    task = await blocked(nursery, limited)
    assert task.time_left == 5
    assert "(5 s left)" in dumped()


async def test_a_task_that_runs_only_library_code_is_shown_with_its_first_function(nursery: trio.Nursery) -> None:
    assert (await blocked(nursery, Future[int]().wait_done)).function == "wait_done"


async def test_a_worker_thread_is_shown_with_the_line_of_your_code_it_is_at(nursery: trio.Nursery) -> None:
    release = threading.Event()

    def compute() -> None:
        release.wait()

    async def work() -> None:
        await trio.to_thread.run_sync(compute)

    try:
        nursery.start_soon(work, name="a worker")
        while "is in compute" not in only("a worker").state:
            await trio.sleep(0)
        assert only("a worker").state == (
            "waiting for a thread (thread 'compute from a worker' is in compute, "
            f'File "{__file__}", line {compute.__code__.co_firstlineno + 1})'
        )
    finally:
        release.set()


async def test_the_system_tasks_of_triores_are_not_shown() -> None:
    before = len(debug.snapshot().tasks)
    future = to_concurrent_future(Future[int]())
    assert len(debug.snapshot().tasks) == before
    assert future.cancel()


async def test_if_several_threads_have_the_same_name_none_of_them_is_shown(nursery: trio.Nursery) -> None:
    async def wait() -> None:
        await trio.to_thread.run_sync(release.wait)

    release = threading.Event()
    try:
        for _ in range(2):
            nursery.start_soon(wait, name="twin")
        while sum(thread.name == "wait from twin" for thread in threading.enumerate()) < 2:
            await trio.sleep(0)
        assert {task.state for task in debug.snapshot().tasks if task.name == "twin"} == {"waiting for a thread"}
    finally:
        release.set()


async def test_a_call_in_an_executor_is_shown_with_its_thread(nursery: trio.Nursery) -> None:
    release = threading.Event()

    def compute() -> None:
        release.wait()

    with concurrent.futures.ThreadPoolExecutor(2, "pool") as pool:
        try:
            for n in range(2):
                nursery.start_soon(run_in_executor, pool, compute, name=f"call {n}")
                while f"waiting for a call in an executor (thread 'pool_{n}' is in " not in only(f"call {n}").state:
                    await trio.sleep(0)
            task = await blocked(nursery, run_in_executor, pool, compute)
            assert task.state == "waiting for an executor, which has queued its call"
        finally:
            release.set()


async def test_a_call_in_another_process_is_shown_without_a_thread(nursery: trio.Nursery) -> None:
    class Elsewhere:
        def submit(self, fn: object, *args: object) -> Any:
            return future

    future = concurrent.futures.Future[int]()
    future.set_running_or_notify_cancel()
    task = await blocked(nursery, partial(run_in_executor, Elsewhere(), print))
    assert task.state == "waiting for a call in an executor"
    future.set_result(1)


async def test_a_wrapped_future_is_settled_by_the_other_library(nursery: trio.Nursery, alone: None) -> None:
    future = concurrent.futures.Future[int]()
    task = await blocked(nursery, wrap_future(future).wait_done)
    assert task.state == "waiting for Future 1, which another library settles"
    assert not task.verdict


async def test_a_wait_for_a_capture_that_has_not_been_started_says_so(nursery: trio.Nursery) -> None:
    capture = ResultCapture(trio.sleep, 0)
    assert (await blocked(nursery, capture.wait_done)).state == "waiting for sleep(0), which hasn't been started"
    new = ResultCapture.start_soon(nursery, trio.sleep, 0)
    nursery.start_soon(new.wait_done)
    assert debug.explain(Future[int]()).startswith("this Future is pending; no task is waiting for it, and nobody has")
    await new.wait_done()


# ---- which task owes a result


async def test_a_task_owes_the_future_of_its_must_set_block(nursery: trio.Nursery) -> None:
    future = Future[int]()
    done = Future[int]()
    done.set_result(1)

    async def owe() -> None:
        with done.must_set(), future.must_set():
            await trio.sleep_forever()

    nursery.start_soon(owe)
    task = await blocked(nursery, future.wait_done)
    owner = only("owe")
    assert task.state == f"waiting for Future 1, which task #{owner.number} has to settle"
    assert debug.snapshot().owner_of(future) == owner
    assert owner.owes == (1,)


async def test_a_must_set_block_inside_another_context_manager_counts_too(nursery: trio.Nursery) -> None:
    one, two = Future[int](), Future[int]()

    @contextmanager
    def managed() -> Generator[None]:
        with one.must_set():
            yield

    async def owe() -> None:
        with managed(), ExitStack() as stack:
            stack.enter_context(two.must_set())
            await trio.sleep_forever()

    nursery.start_soon(owe)
    await wait_all_tasks_blocked()
    graph = debug.snapshot()
    assert graph.owner_of(one) == graph.owner_of(two) == only("owe", graph)


async def test_the_reader_of_a_connection_owes_the_responses(nursery: trio.Nursery) -> None:
    requests = FutureMap[str, int]()

    async def read() -> None:
        with requests:
            await trio.sleep_forever()

    async def ask(key: str) -> None:
        with requests.expect(key) as answer:
            await answer

    task = await blocked(nursery, ask, "secret")
    assert task.state == "waiting for Future 1 (the response to request 'secret'), which nobody reads"
    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    answer = requests["secret"]
    graph = debug.snapshot()
    reader = only("read").number
    assert only("blocked").state == (
        f"waiting for Future 1 (the response to request 'secret'), which task #{reader} reads"
    )
    assert graph.owner_of(answer) == only("read", graph)
    assert "secret" not in dumped(args=False)
    assert "(the response to a request)" in dumped(args=False)


async def test_a_task_owes_nothing_once_its_blocks_have_ended(nursery: trio.Nursery) -> None:
    requests = FutureMap[str, int]()
    kept: list[object] = []

    async def hold() -> None:
        block = requests.expect("a")
        with block as answer, requests:
            answer.set_result(1)
            kept.append(requests)
            await trio.sleep_forever()

    nursery.start_soon(hold)
    await wait_all_tasks_blocked()
    assert debug.snapshot().pending == ()


# ---- which tasks can't go on


async def test_a_cycle_through_a_lock_is_a_proven_deadlock(nursery: trio.Nursery) -> None:
    lock = trio.Lock()

    async def first() -> None:
        async with lock:
            await second_result

    async def second() -> None:
        await trio.lowlevel.checkpoint()
        async with lock:
            pass

    started = ResultCapture.start_soon(nursery, first)
    second_result = ResultCapture.start_soon(nursery, partial(_after, started, second))
    await wait_all_tasks_blocked()
    graph = debug.snapshot()
    ((one, two),) = graph.deadlocks()
    assert {one.verdict, two.verdict} == {"!!"}
    assert f"a cycle: #{one.number} {one.name} -> #{two.number} {two.name} -> #{one.number}\n" in dumped()
    assert "!! 2 tasks can't go on: only a cancellation can help\n" in dumped()
    assert "!!" in debug.explain(started)


async def _after(_result: object, fn: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope():  # the task's own scope could end the wait, so the check for cycles lets it hang
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await fn()


async def test_a_task_that_waits_for_a_cycle_cannot_go_on_but_is_not_part_of_the_deadlock(
    nursery: trio.Nursery,
) -> None:
    one, two = trio.Lock(), trio.Lock()

    async def take(first: trio.Lock, second: trio.Lock) -> None:
        async with first:
            await wait_all_tasks_blocked()
            async with second:
                pass

    nursery.start_soon(take, one, two, name="left")
    nursery.start_soon(take, two, one, name="right")
    await wait_all_tasks_blocked(0.01)
    task = await blocked(nursery, one.acquire)
    assert task.verdict == "!!"
    (group,) = debug.snapshot().deadlocks()
    assert {task.name for task in group} == {"left", "right"}


async def test_a_task_in_a_cycle_may_also_wait_for_a_task_that_can_go_on(nursery: trio.Nursery) -> None:
    async def hold_and_wait() -> None:
        async with lock, trio.open_nursery() as inner:
            inner.start_soon(lock.acquire, name="stuck")
            inner.start_soon(trio.sleep, 1000)

    lock = trio.Lock()
    nursery.start_soon(hold_and_wait, name="holder")
    await wait_all_tasks_blocked()
    (group,) = debug.snapshot().deadlocks()
    assert {task.name for task in group} == {"holder", "stuck"}


async def test_a_time_limit_of_its_own_lets_a_task_go_on(nursery: trio.Nursery) -> None:
    lock = trio.Lock()

    async def take_twice() -> None:
        async with lock:
            with trio.move_on_after(1000):
                await waiting

    async def wait() -> None:
        async with lock:
            pass

    nursery.start_soon(take_twice)
    waiting = ResultCapture.start_soon(nursery, partial(_after, None, wait))
    await wait_all_tasks_blocked()
    assert debug.snapshot().deadlocks() == ()


async def test_a_time_limit_outside_a_shield_does_not_help(nursery: trio.Nursery) -> None:
    async def wait_for_itself() -> None:
        with trio.move_on_after(1000), trio.CancelScope(shield=True), future.must_set():
            await future

    future = Future[int]()
    task = await blocked(nursery, wait_for_itself)
    assert (task.time_left, task.verdict) == (None, "??")
    future.set_result(1)


async def _stuck(before: Callable[[], object] = bool, future: Future[int] | None = None) -> None:
    """Wait for something that only this task could do."""
    future = Future[int]() if future is None else future
    with future.must_set():
        before()
        await future


async def test_a_time_limit_that_has_passed_does_not_help(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def parent() -> None:
        with trio.move_on_after(1):
            async with trio.open_nursery() as inner:
                inner.start_soon(child)

    async def child() -> None:
        with trio.CancelScope(shield=True):
            await _stuck(future=future)

    future = Future[int]()
    nursery.start_soon(parent)
    await trio.sleep(0.5)
    assert only("parent").verdict == ""
    await trio.sleep(1)
    assert only("parent").verdict == "??"
    future.set_result(1)


async def test_the_time_limit_of_a_scope_that_is_already_cancelled_does_not_help(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        with trio.move_on_after(1000) as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(child)
                scope.cancel()

    async def child() -> None:
        with trio.CancelScope(shield=True):
            await _stuck(future=future)

    future = Future[int]()
    assert (await blocked(nursery, parent)).verdict == "??"
    future.set_result(1)


@pytest.mark.parametrize("call", [race, first_success])
async def test_a_race_can_go_on_if_one_of_its_tasks_can(call: Callable[..., Any], nursery: trio.Nursery) -> None:
    assert (await blocked(nursery, call, _stuck, trio.sleep_forever)).verdict == ""
    nursery.start_soon(partial(call, _stuck, _stuck), name="lost")
    nursery.start_soon(partial(gather, _stuck, trio.sleep_forever), name="gathered")
    await wait_all_tasks_blocked()
    assert only("lost").verdict == only("gathered").verdict == "??"


async def test_a_wait_for_the_first_of_several_results_can_go_on_if_one_of_their_tasks_can(
    nursery: trio.Nursery,
) -> None:
    bad = [ResultCapture.start_soon(nursery, _stuck) for _ in range(2)]
    good = ResultCapture.start_soon(nursery, trio.sleep_forever)
    assert (await blocked(nursery, wait_any, [*bad, good])).verdict == ""
    nursery.start_soon(wait_any, bad, name="lost")
    nursery.start_soon(wait_all, [*bad, good], name="all")
    await wait_all_tasks_blocked()
    assert only("lost").verdict == only("all").verdict == "??"


async def test_a_parent_cannot_go_on_if_a_task_that_is_being_started_cannot(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            nursery.start_soon(inner.start, start)
            await trio.sleep(0)
            await trio.sleep(0)

    async def start(task_status: trio.TaskStatus[None]) -> None:
        await _stuck()

    assert (await blocked(nursery, parent)).verdict == "??"


async def test_a_wait_for_a_limiter_can_go_on_if_one_of_its_borrowers_can(nursery: trio.Nursery) -> None:
    async def borrow(fn: Callable[[], Awaitable[None]]) -> None:
        async with limiter:
            await fn()

    limiter = trio.CapacityLimiter(2)
    nursery.start_soon(borrow, _stuck)
    nursery.start_soon(borrow, trio.sleep_forever)
    await wait_all_tasks_blocked()
    assert (await blocked(nursery, limiter.acquire)).verdict == ""
    limiter = trio.CapacityLimiter(1)
    nursery.start_soon(borrow, _stuck)
    await wait_all_tasks_blocked()
    nursery.start_soon(limiter.acquire, name="lost")
    await wait_all_tasks_blocked()
    assert only("lost").verdict == "??"


def test_a_task_that_sleeps_forever_helps_nobody(alone: None) -> None:
    async def wait() -> None:
        await gather(trio.sleep_forever, partial(Future[int]().wait_done))

    graph: Any = _hang(wait, debug.snapshot)
    assert [task.verdict for task in graph.tasks] == ["!!", "", "!!"]


async def test_a_task_whose_sleep_could_not_be_aborted_still_sleeps(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(child)
            inner.cancel_scope.cancel()

    async def child() -> None:
        with trio.CancelScope(shield=True) as scope:
            scopes.append(scope)
            await trio.sleep_forever()

    scopes: list[trio.CancelScope] = []
    assert (await blocked(nursery, parent)).state.startswith("waiting at the end of a nursery for task #")
    scopes[0].cancel()


async def test_a_reader_that_calls_its_own_connection_is_a_suspected_deadlock(nursery: trio.Nursery) -> None:
    requests = FutureMap[int, int]()

    async def read() -> None:
        with requests, requests.expect(1) as answer:
            await answer

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    graph = debug.snapshot()
    ((task,),) = graph.deadlocks()
    assert (task, task.verdict) == (only("read", graph), "??")
    assert f"a cycle: #{task.number} {task.name} -> #{task.number}\n" in dumped()
    assert "?? 1 task can't go on, unless another thread or some other code helps\n" in dumped()


def _hang(wait: Callable[[], Awaitable[object]], look: Callable[[], object]) -> object:
    """Run a program in which nothing happens any more but one wait, and return what ``look`` returns then."""
    looked: list[object] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            trio.lowlevel.spawn_system_task(watch, scope, name="<watch>")
            await wait()

    async def watch(scope: trio.CancelScope) -> None:
        await wait_all_tasks_blocked()
        looked.append(look())
        scope.cancel()

    trio.run(main)
    return looked[0]


@pytest.mark.parametrize("wait", [lambda: Future[int]().wait_done(), lambda: trio.Event().wait()])
def test_a_task_that_nobody_can_help_is_proven_stuck_if_there_is_no_other_thread(
    wait: Callable[[], Any], alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _hang(wait, dumped)
    assert "no known task can help #1 " in str(text)
    assert "!! #1 " in str(text)
    monkeypatch.setattr(_runs, "IS_GUEST", "_no_such_name")  # then it might be a guest, whose host could help
    assert "?? #1 " in str(_hang(wait, dumped))


def test_a_task_that_only_another_thread_could_help_is_suspected_to_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {1: sys._getframe(), threading.get_ident(): sys._getframe()}
    monkeypatch.setattr(sys, "_current_frames", lambda: frames)
    assert "?? #1 " in str(_hang(lambda: Future[int]().wait_done(), dumped))


def _handle(*_: object) -> None:
    pass


@pytest.mark.parametrize("handler", [_handle, partial(_handle)])
def test_a_task_that_only_a_signal_handler_could_help_is_suspected_to_be_stuck(
    handler: Callable[..., None], alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {signal.SIGTERM: handler})
    assert "?? #1 " in str(_hang(lambda: Future[int]().wait_done(), dumped))


def test_the_signal_handlers_of_python_trio_and_the_dump_help_nobody(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    debug.register(signal.SIGINT)
    of_triores = signal.signal(signal.SIGINT, signal.SIG_IGN)
    debug.unregister(signal.SIGINT)
    pretend(monkeypatch, {signal.SIGABRT: signal.default_int_handler, signal.SIGTERM: of_triores})
    assert "!! #1 " in str(_hang(lambda: Future[int]().wait_done(), dumped))


@pytest.mark.parametrize("wait", [trio.sleep_forever, partial(trio.sleep, 1000), _readable])
def test_a_task_that_waits_for_time_input_or_a_cancellation_can_go_on(wait: Callable[[], Any], alone: None) -> None:
    graph: Any = _hang(wait, debug.snapshot)
    assert graph.deadlocks() == ()
    assert [task.verdict for task in graph.tasks] == [""]


async def test_a_chain_of_hundreds_of_tasks_is_found_as_one_deadlock(nursery: trio.Nursery) -> None:
    lock = trio.Lock()

    async def link(before: ResultBase[None]) -> None:
        await before

    async def hold() -> None:
        async with lock:
            await last[0]

    last: list[ResultBase[None]] = [ResultCapture.start_soon(nursery, partial(_after, None, lock.acquire))]
    nursery.start_soon(hold, name="hold")
    for _ in range(300):
        last[0] = ResultCapture.start_soon(nursery, partial(_after, None, partial(link, last[0])))
    await wait_all_tasks_blocked(0.01)
    ((*group,),) = debug.snapshot().deadlocks()
    assert len(group) == 302
    assert " 291 more tasks -> #" in dumped()


def test_equal_tasks_that_nobody_can_help_share_a_line(alone: None) -> None:
    async def wait_for_events() -> None:
        async with trio.open_nursery() as nursery:
            for name in ["one", *["many"] * 1200]:
                nursery.start_soon(trio.Event().wait, name=name)
                await trio.lowlevel.checkpoint()

    lines = str(_hang(wait_for_events, dumped)).splitlines()
    assert lines[2:5] == ["   no known task can help #2 one", "   no known task can help 1,200 tasks like #3 many", ""]


@pytest.mark.parametrize(("count", "shown"), [(5, []), (6, ["   ... and 1 more such group"])])
async def test_deadlocks_that_are_not_shown_are_counted(count: int, shown: list[str], nursery: trio.Nursery) -> None:
    async def wait_for_itself() -> None:
        future = Future[int]()
        with future.must_set():
            await future

    for _ in range(count):
        nursery.start_soon(wait_for_itself)
    await wait_all_tasks_blocked()
    assert [line for line in dumped().splitlines() if "more such group" in line] == shown


@pytest.mark.parametrize(("count", "shown"), [(12, ""), (13, "2 more tasks -> ")])
async def test_a_long_cycle_is_cut(count: int, shown: str, nursery: trio.Nursery) -> None:
    async def promise(n: int) -> None:
        with futures[n].must_set():
            await futures[n - 1].wait_done()

    futures = [Future[int]() for _ in range(count)]
    for n in range(count):
        nursery.start_soon(promise, n)
    await wait_all_tasks_blocked()
    (line,) = (line for line in dumped().splitlines() if "a cycle: " in line)
    assert line.count(" -> ") == 12
    assert ("more tasks" in line) is bool(shown)
    assert shown in line


# ---- the text


async def test_a_thousand_captures_with_large_arguments_fit_on_a_page(nursery: trio.Nursery) -> None:
    async def fetch(_data: str, _more: dict[str, str]) -> None:
        await trio.sleep_forever()

    for number in range(1000):
        ResultCapture.start_soon(nursery, fetch, f"{number}" * 10_000, {"key": "x" * 10_000})
    await wait_all_tasks_blocked()
    text = dumped()
    assert "1,000 tasks like #" in text
    assert len(text.splitlines()) < 20
    assert len(text) < 3000
    assert "key" not in dumped(args=False)


async def test_a_long_list_is_cut_and_tasks_that_cannot_go_on_come_first(nursery: trio.Nursery) -> None:
    async def wait_for_itself() -> None:
        future = Future[int]()
        with future.must_set():
            await future

    for number in range(30):
        nursery.start_soon(trio.sleep_forever, name=f"sleeper {number}")
    nursery.start_soon(wait_for_itself)
    await wait_all_tasks_blocked()
    lines = dumped().splitlines()
    assert any(line.startswith("?? ") and "wait_for_itself" in line for line in lines)
    assert any("... and 20 tasks not shown here" in line for line in lines)
    assert sum(" sleeper " in line for line in lines) == 10


async def test_a_list_is_shown_in_full_if_there_is_room(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            for number in range(12):
                inner.start_soon(trio.sleep_forever, name=f"sleeper {number}")

    nursery.start_soon(parent)
    await wait_all_tasks_blocked()
    assert dumped().count(" sleeper ") == 12


async def test_a_deep_tree_is_cut(nursery: trio.Nursery) -> None:
    async def nest_down(levels: int) -> None:
        if not levels:
            await trio.sleep_forever()
        async with trio.open_nursery() as inner:
            inner.start_soon(nest_down, levels - 1)

    nursery.start_soon(nest_down, 300)
    await wait_all_tasks_blocked()
    text = dumped()
    assert "... and tasks below #" in text
    assert len(text.splitlines()) < 100


async def test_a_wide_and_deep_tree_is_cut(nursery: trio.Nursery) -> None:
    async def nest(levels: int, name: str) -> None:
        async with trio.open_nursery() as inner:
            for number in range(10):
                if levels:
                    inner.start_soon(nest, levels - 1, name, name=f"{name}{number}")
                else:
                    inner.start_soon(trio.sleep_forever, name=f"{name}{number}")

    nursery.start_soon(nest, 1, "a", name="a")
    nursery.start_soon(nest, 1, "b", name="b")
    await wait_all_tasks_blocked()
    text = dumped()
    assert "... and more tasks, not shown here" in text
    assert len(text.splitlines()) < 320


async def test_equal_subtrees_are_shown_as_one_entry(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        await gather(trio.sleep_forever, trio.sleep_forever)

    for _ in range(3):
        nursery.start_soon(parent)
    await wait_all_tasks_blocked()
    text = dumped()
    assert "3 tasks like #" in text
    assert text.count("2 tasks like #") == 1


@pytest.mark.parametrize(
    ("count", "words", "end"), [(2, "the other is", ""), (3, "the others are", ""), (12, "the others are", ", ...")]
)
async def test_an_entry_for_several_stuck_tasks_names_those_that_the_first_lines_mention(
    nursery: trio.Nursery, count: int, words: str, end: str
) -> None:
    async def read(requests: FutureMap[int, str]) -> None:
        with requests, requests.expect(7) as response:
            await response

    for _ in range(count):
        nursery.start_soon(read, FutureMap[int, str]())
    await wait_all_tasks_blocked()
    text = dumped()
    first, *others = [task.number for task in debug.snapshot().tasks if task.verdict]
    assert f"{count} tasks like #{first}" in text
    assert f"({words} {', '.join(f'#{number}' for number in others[:10])}{end})" in text
    mentioned = re.findall(r"a cycle: #(\d+) ", text)
    assert mentioned
    assert set(map(int, mentioned)) <= {first, *others[:10]}


async def test_tasks_that_wait_for_tasks_with_different_names_are_separate_entries(nursery: trio.Nursery) -> None:
    for name in ("a", "a", "b", "b"):
        owner = ResultCapture(trio.sleep_forever, name=name)
        nursery.start_soon(owner.run)
        nursery.start_soon(owner.wait_done, name="reader")
    await wait_all_tasks_blocked()
    counts = re.findall(r"(?:([\d,]+) tasks like )?#\d+ reader: ", dumped())
    assert sorted(counts) == ["2", "2"]


async def test_tasks_that_wait_at_the_same_line_are_one_entry_unless_they_wait_differently(
    nursery: trio.Nursery,
) -> None:
    for count in (1, 1, 2, 3):
        results = [Future[int]() for _ in range(count)]
        nursery.start_soon(partial(_after, None, partial(wait_all, results)), name="waiter")
        nursery.start_soon(Future[int]().wait_done, name="reader")
    await wait_all_tasks_blocked()
    counts = re.findall(r"(?:([\d,]+) tasks like )?#\d+ (waiter|reader): ", dumped())
    assert sorted(counts) == [("", "waiter"), ("", "waiter"), ("2", "waiter"), ("4", "reader")]


def test_a_small_program_is_shown_in_full() -> None:
    async def answer(_question: str) -> None:
        await future

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, answer, "what?")
            await wait_all_tasks_blocked()
            text.append(dumped())
            future.set_result(42)

    future = Future[int]()
    text: list[str] = []
    trio.run(main)
    title, empty, first, where, second, where_second = text[0].splitlines()
    assert (title, empty) == ("Trio run: 2 tasks", "")
    assert first.endswith("main: running")
    assert where.startswith(f'   │    File "{__file__}", line ')
    assert second == "   └─ #2 answer('what?'): waiting for Future 1, which nobody has promised to settle"
    assert where_second.startswith(f'           File "{__file__}", line ')


# ---- parts that fail


class _Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise Boom


class _Ascii(io.StringIO):
    def write(self, text: str) -> int:
        return super().write(text.encode("ascii").decode())


# The order of the fixtures matters: with `pytest -s`, `monkeypatch` would otherwise put back what `capfd` has closed.
async def test_a_dump_into_a_broken_file_raises_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    debug.dump(_Broken())
    monkeypatch.setattr(sys, "stderr", None)
    debug.dump()
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", _Broken())
    debug.dump()
    assert "Trio run" in capfd.readouterr().err


async def test_a_dump_into_an_ascii_file_draws_the_tree_in_ascii(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep_forever, name="né")
    file = _Ascii()
    debug.dump(file)
    assert "`- " in file.getvalue()
    assert "n\\xe9" in file.getvalue()


def test_a_dump_without_a_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "all_runs", list)  # other tests may have left a crashed run behind as garbage
    assert dumped() == "There is no Trio run in this process.\n"
    monkeypatch.setattr(debug, "all_runs", _fails)
    assert dumped() == "The dump of this program failed: Boom()\n"


def _fails(*_args: object, **_kwargs: object) -> Any:
    raise Boom


async def test_a_run_that_cannot_be_read_causes_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "snapshot_of", _fails)
    assert dumped() == "Trio run: dumping it raised Boom()\n"
    assert debug.explain(Future[int]()) == "Future: explaining it raised Boom"


async def test_an_argument_that_cannot_be_shown_does_not_hide_its_task(nursery: trio.Nursery) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise Boom

        @property  # type: ignore[misc] # this is what is odd
        def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] # the same
            raise Boom

    async def hold(_odd: object) -> None:
        with suppress(ValueError):
            await trio.sleep_forever()

    ResultCapture.start_soon(nursery, hold, Odd())
    await wait_all_tasks_blocked()
    assert "hold(<Odd whose repr() raised Boom>)" in dumped()


async def test_names_and_arguments_are_shown_on_one_line(nursery: trio.Nursery) -> None:
    class Table:
        def __repr__(self) -> str:
            return "Table(1\n2)"

    async def work(_table: Table) -> None:
        with requests.expect(Table()) as response:
            await response.wait_done()

    requests = FutureMap[Table, int]()
    with requests:
        nursery.start_soon(trio.sleep_forever, name="\x1b[31mred\nname\udc80")
        ResultCapture.start_soon(nursery, work, Table())
        await wait_all_tasks_blocked()
        text = dumped()
    assert " [31mred name : sleeping until cancelled\n" in text
    assert "work(Table(1 2)): waiting for Future 1 (the response to request Table(1 2)), which" in text


async def test_a_task_that_cannot_be_inspected_is_still_listed(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery.start_soon(trio.sleep_forever, name="odd")
    await wait_all_tasks_blocked()
    monkeypatch.setattr("triores._inspect.steps_of", _fails)
    monkeypatch.setattr("triores._inspect.is_asleep", _fails)
    assert only("odd").state == "can't be inspected: Boom"
    monkeypatch.setattr("triores._inspect._short", _fails)
    assert "a task that can't be inspected (Boom): can't be inspected: Boom" in dumped()


class _Awaitable:
    def __await__(self) -> Generator[Any, Any, None]:
        yield from trio.sleep_forever().__await__()


class _Opaque:
    """An awaitable that doesn't show what it awaits."""

    def __init__(self) -> None:
        self._steps: Any = iter(trio.sleep_forever().__await__())

    def __await__(self) -> Iterator[Any]:
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._steps)

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)


async def _generated() -> None:
    async def numbers() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 1

    async for _ in numbers():
        pass


async def _awaited(obj: Any) -> None:
    await obj


async def test_a_wait_is_found_behind_generators_and_wrappers(nursery: trio.Nursery) -> None:
    assert (await blocked(nursery, _generated)).function == "numbers"
    nursery.start_soon(_awaited, _Awaitable(), name="awaitable")
    nursery.start_soon(_awaited, _Opaque(), name="opaque")
    nursery.start_soon(_awaited, Future[int](), name="future")
    await wait_all_tasks_blocked()
    assert only("awaitable").state == "sleeping until cancelled"
    assert only("awaitable").function == "__await__"
    assert only("opaque").state == "sleeping"
    assert only("future").function == "_awaited"


async def test_the_search_for_what_a_task_awaits_has_a_limited_depth(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery.start_soon(_generated, name="deep")
    await wait_all_tasks_blocked()
    assert only("deep").function == "numbers"
    monkeypatch.setattr(_stacks, "_MAX_FRAMES", 1)
    assert only("deep").function == "_generated"


async def test_a_thread_that_has_just_ended_is_shown_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: dict[int, Any] = {}
    monkeypatch.setattr(sys, "_current_frames", lambda: frames)
    assert _stacks.place_of_thread(threading.current_thread().name) == f" (thread {threading.current_thread().name!r})"
    frames[threading.get_ident() + 1] = None
    assert set(_stacks.places_on_stacks()) == set()


async def test_a_block_is_found_even_if_its_exit_method_and_its_object_are_stored_separately() -> None:
    """As they are on a coroutine's stack from Python 3.14 on."""
    requests = FutureMap[int, int]()
    end = FutureMap[int, int].__exit__
    assert list(_inspect._entered([end, requests])) == [requests]
    assert list(_inspect._entered([requests])) == []


def test_only_what_has_its_needs_met_can_go_on() -> None:
    needs: dict[object, Need] = {
        "free": Need([]),
        "all": Need(["free", OUTSIDE]),
        "any": Need(["stuck", "free"], every=False),
        "nothing": Need([], every=False),
        "stuck": Need(["free", "stuck"]),
        "helped": Need([ANY_HELPER]),
    }
    assert reached(needs, []) == {OUTSIDE, "free", "all", "any"}
    assert reached(needs, ["any"]) == {OUTSIDE, ANY_HELPER, "free", "all", "any", "helped"}


def test_a_dump_keeps_nothing_alive_and_changes_nothing() -> None:
    async def work(future: Future[int]) -> None:
        with future.must_set():
            await future

    async def main() -> Snapshot:
        future = watch(Future[int]())
        async with trio.open_nursery() as nursery:
            capture = watch(ResultCapture.start_soon(nursery, work, future))
            await wait_all_tasks_blocked()
            before = future.statistics(), capture.statistics()
            graph = debug.snapshot()
            dumped()
            debug.explain(future)
            assert (future.statistics(), capture.statistics()) == before
            assert len(graph.waiters_of(future)) == 1
            future.set_result(1)
        return graph

    with no_cycles() as watch:
        graph = trio.run(main)
    assert len(graph.tasks) == 2


async def test_the_json_contains_everything(nursery: trio.Nursery) -> None:
    future = Future[int]()

    async def owe() -> None:
        with future.must_set():
            await future

    nursery.start_soon(owe)
    await wait_all_tasks_blocked()
    shown = json.loads(debug.snapshot().to_json())
    (number,) = shown["deadlocks"][0]
    assert shown["tasks"][number - 1]["verdict"] == "??"
    assert shown["pending"] == [
        {
            "number": 1,
            "name": "Future 1",
            "owners": [number],
            "owed": f"which task #{number} has to settle",
            "waiters": [number],
        }
    ]


async def test_a_snapshot_cannot_be_changed(nursery: trio.Nursery) -> None:
    await blocked(nursery, Future[int]().wait_done)
    graph = debug.snapshot()
    for part, name in [(graph, "tasks"), (graph.tasks[0], "name"), (graph.pending[0], "name")]:
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, None)


async def test_reprs_of_a_snapshot_show_no_private_name() -> None:
    assert not re.search(r"\b_\w+=", repr(debug.snapshot()))


async def test_results_unknown_to_the_snapshot_have_no_waiters_and_no_owner() -> None:
    graph = debug.snapshot()
    assert graph.waiters_of(Future[int]()) == ()
    assert graph.owner_of(Future[int]()) is None


async def test_a_result_is_not_mistaken_for_an_earlier_one_with_the_same_id(nursery: trio.Nursery) -> None:
    old, new = Future[int](), Future[int]()
    await blocked(nursery, old.wait_done)
    graph = debug.snapshot()
    assert len(graph.waiters_of(old)) == 1
    graph = replace(graph, _numbers={id(new): graph._numbers[id(old)]})  # as if it had the same id
    assert graph.waiters_of(new) == ()


@pytest.mark.parametrize(
    "name",
    [name for name in vars(_runs) if name.isupper() and name != "TYPE_CHECKING"],
)
async def test_a_dump_still_shows_the_tasks_if_trio_lacks_a_name(
    name: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    async def parent() -> None:
        with trio.move_on_after(5):
            await gather(partial(Future[int]().wait_done), partial(trio.sleep, 1))

    monkeypatch.setattr(_runs, name, "_no_such_name")
    nursery.start_soon(parent)
    debug.watch(1, io.StringIO())
    await wait_all_tasks_blocked()
    assert "parent" in dumped()
    _runs.all_runs(trio.lowlevel.current_trio_token())  # raises nothing, even if it can't find the run


async def test_if_it_is_unknown_which_tasks_sleep_no_task_is_marked(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def owe() -> None:
        with future.must_set():
            await future

    future = Future[int]()
    nursery.start_soon(owe)
    await wait_all_tasks_blocked()
    assert only("owe").verdict == "??"
    monkeypatch.setattr(_runs, "NEXT_STEP", "_no_such_name")
    assert only("owe").verdict == ""
    assert only("owe").state.startswith("waiting for Future 1")


async def test_if_it_is_unknown_which_parents_wait_for_their_tasks_none_is_said_to_wait(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            await trio.sleep(1000)

    monkeypatch.setattr(_runs, "WAITS_AT_END", "_no_such_name")
    nursery.start_soon(parent, name="parent")
    await wait_all_tasks_blocked()
    assert only("parent").state.startswith("sleeping")


# ---- dumps and snapshots from elsewhere


@pytest.fixture
def usr1() -> Generator[int]:
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("this system has no SIGUSR1")
    before = signal.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    debug.unregister(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_dumps_while_trio_sleeps(usr1: int) -> None:
    class WakingFile(io.StringIO):
        def write(self, text: str) -> int:
            token.run_sync_soon(written.set)
            return super().write(text)

    class Signaller(trio.abc.Instrument):
        """Sends the signal from another thread just before Trio sleeps."""

        def before_io_wait(self, timeout: float) -> None:
            if timeout > 1:
                threading.Thread(target=os.kill, args=(os.getpid(), usr1)).start()

    token: trio.lowlevel.TrioToken
    written: trio.Event
    file = WakingFile()
    debug.register(usr1, file)

    async def main() -> None:
        nonlocal token, written
        token, written = trio.lowlevel.current_trio_token(), trio.Event()
        with trio.fail_after(5):
            await written.wait()

    trio.run(main, instruments=[Signaller()])
    assert "test_a_signal_dumps_while_trio_sleeps" in file.getvalue()
    assert debug.unregister(usr1)
    assert not debug.unregister(usr1)


def test_unregister_restores_the_original_handler(usr1: int) -> None:
    def before(*_args: object) -> None:
        pass

    signal.signal(usr1, before)
    debug.register(usr1)
    debug.register(usr1)
    debug.unregister(usr1)
    assert signal.getsignal(usr1) is before


def test_unregister_sets_the_default_handler_if_the_original_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []

    def set_handler(_signum: int, handler: object) -> None:
        handlers.append(handler)

    monkeypatch.setattr(signal, "signal", set_handler)
    debug.register(1)
    assert debug.unregister(1)
    assert handlers[-1] == signal.SIG_DFL


async def test_a_signal_dumps_the_runs_of_all_threads(usr1: int) -> None:
    file = io.StringIO()
    debug.register(usr1, file)
    ready, release = threading.Event(), trio.Event()

    async def elsewhere() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        ready.set()
        await release.wait()

    tokens: list[trio.lowlevel.TrioToken] = []
    thread = threading.Thread(target=trio.run, args=(elsewhere,))
    thread.start()
    ready.wait()
    try:
        os.kill(os.getpid(), usr1)
        assert "Trio run 1 of " in file.getvalue()
        assert "elsewhere: " in file.getvalue()
    finally:
        tokens[0].run_sync_soon(release.set)
        thread.join()


def test_a_guest_is_shown_while_its_host_runs() -> None:
    import asyncio

    async def main() -> None:
        future = Future[int]()
        tokens.append((trio.lowlevel.current_trio_token(), future))
        await future

    async def host() -> str:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        trio.lowlevel.start_guest_run(
            main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda _: done.set()
        )
        while not tokens or not tokens[0][1].statistics().waiters:
            await asyncio.sleep(0)
        text = dumped()
        tokens[0][0].run_sync_soon(tokens[0][1].set_result, 1)
        await done.wait()
        return text

    tokens: list[tuple[trio.lowlevel.TrioToken, Future[int]]] = []
    text = asyncio.run(host())
    assert "?? #1 " in text
    assert "waiting for Future 1, which nobody has promised to settle" in text


def test_a_snapshot_taken_from_another_thread_is_made_in_the_thread_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        readers.clear()
        graph = await trio.to_thread.run_sync(partial(debug.snapshot, trio_token=token))
        assert readers == {threading.get_ident()}, "another thread read the run while it was running"
        assert [task.state[:20] for task in graph.tasks] == ["waiting for a thread"]
        assert len(debug.snapshot(trio_token=token).tasks) == 1

    def read(clock: MockClock) -> float:
        readers.add(threading.get_ident())
        return current_time(clock)

    readers: set[int] = set()
    current_time = MockClock.current_time
    monkeypatch.setattr(MockClock, "current_time", read)
    trio.run(main, clock=MockClock())


def test_a_task_of_one_run_can_look_at_another_run() -> None:
    async def look(token: trio.lowlevel.TrioToken) -> list[str]:
        return [task.name for task in debug.snapshot(trio_token=token).tasks]

    async def main() -> list[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="sleeper")
            names = await trio.to_thread.run_sync(trio.run, look, trio.lowlevel.current_trio_token())
            nursery.cancel_scope.cancel()
        return names

    assert trio.run(main)[1:] == ["sleeper"]


@pytest.mark.parametrize("other", ["before", "after"])
def test_if_several_runs_do_not_answer_the_right_one_is_shown(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def named(name: str, inside: Callable[[], object]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name=name)
            await wait_all_tasks_blocked()
            tokens[name] = trio.lowlevel.current_trio_token()
            inside()
            nursery.cancel_scope.cancel()

    def look() -> None:
        thread = threading.Thread(target=lambda: found.append(debug.snapshot(trio_token=tokens[wanted])))
        thread.start()
        thread.join()

    def run_another() -> None:
        thread = threading.Thread(target=trio.run, args=(named, "second", look))
        thread.start()
        thread.join()

    wanted = "first" if other == "after" else "second"
    monkeypatch.setattr(debug, "_PATIENCE", 0)
    tokens: dict[str, trio.lowlevel.TrioToken] = {}
    found: list[Snapshot] = []
    trio.run(named, "first", run_another)
    assert [task.name for graph in found for task in graph.tasks][1:] == [wanted]


def test_a_run_that_blocks_its_thread_is_read_from_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "_PATIENCE", 0)
    found: list[Snapshot] = []

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=lambda: found.append(debug.snapshot(trio_token=token)))
        thread.start()
        thread.join()

    trio.run(main)
    ((task,),) = (graph.tasks for graph in found)
    assert task.state == "running"
    assert task.file == threading.__file__


def test_a_run_that_changes_while_another_thread_reads_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "_PATIENCE", 0)
    found: list[Snapshot] = []
    errors = [RuntimeError("set changed size during iteration")] * 3

    def changes_three_times(*args: Any, **options: Any) -> Snapshot:
        if errors:
            raise errors.pop()
        return snapshot_of(*args, **options)

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=lambda: found.append(debug.snapshot(trio_token=token)))
        thread.start()
        thread.join()

    snapshot_of = _inspect.snapshot_of
    monkeypatch.setattr(debug, "snapshot_of", changes_three_times)
    trio.run(main)
    assert [len(graph.tasks) for graph in found] == [1]


def test_a_run_that_cannot_be_found_or_read_from_outside_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "_PATIENCE", 0)
    errors: list[str] = []

    def look(token: trio.lowlevel.TrioToken) -> None:
        try:
            debug.snapshot(trio_token=token)
        except RuntimeError as error:
            errors.append(str(error))

    def changes(*_args: object, **_kwargs: object) -> Any:
        raise RuntimeError("set changed size during iteration")

    def none(_token: object) -> list[Any]:
        return []

    async def main() -> None:
        for name, replacement in (("snapshot_of", changes), ("all_runs", none)):
            monkeypatch.setattr(debug, name, replacement)
            thread = threading.Thread(target=look, args=(trio.lowlevel.current_trio_token(),))
            thread.start()
            thread.join()

    trio.run(main)
    assert errors == ["set changed size during iteration", errors[1]]
    assert "there is no other way to find it" in errors[1]


def test_a_snapshot_needs_a_run() -> None:
    with pytest.raises(RuntimeError, match="there is no Trio run here; call this inside a run, or pass 'trio_token="):
        debug.snapshot()

    async def main() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    with pytest.raises(RuntimeError, match="has ended"):
        debug.snapshot(trio_token=trio.run(main))


def test_a_run_that_is_crashing_can_be_dumped() -> None:
    async def crash() -> None:
        raise Boom

    async def main() -> None:
        trio.lowlevel.spawn_system_task(crash)
        try:
            await Future[int]()
        finally:
            texts.append(dumped())

    texts: list[str] = []
    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    texts.append(dumped())
    assert "main: running" in texts[0]
    assert not re.search("raised|failed", "".join(texts))


_CRASH = """
import trio
import trio.testing
from triores import Future, debug

def crash(deadline):
    raise ValueError

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done, name="waiter")
        await trio.sleep(1)

future = Future()
clock = trio.testing.MockClock()
clock.deadline_to_sleep_time = crash
try:
    trio.run(main, clock=clock)
except trio.TrioInternalError:
    print(debug.explain(future))
"""


def test_a_result_of_a_run_whose_loop_has_crashed_can_still_be_explained() -> None:
    # In a separate process, since what such a run leaves behind prints complaints when it is freed.
    run = subprocess.run([sys.executable, "-c", _CRASH], check=True, capture_output=True, text=True)
    assert "waiter: waiting for Future 1, which nobody has promised to settle" in run.stdout


def test_if_a_crashed_run_cannot_be_found_a_snapshot_raises_an_error() -> None:
    class Token:
        def run_sync_soon(self, *_: object) -> None:
            raise OSError

    token: Any = Token()
    with pytest.raises(RuntimeError, match="there is no other way to find it"):
        debug.snapshot(trio_token=token)


def test_a_run_whose_tasks_are_broken_can_be_dumped() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="broken")
            await wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            coroutine = task.coro
            oddities: list[Any] = [None, 3, iter([])]
            for odd in oddities:
                task.coro = odd
                task.custom_sleep_data = odd
                assert "broken" in dumped()
            task.coro = coroutine
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_if_the_clock_fails_the_times_are_left_out() -> None:
    class Clock(trio.abc.Clock):
        broken = False

        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            if self.broken:
                raise Boom
            return time.monotonic()

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return deadline - time.monotonic()

    async def main() -> None:
        with trio.move_on_after(1000):
            clock.broken = True
            assert debug.snapshot().tasks[0].time_left is None
            clock.broken = False
            assert debug.snapshot().tasks[0].time_left is not None

    clock = Clock()
    trio.run(main, clock=clock)


# ---- watch


async def test_watch_dumps_once_when_a_task_has_waited_for_the_given_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    file = io.StringIO()
    debug.watch(30, file)
    await trio.sleep(100)
    assert file.getvalue() == ""
    started = trio.current_time()
    nursery.start_soon(Future[int]().wait_done, name="waiter")
    while not file.getvalue():
        assert trio.current_time() < started + 40
        await trio.sleep(1)
    assert trio.current_time() >= started + 30
    text = file.getvalue()
    assert "waiter: waiting for Future 1, which nobody has promised to settle (for 30 s or more)" in text
    await trio.sleep(100)
    assert file.getvalue() == text


async def test_a_task_that_is_about_to_run_is_not_waiting(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    future = Future[int]()
    debug.watch(30, io.StringIO())
    nursery.start_soon(future.wait_done, name="waiter")
    await trio.sleep(20)
    assert only("waiter").waited == 12.5
    future.set_result(1)
    assert (only("waiter").state, only("waiter").waited) == ("about to run", None)


async def test_a_running_task_is_not_waiting(autojump_clock: MockClock) -> None:
    debug.watch(30, io.StringIO())
    await trio.sleep(20)
    assert [task.waited for task in debug.snapshot().tasks if task.state == "running"] == [None]


async def test_watch_starts_counting_again_when_a_task_waits_for_its_next_result(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def read() -> None:
        async for _ in as_completed(futures):
            pass

    futures = [Future[int]() for _ in range(10)]
    file = io.StringIO()
    debug.watch(30, file)
    nursery.start_soon(read, name="reader")
    for future in futures:
        await trio.sleep(20)
        future.set_result(1)
        await wait_all_tasks_blocked()
        assert not [task for task in debug.snapshot().tasks if task.name == "reader" and task.waited is not None]
    assert file.getvalue() == ""


async def test_watch_does_not_dump_while_no_task_waits_for_a_result(autojump_clock: MockClock) -> None:
    file = io.StringIO()
    debug.watch(0.5, file)
    await trio.sleep(100)
    assert file.getvalue() == ""


async def test_watch_only_takes_a_positive_and_finite_number_of_seconds() -> None:
    wrong: list[Any] = ["x", True, None, 1j]
    for seconds in wrong:
        with pytest.raises(TypeError, match=f"watch takes a positive, finite number of seconds, not {seconds!r}"):
            debug.watch(seconds)
    wrong = [0, -1, float("inf"), float("nan"), Decimal("sNaN")]
    for seconds in wrong:
        with pytest.raises(ValueError, match=re.escape(f"positive, finite number of seconds, not {seconds!r}")):
            debug.watch(seconds)
    for seconds in (10**400, -(10**400)):
        with pytest.raises(ValueError, match=r"positive, finite number of seconds, not -?1000+\.\.\.000+$"):
            debug.watch(seconds)


async def test_watch_takes_any_kind_of_number(autojump_clock: MockClock) -> None:
    file = io.StringIO()
    debug.watch(Fraction(1, 2), file)  # type: ignore[arg-type] # a type checker wouldn't know that this works
    with trio.move_on_after(1):
        await Future[int]()
    assert file.getvalue().startswith("Trio run: ")


def test_watch_needs_a_run() -> None:
    with pytest.raises(RuntimeError, match=r"inside trio\.run"):
        debug.watch(1)


# ---- explain


@pytest.mark.parametrize(("count", "more"), [(5, []), (6, ["    ... and 1 more task"])])
async def test_explain_shows_which_task_owes_a_result_and_which_tasks_wait(
    count: int, more: list[str], nursery: trio.Nursery
) -> None:
    async def work(_n: int) -> None:
        await trio.sleep_forever()

    capture = ResultCapture.start_soon(nursery, work, 1)
    for _ in range(count):
        nursery.start_soon(capture.wait_done)
    await wait_all_tasks_blocked()
    first, owner, waits, *waiters = debug.explain(capture).splitlines()
    number = only("work(1)").number
    assert first == f"work(1), which task #{number} runs, is pending"
    assert owner.startswith(f"  to be settled by task #{number} ")
    assert "work(1): sleeping until cancelled (File " in owner
    assert waits == f"  waits: {count}, callbacks: 0"
    assert [line.lstrip()[:4] for line in waiters[:5]] == ["task"] * 5
    assert waiters[5:] == more


async def test_explain_says_how_a_result_ended() -> None:
    async def fail() -> None:
        raise Boom

    value, failed = Future[int](), Future[int]()
    value.set_result(3)
    failed.set_exception(Boom())
    assert debug.explain(value) == "this Future succeeded: 3"
    assert debug.explain(failed) == "this Future failed: Boom()"
    capture = ResultCapture(fail, suppress_exception=True)
    await capture.run()
    assert debug.explain(capture).startswith("fail() failed: Boom()\n  raised in: File ")
    assert debug.explain(capture).endswith(", in fail")
    cancelled = Future[int]()
    cancelled.cancel("the user left")
    assert "was cancelled" in debug.explain(cancelled)
    assert "the user left" in debug.explain(cancelled)


def test_explain_works_outside_a_run() -> None:
    async def main() -> Future[int]:
        return Future[int]()

    assert debug.explain(trio.run(main)).startswith("this Future is pending; the Trio run has ended")
    assert debug.explain(Future[int]()).endswith("doesn't belong to a Trio run yet, so nothing is waiting for it")
    with pytest.raises(TypeError, match="explain takes a triores result, not 3"):
        debug.explain(3)  # type: ignore[arg-type] # this is the mistake


# ---- python -m triores


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert triores.__main__.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which signals a process handles")
def test_the_command_makes_another_process_dump(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import signal, sys, trio, triores.debug\n"
        "async def main():\n"
        "    print('ready', flush=True)\n"
        "    await trio.sleep_forever()\n"
        "if len(sys.argv) > 1: triores.debug.register(signal.SIGUSR1)\n"
        "trio.run(main)\n"
    )
    unprepared = 0 if hasattr(sys, "remote_exec") else 1
    for arguments, code in (([], unprepared), (["register"], 0)):
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                assert process.stdout.readline() == "ready\n"
                assert triores.__main__.main([str(process.pid)]) == code
                out = capsys.readouterr().out
                if arguments:
                    sent, where = out.split("; ")
                    assert sent == f"triores: sent SIGUSR1 to process {process.pid}"
                    assert where.startswith("the dump goes to that process's standard error, or to the file ")
                if not code:
                    assert process.stderr.readline() == "Trio run: 1 task\n"
                assert process.poll() is None
            finally:
                process.kill()


def test_the_command_refuses_processes_that_it_cannot_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = str(os.getpid())
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    assert refused(capsys, "0") == "triores: 0 isn't a process ID"
    assert refused(capsys, here, "--signal", "NOPE") == "triores: there is no signal 'NOPE' on this system"
    monkeypatch.setattr(triores.__main__, "PROC", tmp_path)
    assert "can't tell on this system whether process" in refused(capsys, here)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("SigCgt:\t0\n")
    for pid in ("1", "1234"):
        assert refused(capsys, pid) == f"triores: there is no process {pid}"
    (tmp_path / "1234").mkdir()
    status = tmp_path / "1234" / "status"
    status.write_text("Name:\tx\n")
    assert "can't tell on this system" in refused(capsys, "1234")
    for name in ("USR1", "USR2"):
        status.write_text(f"SigCgt:\t{1 << signal.SIGTERM - 1:016x}\n")
        expected = f"has no handler for SIG{name}, which would kill it; add"
        assert expected in refused(capsys, "1234", "--signal", name)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ProcessLookupError(), "there is no process 1234"),
        (PermissionError(), "process 1234 belongs to another user"),
        (RuntimeError("no"), "couldn't ask process 1234 for a dump: no"),
    ],
)
def test_the_command_says_in_one_line_what_went_wrong(
    error: Exception,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(_pid: int, _signum: int) -> None:
        raise error

    def handles(_pid: int, _signum: int) -> bool:
        return True

    monkeypatch.setattr(triores.__main__, "_handles", handles)
    monkeypatch.setattr(os, "kill", kill)
    assert refused(capsys, "1234") == f"triores: {line}"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no SIGSTOP")
def test_with_remote_exec_the_command_needs_no_handler_in_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[tuple[int, int]] = []
    scripts: list[str] = []

    def remote_exec(pid: int, path: str) -> None:
        assert pid == 1234
        scripts.append(path)
        exec(Path(path).read_text(encoding="utf-8"), {})

    def handles(_pid: int, _signum: int) -> bool:
        return False

    def kill(pid: int, signum: int) -> None:
        sent.append((pid, signum))

    monkeypatch.setattr(triores.__main__, "_handles", handles)
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(debug, "all_runs", list)
    monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
    assert triores.__main__.main(["1234"]) == 0
    assert sent == [(1234, signal.SIGSTOP), (1234, signal.SIGCONT)]
    out, err = capsys.readouterr()
    assert out == "triores: asked process 1234 for a dump, which goes to that process's standard error\n"
    assert err == "There is no Trio run in this process.\n"
    assert not Path(scripts[0]).exists()

    def fails(_pid: int, path: str) -> None:
        scripts.append(path)
        raise PermissionError

    monkeypatch.setattr(sys, "remote_exec", fails, raising=False)
    assert refused(capsys, "1234") == "triores: process 1234 belongs to another user"
    assert not Path(scripts[1]).exists()


def test_the_command_can_be_run_as_a_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["triores", "0"])
    monkeypatch.delitem(sys.modules, "triores.__main__")
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("triores", run_name="__main__")
    assert "isn't a process ID" in capsys.readouterr().err


def test_importing_triores_does_not_load_the_debug_module() -> None:
    code = "import sys, triores; assert not {'triores.debug', 'triores._inspect'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
