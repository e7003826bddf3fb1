"""A pytest plugin that makes a test fail if it leaves results behind. Turn it on with ``-p triores.pytest_plugin``.

A test must not leave behind:

- a pending result that something still refers to after a garbage collection;
- a failure that a capture suppressed because of `suppress_exception`, and that nobody read.

Results only count if they are made while the test function is running, and by code outside triores. Results that a
fixture makes earlier or later don't count, and neither do results that triores makes for its own use, for example in a
map or a `SingleFlight`. The check comes after the teardown of the fixtures, and only if the test has passed.

The plugin costs nothing unless you turn it on, since triores has no hooks for it. While a test runs, three methods are
replaced: ``ResultBase.__init__``, which every new result calls; ``ResultCapture._settle_failure``, which suppresses
failures; and ``ResultBase._done``, which every read of a failure calls. The replacements call the originals and take
notes, which refer to results only weakly. A failure is noted as text, since the capture is often gone by the end of the
test. Nothing is replaced for a test that is marked with ``leaves_results``.

If a test exceeds the time limit of pytest-timeout, its report contains a dump from `triores.debug`. pytest-timeout has
two ways of ending a test, and both call ``pytest_timeout.dump_stacks`` first, so we replace that function too.

A garbage collection takes milliseconds, so we only run one if a pending result is still alive after the teardown.

PYTEST_DONT_REWRITE: without this line, pytest would warn if something else had already imported this module.
"""

from __future__ import annotations

import functools
import gc
import io
import sys
import threading
import tracemalloc
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from trio.lowlevel import enable_ki_protection

from . import debug
from ._capture import ResultCapture
from ._result import ResultBase

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

# The modules whose functions make results for their callers. Other modules of triores make them for their own use.
_MAKERS = {f"triores.{name}" for name in ("_capture", "_foreign", "_future", "_future_map", "_result", "pytest_plugin")}
_MAKERS.add("typing")  # 'Future[int]()' goes through it

_MAX_SHOWN = 10  # how many of a test's leftover results to show


class _Note:
    """What is known about one result."""

    __slots__ = ("code", "line", "result", "was_read")

    def __init__(self, result: weakref.ref[ResultBase[Any]], frame: FrameType) -> None:
        self.result = result
        self.code = frame.f_code
        self.line = frame.f_lineno
        self.was_read = False


class _Watch:
    """The notes about the results that one test makes."""

    def __init__(self) -> None:
        self.is_on = False  # True while the test function is running
        self.report: pytest.TestReport | None = None
        self._alive: dict[int, _Note] = {}  # by the result's id, since different results may be equal
        self._unread: dict[_Note, str] = {}

    def clear(self) -> None:
        self._alive.clear()
        self._unread.clear()

    def made(self, result: ResultBase[Any]) -> None:
        frame = _maker(sys._getframe(1))
        if frame is not None:
            key = id(result)
            self._alive[key] = _Note(weakref.ref(result, lambda _: self._alive.pop(key, None)), frame)

    def read(self, result: ResultBase[Any]) -> None:
        note = self._alive.get(id(result))
        if note is not None:
            note.was_read = True
            self._unread.pop(note, None)

    def suppressed(self, result: ResultBase[Any]) -> None:
        note = self._alive.get(id(result))
        if note is not None and not note.was_read:  # a callback may have read it
            what_happened = "failed; the exception was suppressed and never read"
            self._unread[note] = f"{result:#} {what_happened}\n{_made(note, result)}"

    def left_behind(self, item: pytest.Item) -> list[str]:
        """Describe what the test has left behind."""
        if self._pending():
            funcargs = getattr(item, "funcargs", None)
            if funcargs:
                funcargs.clear()  # pytest itself does this right after the teardown
            gc.collect()
        pending = [
            f"{result:#} is pending, and something still refers to it\n{_made(note, result)}\n{_waiting(result)}"
            for note, result in self._pending()
        ]
        return [*self._unread.values(), *pending]

    def _pending(self) -> list[tuple[_Note, ResultBase[Any]]]:
        notes = list(self._alive.values())  # a copy, since any of them may disappear at any time
        return [(note, result) for note in notes if (result := note.result()) is not None and not result.is_done()]


def _maker(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the code that made a result, or None if that code belongs to triores."""
    while frame is not None and frame.f_globals.get("__name__") in _MAKERS:
        frame = frame.f_back
    is_inside = frame is not None and str(frame.f_globals.get("__name__")).startswith("triores.")
    return None if is_inside else frame


def _made(note: _Note, result: ResultBase[Any]) -> str:
    text = f"    made at {note.code.co_filename}:{note.line}, in {note.code.co_name}"
    traceback = tracemalloc.get_object_traceback(result)
    return text if traceback is None else "\n    ".join([text, *traceback.format()])


def _waiting(result: ResultBase[Any]) -> str:
    counted = result.statistics()
    lines = [f"    waits: {counted.waiters}, callbacks: {counted.callbacks}"]
    if counted.waiters:
        with suppress(RuntimeError):  # raised if the run has ended, along with its tasks
            tasks = debug.snapshot(trio_token=result.trio_token).waiters_of(result)
            lines += _bounded([f"        task {task.name}" for task in tasks])
    return "\n".join(lines)


def _bounded(texts: list[str]) -> list[str]:
    return texts if len(texts) <= _MAX_SHOWN else [*texts[:_MAX_SHOWN], f"and {len(texts) - _MAX_SHOWN} more"]


@contextmanager
def _watching(patch: pytest.MonkeyPatch) -> Generator[_Watch]:
    """Replace the methods that make, settle and read results with ones that also take notes."""
    watch = _Watch()
    base: Any = ResultBase
    capture: Any = ResultCapture
    original_init, original_done, original_settle = base.__init__, base._done, capture._settle_failure

    @functools.wraps(original_init)
    def make(self: ResultBase[Any]) -> None:
        original_init(self)
        if watch.is_on:
            watch.made(self)

    def read(self: ResultBase[Any]) -> Any:
        outcome = original_done(self)
        watch.read(self)
        return outcome

    @enable_ki_protection
    def settle(self: ResultCapture[Any], error: BaseException) -> BaseException | None:
        propagating: BaseException | None = original_settle(self, error)
        if propagating is not error:
            watch.suppressed(self)
        return propagating

    patch.setattr(base, "__init__", make)
    patch.setattr(base, "_done", read)
    patch.setattr(capture, "_settle_failure", settle)
    yield watch
    watch.clear()  # breaks a reference cycle: each remaining note refers to the watch


def _dump_at_timeout(item: pytest.Item, patch: pytest.MonkeyPatch) -> None:
    plugins = item.config.pluginmanager
    timeout = plugins.get_plugin("timeout") or plugins.get_plugin("pytest_timeout")  # from an entry point, or '-p'
    original: Any = getattr(timeout, "dump_stacks", None)
    if original is None:
        return

    def dump_stacks(terminal: Any) -> None:
        original(terminal)
        text = io.StringIO()
        debug.dump(text)
        will_report = threading.current_thread() is threading.main_thread()  # the "thread" method ends the process
        show = functools.partial(item.add_report_section, "call", "triores.debug") if will_report else terminal.write
        show(text.getvalue())

    patch.setattr(timeout, "dump_stacks", dump_stacks)


# ---- what pytest calls

_WATCH = pytest.StashKey[_Watch]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "leaves_results: the test may leave pending results and unread failures behind")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch one test, from the setup of its fixtures to their teardown."""
    with pytest.MonkeyPatch.context() as patch:
        _dump_at_timeout(item, patch)
        if item.get_closest_marker("leaves_results") is not None:
            return (yield)
        with _watching(patch) as watch:
            item.stash[_WATCH] = watch
            try:
                return (yield)
            finally:
                del item.stash[_WATCH]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Take notes about the results that the test function makes."""
    watch = item.stash.get(_WATCH, None)
    if watch is None:
        return (yield)
    watch.clear()  # the test may have been run before, by a plugin that retries tests
    watch.is_on = True
    try:
        return (yield)
    finally:
        watch.is_on = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the report of the test function, which other plugins may still turn into a failure before the teardown."""
    report = yield
    watch = item.stash.get(_WATCH, None)
    if watch is not None and report.when == "call":
        watch.report = report
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so pytest's own plugins have already dropped what the test logged
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Make a test fail if it passed but left something behind."""
    outcome = yield
    watch = item.stash.get(_WATCH, None)
    if watch is not None and watch.report is not None and watch.report.passed:
        left = watch.left_behind(item)
        if left:
            pytest.fail("\n\n".join([f"results left behind: {len(left)}", *_bounded(left), _WAY_OUT]), pytrace=False)
    return outcome


_WAY_OUT = (
    "Settle each result before the test ends, and read each failure, for example with 'result.exception()'; or mark "
    "the test with '@pytest.mark.leaves_results'"
)
