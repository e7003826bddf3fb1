"""The recorder: what it records, what it writes, and what it doesn't keep alive."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import trio
import trio.testing
from _helpers import Boom, in_foreign_thread

from triores import Future, ResultCapture, _capture, _timeline, amap, as_completed, open_amap, wait_all
from triores.trace import Recorder, Span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def record(main: Callable[[], Awaitable[object]], limit: int = 100_000) -> Recorder:
    """Record a run with a mock clock."""
    recorder = Recorder(limit)
    trio.run(main, instruments=[recorder], clock=trio.testing.MockClock(autojump_threshold=0))
    return recorder


def spans(recorder: Recorder, kind: str, name: str = "") -> list[Span]:
    found = recorder._recording().spans
    return [span for span in found if span.kind == kind and name in span.name]


async def succeed(seconds: float) -> str:
    await trio.sleep(seconds)
    return "x"


async def fail(seconds: float) -> None:
    await trio.sleep(seconds)
    raise ValueError(seconds)


# ---- what is recorded


def test_a_task_is_recorded_with_its_beginning_its_end_its_waits_and_its_runs() -> None:
    async def main() -> None:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(succeed, 2)

    recorder = record(main)
    [task] = spans(recorder, "task", "succeed")
    assert (task.begin, task.end, task.ended) == (1, 3, "")
    steps = [span for span in recorder._recording().spans if span.track == task.track and span.kind != "task"]
    assert [(span.kind, span.begin, span.end) for span in steps] == [("run", 1, 1), ("wait", 1, 3), ("run", 3, 3)]


def test_the_time_until_a_woken_task_gets_its_turn_is_not_a_wait() -> None:
    async def hold_the_loop() -> None:
        await trio.sleep(1)
        clock.jump(5)
        await trio.sleep(1)
        clock.jump(2)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_the_loop, name="first")
            nursery.start_soon(trio.sleep, 1, name="second")

    recorder, clock = Recorder(), trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, instruments=[recorder], clock=clock)
    [first], [second] = spans(recorder, "task", "first"), spans(recorder, "task", "second")
    assert first.ran == 7
    assert second.ran == 0
    waits = {(span.track, span.begin, span.end) for span in spans(recorder, "wait")}
    assert {(first.track, 0, 1), (second.track, 0, 1), (first.track, 6, 7)} < waits


def test_the_running_time_of_a_call_is_the_sum_of_its_steps() -> None:
    async def work() -> None:
        clock.jump(2)
        await trio.sleep(1)
        clock.jump(3)

    async def main() -> None:
        clock.jump(10)
        await ResultCapture(work).run()
        clock.jump(20)

    recorder, clock = Recorder(), trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, instruments=[recorder], clock=clock)
    assert [(span.begin, span.end, span.ran) for span in spans(recorder, "call")] == [(10, 16, 5)]
    assert [span.ran for span in spans(recorder, "task", "main")] == [35]


def test_a_task_that_is_ready_is_neither_running_nor_waiting() -> None:
    async def main() -> None:
        future = Future[int]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(future.wait_done)
            await trio.sleep(1)
            future.set_result(1)
            clock.jump(2)
            [task] = spans(recorder, "task", "wait_done")
            states = [
                (span.kind, span.begin, span.end) for span in recorder._recording().spans if span.track == task.track
            ]
            assert states == [("run", 0, 0), ("wait", 0, 1), ("task", 0, 3)]
            await trio.sleep(1)
            nursery.start_soon(trio.lowlevel.checkpoint)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            assert spans(recorder, "wait", "waiting")[-1].end <= 4

    recorder, clock = Recorder(), trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, instruments=[recorder], clock=clock)


def test_a_checkpoint_is_not_a_wait() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()

    recorder = record(main)
    [task] = spans(recorder, "task", "main")
    assert [span.kind for span in recorder._recording().spans if span.track == task.track] == ["run", "run", "task"]


def test_captured_work_shows_how_it_ended() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, succeed, 1)
            ResultCapture.start_soon(nursery, fail, 2, suppress_exception=True)
            limit = trio.move_on_after(3)
            ResultCapture.start_soon(nursery, trio.sleep, 9, cancel_scope=limit)
            stopped = ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope())
            await trio.sleep(4)
            assert stopped.cancel_scope is not None
            stopped.cancel_scope.cancel(reason="enough")

    recorder = record(main)
    calls = {span.name.rpartition(".")[2]: span for span in spans(recorder, "call")}
    assert {name: (span.end, span.ended) for name, span in calls.items()} == {
        "succeed(1)": (1, "value"),
        "fail(2)": (2, "failure"),
        "sleep(9)": (3, "cancelled"),
        "sleep_forever()": (4, "cancelled"),
    }
    assert calls["fail(2)"].detail == "ValueError(2)"
    if hasattr(trio.Cancelled, "source"):
        assert calls["sleep(9)"].detail == "(source: deadline)"
        assert calls["sleep_forever()"].detail == "(source: explicit), reason: 'enough'"
    for call in calls.values():
        [task] = [span for span in spans(recorder, "task") if span.track == call.track]
        assert (task.ended, task.detail) == (call.ended, call.detail)
        assert call.is_row
        assert not task.is_row


async def map_all(items: list[float]) -> None:
    await amap(succeed, items, limit=2)


async def read_all(items: list[float]) -> None:
    async with open_amap(succeed, items, limit=2) as results:
        async for _ in results:
            pass


async def add_all(items: list[float]) -> None:
    async with open_amap(succeed, limit=2) as results:
        await trio.testing.wait_all_tasks_blocked()
        for item in items:
            results.add(item)
        async for _ in results:
            pass


@pytest.mark.parametrize("use", [map_all, read_all, add_all])
def test_each_item_of_a_map_is_recorded_as_a_call(use: Callable[[list[float]], Awaitable[None]]) -> None:
    recorder = record(partial(use, [3, 1, 2]))
    items = {span.name: (span.begin, span.end, span.ended, span.is_row) for span in spans(recorder, "call")}
    assert items == {
        "succeed(3)": (0, 3, "value", True),
        "succeed(1)": (0, 1, "value", True),
        "succeed(2)": (1, 3, "value", True),
    }
    assert [task.is_row for task in spans(recorder, "task", "succeed")] == [False] * 2


def test_a_recorded_call_of_amap_fails_as_usual() -> None:
    error = ValueError()

    async def main() -> None:
        async def raise_it(_item: int) -> None:
            raise error

        with pytest.RaisesGroup(pytest.RaisesExc(ValueError, check=lambda raised: raised is error)):
            await amap(raise_it, [1])

    assert [span.ended for span in spans(record(main), "call")] == ["failure"]


def test_a_capture_run_in_the_middle_of_a_task_has_no_row_of_its_own() -> None:
    async def main() -> None:
        await trio.sleep(1)
        capture = ResultCapture(succeed, 2)
        await capture.run()

    recorder = record(main)
    [call], [task] = spans(recorder, "call"), spans(recorder, "task", "main")
    assert (call.track, call.depth, call.ended, call.is_row) == (task.track, 1, "value", False)
    assert (task.ended, task.is_row) == ("", True)


def test_captures_inside_captures_are_nested() -> None:
    async def inner() -> None:
        await trio.sleep(1)
        await ResultCapture(succeed, 1).run()
        await trio.sleep(1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, inner)

    recorder = record(main)
    assert [(span.begin, span.end, span.depth, span.is_row) for span in spans(recorder, "call")] == [
        (1, 2, 2, False),
        (0, 3, 1, True),
    ]


def test_a_wait_shows_what_its_task_waits_for() -> None:
    async def main() -> None:
        first, second = Future[int](), Future[int]()

        async def follow() -> None:
            async for _ in as_completed([first, second]):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.wait_done)
            nursery.start_soon(wait_all, [first, second])
            nursery.start_soon(follow)
            capture = ResultCapture.start_soon(nursery, succeed, 1)
            nursery.start_soon(capture.wait_done)
            await trio.sleep(1)
            first.set_result(1)
            await trio.sleep(1)
            second.set_result(2)

    recorder = record(main)
    waits = {(span.name, span.begin, span.end) for span in spans(recorder, "wait", "waiting for")}
    assert waits == {
        ("waiting for Future", 0, 1),
        ("waiting for 2 results", 0, 2),
        ("waiting for the next result", 0, 1),
        ("waiting for the next result", 1, 2),
        (f"waiting for {succeed.__qualname__}", 0, 1),
    }


def test_arrows_point_from_the_task_that_settles_a_result_to_its_waiters() -> None:
    async def settle(future: Future[int]) -> None:
        await trio.sleep(1)
        future.set_result(1)

    async def wait_and_sleep(future: Future[int]) -> None:
        await future.wait_done()
        await trio.sleep(1)

    async def main() -> None:
        future = Future[int]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle, future)
            nursery.start_soon(wait_and_sleep, future)
            nursery.start_soon(wait_all, [future])
            nursery.start_soon(trio.sleep, 1, name="bystander")

    recorder = record(main)
    [settler] = spans(recorder, "task", "settle")
    woken = {span.track for span in spans(recorder, "run") if span.woken_by == (settler.track, 1)}
    assert woken == {spans(recorder, "task", name)[0].track for name in ("wait_and_sleep", "wait_all")}
    assert len([span for span in spans(recorder, "run") if span.woken_by]) == 2


def test_no_arrow_points_to_a_cancelled_wait() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Future[int]().wait_done)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    recorder = record(main)
    assert len(spans(recorder, "wait", "waiting for Future")) == 1
    assert [span for span in spans(recorder, "run") if span.woken_by] == []


def test_if_a_result_is_settled_outside_any_task_there_is_no_arrow() -> None:
    future = Future[int]()

    class Settler(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            if future.statistics().waiters:
                future.set_result(1)

    async def main() -> None:
        trio.lowlevel.add_instrument(Settler())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(future.wait_done)
            await trio.sleep(1)

    recorder = record(main)
    assert len(spans(recorder, "wait", "waiting for Future")) == 1
    assert [span for span in spans(recorder, "run") if span.woken_by] == []


# ---- the ways to use it


def test_a_run_is_recorded_from_when_the_instrument_is_added_until_it_is_removed() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 3, name="known before")
            await trio.sleep(1)
            trio.lowlevel.add_instrument(recorder)
            await trio.sleep(1)
            await ResultCapture(succeed, 1).run()
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(recorder)
            ResultCapture.start_soon(nursery, succeed, 1)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    gc.collect()  # frees the task, whose end the recorder hasn't seen
    assert [(span.begin, span.end) for span in spans(recorder, "call")] == [(1, 2)]
    [task] = spans(recorder, "task", "main")
    assert (task.begin, task.end, task.ended) == (0, 2, "running")
    assert len(spans(recorder, "task", "known before")) == 1


def test_a_recorder_can_record_a_block() -> None:
    recorder = Recorder()

    async def main() -> None:
        await ResultCapture(succeed, 1).run()
        with recorder as entered:
            assert entered is recorder
            assert repr(recorder) == "<Recorder: recording, 0 spans, 0 dropped>"
            await ResultCapture(succeed, 2).run()
        await ResultCapture(succeed, 3).run()
        with recorder:
            await ResultCapture(succeed, 4).run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [(span.begin, span.end) for span in spans(recorder, "call")] == [(0, 2), (2, 6)]
    assert [(span.begin, span.end, span.ended) for span in spans(recorder, "task", "main")] == [
        (0, 2, "running"),
        (2, 6, "running"),
    ]


async def test_a_recorder_cannot_be_entered_while_it_is_recording() -> None:
    again = pytest.raises(RuntimeError, match="is already recording; for another recording, make another Recorder")
    with Recorder() as recorder, again:
        recorder.__enter__()


def test_a_recorder_cannot_be_entered_outside_a_trio_run() -> None:
    recorder = Recorder()
    with pytest.raises(RuntimeError):
        recorder.__enter__()
    assert repr(recorder) == "<Recorder: 0 spans, 0 dropped>"


async def test_a_block_ends_quietly_if_the_instrument_was_removed_inside_it() -> None:
    with Recorder() as recorder:
        trio.lowlevel.remove_instrument(recorder)


def test_the_recording_of_a_second_run_is_appended() -> None:
    recorder = Recorder()
    for _ in range(2):
        trio.run(succeed, 1, instruments=[recorder], clock=trio.testing.MockClock(autojump_threshold=0))
    assert [(span.begin, span.end) for span in spans(recorder, "task", "succeed")] == [(0, 1), (1, 2)]


def test_a_recorder_removed_from_one_run_can_record_the_next() -> None:
    recorder = Recorder()

    async def main() -> None:
        trio.lowlevel.add_instrument(recorder)
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(recorder)

    trio.run(main)
    trio.run(succeed, 0, instruments=[recorder])
    assert [span.ended for span in spans(recorder, "task", "succeed")] == [""]


async def test_a_recorder_records_one_run_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    with Recorder() as recorder:
        await in_foreign_thread(lambda: trio.run(succeed, 0, instruments=[recorder]))
        await trio.lowlevel.checkpoint()
    assert "is recording another Trio run; for this one, make another Recorder" in caplog.text
    assert spans(recorder, "task", "succeed") == []


async def test_recorders_of_two_threads_record_their_own_runs() -> None:
    other = Recorder()

    async def elsewhere() -> None:
        await ResultCapture(succeed, 0).run()

    with Recorder() as recorder:
        await in_foreign_thread(lambda: trio.run(elsewhere, instruments=[other]))
        await ResultCapture(trio.lowlevel.checkpoint).run()
    assert [span.name.rpartition(".")[2] for span in spans(recorder, "call")] == ["checkpoint()"]
    assert [span.name for span in spans(other, "call")] == ["succeed(0)"]


def test_a_recorder_listens_to_captures_only_while_it_records() -> None:
    async def main() -> None:
        assert _capture.on_begin is not None
        with Recorder():
            pass
        assert _capture.on_begin is not None

    gc.collect()  # frees recorders that other tests have removed from their run
    assert _capture.on_begin is None
    record(main)
    assert _capture.on_begin is None


def test_a_task_that_ended_while_nothing_was_recorded_is_not_mistaken_for_another() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            trio.lowlevel.add_instrument(recorder)
            nursery.start_soon(trio.lowlevel.checkpoint, name="unseen")
            await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(recorder)
        gc.collect()
        trio.lowlevel.add_instrument(recorder)
        assert [live.name for live in recorder._live.values()].count("unseen") == 0

    trio.run(main)


def test_a_call_that_ended_while_nothing_was_recorded_does_not_hide_the_end_of_the_outer_call() -> None:
    recorder = Recorder()

    async def inner() -> None:
        await trio.sleep(2)

    async def outer() -> None:
        await ResultCapture(inner).run()
        await ResultCapture(succeed, 1).run()
        trio.lowlevel.add_instrument(recorder)
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, outer)
            await trio.sleep(1)
            trio.lowlevel.remove_instrument(recorder)

    trio.run(main, instruments=[recorder], clock=trio.testing.MockClock(autojump_threshold=0))
    assert {(span.name, span.ended) for span in spans(recorder, "call")} == {("inner()", ""), ("outer()", "value")}


def test_importing_triores_does_not_load_the_recorder() -> None:
    code = "import sys, triores; sys.exit(bool({'triores.trace', 'triores._timeline'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what it keeps alive


def test_at_most_limit_spans_are_kept_and_the_oldest_are_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_amap(succeed, range(1000), limit=10) as results:
            async for _ in results:
                pass

    recorder = record(main, limit=50)
    assert len(recorder._recording().spans) == 50
    assert recorder.dropped > 1000
    assert repr(recorder) == f"<Recorder: 50 spans, {recorder.dropped} dropped>"
    recorder.save(tmp_path / "run.json")
    assert check_format(tmp_path / "run.json")["otherData"] == {"dropped spans": recorder.dropped}
    recorder.save(tmp_path / "run.svg")
    assert f"{recorder.dropped:,} older spans were dropped" in texts(tmp_path / "run.svg")


def test_names_and_details_are_short() -> None:
    async def take(text: str) -> None:
        raise ValueError(text)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, take, "x" * 10**6, suppress_exception=True)
            nursery.start_soon(trio.sleep, 0, name="y" * 10**6)

    for span in record(main)._recording().spans:
        assert len(span.name) <= 100
        assert len(span.detail) <= 100


class Value:
    pass


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython frees objects by counting references")
def test_tasks_results_and_values_are_not_kept_alive() -> None:
    gone: list[weakref.ref[Any]] = []

    async def work(value: Value) -> Value:
        gone.extend([weakref.ref(value), weakref.ref(trio.lowlevel.current_task())])
        await trio.lowlevel.checkpoint()
        return value

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            capture = ResultCapture.start_soon(nursery, work, Value())
            gone.append(weakref.ref(capture))
            nursery.start_soon(capture.wait_done)
            await capture.wait_done()
            del capture
        await trio.lowlevel.checkpoint()
        assert [ref() for ref in gone] == [None] * 3  # while it is still recording

    gc.disable()
    try:
        record(main)
    finally:
        gc.enable()
    assert len(gone) == 3


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython frees objects by counting references")
def test_a_removed_recorder_does_not_keep_results_that_tasks_waited_for() -> None:
    recorder = Recorder()

    async def wait_and_sleep(future: Future[int]) -> None:
        await future.wait_done()
        del future
        await trio.sleep_forever()

    async def main() -> None:
        future = Future[int]()
        gone = weakref.ref(future)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_and_sleep, future)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(recorder)
            future.set_result(1)
            del future
            await trio.testing.wait_all_tasks_blocked()
            assert gone() is None
            nursery.cancel_scope.cancel()

    trio.run(main, instruments=[recorder])


# ---- the trace event format


def check_format(path: Path) -> dict[str, Any]:
    """Check a file against those parts of the trace event format that the recorder writes."""
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    stacks: dict[int, list[tuple[int, int]]] = {}
    arrows: dict[int, list[dict[str, Any]]] = {}
    named = {event["tid"] for event in written["traceEvents"] if event["name"] == "thread_name"}
    for event in written["traceEvents"]:
        assert isinstance(event["name"], str)
        assert (event["pid"], type(event["tid"])) == (1, int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            assert len(event["args"]) == 1
            continue
        begin = nanoseconds(event["ts"])
        assert event["tid"] in named
        assert isinstance(event["cat"], str)
        if event["ph"] == "X":
            end = begin + nanoseconds(event["dur"])
            assert end >= begin >= 0
            stack = stacks.setdefault(event["tid"], [])
            while stack and stack[-1][1] <= begin and stack[-1][1] < end:
                stack.pop()
            assert not stack or stack[-1][0] <= begin <= end <= stack[-1][1], "slices overlap"
            stack.append((begin, end))
        else:
            arrows.setdefault(event["id"], []).append(event)
    for start, finish in arrows.values():
        assert (start["ph"], finish["ph"], finish["bp"]) == ("s", "f", "e")
        assert (start["name"], start["cat"]) == (finish["name"], finish["cat"])
        assert start["ts"] <= finish["ts"]
        for arrow in (start, finish):
            steps = [event for event in written["traceEvents"] if event.get("cat") == "run"]
            slices = [event for event in steps if event["tid"] == arrow["tid"]]
            assert any(holds(event, arrow["ts"]) for event in slices), "an arrow begins or ends outside all slices"
    return written


def nanoseconds(microseconds: float) -> int:
    exact = round(microseconds * 1000)
    assert microseconds == exact / 1000
    return exact


def holds(event: dict[str, Any], time: float) -> bool:
    return bool(event["ts"] <= time <= event["ts"] + event["dur"] + 1e-6)


async def busy() -> None:
    """A run with a bit of everything."""
    future = Future[int]()

    async def settle() -> None:
        await ResultCapture(succeed, 0.001).run()
        future.set_result(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        capture = ResultCapture.start_soon(nursery, fail, 0.002, suppress_exception=True)
        for result in (future, capture):
            nursery.start_soon(result.wait_done)
            nursery.start_soon(wait_all, [future, capture])
        ResultCapture.start_soon(nursery, trio.sleep, 9, cancel_scope=trio.move_on_after(0.003))
        async with open_amap(succeed, [0.001] * 30, limit=4) as results:
            async for _ in results:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("clock", [None, trio.testing.MockClock(autojump_threshold=0)], ids=["real", "mock"])
def test_the_json_is_in_the_trace_event_format(clock: trio.abc.Clock | None, tmp_path: Path) -> None:
    recorder = Recorder()
    trio.run(busy, instruments=[recorder], clock=clock)
    recorder.save(tmp_path / "run.json")
    events = check_format(tmp_path / "run.json")["traceEvents"]
    kinds = {event["ph"] for event in events}
    assert kinds == {"M", "X", "s", "f"}
    assert sum(event["ph"] == "s" for event in events) >= 4
    ended = {event["args"].get("ended") for event in events if event["ph"] == "X" and event["cat"] == "call"}
    assert ended == {"value", "failure", "cancelled"}


def test_arrows_come_in_pairs_whatever_was_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        future = Future[int]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(future.wait_done)
            await trio.sleep(1)
            future.set_result(1)
            await trio.sleep(1)

    for limit in range(1, record(main)._count):
        record(main, limit).save(tmp_path / "run.json")
        check_format(tmp_path / "run.json")


async def test_saving_a_recording_that_has_ended_does_not_begin_another_one(tmp_path: Path) -> None:
    with Recorder() as recorder:
        pass
    recorder.save(tmp_path / "run.json")
    assert "recording" not in repr(recorder)


async def test_a_recording_can_be_saved_while_the_run_continues(tmp_path: Path, nursery: trio.Nursery) -> None:
    with Recorder() as recorder:
        ResultCapture.start_soon(nursery, trio.sleep_forever)
        nursery.start_soon(Future[int]().wait_done)
        await trio.testing.wait_all_tasks_blocked()
        recorder.save(tmp_path / "run.json")
        recorder.save(str(tmp_path / "run.svg"))
    nursery.cancel_scope.cancel()
    slices = [event for event in check_format(tmp_path / "run.json")["traceEvents"] if event["ph"] == "X"]
    [call] = [event for event in slices if event["cat"] == "call"]
    assert call["args"]["ended"] == "running"
    assert "waiting for Future" in {event["name"] for event in slices}
    assert "… 3 running" in texts(tmp_path / "run.svg")


# ---- the timeline


def texts(path: Path) -> list[str]:
    """The texts of an SVG file, which has to be well-formed."""
    found = ["".join(element.itertext()) for element in drawn(path) if element.tag.endswith("}text")]
    return [part.strip() for text in found for part in (text, *text.split("\u2002"))]


def drawn(path: Path) -> list[ET.Element]:
    return list(ET.fromstring(path.read_text(encoding="utf-8")).iter())


def titles(path: Path) -> list[str]:
    return [element.text or "" for element in drawn(path) if element.tag.endswith("}title")]


def test_the_timeline_has_a_row_drawn_to_scale_for_each_task_or_call(tmp_path: Path) -> None:
    async def main() -> None:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            ResultCapture.start_soon(nursery, succeed, 3)
            ResultCapture.start_soon(nursery, fail, 1, suppress_exception=True)

    path = tmp_path / "run.svg"
    record(main).save(path)
    bars = [element.attrib for element in drawn(path) if element.tag.endswith("}rect")]
    assert {(bar["x"], bar["width"], bar["fill"]) for bar in bars} == {
        ("0.000%", "100.000%", "#4a7dc4"),
        ("25.000%", "75.000%", "#1f8a55"),
        ("25.000%", "25.000%", "#c94a4a"),
    }
    assert {"3 tasks and calls in 4 s", "✓ 1 returned", "✗ 1 failed", "● 1 not captured"} < {*texts(path)}
    assert {"succeed(3)", "✓ 3 s", "0 s", "1 s", "2 s", "3 s", "4 s"} < {*texts(path)}
    assert "fail(1)\nfailed ValueError(1)\n1 s to 2 s: took 1 s, ran for 0 s" in titles(path)


@pytest.mark.parametrize(("seconds", "shown"), [(0.000999, "999 µs"), (0.001, "1 ms"), (0.999, "999 ms"), (1, "1 s")])
def test_a_time_is_shown_in_the_unit_that_fits(seconds: float, shown: str, tmp_path: Path) -> None:
    record(partial(succeed, seconds)).save(tmp_path / "run.svg")
    assert f"1 task or call in {shown}" in texts(tmp_path / "run.svg")


def test_the_timeline_begins_with_the_first_row_that_was_kept(tmp_path: Path) -> None:
    count = len(record(partial(succeed, 1))._recording().spans)
    recorder = Recorder(count)
    for _ in range(2):
        trio.run(succeed, 1, instruments=[recorder], clock=trio.testing.MockClock(autojump_threshold=0))
    recorder.save(tmp_path / "run.svg")
    bars = [element.attrib for element in drawn(tmp_path / "run.svg") if element.tag.endswith("}rect")]
    assert [(bar["x"], bar["width"]) for bar in bars] == [("0.000%", "100.000%")]
    assert f"{count} older spans were dropped" in texts(tmp_path / "run.svg")


def test_hundreds_of_rows_become_one_group_per_function(tmp_path: Path) -> None:
    async def one(item: int) -> None:
        await trio.sleep(1)
        if item % 10 == 0:
            raise ValueError

    async def main() -> None:
        async with open_amap(one, range(400), limit=20, suppress_exception=True) as results:
            async for _ in results:
                pass

    path = tmp_path / "run.svg"
    record(main).save(path)
    assert [title for title in titles(path) if "at once" in title] == [
        "one: 360 returned, 40 failed; at most 20 at once"
    ]
    assert "one, 20 at once" in texts(path)
    outlines = [element.attrib["d"] for element in drawn(path) if element.tag.endswith("}path")]
    assert len(outlines) == 2
    levels = [20 - float(level) for level in re.findall(r",([\d.]+)", outlines[0])]
    assert max(levels) == pytest.approx(18)
    levels = [20 - float(level) for level in re.findall(r",([\d.]+)", outlines[1])]
    assert max(levels) == pytest.approx(20)
    assert len(drawn(path)) < 100


def test_a_group_shows_the_average_number_running_in_each_step() -> None:
    axis = _timeline._Axis(0, _timeline.BINS)
    rows = [Span("call", 1, 1, *times, "f") for times in [(0.5, 1.75), (1, 3), (2, 2.25)]]
    assert _timeline._active_per_bin(rows, axis)[:5] == pytest.approx([0.5, 1.75, 1.25, 0, 0])


def test_functions_without_room_for_a_row_are_combined_into_one_group(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(trio.sleep, 1, name=f"task {number}")

    path = tmp_path / "run.svg"
    record(main).save(path)
    assert "262 others: 262 not captured; at most 262 at once" in titles(path)
    assert len(titles(path)) == 40


def test_names_are_escaped(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(trio.sleep, 1, name=f"<&\"'>({number})")
            nursery.start_soon(trio.sleep, 1, name="&" * 99)

    path = tmp_path / "run.svg"
    record(main).save(path)
    assert "…" + "&" * 31 in texts(path)


def test_a_long_name_loses_its_module_or_the_end_of_its_arguments(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1, name="trio._highlevel_serve_listeners._run_handler")
            nursery.start_soon(trio.sleep, 1, name="a_package.a_module.a_function_with_a_long_name")
            nursery.start_soon(trio.sleep, 1, name="fetch('http://localhost/a/long/path')")

    path = tmp_path / "run.svg"
    record(main).save(path)
    assert {"…_run_handler", "…a_function_with_a_long_name", "fetch('http://localhost/a/long/…"} < {*texts(path)}


@pytest.mark.parametrize("character", ["\n", "\x1b", "\udc80"])
def test_names_may_have_characters_that_cannot_be_printed(character: str, tmp_path: Path) -> None:
    async def fail() -> None:
        raise Boom(name)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1, name=name)
            ResultCapture.start_soon(nursery, fail, name=name, suppress_exception=True)

    name = f"a{character}name"
    recorder = record(main)
    recorder.save(tmp_path / "run.svg")
    recorder.save(tmp_path / "run.json")
    check_format(tmp_path / "run.json")
    assert "a name" in texts(tmp_path / "run.svg")


def test_an_empty_recording_can_be_saved(tmp_path: Path) -> None:
    Recorder().save(tmp_path / "run.svg")
    assert "0 tasks and calls in 0 s" in texts(tmp_path / "run.svg")
    assert [mark.attrib["x"] for mark in drawn(tmp_path / "run.svg") if mark.text == "0 s"] == ["0.000%"]
    Recorder().save(tmp_path / "run.json")
    check_format(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0.00042, ["0 s", "100 µs", "200 µs", "300 µs", "400 µs"]),
        (0.045, ["0 s", "10 ms", "20 ms", "30 ms", "40 ms"]),
        (90, ["0 s", "20 s", "40 s", "60 s", "80 s"]),
        (2400, ["0 s", "500 s", "1,000 s", "1,500 s", "2,000 s"]),
    ],
)
def test_the_axis_has_round_numbers(seconds: float, marks: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        await trio.sleep(seconds)

    record(main).save(tmp_path / "run.svg")
    shown = dict.fromkeys(texts(tmp_path / "run.svg"))
    assert [text for text in shown if re.fullmatch(r"[\d,.]+ (s|ms|µs)", text)] == marks


# ---- wrong arguments


def test_an_unknown_suffix_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the suffix '\.png' doesn't say which format .* 'recorder.save\(\"run.json\"\)'"
    ):
        Recorder().save(tmp_path / "run.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "text"), [(0, "0"), (-1, "-1"), pytest.param(-(10**400), r"-10+\.\.\.0+", id="huge")]
)
def test_a_limit_below_one_raises_an_error(limit: int, text: str) -> None:
    with pytest.raises(ValueError, match=f"^the limit of a Recorder must be at least 1, not {text}; it is the number"):
        Recorder(limit)


def test_a_limit_may_be_larger_than_any_list() -> None:
    assert repr(Recorder(10**400)) == "<Recorder: 0 spans, 0 dropped>"


@pytest.mark.parametrize("limit", [True, 1.5, "1", None])
def test_a_limit_that_is_not_an_integer_raises_an_error(limit: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^the limit of a Recorder must be an integer, not .*; it is the number of spans"
    ):
        Recorder(limit)
