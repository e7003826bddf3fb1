"""Ctrl-C at each line of the calls that change a result: it takes effect either before the change or after it.

The tests call the signal handler that Trio installed, with the frame that is about to run that line, just as Python
would. If the code is protected, Trio holds the interrupt back until the main task's next checkpoint.
"""

from __future__ import annotations

import gc
import linecache
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import Boom, is_free, leaf_types
from trio.testing import wait_all_tasks_blocked

import triores
from triores import (
    Future,
    ResultCapture,
    amap,
    as_completed,
    first_success,
    open_amap,
    race,
    results_to_channel,
    wait_all,
    wait_any,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import FrameType

PACKAGE = str(Path(triores.__file__).parent)
EVENTS = trio.Event.set.__code__.co_filename


class Interrupter:
    """Presses Ctrl-C just before the n-th line that runs in triores, or in Trio's events, while it is active.

    Each line is counted only once.
    """

    def __init__(self) -> None:
        self.active = False
        self.left_out: tuple[str, ...] = ()  # lines that begin with these aren't counted
        self.start(1)

    def start(self, line: int) -> None:
        self.left = line  # how many more lines run until then
        self.seen = set[tuple[object, int]]()
        self.pressed_in: str | None = None

    @contextmanager
    def pressing(self) -> Generator[None]:
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        self.active = True
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_code.co_filename.startswith(PACKAGE):
                frame.f_trace = self.trace  # the frame was entered before tracing began
        sys.settrace(self.trace)

    def end(self) -> None:
        sys.settrace(None)
        self.active = False

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith((PACKAGE, EVENTS)):
            return None
        line = (frame.f_code, frame.f_lineno)
        if self.active and event == "line" and line not in self.seen and self.pressed_in is None:
            self.seen.add(line)
            if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(self.left_out):
                return self.trace
            self.left -= 1
            if not self.left:
                self.pressed_in = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler)
                handler(signal.SIGINT, frame)
        return self.trace


def at_each_line(program: Callable[[Interrupter], Awaitable[None]]) -> None:
    """Run a program in the main task once for each of its lines, with Ctrl-C at that line, which must never be lost."""
    tracing = sys.gettrace()
    sys.settrace(None)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # the only handler that Trio replaces
    try:
        trio.run(at_each_line_here, program)
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.settrace(tracing)


async def at_each_line_here(program: Callable[[Interrupter], Awaitable[None]]) -> None:
    interrupter = Interrupter()
    for line in range(1, 500):
        interrupter.start(line)
        arrived = False
        try:
            await program(interrupter)
            await trio.lowlevel.checkpoint()  # raises what was held back
        except BaseException as error:
            if set(leaf_types(error)) != {KeyboardInterrupt}:
                raise
            arrived = True
        assert arrived == (interrupter.pressed_in is not None), f"Ctrl-C was lost in {interrupter.pressed_in}"
        if not arrived:
            assert line > 3, "hardly anything was traced"
            return
    pytest.fail("the program never ran to its end")


def raise_boom(_result: object) -> None:
    raise Boom


def must_set(future: Future[int]) -> None:
    with future.must_set():
        pass


def must_set_and_fail(future: Future[int]) -> None:
    with future.must_set():
        raise Boom


SETTLING: dict[str, Callable[[Future[int]], object]] = {
    "set_result": lambda future: future.set_result(3),
    "set_exception": lambda future: future.set_exception(Boom()),
    "set_outcome": lambda future: future.set_outcome(outcome.Value(3)),
    "cancel": lambda future: future.cancel(),
    "must_set": must_set,
    "must_set and fail": must_set_and_fail,
}


@pytest.mark.parametrize("name", SETTLING)
def test_ctrl_c_while_a_future_is_settled_takes_effect_before_or_after_the_change(name: str) -> None:
    async def program(interrupter: Interrupter) -> None:
        future = Future[int]()
        calls: list[object] = []
        async with trio.open_nursery() as nursery:
            waits = [
                ResultCapture.start_soon(nursery, wait) for wait in waits_for(future, several=name == "set_result")
            ]
            await wait_all_tasks_blocked()
            for callback in (calls.append, id, calls.append):
                future.add_done_callback(callback)
            try:
                with interrupter.pressing():
                    SETTLING[name](future)
            except Boom:
                pass
            finally:
                with trio.CancelScope(shield=True):
                    await check(future, calls, waits)
                nursery.cancel_scope.cancel()

    async def check(future: Future[int], calls: list[object], waits: list[ResultCapture[object]]) -> None:
        try:
            await wait_all_tasks_blocked()
        except KeyboardInterrupt:  # it was held back until here
            await check(future, calls, waits)
            raise
        if future.is_done():
            assert calls == [future, future]
            assert all(wait.is_done() for wait in waits)
            assert is_free(future)
        else:
            assert not calls
            assert not any(wait.is_done() for wait in waits)
            future.set_result(4)
            assert calls == [future, future]
            await wait_all(waits)

    at_each_line(program)


def waits_for(future: Future[int], *, several: bool) -> list[Callable[[], Awaitable[object]]]:
    if not several:
        return [future.wait_done, lambda: wait_any([future])]
    iterator = as_completed([future])
    return [
        future.wait_done,
        future.wait_done,
        lambda: wait_all([Future[int](), future][1:]),
        lambda: wait_any([Future[int](), future]),
        lambda: anext(iterator),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_ctrl_c_at_the_end_of_a_must_set_block_never_leaves_its_future_pending(fails: bool) -> None:
    async def program(interrupter: Interrupter) -> None:
        future = Future[int]()
        try:
            with future.must_set():
                interrupter.begin()
                if fails:
                    raise Boom
        except Boom:
            pass
        finally:
            interrupter.end()
            assert future.is_done()

    at_each_line(program)


def test_ctrl_c_while_callbacks_fail_loses_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def program(interrupter: Interrupter) -> None:
        future = Future[int]()
        calls: list[object] = []
        for callback in (raise_boom, calls.append, raise_boom):
            future.add_done_callback(callback)
        caplog.clear()
        try:
            with interrupter.pressing():
                future.set_exception(ValueError())
        finally:
            assert len(calls) == future.is_done()
            assert len(caplog.records) == 2 * future.is_done()

    at_each_line(program)


ENDS: list[tuple[object, bool]] = [(3, False), (Boom(), False), (Boom(), True)]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # if Ctrl-C comes just before it would be
@pytest.mark.parametrize(("end", "suppress"), ENDS)
@pytest.mark.leaves_results
def test_ctrl_c_while_a_capture_is_run_leaves_no_reader_asleep(end: object, suppress: bool) -> None:
    async def routine() -> object:
        await wait_all_tasks_blocked()
        if isinstance(end, BaseException):
            raise end
        return end

    async def program(interrupter: Interrupter) -> None:
        capture = ResultCapture(routine, suppress_exception=suppress)
        async with trio.open_nursery() as nursery:
            reader = ResultCapture.start_soon(nursery, capture.wait_done)
            await wait_all_tasks_blocked()
            try:
                with interrupter.pressing():
                    await capture.run()
            except Boom:
                assert not suppress
            finally:
                with trio.CancelScope(shield=True):
                    if not capture.is_done():  # the run hadn't begun, so the capture can still be run
                        await ResultCapture(capture.run, suppress_exception=True).run()
                    await reader.wait_done()
                    assert is_free(capture)

    at_each_line(program)
    gc.collect()  # so that the warning comes in this test


@pytest.mark.parametrize(("end", "suppress"), ENDS)
@pytest.mark.leaves_results
def test_ctrl_c_while_a_task_ends_leaves_no_reader_asleep(end: object, suppress: bool) -> None:
    async def program(interrupter: Interrupter) -> None:
        async def routine() -> object:
            await reader_waits.wait()
            interrupter.begin()
            if isinstance(end, BaseException):
                raise end
            return end

        reader_waits = trio.Event()
        captures: list[ResultCapture[object]] = []
        # Python doesn't check for signals between a raise and the first call in its handler.
        interrupter.left_out = ("except BaseException", "propagating = self._settle_failure")
        async with trio.open_nursery() as readers:
            try:
                async with trio.open_nursery() as nursery:
                    captures.append(ResultCapture.start_soon(nursery, routine, suppress_exception=suppress))
                    readers.start_soon(captures[0].wait_done)
                    await wait_all_tasks_blocked()
                    reader_waits.set()
            except BaseException as error:
                if leaf_types(error) != [Boom]:
                    raise
            finally:
                interrupter.end()
                assert captures[0].is_done()
                assert is_free(captures[0])

    at_each_line(program)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # if Ctrl-C comes just before it would be
def test_ctrl_c_while_a_task_is_started_leaves_neither_of_its_results_pending() -> None:
    async def routine(task_status: trio.TaskStatus[int]) -> None:
        task_status.started(3)

    async def program(interrupter: Interrupter) -> None:
        results: list[ResultCapture[Any]] = []
        try:
            async with trio.open_nursery() as nursery:
                results += ResultCapture.capture_start_and_done_results(nursery, routine)
                interrupter.begin()
        finally:
            interrupter.end()
            assert all(result.is_done() for result in results)

    at_each_line(program)
    gc.collect()  # so that the warning comes in this test


def test_a_real_signal_in_a_callback_is_held_back_until_the_last_callback_has_returned() -> None:
    calls: list[object] = []

    def press(_result: object) -> None:
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        future = Future[int]()
        future.add_done_callback(press)
        future.add_done_callback(calls.append)
        future.set_result(3)
        assert calls == [future]
        await trio.lowlevel.checkpoint()

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert calls


REGISTERING: dict[str, Callable[[Future[int]], object]] = {
    "add_done_callback": lambda future: future.add_done_callback(raise_boom),
    "remove_done_callback": lambda future: future.remove_done_callback(print),
    "as_completed": lambda future: as_completed([Future[int](), future]),
}


@pytest.mark.parametrize("name", REGISTERING)
@pytest.mark.parametrize("free", [True, False])
def test_ctrl_c_during_a_registration_takes_effect_before_or_after_it(name: str, free: bool) -> None:
    async def program(interrupter: Interrupter) -> None:
        future = Future[int]()
        if not free or name == "remove_done_callback":
            future.add_done_callback(print)
        if not free:
            future.add_done_callback(repr)
        kept: object = None
        try:
            with interrupter.pressing():
                kept = REGISTERING[name](future)
        finally:
            if name == "as_completed" and kept is None:
                assert is_free(future) is free
            kept = None
            future.remove_done_callback(raise_boom)
            future.remove_done_callback(print)
            assert is_free(future) is free
            future.remove_done_callback(repr)
            assert is_free(future)

    at_each_line(program)


def test_ctrl_c_while_a_callback_is_added_to_a_done_result_takes_effect_before_or_after_the_call() -> None:
    async def program(interrupter: Interrupter) -> None:
        future = Future[int]()
        future.set_result(3)
        calls: list[object] = []
        try:
            with interrupter.pressing():
                future.add_done_callback(calls.append)
        finally:
            called = [*calls]
            other = Future[int]()
            other.add_done_callback(id)
            other.set_result(3)  # would run any callback that was left over
            assert calls == called

    at_each_line(program)


async def read(futures: list[Future[int]]) -> None:
    await futures[0]


async def iterate(futures: list[Future[int]]) -> None:
    async for _ in as_completed(futures):
        pass


async def send(futures: list[Future[int]]) -> None:
    channel, _receiver = trio.open_memory_channel[Future[int]](10)
    await results_to_channel(futures, channel)


WAITS: dict[str, Callable[[list[Future[int]]], Awaitable[object]]] = {
    "wait_done": lambda futures: futures[0].wait_done(),
    "await": read,
    "wait_all": wait_all,
    "wait_any": wait_any,
    "as_completed": iterate,
    "results_to_channel": send,
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("end", ["settled", "cancelled"])
def test_ctrl_c_during_a_wait_leaves_nothing_registered(name: str, end: str) -> None:
    async def program(interrupter: Interrupter) -> None:
        futures = [Future[int](), Future[int]()]

        async def end_it() -> None:
            await wait_all_tasks_blocked()
            if end == "settled":
                for future in reversed(futures):
                    future.set_result(3)
            scope.cancel()

        interrupted = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_it)
            with trio.CancelScope() as scope:
                try:
                    with interrupter.pressing():
                        await WAITS[name](futures)
                except KeyboardInterrupt:
                    interrupted = True
            assert all(map(is_free, futures))
            if interrupted:
                raise KeyboardInterrupt

    at_each_line(program)


@pytest.mark.parametrize("call", [race, first_success])
def test_ctrl_c_as_a_function_returns_loses_no_value(call: Any) -> None:
    async def program(interrupter: Interrupter) -> None:
        made: list[object] = []
        kept: list[object] = []

        async def function() -> object:
            await trio.lowlevel.checkpoint()
            made.append(object())
            interrupter.begin()
            return made[-1]

        try:
            kept.append(await call(function, trio.sleep_forever, discard=kept.append))
        finally:
            interrupter.end()
            assert kept == made

    at_each_line(program)


async def wait_a_turn(item: int) -> int:
    await trio.lowlevel.checkpoint()
    return item


def generated(items: range) -> Generator[int]:
    yield from items


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # if Ctrl-C comes right after it was made
@pytest.mark.parametrize("as_source", [list, generated])
def test_ctrl_c_in_a_worker_of_amap_ends_the_call(as_source: Any) -> None:
    async def program(interrupter: Interrupter) -> None:
        interrupter.begin()
        try:
            assert await amap(wait_a_turn, as_source(range(3)), limit=2) == [0, 1, 2]
        finally:
            interrupter.end()

    at_each_line(program)
    gc.collect()  # so that the warning comes in this test


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # if Ctrl-C comes right after it was made
@pytest.mark.parametrize("ordered", [False, True])
def test_ctrl_c_in_a_worker_of_open_amap_leaves_no_consumer_waiting(ordered: bool) -> None:
    async def program(interrupter: Interrupter) -> None:
        async def consume(results: Any) -> None:
            with trio.CancelScope(shield=True):
                try:
                    await anext(results)
                    await anext(results)
                    interrupter.end()
                    await anext(results)  # no item is left, but more could be added
                except (StopAsyncIteration, trio.ClosedResourceError):
                    pass

        async with (
            trio.open_nursery() as nursery,
            open_amap(wait_a_turn, range(2), limit=2, ordered=ordered) as results,
        ):
            nursery.start_soon(consume, results)
            interrupter.begin()
            try:
                await wait_all_tasks_blocked()
            finally:
                interrupter.end()

    at_each_line(program)
    gc.collect()  # so that the warning comes in this test
