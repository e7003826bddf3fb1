"""A recording of a Trio run: when each task ran, waited and ended, and how captured work ended.

A `Recorder` is a Trio instrument. These are its rules:

- It keeps only numbers and short strings, never a task, a result or a value. If it has to look at an object again
  later, such as the result that a task is waiting for, it refers to it weakly.
- A *span* is stored when it ends. There are four kinds: a task, from its start to its exit; a call, which is captured
  work; a run, which is one step of a task, or part of a step; and a wait, from the moment when the task falls asleep
  until it is woken. Between a wait and the next run, the task is ready, but the loop is busy with other tasks.
- The spans of one task are strictly nested. So if a call begins or ends in the middle of a step, that step becomes two
  spans.
- Times are in seconds by the run's clock, since the recording began.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import trio
from trio.lowlevel import enable_ki_protection

from . import _capture
from ._amap import ItemCapture
from ._callbacks import nothing
from ._checks import call_of, checked_limit, on_one_line, shown
from ._exceptions import why_cancelled
from ._result import ResultBase, call_soon
from ._wait import Arrivals, CountDown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from trio.lowlevel import Task, TrioToken
    from typing_extensions import Self

    from ._capture import ResultCapture

_TEXT = 100  # how many characters a name or a detail may have

_OF_TRIO = ("<init>", "<TrioToken.run_sync_soon task>")  # tasks that every run has


class Span(NamedTuple):
    """Something that takes time."""

    kind: str  # task, call, run or wait
    track: int  # the number of the task
    depth: int  # how many other spans of the track are around this one
    begin: float  # seconds since the recording began
    end: float
    name: str
    ended: str = ""  # how it ended: value, failure, cancelled or running; empty if unknown
    detail: str = ""  # which failure it was, or why it was cancelled
    ran: float = 0.0  # for how many of these seconds the task was running
    is_row: bool = False  # whether the timeline has a row for it
    woken_by: tuple[int, float] | None = None  # for a run: which task settled what this one was waiting for, and when


class Recording(NamedTuple):
    """What has been recorded so far."""

    spans: list[Span]
    seconds: float
    dropped: int


class Recorder(trio.abc.Instrument):
    """A Trio instrument that records what the tasks of a run do, and saves it as a timeline.

    There are three ways to use it::

        trio.run(main, instruments=[recorder])      # the whole run
        trio.lowlevel.add_instrument(recorder)      # from here on
        with recorder:                              # only this block
            ...

    A recorder records one run at a time. If you use it again, it appends the new recording to the old one.

    It keeps only numbers and short strings, never a task, a result or a value, and at most ``limit`` spans. A span is a
    task, a call, a step in which a task runs, or a wait. It only knows how a task ended if its work was captured: by a
    `triores.ResultCapture`, `triores.amap` or `triores.open_amap`.

    Args:
        limit: How many spans to keep. If there are more, the oldest are dropped.

    Raises:
        TypeError: If ``limit`` isn't an integer.
        ValueError: If it is less than 1.

    Example:
        ::

            recorder = triores.trace.Recorder()
            trio.run(main, instruments=[recorder])
            recorder.save("run.svg")
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = checked_limit(limit, "the limit of a Recorder", "an integer", "the number of spans to keep")
        self._spans: deque[Span] = deque(maxlen=self._limit)
        self._count = 0  # spans that have ended so far
        self._tracks = 0
        self._live: dict[int, _LiveTask] = {}  # by the id of the task, while it is alive
        self._running: _LiveTask | None = None
        self._token: TrioToken | None = None  # the token of the run that is being recorded
        self._read: Callable[[], float] | None = None  # reads the clock of that run
        self._zero = 0.0
        self._now = 0.0

    # ---- for the user

    @property
    def dropped(self) -> int:
        """How many spans were dropped because there were more than ``limit``."""
        return self._count - len(self._spans)

    def save(self, path: str | PathLike[str]) -> None:
        """Write what has been recorded so far to a file. You can call this during the run, too.

        Args:
            path: The file. Its suffix selects the format: ``.json`` is the trace event format, which you can open in
                https://ui.perfetto.dev and Chrome's ``chrome://tracing``; ``.svg`` is a timeline for any browser.

        Raises:
            ValueError: If the path has neither of these suffixes.
            OSError: If the file can't be written.
        """
        path = Path(path)
        if path.suffix == ".json":
            from ._chrome_trace import written  # only needed for saving
        elif path.suffix == ".svg":
            from ._timeline import written
        else:
            raise ValueError(
                f"the suffix {path.suffix!r} doesn't say which format to write; call 'recorder.save(\"run.json\")' or "
                "'recorder.save(\"run.svg\")'"
            )
        path.write_text(written(self._recording()), encoding="utf-8")

    def __enter__(self) -> Self:
        """Start recording the current Trio run.

        Raises:
            RuntimeError: If the recorder is already recording, or there is no Trio run here.
        """
        if self._read is not None:
            raise RuntimeError(f"{self!r} is already recording; for another recording, make another Recorder")
        trio.lowlevel.add_instrument(self)
        self._begin()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        with suppress(KeyError):  # Trio removes an instrument if one of its methods fails
            trio.lowlevel.remove_instrument(self)
        self._end()

    def __repr__(self) -> str:
        state = "" if self._read is None else "recording, "
        return f"<Recorder: {state}{len(self._spans)} spans, {self.dropped} dropped>"

    # ---- what Trio calls

    def task_spawned(self, task: Task) -> None:
        """Called by Trio when a task has been made."""
        self._find(task)

    def task_scheduled(self, task: Task) -> None:
        """Called by Trio when a task is woken."""
        self._find(task).wake(self._now, self._running)

    def before_task_step(self, task: Task) -> None:
        """Called by Trio before a task runs."""
        self._running = self._find(task)
        self._running.begin_step(self._now)

    def after_task_step(self, task: Task) -> None:
        """Called by Trio when a task stops running."""
        if self._running is None:  # the instrument was added in the middle of the step
            self.before_task_step(task)
        live, self._running = self._live.get(id(task)), None
        if live is not None:  # otherwise the task has exited
            live.end_step(self._tick(), task.custom_sleep_data)

    def task_exited(self, task: Task) -> None:
        """Called by Trio when a task has ended."""
        live = self._find(task)
        live.end(self._now, live.ended)
        del self._live[id(task)]

    def after_run(self) -> None:
        """Called by Trio when the run has ended."""
        self._end()

    # ---- recording

    def _begin(self) -> None:
        """Begin recording the current run, after what was recorded before."""
        self._token = trio.lowlevel.current_trio_token()
        self._read = trio.lowlevel.current_clock().current_time
        self._zero = self._read() - self._now
        _start_listening(self)
        if trio.lowlevel.in_trio_task():
            self._running = self._find(trio.lowlevel.current_task())
            self._running.begin_step(self._now)

    def _end(self) -> None:
        _stop_listening(self)
        for live in self._live.values():
            live.end(self._now, "running")
        self._live.clear()
        self._running = self._token = self._read = None

    def _tick(self) -> float:
        if self._read is None:
            self._begin()
            assert self._read is not None
        self._now = self._read() - self._zero
        return self._now

    def _find(self, task: Task) -> _LiveTask:
        self._tick()
        live = self._live.get(id(task))
        return self._follow(task) if live is None else live

    def _follow(self, task: Task) -> _LiveTask:
        if self._token is not trio.lowlevel.current_trio_token():
            self._change_run()
        self._tracks += 1
        key = id(task)
        # If the task exits while this instrument isn't installed, we aren't told, and the task's id may be reused.
        alive = weakref.ref(task, partial(self._forget, key))
        name = _cut(task.name.rpartition("<locals>.")[2])
        live = self._live[key] = _LiveTask(self._tracks, name, self._now, self._keep, alive)
        return live

    def _forget(self, key: int, _gone: object) -> None:
        live = self._live.pop(key, None)
        if live is not None:
            live.end(self._now, "running")
            if not self._live:
                self._end()

    def _change_run(self) -> None:
        assert self._token is not None
        if call_soon(self._token, nothing):
            raise RuntimeError(f"{self!r} is recording another Trio run; for this one, make another Recorder")
        self._end()  # the recorder was removed from that run before its end
        self._begin()

    def _keep(self, span: Span) -> None:
        self._count += 1
        self._spans.append(span)

    def _begin_call(self, capture: ResultCapture[Any], task: Task) -> None:
        live = self._live.get(id(task))
        if live is None or live is not self._running:
            return  # the task belongs to another run, or the recorder was removed from this run
        call = _Call(self, live, _cut(call_of(capture.routine, capture.args)))
        capture._register(call, trio.lowlevel.current_trio_token())
        live.begin_call(call, self._tick(), is_item=isinstance(capture, ItemCapture))

    def _end_call(self, call: _Call, ended: str, detail: str) -> None:
        if self._running is call.live:
            call.live.end_call(call, self._tick(), ended, detail)

    def _recording(self) -> Recording:
        running = self._running
        if running and trio.lowlevel.in_trio_task() and self._live.get(id(trio.lowlevel.current_task())) is running:
            self._tick()  # this step may have begun long ago
        now = self._now
        live = [span for task in [*self._live.values()] for span in task.open_spans(now, "running")]
        return Recording([*self._spans, *live], now, self.dropped)


class _Call:
    """Captured work in progress. It is registered as a waiter of the result, and so finds out how the work ended."""

    __slots__ = ("begin", "is_row", "live", "name", "ran", "recorder")

    begin: float
    ran: float  # how many seconds the task had run before the call began
    is_row: bool

    def __init__(self, recorder: Recorder, live: _LiveTask, name: str) -> None:
        self.recorder = recorder
        self.live = live
        self.name = name

    def settled(self, result: ResultBase[Any], /) -> None:
        error = result.exception()
        if error is None:
            self.recorder._end_call(self, "value", "")
        elif result.cancelled():
            self.recorder._end_call(self, "cancelled", _cut(why_cancelled(error).strip(" ,")))
        else:
            self.recorder._end_call(self, "failure", _cut(shown(error)))


class _LiveTask:
    """What is known about a task that has not exited yet."""

    __slots__ = (
        *("alive", "begin", "calls", "captured", "detail", "ended", "is_asleep", "is_ready", "keep", "name", "ran"),
        *("since", "steps", "target", "track", "waits_for", "woken_by"),
    )

    def __init__(
        self, track: int, name: str, now: float, keep: Callable[[Span], None], alive: weakref.ref[Task]
    ) -> None:
        self.track = track
        self.name = name
        self.keep = keep
        self.alive = alive
        self.begin = self.since = now  # `since`: when the latest step or wait began
        self.ran = 0.0
        self.steps = 0
        self.calls: list[_Call] = []  # the calls in progress, each inside the one before it
        self.captured = False  # whether the task was started to run captured work
        self.ended = ""
        self.detail = ""
        self.is_ready = True  # woken, but not running yet
        self.is_asleep = False
        self.waits_for = ""
        self.target: Callable[[], ResultBase[Any] | trio.Event | None] = nothing
        self.woken_by: tuple[int, float] | None = None

    def begin_step(self, now: float) -> None:
        self.is_ready = self.is_asleep = False
        self.since = now
        self.steps += 1

    def end_step(self, now: float, sleep_data: object) -> None:
        self._cut_step(now)
        if not self.is_ready:  # otherwise it was woken before the step was over, as in a plain checkpoint
            self.is_asleep = True
            self.waits_for, self.target = _awaited(sleep_data)

    def wake(self, now: float, waker: _LiveTask | None) -> None:
        if self.is_asleep:
            self.keep(Span("wait", self.track, len(self.calls) + 1, self.since, now, self.waits_for))
            target = self.target()
            if waker is not None and target is not None and _is_done(target):
                self.woken_by = waker.track, now
            self.is_asleep = False
            self.target = nothing
        self.is_ready = True

    def begin_call(self, call: _Call, now: float, *, is_item: bool) -> None:
        self._cut_step(now)
        if is_item or (self.steps == 1 and not self.calls):
            self.captured = True
        call.is_row = self.captured and not self.calls
        call.begin, call.ran = now, self.ran
        self.calls.append(call)

    def end_call(self, call: _Call, now: float, ended: str, detail: str) -> None:
        self._cut_step(now)
        while self.calls[-1] is not call:  # a call whose end we didn't see
            self.keep(self._span_of(len(self.calls), now, ""))
            self.calls.pop()
        self.keep(self._span_of(len(self.calls), now, ended, detail))
        self.calls.pop()
        if call.is_row:
            self.ended, self.detail = ended, detail

    def end(self, now: float, ended: str) -> None:
        for span in self.open_spans(now, ended):
            self.keep(span)

    def open_spans(self, now: float, ended: str) -> Iterator[Span]:
        """Yield the spans that haven't ended yet, as if they ended now."""
        ran = self.ran
        if self.is_asleep:
            yield Span("wait", self.track, len(self.calls) + 1, self.since, now, self.waits_for)
        elif not self.is_ready:
            yield self._step(now)
            ran += now - self.since
        for depth in range(len(self.calls), 0, -1):
            yield self._span_of(depth, now, "running")
        yield Span(
            *("task", self.track, 0, self.begin, now, self.name, ended, self.detail, ran),
            is_row=not self.captured and self.name not in _OF_TRIO,
        )

    def _cut_step(self, now: float) -> None:
        self.keep(self._step(now))
        self.ran += now - self.since
        self.since = now
        self.woken_by = None

    def _step(self, now: float) -> Span:
        return Span("run", self.track, len(self.calls) + 1, self.since, now, "running", woken_by=self.woken_by)

    def _span_of(self, depth: int, now: float, ended: str, detail: str = "") -> Span:
        call = self.calls[depth - 1]
        return Span(
            "call", self.track, depth, call.begin, now, call.name, ended, detail, self.ran - call.ran, call.is_row
        )


def _awaited(sleep_data: object) -> tuple[str, Callable[[], ResultBase[Any] | trio.Event | None]]:
    """Return what a sleeping task is waiting for: as text, and as a weak reference to that result or event, if any."""
    if isinstance(sleep_data, ResultBase):
        return _cut(f"waiting for {sleep_data._name()}"), weakref.ref(cast("ResultBase[object]", sleep_data))
    if isinstance(sleep_data, CountDown):
        count = len(sleep_data.results)
        return f"waiting for {count} result{'s' * (count != 1)}", weakref.ref(sleep_data.event)
    if isinstance(sleep_data, Arrivals) and sleep_data._event is not None:
        return "waiting for the next result", weakref.ref(sleep_data._event)
    return "waiting", nothing


def _is_done(target: ResultBase[Any] | trio.Event) -> bool:
    return target.is_set() if isinstance(target, trio.Event) else target.is_done()


def _cut(text: str) -> str:
    return on_one_line(text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…")


# ---- the hook in captures

_recording: tuple[Recorder, ...] = ()  # the recorders that are recording, in any thread
_changing = threading.Lock()


def _start_listening(recorder: Recorder) -> None:
    global _recording  # noqa: PLW0603 # there is one hook for the whole process
    with _changing:
        _recording = (*_recording, recorder)
        _capture.on_begin = _begin_call


def _stop_listening(recorder: Recorder) -> None:
    global _recording  # noqa: PLW0603 # the same
    with _changing:
        _recording = tuple(other for other in _recording if other is not recorder)
        _capture.on_begin = _begin_call if _recording else None


@enable_ki_protection
def _begin_call(capture: ResultCapture[Any]) -> None:
    task = trio.lowlevel.current_task()
    for recorder in _recording:
        recorder._begin_call(capture, task)
