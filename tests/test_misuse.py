"""Each misuse raises its error, and changes nothing. The table of misuses is in `misuse`."""

from __future__ import annotations

import ast
import concurrent.futures
import gc
import inspect
import re
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from misuse import MISUSES, Misuse
from trio.testing import wait_all_tasks_blocked

import triores
from triores import Future, FutureMap, ResultBase, ResultCapture, SingleFlight, as_completed

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_garbage_collector")


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """A collection would run finalizers, for which an endless recursion leaves no room on the stack."""
    gc.disable()
    yield
    gc.enable()


class AwkwardError(Exception):
    pass


class Awkward:
    def __repr__(self) -> str:
        raise AwkwardError

    def __eq__(self, other: object) -> bool:
        raise AwkwardError

    def __hash__(self) -> int:
        raise AwkwardError


class NoThreads(concurrent.futures.Executor):
    """An executor that must never be given a call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(fn)


async def fetch(n: int) -> int:
    await trio.lowlevel.checkpoint()
    return n


async def stream(n: int) -> AsyncGenerator[int]:
    yield n


def sync(n: int) -> int:
    return n


@asynccontextmanager
async def names() -> AsyncGenerator[dict[str, Any]]:
    """The names that the code of an entry can use."""
    seen: list[object] = []
    pending, done, failed, cancelled, waited = (Future[int]() for _ in range(5))
    done.set_result(1)
    failed.set_exception(ValueError())
    cancelled.cancel("no longer wanted")
    finished = ResultCapture(fetch, 1)
    await finished.run()
    ended = FutureMap[str, int]()
    with ended:
        pass
    with trio.CancelScope() as scope:
        pass
    async with trio.open_nursery() as closed_nursery:
        pass
    send, receive = trio.open_memory_channel[Any](1)
    closed_send, closed_receive = trio.open_memory_channel[Any](1)
    closed_send.close()
    shut_down = concurrent.futures.ThreadPoolExecutor()
    shut_down.shutdown()
    requests = FutureMap[str, int]()
    with send, receive, closed_receive, requests.expect("a") as in_flight:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waited.wait_done)
            nursery.start_soon(in_flight.wait_done)
            waited.add_done_callback(seen.append)
            await wait_all_tasks_blocked()
            yield {
                **{name: getattr(triores, name) for name in triores.__all__},
                **{fn.__name__: fn for fn in (fetch, stream, sync)},
                "concurrent": concurrent,
                "outcome": outcome,
                "trio": trio,
                "ExceptionGroup": ExceptionGroup,
                "pending": pending,
                "done": done,
                "failed": failed,
                "cancelled": cancelled,
                "waited": waited,
                "seen": seen.append,
                "capture": ResultCapture(fetch, 1),
                "finished": finished,
                "nursery": nursery,
                "closed_nursery": closed_nursery,
                "scope": scope,
                "requests": requests,
                "ended": ended,
                "flights": SingleFlight[str, int](nursery),
                "send": send,
                "closed_send": closed_send,
                "executor": NoThreads(),
                "shut_down": shut_down,
                "results": as_completed([waited]),
                "awkward": Awkward(),
            }
            nursery.cancel_scope.cancel()
        waited.remove_done_callback(seen.append)
    assert not seen


def state_of_result(result: Any) -> object:
    return f"{result:#}", result.statistics(), result.trio_token, getattr(result, "_started", None)


STATES: list[tuple[Any, Callable[[Any], object]]] = [
    (ResultBase, state_of_result),
    (FutureMap, lambda requests: (dict(requests), repr(requests))),
    (SingleFlight, repr),
    (trio.Nursery, lambda nursery: (set(nursery.child_tasks), nursery.cancel_scope.cancel_called)),
    (trio.MemorySendChannel, lambda channel: channel.statistics()),
    (NoThreads, lambda executor: executor.calls),
]


def state_of(obj: object) -> object:
    """Everything about an object that a misuse could have changed."""
    return next((show(obj) for kind, show in STATES if isinstance(obj, kind)), None)


def run_in_thread(fn: Any) -> BaseException:
    """Call a function in a thread that Trio didn't start, and return the exception that it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            fn()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0]


async def raised_by(misuse: Misuse, found: dict[str, Any]) -> BaseException:
    code = compile(misuse.code, "<misuse>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    run = FunctionType(code, found)

    async def run_async() -> None:
        await run()

    if misuse.where == "here":
        try:
            if inspect.iscoroutinefunction(run):
                await run()
            else:
                run()
        except BaseException as error:
            return error
        pytest.fail("nothing was raised")
    if misuse.where == "in another run":
        return run_in_thread(lambda: trio.run(run_async if inspect.iscoroutinefunction(run) else as_async(run)))
    return run_in_thread(run)


def as_async(fn: Any) -> Any:
    async def run() -> None:
        fn()

    return run


@pytest.mark.parametrize("misuse", [pytest.param(misuse, id=f"{misuse.code} {misuse.where}") for misuse in MISUSES])
async def test_each_misuse_raises_its_error_and_changes_nothing(misuse: Misuse) -> None:
    async with names() as found:
        before = {name: state_of(obj) for name, obj in found.items()}
        error = await raised_by(misuse, found)
        if misuse.in_group:
            (error,) = getattr(error, "exceptions")  # of a group, which Python 3.10 doesn't have
        assert type(error).__name__ == misuse.error
        assert re.fullmatch(misuse.pattern, str(error)), error
        await wait_all_tasks_blocked()
        assert {name: state_of(found[name]) for name in before} == before


def test_the_table_has_enough_entries_and_no_duplicates() -> None:
    assert len(MISUSES) >= 60
    assert len({(misuse.code, misuse.where) for misuse in MISUSES}) == len(MISUSES)
    for misuse in MISUSES:
        assert misuse.instead
        assert misuse.where in {"here", "in a thread", "in another run", "outside of Trio"}


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"


def test_the_page_on_errors_lists_how_the_message_of_each_exception_begins() -> None:
    rows = re.findall(r"^\| \{py:exc\}`~triores\.(\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: [text.strip("… ") for text in texts.split(";")] for name, texts in rows}
    assert set(listed) == {name for name in triores.__all__ if name.endswith(("Exception", "Error"))}
    for misuse in MISUSES:
        if misuse.error in listed:
            assert any(text and text in misuse.message for text in listed[misuse.error]), misuse


def test_the_page_on_errors_shows_each_topic_once() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```\{misuses\} (.*)$", page, re.MULTILINE)
    assert shown == list(dict.fromkeys(misuse.topic for misuse in MISUSES))
