"""What concerns the whole test suite."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import _helpers
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

AHEAD = pytest.StashKey[Future[Any]]()

# Coverage is measured by tracing, which more than doubles the time of all that runs meanwhile. So nothing but the tests
# themselves is traced, and of them, not those that do the same things very often.
importlib.import_module("triores")
tracing = sys.gettrace()
is_measured = type(tracing).__module__.partition(".")[0] == "coverage"  # and not by a debugger, say
if is_measured:
    sys.settrace(None)

# A shell starts a program in the background with Ctrl-C ignored, and then the tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Run the tests, and meanwhile, in one thread, the calls that are marked on them: these run other programs."""
    with ThreadPoolExecutor(1) as thread:
        for item in session.items:
            marker = item.get_closest_marker("ahead")
            if marker is not None and not session.config.option.collectonly:
                item.stash[AHEAD] = thread.submit(*marker.args)
        try:
            return (yield)
        finally:
            thread.shutdown(cancel_futures=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    if not is_measured or is_unmeasured(item):
        return (yield)
    sys.settrace(tracing)
    try:
        return (yield)
    finally:
        sys.settrace(None)


@pytest.fixture(autouse=True)
def no_task_rescheduled_twice() -> Generator[None]:
    """Fail each test in which a task is woken twice, which is a fault even if the test doesn't notice."""
    with _helpers.no_task_rescheduled_twice():
        yield


@pytest.fixture
def ahead(request: pytest.FixtureRequest) -> Any:
    """What the call returned that is marked on the test."""
    return request.node.stash[AHEAD].result()


@pytest.fixture(scope="session")
def unmeasured() -> None:
    """Measure no coverage: for tests that do the same things very often. They run after all the others."""
    if is_measured and sys.version_info >= (3, 12):
        threading.settrace_all_threads(None)  # while any thread is traced, all of them are slower
    elif is_measured:
        threading.settrace(None)
    hide_from_garbage_collector()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run last what changes the process for good: trio-asyncio, and the tests that are not measured.

    Once imported, trio-asyncio has asyncio itself run on Trio.
    """

    items.sort(key=lambda item: (is_unmeasured(item), item.path.name == "test_foreign_trio_asyncio.py"))


def is_unmeasured(item: pytest.Item) -> bool:
    return "unmeasured" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After a long run, tell how many faults there were."""
    import _faults

    if _faults.SOAK:
        terminalreporter.section("faults injected")
        for kind, count in (+_faults.injected).most_common():
            terminalreporter.write_line(f"{count:8,} {kind}")
        terminalreporter.write_line(f"{_faults.injected.total():8,} in all")


def pytest_collection_finish() -> None:
    hide_from_garbage_collector()


def hide_from_garbage_collector() -> None:
    """Make collections short: many tests ask for one, and each would look at all that is there by now."""
    if sys.implementation.name == "cpython":
        gc.collect()
        gc.freeze()
