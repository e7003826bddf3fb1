"""Compares what triores and its peers do in the same situations, by trying them all, and prints tables.

aioresult and anyio run on Trio, asyncio on its own loop. A dash means that a library has nothing to compare. The
documentation's page about the peers shows these tables.

    python docs/examples/compare_peers.py

It needs Python 3.11, for asyncio's TaskGroup, and the libraries of the dependency group ``test``.
"""

# The linter thinks that asyncio's code is Trio's, and some checks have nothing to wait for:
# flake8: noqa: ASYNC103, ASYNC104, ASYNC112, ASYNC124, ASYNC910

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from typing import TYPE_CHECKING, Any

import aioresult
import anyio
import anyio.from_thread
import trio
import trio.testing

import triores

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

LIBRARIES: dict[str, Any] = {"triores": triores, "aioresult": aioresult, "anyio": anyio, "asyncio": asyncio}
RUNS = 40  # how many times to repeat something that depends on chance
MANY = 200

TASKS = "Captured tasks"
WAITS = "Waiting"
FUTURES = "Futures and connections"
FAN_OUT = "Many calls at once"
BRIDGES = "Threads and executors"

claims: dict[str, dict[str, dict[str, Callable[[Any], Awaitable[object]]]]] = {}  # by topic, words and library


def claim(topic: str, words: str, *libraries: str) -> Callable[[Callable[[Any], Awaitable[object]]], None]:
    """Register a check of a claim for some libraries. It is called with the library, and returns the table cell."""

    def register(check: Callable[[Any], Awaitable[object]]) -> None:
        for library in libraries:
            claims.setdefault(topic, {}).setdefault(words, {})[library] = check

    return register


def observe(check: Callable[[Any], Awaitable[object]], library: str) -> str:
    """Run a check on its library's loop, and return the table cell."""

    async def main() -> object:
        return await check(LIBRARIES[library])

    if library == "asyncio":
        answer = asyncio.run(main())
    else:
        answer = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return ("✓" if answer else "✗") if isinstance(answer, bool) else str(answer)


# ---- common names for what the libraries call by different names


def open_nursery(library: Any) -> Any:
    """Return a library's nursery."""
    if library is asyncio:
        return asyncio.TaskGroup()
    return anyio.create_task_group() if library is anyio else trio.open_nursery()


def start(library: Any, nursery: Any, fn: Callable[..., Awaitable[object]], *args: object) -> Any:
    """Start a task in a library's nursery, and return its handle."""
    if library is asyncio:
        return nursery.create_task(fn(*args))
    if library is anyio:
        return nursery.start_soon(fn, *args)
    return library.ResultCapture.start_soon(nursery, fn, *args)


def error_of_reading(library: Any, handle: Any) -> BaseException:
    """Return the exception that you get when you read a task without a value."""
    try:
        _ = handle.return_value if library is anyio else handle.result()
    except BaseException as error:  # noqa: BLE001 - asyncio's CancelledError isn't an Exception
        return error
    raise AssertionError("this task has a value, but shouldn't")


async def until(library: Any, result: Any) -> None:
    """Wait for one result."""
    await (result.wait() if library is anyio else result if library is asyncio else result.wait_done())


def is_pending(library: Any, result: Any) -> bool:
    """Return whether a result isn't done."""
    if library is anyio:
        return bool(result.status.name == "PENDING")
    return not (result.done() if library is asyncio else result.is_done())


def set_value(library: Any, future: Any, value: object) -> None:
    """Settle a future."""
    if library is anyio:
        future.return_value = value
    else:
        future.set_result(value)


async def settle_down(library: Any) -> None:
    """Wait until every task has run as far as it can."""
    if library is asyncio:
        for _ in range(5):
            await asyncio.sleep(0)
    else:
        await trio.testing.wait_all_tasks_blocked()


async def sleep_forever(library: Any) -> None:
    """Sleep until cancelled."""
    if library is asyncio:
        await asyncio.Event().wait()
    else:
        await trio.sleep_forever()


async def sleep_in_own_nursery(library: Any) -> None:
    """Do the same in two child tasks, so that this ends with a group of two cancellations."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep_forever, library)
        nursery.start_soon(sleep_forever, library)


async def fail(*_: object) -> None:
    """Raise an exception."""
    raise ValueError("wrong")


def is_cancelled(error: BaseException) -> bool:
    """Return whether an error that a reader got means that the task was cancelled."""
    return isinstance(error, (asyncio.CancelledError, anyio.TaskCancelled, triores.TaskCancelledException))


# ---- tasks


@claim(TASKS, "a task in a nursery has a handle", *LIBRARIES)
async def _(library: Any) -> str:
    async with open_nursery(library) as nursery:
        return f"`{type(start(library, nursery, settle_down, library)).__name__}`"


@claim(TASKS, "a failure reaches the nursery, too", *LIBRARIES)
async def _(library: Any) -> bool:
    try:
        async with open_nursery(library) as nursery:
            start(library, nursery, fail)
    except Exception as error:  # noqa: BLE001 - it's a group, which Python 3.10 doesn't have
        return hasattr(error, "exceptions")
    return False


@claim(TASKS, "the task tree shows the function's own name", *LIBRARIES)
async def _(library: Any) -> bool:
    async def own_name() -> None:
        if library is asyncio:
            task: Any = asyncio.current_task()
            names.append(task.get_coro().__qualname__)
        else:
            names.append(trio.lowlevel.current_task().name)

    names: list[str] = []
    async with open_nursery(library) as nursery:
        start(library, nursery, own_name)
    return "own_name" in names[0]


async def cancelled_error(library: Any, fn: Callable[..., Awaitable[object]]) -> BaseException:
    """Cancel a task, and return the exception that you get when you read it."""
    handles: list[Any] = []
    if library is asyncio:
        handles.append(asyncio.ensure_future(fn(library)))
        await settle_down(library)
        handles[0].cancel()
        await asyncio.wait(handles)
    else:
        async with open_nursery(library) as nursery:
            handles.append(start(library, nursery, fn, library))
            await settle_down(library)
            nursery.cancel_scope.cancel()
    return error_of_reading(library, handles[0])


@claim(TASKS, "cancelled and failed can be told apart", *LIBRARIES)
async def _(library: Any) -> bool:
    return is_cancelled(await cancelled_error(library, sleep_forever))


@claim(TASKS, "a cancellation is recognized if the task has its own nursery", "aioresult", "anyio", "triores")
async def _(library: Any) -> bool:
    return is_cancelled(await cancelled_error(library, sleep_in_own_nursery))


@claim(TASKS, "awaiting a failed task raises the original exception", "anyio", "asyncio", "triores")
async def _(library: Any) -> bool:
    handles: list[Any] = []
    with contextlib.suppress(Exception):
        async with open_nursery(library) as nursery:
            handles.append(start(library, nursery, fail))
    try:
        await handles[0]
    except Exception as error:  # noqa: BLE001 - the type is the question
        return isinstance(error, ValueError)
    return False


@claim(TASKS, "one task can be cancelled on its own", "anyio", "asyncio", "triores")
async def _(library: Any) -> bool:
    async with open_nursery(library) as nursery:
        scope = trio.CancelScope()
        if library is triores:
            handle: Any = triores.ResultCapture.start_soon(nursery, sleep_forever, library, cancel_scope=scope)
        else:
            handle = start(library, nursery, sleep_forever, library)
        await settle_down(library)
        (scope if library is triores else handle).cancel()
    return is_cancelled(error_of_reading(library, handle))


@claim(TASKS, "one task can be cancelled on its own", "aioresult")
async def _(library: Any) -> bool:
    return any("cancel" in name for name in dir(library.ResultCapture))


@claim(TASKS, "cancelling a wait doesn't cancel the task", *LIBRARIES)
async def _(library: Any) -> bool:
    async with open_nursery(library) as nursery:
        handle = start(library, nursery, sleep_forever, library)
        if library is asyncio:
            waiter = nursery.create_task(until(library, handle))
            await settle_down(library)
            waiter.cancel()
            await settle_down(library)
            alone = is_pending(library, handle)
            handle.cancel()
            return alone
        with trio.move_on_after(1):
            await until(library, handle)
        alone = is_pending(library, handle)
        nursery.cancel_scope.cancel()
        return alone


@claim(TASKS, "a failed task leaves no reference cycle", *LIBRARIES)
async def _(library: Any) -> bool:
    async def run_one(fn: Callable[..., Awaitable[object]]) -> None:
        if library is asyncio:  # its TaskGroup leaves cycles of its own on some versions of Python
            await asyncio.gather(fn(library), return_exceptions=True)
            return
        with contextlib.suppress(Exception):
            async with open_nursery(library) as nursery:
                start(library, nursery, fn, library)

    async def garbage_of(fn: Callable[..., Awaitable[object]]) -> int:
        gc.collect()
        await run_one(fn)
        await settle_down(library)
        return gc.collect()

    gc.disable()
    try:
        return await garbage_of(fail) <= await garbage_of(settle_down)
    finally:
        gc.enable()


@claim(TASKS, "a second run() doesn't run the function again", "triores", "aioresult")
async def _(library: Any) -> bool:
    runs = 0

    async def count() -> None:
        nonlocal runs
        runs += 1

    capture = library.ResultCapture(count)
    await capture.run()
    with contextlib.suppress(library.FutureSetAgainException):
        await capture.run()
    return runs == 1


# ---- waiting


@claim(WAITS, f"tasks started to wait for the first of {MANY} results", "aioresult", "triores")
async def _(library: Any) -> int:
    futures = [library.Future() for _ in range(MANY)]
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        nursery.start_soon(library.wait_any, futures)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.lowlevel.current_statistics().tasks_living - before - 1
        nursery.cancel_scope.cancel()
    return started


@claim(WAITS, f"tasks started to wait for the first of {MANY} results", "asyncio")
async def _(_: Any) -> int:
    futures: list[asyncio.Future[None]] = [asyncio.Future() for _ in range(MANY)]
    waiter = asyncio.ensure_future(asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED))
    await settle_down(asyncio)
    started = len(asyncio.all_tasks()) - 2  # this task, and the one that waits
    futures[0].set_result(None)
    await waiter
    return started


@claim(WAITS, "results settled in one tick come in exact order", "aioresult", "triores")
async def _(library: Any) -> bool:
    exact = True
    for _ in range(RUNS):
        futures = [library.Future() for _ in range(3)]
        send, receive = trio.open_memory_channel[Any](3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.results_to_channel, futures, send)
            await trio.testing.wait_all_tasks_blocked()
            shuffled = random.sample(futures, 3)
            for future in shuffled:
                future.set_result(None)
        exact &= [result async for result in receive] == shuffled
    return exact


@claim(WAITS, "results settled in one tick come in exact order", "asyncio")
async def _(_: Any) -> bool:
    exact = True
    for _ in range(RUNS):
        futures: list[asyncio.Future[int]] = [asyncio.Future() for _ in range(3)]
        waits = asyncio.as_completed(futures)
        first = asyncio.ensure_future(next(iter(waits)))
        await settle_down(asyncio)
        shuffled = random.sample(range(3), 3)
        for index in shuffled:
            futures[index].set_result(index)
        exact &= [await first, *[await wait for wait in waits]] == shuffled
    return exact


@claim(WAITS, "waiting for nothing is a checkpoint", "aioresult", "triores")
async def _(library: Any) -> bool:
    try:
        with trio.testing.assert_checkpoints():
            await library.wait_all([])
    except AssertionError:
        return False
    return True


@claim(WAITS, "cancelling a wait for the first result raises", "aioresult", "triores")
async def _(library: Any) -> str:
    cell = "nothing"
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await library.wait_any([library.Future()])
        except BaseException as error:
            cell = "a group" if hasattr(error, "exceptions") else f"`{type(error).__name__}`"
            raise
    return cell


@claim(WAITS, "cancelling a wait for the first result raises", "asyncio")
async def _(_: Any) -> str:
    future: asyncio.Future[None] = asyncio.Future()
    task = asyncio.ensure_future(asyncio.wait([future], return_when=asyncio.FIRST_COMPLETED))
    await settle_down(asyncio)
    task.cancel()
    await asyncio.wait([task])
    return f"`{type(error_of_reading(asyncio, task)).__name__}`"


@claim(WAITS, "two tasks that wait for each other get an error", *LIBRARIES)
async def _(library: Any) -> bool:
    handles: list[Any] = []

    async def wait_for_the_other(index: int) -> None:
        await settle_down(library)
        other = handles[1 - index]
        await (asyncio.wait([other]) if library is asyncio else until(library, other))

    try:
        async with open_nursery(library) as nursery:
            handles += [start(library, nursery, wait_for_the_other, index) for index in range(2)]
            for _ in range(2):
                await settle_down(library)
            for scope in handles if library is asyncio else [nursery.cancel_scope]:
                scope.cancel()
    except Exception:  # noqa: BLE001 - it's a group, which Python 3.10 doesn't have
        return True
    return False


@claim(WAITS, "results_to_channel tolerates a closed receiver", "triores", "aioresult")
async def _(library: Any) -> bool:
    future = library.Future()
    future.set_result(None)
    send, receive = trio.open_memory_channel[Any](0)
    receive.close()
    try:
        await library.results_to_channel([future], send)
    except Exception:  # noqa: BLE001 - a group, or Trio's own error
        return False
    return True


# ---- futures


@claim(FUTURES, "setting a future from another thread is refused", *LIBRARIES)
async def _(library: Any) -> bool:
    refused = False

    def set_it() -> None:
        nonlocal refused
        try:
            set_value(library, future, 1)
        except RuntimeError:
            refused = True

    future = library.Future()
    async with open_nursery(library) as nursery:
        waiter = start(library, nursery, until, library, future)
        await settle_down(library)
        thread = threading.Thread(target=set_it)
        thread.start()
        thread.join()
        unchanged = is_pending(library, future)
        (waiter if library is asyncio else nursery.cancel_scope).cancel()
    return refused and unchanged


@claim(FUTURES, "waiters get an error when the connection is lost", "aioresult", "anyio", "asyncio")
async def _(library: Any) -> bool:
    async def reader(requests: dict[int, Any]) -> None:
        """End without settling the futures, because the connection is gone."""

    future = library.Future()
    async with open_nursery(library) as nursery:
        start(library, nursery, reader, {1: future})
    if library is asyncio:
        done, _ = await asyncio.wait([future], timeout=0.001)
        return bool(done)
    with trio.move_on_after(60):
        await until(library, future)
        return True
    return False


@claim(FUTURES, "waiters get an error when the connection is lost", "triores")
async def _(_: Any) -> bool:
    async def reader(requests: triores.FutureMap[int, None]) -> None:
        with requests:
            pass

    requests: triores.FutureMap[int, None] = triores.FutureMap()
    with requests.expect(1) as future:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, requests)
        with trio.move_on_after(60):
            await future.wait_done()
            return True
    return False


# ---- fan-out, sharing, bridges


@claim(FAN_OUT, "when one function fails, gather cancels the rest", "anyio", "asyncio", "triores")
async def _(library: Any) -> bool:
    cancelled = False

    async def other() -> None:
        nonlocal cancelled
        try:
            await sleep_forever(library)
        except BaseException:
            cancelled = True
            raise

    async def late() -> None:
        await settle_down(library)
        raise ValueError("wrong")

    with contextlib.suppress(Exception):
        await (library.gather(other, late) if library is triores else library.gather(other(), late()))
    return cancelled


def offered(library: ModuleType, *names: str) -> str:
    """Return which of these names a library has."""
    return ", ".join(f"`{name}`" for name in names if hasattr(library, name)) or "✗"


@claim(FAN_OUT, "several functions at once", *LIBRARIES)
async def _(library: Any) -> str:
    return offered(library, "gather", "gather_outcomes", "race", "first_success")


@claim(FAN_OUT, f"calls at once in a map of {MANY} items, limited to 10", "anyio", "triores")
async def _(library: Any) -> int:
    running: set[int] = set()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        running.add(number)
        most = max(most, len(running))
        await trio.sleep(1)
        running.remove(number)

    await (library.amap(work, range(MANY), limit=10) if library is triores else library.amap(work, range(MANY)))
    return most


@claim(FAN_OUT, "a streaming map", *LIBRARIES)
async def _(library: Any) -> str:
    return offered(library, "open_amap")


@claim(FAN_OUT, "one task for many callers", *LIBRARIES)
async def _(library: Any) -> str:
    return offered(library, "SingleFlight")


@claim(BRIDGES, "wraps a future of concurrent.futures", *LIBRARIES)
async def _(library: Any) -> bool:
    return hasattr(library, "wrap_future")


@claim(BRIDGES, "starts a task from any thread", *LIBRARIES)
async def _(library: Any) -> bool:
    names = {"run_coroutine_threadsafe", "BlockingPortal", "start_from_thread"}
    return not names.isdisjoint(dir(anyio.from_thread if library is anyio else library))


def main() -> None:
    """Print a table for each topic."""
    for topic, rows in claims.items():
        print(f"## {topic}\n")
        print(f"| | {' | '.join(LIBRARIES)} |")
        print("| --- " * (1 + len(LIBRARIES)) + "|")
        for words, checks in rows.items():
            cells = [observe(checks[library], library) if library in checks else "-" for library in LIBRARIES]
            print(f"| {words} | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
