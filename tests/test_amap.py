"""`amap` and `open_amap`: what they take, in which order they return results, and how they end."""

from __future__ import annotations

import contextvars
import gc
import math
import pickle
import re
import signal
import sys
import time
import weakref
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _fan_out import (
    Other,
    at_once,
    cancel_when_blocked,
    error_of,
    fails,
    fails_when_cancelled,
    group_of,
    mixes_failure_and_cancellation,
    named,
    needs_notes,
    never_called,
    returns,
    source_of,
    streamed,
    variable,
)
from _helpers import Boom, leaf_types, no_cycles, seed_scheduler
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from triores import (
    AmapResults,
    FutureSetAgainException,
    ItemCapture,
    ResultCapture,
    amap,
    open_amap,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

# ---- both maps: what they take


class Source:
    """Yields ``count`` items, counts those that are taken, and finally raises ``error``, if there is one."""

    def __init__(self, count: float = math.inf, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while self.taken < self.count:
            self.taken += 1
            yield self.taken - 1
        if self.error is not None:
            raise self.error


class NoGenerator:
    """An iterator that isn't a generator, so the workers read it."""

    def __init__(self, iterator: Iterator[int]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self.iterator)


class PlainSource(Source):
    """The same, but the workers read it themselves."""

    def __iter__(self) -> Iterator[int]:
        return NoGenerator(super().__iter__())


class AsyncSource(Source):
    """The same as an async generator, which notes that it has ended, and checks that a single task runs it."""

    ended = False
    blocks_at: int | None = None

    async def items(self) -> AsyncGenerator[int, None]:
        tasks = [trio.lowlevel.current_task()]
        try:
            for item in super().__iter__():
                await (trio.sleep_forever() if item == self.blocks_at else trio.lowlevel.checkpoint())
                tasks.append(trio.lowlevel.current_task())
                yield item
        finally:
            self.ended = True
            tasks.append(trio.lowlevel.current_task())
            assert len(set(tasks)) == 1, "several tasks ran it"


def items_of(source: Source) -> Any:
    return source.items() if isinstance(source, AsyncSource) else source


each_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(Source, id="sync"), pytest.param(PlainSource, id="plain"), pytest.param(AsyncSource, id="async")],
)


async def run_amap(fn: Any, items: Any) -> list[Any]:
    return await amap(fn, items, limit=3)


async def run_open_amap(fn: Any, items: Any) -> list[Any]:
    return [capture.result() for capture in await streamed(fn, items, limit=3)]


async def run_open_amap_ordered(fn: Any, items: Any) -> list[Any]:
    return [capture.result() for capture in await streamed(fn, items, limit=3, ordered=True)]


each_map = pytest.mark.parametrize("run_map", named(run_amap, run_open_amap, run_open_amap_ordered))


@each_map
@each_kind
async def test_the_function_is_called_once_per_item(run_map: Any, kind: Any, autojump_clock: MockClock) -> None:
    async def square(n: int) -> int:
        await trio.sleep(n % 4)
        return n * n

    found = await run_map(square, items_of(kind(20)))
    assert (sorted(found) if run_map is run_open_amap else found) == [n * n for n in range(20)]


@each_map
@each_kind
async def test_at_most_limit_calls_run_at_once_and_no_item_is_read_early(
    run_map: Any, kind: Any, autojump_clock: MockClock
) -> None:
    source = kind(10)
    running: list[int] = []
    most = ended = 0

    async def work(n: int) -> None:
        nonlocal most, ended
        running.append(n)
        most = max(most, len(running))
        assert source.taken <= 3 + ended
        await trio.sleep(1)
        running.remove(n)
        ended += 1

    await run_map(work, items_of(source))
    assert most == 3
    assert source.taken == 10
    assert trio.current_time() == 4


async def test_without_a_limit_amap_runs_all_calls_at_once(autojump_clock: MockClock) -> None:
    assert await amap(returns, range(100)) == list(range(100))
    assert await amap(returns, range(3), limit=None) == [0, 1, 2]
    assert await amap(returns, source_of(range(100))) == list(range(100))
    assert await amap(returns, range(100), limit=10**30) == list(range(100))
    assert trio.current_time() == 4


@each_map
async def test_calls_up_to_the_limit_start_within_a_few_ticks(run_map: Any) -> None:
    started: list[int] = []

    async def work(n: int) -> None:
        started.append(n)
        await trio.sleep_forever()

    for _ in range(20):  # on a busy machine, a slice may end before many calls have begun
        started.clear()
        async with trio.open_nursery() as nursery:
            if run_map is run_amap:
                nursery.start_soon(partial(amap, work, range(1000), limit=50))
            else:
                nursery.start_soon(partial(streamed, work, range(1000), limit=50))
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert len(started) <= 50
        if set(started) == set(range(50)):
            return
    raise AssertionError(f"only {len(started)} calls had begun")


@each_map
@each_kind
async def test_a_failure_ends_the_map_even_if_the_source_is_endless(run_map: Any, kind: Any) -> None:
    async def fail_at_ten(n: int) -> None:
        await trio.lowlevel.checkpoint()
        if n == 10:
            raise Boom

    source = kind()
    error = await error_of(run_map(fail_at_ten, items_of(source)))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert source.taken <= 20


@each_map
async def test_once_a_source_has_ended_it_is_not_read_again(run_map: Any) -> None:
    class Resuming:
        """Like a file that somebody is still writing to."""

        def __init__(self) -> None:
            self.asked = 0

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            self.asked += 1
            if self.asked == 5:
                raise StopIteration
            assert self.asked < 5
            return self.asked

    assert sorted(await run_map(returns_later, Resuming())) == [1, 2, 3, 4]


@each_map
@each_kind
@pytest.mark.parametrize("count", [0, 2, 7])
async def test_if_a_source_fails_the_map_ends_with_its_exception(run_map: Any, kind: Any, count: int) -> None:
    async def work(n: int) -> None:
        assert n < 7
        if n == 6:
            await trio.sleep_forever()

    raised = Boom()
    error = await group_of(run_map(work, items_of(kind(count, raised))))
    assert error.exceptions == (raised,)
    assert not hasattr(raised, "__notes__")


@each_map
@pytest.mark.parametrize(
    "end", ["exhausted", "failed", "failed while it reads", "cancelled", "cancelled while it reads"]
)
async def test_an_async_generator_is_run_and_closed_by_a_single_task(
    run_map: Any, end: str, autojump_clock: MockClock
) -> None:
    source = AsyncSource(5 if end == "exhausted" else math.inf)
    source.blocks_at = 5 if end.endswith("reads") else None

    async def work(n: int) -> None:
        if n > 5:
            await trio.sleep_forever()
        await trio.sleep(1)
        if n == 4 and end.startswith("failed"):
            raise Boom

    with trio.move_on_after(10), suppress(ExceptionGroup):
        await run_map(work, source.items())
    assert source.ended
    assert trio.current_time() == (10 if end.startswith("cancelled") else 2)


@each_map
async def test_a_started_generator_is_closed_even_if_the_map_is_cancelled_before_it_begins(run_map: Any) -> None:
    closed: list[bool] = []

    async def begun() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    items = begun()
    await anext(items)
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_map(never_called, items)
    assert scope.cancelled_caught
    assert closed


@each_map
async def test_an_exception_raised_while_closing_the_source_is_in_the_group(run_map: Any) -> None:
    async def raises_as_it_is_closed() -> AsyncGenerator[int, None]:
        try:
            for n in range(100):
                yield n
        finally:
            raise Other

    async def fail(_: int) -> None:
        await trio.lowlevel.checkpoint()
        raise Boom

    error = await group_of(run_map(fail, raises_as_it_is_closed()))
    assert set(leaf_types(error)) == {Boom, Other}


@each_map
@each_kind
async def test_a_source_may_hold_locks_and_context_variables_across_its_yields(
    run_map: Any, kind: Any, autojump_clock: MockClock
) -> None:
    """A context variable can be reset only in the context in which it was set."""

    def hold() -> Iterator[int]:
        for n in range(10):
            token = variable.set(f"by the source {n}")
            yield n
            assert variable.get() == f"by the source {n}"
            variable.reset(token)

    async def hold_asynchronously() -> AsyncGenerator[int, None]:
        for n in hold():
            async with lock:  # only the task that acquired the lock may release it
                yield n

    async def work(n: int) -> str:
        await trio.sleep(n % 3)
        return variable.get()

    lock = trio.Lock()
    found = await run_map(work, hold() if kind is Source else hold_asynchronously())
    assert found == ["unset"] * 10


@each_map
@each_kind
async def test_ctrl_c_can_interrupt_the_source(run_map: Any, kind: Any) -> None:
    protected: list[bool] = []

    def look() -> Iterator[int]:
        for n in range(5):
            protected.append(trio.lowlevel.currently_ki_protected())
            yield n

    async def look_asynchronously() -> AsyncGenerator[int, None]:
        for n in look():
            yield n

    await run_map(at_once, {Source: look(), PlainSource: NoGenerator(look()), AsyncSource: look_asynchronously()}[kind])
    assert protected == [False] * 5


@each_map
async def test_a_source_that_is_both_iterable_and_async_iterable_is_read_asynchronously(run_map: Any) -> None:
    class Both:
        def __iter__(self) -> Iterator[int]:
            raise AssertionError

        async def __aiter__(self) -> AsyncGenerator[int, None]:
            yield 3

    assert await run_map(at_once, Both()) == [3]


@each_map
async def test_an_async_iterator_need_not_be_a_generator(run_map: Any) -> None:
    send, receive = trio.open_memory_channel[int](5)
    with send:
        for n in range(5):
            send.send_nowait(n)
    assert sorted(await run_map(at_once, receive)) == [0, 1, 2, 3, 4]


@each_map
@each_kind
async def test_calls_do_not_see_each_others_context_variables(
    run_map: Any, kind: Any, autojump_clock: MockClock
) -> None:
    async def look_and_set(n: int) -> tuple[str, str]:
        seen = variable.get()
        variable.set(f"by call {n}")
        await trio.sleep(n % 3)
        return seen, variable.get()

    token = variable.set("by the caller")
    found = await run_map(look_and_set, items_of(kind(10)))
    variable.reset(token)
    assert sorted(found) == [("by the caller", f"by call {n}") for n in range(10)]


@each_map
async def test_calls_do_not_see_a_context_variable_that_another_call_is_the_first_to_set(run_map: Any) -> None:
    async def look_and_set(n: int) -> int:
        seen = unset.get(-1)
        unset.set(n)
        return seen

    unset: contextvars.ContextVar[int] = contextvars.ContextVar("unset")
    assert await run_map(look_and_set, range(10)) == [-1] * 10


@each_map
async def test_there_are_no_more_tasks_than_the_limit(run_map: Any, autojump_clock: MockClock) -> None:
    async def count_tasks(_n: int) -> int:
        await trio.sleep(1)
        return trio.lowlevel.current_statistics().tasks_living

    before = trio.lowlevel.current_statistics().tasks_living
    assert max(await run_map(count_tasks, range(30))) == before + 3


@each_map
@each_kind
async def test_every_task_is_named_after_the_function_even_if_calls_set_context_variables(
    run_map: Any, kind: Any
) -> None:
    names: set[str] = set()

    async def set_and_note(n: int) -> None:
        variable.set(f"by call {n}")
        await trio.lowlevel.checkpoint()
        names.add(trio.lowlevel.current_task().name)

    await run_map(set_and_note, items_of(kind(10)))
    assert len(names) == 1
    assert names.pop().endswith(".<locals>.set_and_note")


# ---- both maps: wrong arguments


def amap_now(*args: Any, **kwargs: Any) -> None:
    """Call `amap`, and run it up to its first checkpoint."""
    amap(*args, **kwargs).send(None)


def no_items() -> Iterator[int]:
    raise AssertionError("items were taken")
    yield


each_map_now = pytest.mark.parametrize(
    ("name", "call_map"), [("amap", amap_now), ("open_amap", partial(open_amap, limit=3))]
)


@each_map_now
@pytest.mark.parametrize(
    ("limit", "text"), [(0, "0"), (-1, "-1"), pytest.param(-(10**400), r"-10+\.\.\.0+", id="huge")]
)
def test_a_limit_below_one_raises_an_error_at_the_call(name: str, call_map: Any, limit: int, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^the limit of {name} must be at least 1, not {text}; "):
        call_map(at_once, no_items(), limit=limit)


@each_map_now
@pytest.mark.parametrize("limit", [1.5, True, "3", math.inf])
def test_a_limit_that_is_not_an_integer_raises_an_error_at_the_call(name: str, call_map: Any, limit: object) -> None:
    with pytest.raises(TypeError) as caught:
        call_map(at_once, no_items(), limit=limit)
    assert str(caught.value) == (
        f"the limit of {name} must be an integer or None, not {limit!r}; it is the number of calls to run at once"
    )


async def test_without_a_limit_open_amap_runs_all_calls_at_once(autojump_clock: MockClock) -> None:
    captures = await streamed(returns, range(100))
    assert sorted(capture.result() for capture in captures) == [*range(100)]
    assert trio.current_time() == 1


async def test_a_limit_may_be_any_object_with_an_index() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert await amap(at_once, [1, 2], limit=Three()) == [1, 2]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # numpy's integers are such objects


@each_map_now
def test_passing_a_coroutine_raises_an_error_and_closes_it(name: str, call_map: Any) -> None:
    with pytest.raises(TypeError, match=rf"the coroutine that 'at_once' returned; call '{name}\("):
        call_map(at_once(), no_items(), limit=0)


@each_map_now
def test_passing_something_uncallable_raises_an_error(name: str, call_map: Any) -> None:
    with pytest.raises(TypeError, match=rf"got 3; call '{name}\("):
        call_map(3, no_items())


@each_map_now
def test_items_that_are_not_iterable_raise_an_error(name: str, call_map: Any) -> None:
    message = f"^the items of {name} must be .*, not "
    with pytest.raises(TypeError, match=f"{message}3$"):
        call_map(at_once, 3)
    with pytest.raises(
        TypeError, match=f"{message}<coroutine object at_once at "
    ):  # the coroutine is closed, so there is no warning
        call_map(at_once, at_once())


# ---- both maps: notes


async def fail_with(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


@each_map
@each_kind
@needs_notes
async def test_a_failure_has_a_note_with_the_position_and_the_item(run_map: Any, kind: Any) -> None:
    async def fail_at_five(n: int) -> None:
        if n == 5:
            raise Boom

    error = await group_of(run_map(fail_at_five, items_of(kind())))
    assert notes_of(error.exceptions[0]) == ["item 5: 5"]
    assert notes_of(error) == []


@each_map
async def test_a_group_raised_by_a_call_has_a_note_on_every_version_of_python(run_map: Any) -> None:
    error = await group_of(run_map(fail_with, [ExceptionGroup("", [Boom()])]))
    assert [note[:8] for note in notes_of(error.exceptions[0])] == ["item 0: "]


async def test_a_suppressed_failure_has_no_note() -> None:
    [capture] = await streamed(fail_with, [Boom()], suppress_exception=True)
    error = capture.exception()
    assert error is not None
    assert notes_of(error) == []


@each_map
@needs_notes
async def test_an_exception_raised_by_many_calls_has_one_note_and_keeps_none_from_an_earlier_map(run_map: Any) -> None:
    error = Boom()

    async def fail(_: object) -> None:
        raise error

    for item in ("first", "second"):
        await error_of(run_map(fail, [item, item]))
        assert notes_of(error) in ([f"item 0: {item!r}"], [f"item 1: {item!r}"])
    error.add_note("mine")
    await error_of(run_map(fail, [3]))
    assert sorted(notes_of(error)) == ["item 0: 3", "mine"]
    assert pickle.dumps(error).count(b"triores") == 0  # it can be unpickled without triores


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


class Strict(Exception):
    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes here")


class Odd(Exception):
    __notes__: Any = ()


@each_map
@pytest.mark.parametrize("error", [Frozen(), Strict(), Odd()], ids=lambda error: type(error).__name__)
async def test_an_exception_that_takes_no_notes_is_left_unchanged(run_map: Any, error: Exception) -> None:
    group = await group_of(run_map(fail_with, [error]))
    assert group.exceptions == (error,)


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError


Unsized: Any = type("deque", (Unshowable,), {})  # up to Python 3.11, reprlib takes it for a real deque


@each_map
@needs_notes
@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("x" * 200, r"'x{47}\.\.\.x{48}'"),
        (list(range(1000)), r"\[0, 1, 2, 3, 4, 5, \.\.\.\]"),
        (Unshowable(), r"<Unshowable whose repr\(\) raised ValueError>"),
        (Unsized(), r"<deque (whose repr\(\) raised (Type|Value)Error|instance at 0x[0-9a-f]+)>"),
    ],
)
async def test_the_note_is_short_whatever_the_item_is(run_map: Any, item: object, shown: str) -> None:
    async def fail(_: object) -> None:
        raise Boom

    error = await group_of(run_map(fail, [item]))
    [note] = notes_of(error.exceptions[0])
    assert re.fullmatch(f"item 0: {shown}", note)


@each_map
@needs_notes
async def test_a_cancellation_has_no_note(run_map: Any) -> None:
    seen: list[BaseException] = []

    async def wait(in_group: bool) -> None:
        try:
            if not in_group:
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        except BaseException as error:
            seen.append(error)
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_blocked, nursery.cancel_scope)
        await run_map(wait, [True, False])
    assert {type(error) for error in seen} == {trio.Cancelled, BaseExceptionGroup}
    assert [notes_of(error) for error in seen] == [[], []]


# ---- open_amap: how results are taken


def test_results_arrive_in_the_exact_order_of_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[int, ...]:
        finished: list[int] = []
        all_run = trio.Event()

        async def finish(n: int) -> int:
            if n == 5:
                all_run.set()
            await all_run.wait()
            finished.append(n)
            return n

        found = [capture.result() for capture in await streamed(finish, range(6), limit=6)]
        assert found == finished
        return tuple(found)

    orders: set[tuple[int, ...]] = set()
    for seed in range(20):
        seed_scheduler(seed, monkeypatch)
        orders.add(trio.run(main))
    assert len(orders) > 5


@each_kind
def test_ordered_results_arrive_in_the_order_of_the_items(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def finish(n: int) -> int:
            await trio.sleep(n * 7 % 5)
            return n

        captures = await streamed(finish, items_of(kind(20)), limit=6, ordered=True)
        assert [capture.result() for capture in captures] == list(range(20))

    for seed in range(10):
        seed_scheduler(seed, monkeypatch)
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_each_capture_from_open_amap_is_done_and_has_its_item() -> None:
    [capture] = await streamed(returns_later, ["item"], limit=1)
    assert type(capture) is ItemCapture
    assert (capture.item, capture.args) == ("item", ("item",))
    assert capture.routine is returns_later
    assert capture.result() == "item"


async def returns_later(value: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return value


@each_kind
@pytest.mark.parametrize("ordered", [False, True])
async def test_while_nobody_takes_results_at_most_limit_calls_are_made(kind: Any, ordered: bool) -> None:
    source = kind()
    async with open_amap(at_once, items_of(source), limit=3, ordered=ordered) as results:
        for consumed in range(5):
            await wait_all_tasks_blocked()
            assert source.taken == consumed + 3
            await anext(results)


@pytest.mark.parametrize("ordered", [False, True])
async def test_each_step_of_open_amap_is_a_checkpoint(ordered: bool) -> None:
    async with open_amap(at_once, [1, 2], limit=3, ordered=ordered) as results:
        with assert_checkpoints():
            await anext(results)
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await anext(results)
        for _ in range(2):
            with assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(results)
    with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
        await anext(results)


async def test_with_suppress_exception_failures_are_results_like_any_other(autojump_clock: MockClock) -> None:
    async def fail_if_odd(n: int) -> int:
        if n % 2:
            raise Boom
        return n

    captures = await streamed(fail_if_odd, range(6), limit=3, ordered=True, suppress_exception=True)
    assert [type(capture.exception()) for capture in captures] == [type(None), Boom] * 3


@pytest.mark.parametrize("suppressed", [Boom, (OSError, Boom)])
async def test_suppress_exception_may_name_the_exceptions_to_suppress(
    suppressed: type[Exception] | tuple[type[Exception], ...],
) -> None:
    [capture] = await streamed(fail_with, [Boom()], suppress_exception=suppressed)
    assert type(capture.exception()) is Boom
    error = await group_of(streamed(fail_with, [ValueError()], suppress_exception=suppressed))
    assert leaf_types(error) == [ValueError]


@pytest.mark.parametrize("wrong", ["yes", None, BaseException, trio.Cancelled, Boom(), (Boom, 3)])
def test_open_amap_takes_only_types_of_exceptions_to_suppress(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^suppress_exception must be True, False, a subclass of Exception or a tuple"):
        open_amap(at_once, [1], suppress_exception=wrong)


async def test_suppress_exception_does_not_suppress_a_keyboard_interrupt() -> None:
    error = await group_of(streamed(partial(fails, 0), [KeyboardInterrupt], limit=1, suppress_exception=True))
    assert leaf_types(error) == [KeyboardInterrupt]


async def test_ctrl_c_before_a_call_begins_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultCapture, "_capture", interrupted)
    error = await group_of(streamed(at_once, [3], limit=1, ordered=True))
    assert leaf_types(error) == [KeyboardInterrupt]


async def test_if_a_call_fails_while_the_block_waits_only_its_exception_is_raised(
    autojump_clock: MockClock,
) -> None:
    error = await error_of(streamed(fails, [2, 3], limit=2))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert trio.current_time() == 2


@each_kind
@pytest.mark.parametrize("ordered", [False, True])
async def test_consumers_end_when_there_are_no_more_results(
    kind: Any, ordered: bool, autojump_clock: MockClock
) -> None:
    async def consume(results: AsyncIterator[ResultCapture[int]]) -> None:
        async for _ in results:
            await trio.sleep(1)

    for limit in (1, 2, 5):
        async with (
            open_amap(returns_after_itself, items_of(kind(4)), limit=limit, ordered=ordered) as results,
            trio.open_nursery() as nursery,
        ):
            for _ in range(6):
                nursery.start_soon(consume, results)


async def returns_after_itself(seconds: int) -> int:
    await trio.sleep(seconds)
    return seconds


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_shielded_consumer_does_not_wait_for_a_source_that_has_ended(
    ordered: bool, end: str, autojump_clock: MockClock
) -> None:
    async def source() -> AsyncGenerator[int, None]:
        yield 0
        await (fails(1) if end == "failed" else trio.sleep_forever())

    async def consume() -> None:
        async with open_amap(at_once, source(), limit=3, ordered=ordered) as results:
            with trio.CancelScope(shield=True):
                await anext(results)
                with pytest.raises(trio.ClosedResourceError):
                    await anext(results)

    with trio.move_on_after(2), suppress(ExceptionGroup):
        await consume()
    assert trio.current_time() == (1 if end == "failed" else 2)


@pytest.mark.parametrize("ordered", [False, True])
async def test_several_consumers_share_the_results(ordered: bool, autojump_clock: MockClock) -> None:
    found: list[list[int]] = [[], [], []]

    async def consume(results: AsyncIterator[ResultCapture[int]], mine: list[int]) -> None:
        async for capture in results:
            await trio.sleep(1)
            mine.append(capture.result())

    async with (
        open_amap(returns_later, range(12), limit=4, ordered=ordered) as results,
        trio.open_nursery() as nursery,
    ):
        for mine in found:
            nursery.start_soon(consume, results, mine)
    assert sorted(n for mine in found for n in mine) == list(range(12))
    assert [len(mine) for mine in found] == [4, 4, 4]


@pytest.mark.parametrize("ready", [False, True])
async def test_no_result_is_lost_if_a_consumer_is_cancelled(ready: bool, autojump_clock: MockClock) -> None:
    async with open_amap(returns_later, range(3), limit=2) as results:
        if ready:
            await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(results)
        assert scope.cancelled_caught
        assert sorted([capture.result() async for capture in results]) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))  # Trio runs the tasks of one tick in random order
async def test_a_consumer_cancelled_as_its_result_arrives_ends_with_whichever_came_first(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    go = trio.Event()
    order: list[int] = []

    async def work(n: int) -> int:
        await go.wait()
        order.append(n)
        if n == 1:
            scope.cancel()
        return n

    found: list[int] = []

    async def consume() -> None:
        with scope:
            found.append((await anext(results)).result())

    scope = trio.CancelScope()
    async with open_amap(work, [0, 1]) as results:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await wait_all_tasks_blocked()
            go.set()
        assert found == ([0] if order == [0, 1] else [])
        found += [capture.result() async for capture in results]
    assert found == order


async def test_items_added_one_by_one_need_only_a_few_tasks() -> None:
    async def note(_n: int) -> None:
        tasks.add(trio.lowlevel.current_task())

    tasks: set[trio.lowlevel.Task] = set()
    async with open_amap(note, limit=50) as results:
        for n in range(50):
            results.add(n)
            await anext(results)
    assert len(tasks) <= 3


async def test_calls_that_set_context_variables_do_not_reduce_how_many_run_at_once(autojump_clock: MockClock) -> None:
    async def set_and_wait(n: int) -> None:
        variable.set(f"by call {n}")
        await trio.sleep(1)

    async with open_amap(set_and_wait, limit=20) as results:
        for n in range(20):
            results.add(n)
            await anext(results)
        for n in range(20):
            results.add(n)
        for _ in range(20):
            await anext(results)
    assert trio.current_time() == 20 + 1


async def test_a_generator_that_shields_its_yields_is_not_read_after_a_failure() -> None:
    async def source() -> AsyncGenerator[int, None]:
        with trio.CancelScope(shield=True):
            for n in range(9):
                read.append(n)
                yield n

    async def fail(_n: int) -> None:
        raise Boom

    read: list[int] = []
    with pytest.RaisesGroup(Boom):
        await amap(fail, source(), limit=1)
    assert read == [0]


async def test_a_generator_that_shields_itself_is_cancelled_at_its_next_yield(autojump_clock: MockClock) -> None:
    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            yield 2
        except BaseException as error:
            seen.append(type(error))
            raise

    async def fail(_n: int) -> None:
        await trio.sleep(1)
        raise Boom

    seen: list[type[BaseException]] = []
    with pytest.RaisesGroup(Boom):
        await amap(fail, source())
    assert seen == [trio.Cancelled]


async def test_results_can_be_taken_only_inside_the_block() -> None:
    async with open_amap(returns_later, [1, 2], limit=1) as results:
        await anext(results)
        await wait_all_tasks_blocked()
        assert "1 ready" in repr(results)
    with pytest.raises(trio.ClosedResourceError, match="open_amap has no more results"):
        await anext(results)


@pytest.mark.parametrize("end", ["left", "failed", "cancelled"])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_consumer_outside_the_block_does_not_wait_forever(
    end: str, ordered: bool, autojump_clock: MockClock
) -> None:
    """Neither does a shielded one. A cancellation of the block reaches neither of them."""
    ended: list[str] = []

    async def consume(results: AsyncIterator[ResultCapture[Any]], who: str, *, shield: bool) -> None:
        with trio.CancelScope(shield=shield), pytest.raises(trio.ClosedResourceError):
            async for capture in results:
                assert capture.result() == 0
        ended.append(who)

    async def work(n: int) -> int:
        if n:
            await (fails(n) if end == "failed" else trio.sleep_forever())
        return n

    async def block(outside: trio.Nursery) -> None:
        async with (
            open_amap(work, range(9), limit=3, ordered=ordered) as results,
            trio.open_nursery() as inside,
        ):
            outside.start_soon(partial(consume, results, "outside", shield=False))
            if end != "left":
                inside.start_soon(partial(consume, results, "shielded", shield=True))
                await trio.sleep_forever()

    async with trio.open_nursery() as outside:
        with trio.move_on_after(5):
            try:
                await block(outside)
            except ExceptionGroup as group:
                assert (end, leaf_types(group)) == ("failed", [Boom])
    assert sorted(ended) == (["outside"] if end == "left" else ["outside", "shielded"])


# ---- open_amap: how the block ends


class Cleanup:
    """An async function that notes how its calls end."""

    def __init__(self) -> None:
        self.running = 0
        self.cleaned_up = 0
        self.reasons = set[str | None]()

    async def __call__(self, n: int) -> int:
        self.running += 1
        try:
            await trio.sleep(n)
        except trio.Cancelled as cancelled:
            self.reasons.add(cancelled.reason)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.cleaned_up += 1
            raise
        finally:
            self.running -= 1
        return n


@pytest.mark.parametrize("ordered", [False, True])
async def test_break_cancels_the_running_calls_and_waits_for_them(ordered: bool, autojump_clock: MockClock) -> None:
    work = Cleanup()
    async with open_amap(work, Source(), limit=4, ordered=ordered) as results:
        async for capture in results:
            if capture.result() == 1:
                break
    assert work.running == 0
    assert work.cleaned_up in (3, 4)  # one may have been about to begin
    assert work.reasons == {"the block of open_amap has ended"}
    assert trio.current_time() == 2


async def test_return_cancels_the_running_calls_and_waits_for_them(autojump_clock: MockClock) -> None:
    work = Cleanup()

    async def find() -> int:
        async with open_amap(work, Source(), limit=4) as results:
            async for capture in results:
                await wait_all_tasks_blocked()
                return capture.result()
        raise AssertionError

    assert await find() == 0
    assert work.running == 0
    assert work.cleaned_up in (3, 4)  # one may have been about to begin


async def test_a_block_that_takes_no_results_cancels_the_running_calls(autojump_clock: MockClock) -> None:
    work = Cleanup()
    async with open_amap(work, Source(), limit=4):
        await trio.sleep(0.5)
    assert work.running == 0
    assert work.cleaned_up in (3, 4)  # one may have been about to begin
    async with open_amap(work, Source(), limit=4):
        pass
    assert work.running == 0


@pytest.mark.parametrize(
    "raised",
    [Boom(), KeyboardInterrupt(), GeneratorExit(), ExceptionGroup("one", [Boom()])],
    ids=lambda e: type(e).__name__,
)
async def test_an_exception_raised_in_the_block_is_passed_on_unchanged(
    raised: BaseException, autojump_clock: MockClock
) -> None:
    work = Cleanup()

    async def leave() -> None:
        async with open_amap(work, Source(), limit=4) as results:
            await anext(results)
            await wait_all_tasks_blocked()
            raise raised

    error = await error_of(leave())
    assert error is raised
    assert error.__context__ is None
    assert work.running == 0
    assert work.cleaned_up in (3, 4)  # one may have been about to begin


async def test_an_exception_raised_in_the_block_is_grouped_with_those_of_the_calls() -> None:
    raised = Boom()

    async def leave() -> None:
        async with open_amap(fails_when_cancelled, [Other, Other], limit=4):
            await wait_all_tasks_blocked()
            raise raised

    error = await group_of(leave())
    assert set(leaf_types(error)) == {Boom, Other}
    assert raised in error.exceptions


async def test_closing_a_generator_while_it_is_in_the_block_raises_nothing(autojump_clock: MockClock) -> None:
    work = Cleanup()

    async def stream() -> AsyncGenerator[int, None]:
        async with open_amap(work, Source(), limit=4) as results:
            async for capture in results:
                yield capture.result()

    async with aclosing(stream()) as numbers:
        assert await anext(numbers) == 0
        assert await anext(numbers) == 1
    assert work.running == 0
    assert work.cleaned_up in (3, 4)  # one may have been about to begin


async def test_a_cancel_scope_inside_the_block_leaves_the_map_running(autojump_clock: MockClock) -> None:
    async with open_amap(returns, [0], limit=1) as results:
        with trio.move_on_after(0.5) as scope:
            await anext(results)
        assert scope.cancelled_caught
        assert (await anext(results)).result() == 0


async def test_a_block_that_is_never_entered_does_nothing() -> None:
    open_amap(at_once, no_items(), limit=3)


# ---- memory


class Thing:
    pass


@each_kind
@pytest.mark.parametrize("ordered", [False, True])
def test_open_amap_keeps_no_items_or_results_once_they_are_taken(kind: Any, ordered: bool) -> None:
    items: weakref.WeakSet[Thing] = weakref.WeakSet()
    results: weakref.WeakSet[Thing] = weakref.WeakSet()

    def make(where: weakref.WeakSet[Thing]) -> Thing:
        thing = Thing()
        where.add(thing)
        return thing

    async def make_some() -> AsyncGenerator[Thing, None]:
        for _ in range(5):
            yield make(items)
        await trio.sleep_forever()

    async def work(_: Thing) -> Thing:
        await trio.lowlevel.checkpoint()
        return make(results)

    async def main() -> None:
        source = make_some() if kind is AsyncSource else (make(items) for _ in range(5))
        async with open_amap(work, source, limit=2, ordered=ordered) as captures:
            for _ in range(5):
                assert type((await anext(captures)).result()) is Thing
            await wait_all_tasks_blocked()
            assert not results
            # Like a loop variable, `enumerate` holds on to the last item.
            assert len(items) <= (0 if kind is AsyncSource else 1)

    gc.disable()
    try:
        trio.run(main)
    finally:
        gc.enable()


async def test_an_idle_worker_keeps_no_item() -> None:
    things: list[weakref.ref[Thing]] = []
    go = trio.Event()

    def make() -> Iterator[Thing]:
        for _ in range(9):
            thing = Thing()
            things.append(weakref.ref(thing))
            yield thing
            del thing

    async def work(thing: Thing) -> None:
        await (go.wait() if thing in [ref() for ref in things[2:3]] else trio.lowlevel.checkpoint())

    async with open_amap(work, make(), limit=2, ordered=True) as results:
        await anext(results)
        await anext(results)
        await wait_all_tasks_blocked()
        go.set()  # so the worker with the third item becomes idle after the other worker
        await wait_all_tasks_blocked()
        await anext(results)
        await wait_all_tasks_blocked()
        assert things[2]() is None


# ---- open_amap: items that are added


async def test_added_items_come_before_the_rest_of_the_source(autojump_clock: MockClock) -> None:
    found: list[str] = []
    async with open_amap(returns, iter(["a", "b", "c"]), limit=1) as results:
        async for capture in results:
            found.append(capture.item)
            if capture.item == "a":
                results.add("a1")
                results.add("a2")
    assert found == ["a", "a1", "a2", "b", "c"] or found == ["a", "b", "a1", "a2", "c"]


@pytest.mark.parametrize("limit", [1, 2, None])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_crawl_visits_everything_that_its_loop_or_its_calls_add(limit: int | None, ordered: bool) -> None:
    tree = {n: [2 * n, 2 * n + 1] for n in range(1, 64)}

    async def visit(n: int) -> list[int]:
        await trio.lowlevel.checkpoint()
        if n % 2:
            for child in tree.get(n, []):
                results.add(child)
            return []
        return tree.get(n, [])

    found: list[int] = []
    async with open_amap(visit, [1], limit=limit, ordered=ordered) as results:
        async for capture in results:
            found.append(capture.item)
            for child in capture.result():
                results.add(child)
    assert sorted(found) == [*range(1, 128)]


@each_kind
async def test_items_added_at_the_beginning_come_before_the_whole_source(kind: Any) -> None:
    for _ in range(10):  # Trio runs tasks in a random order
        begun: list[int] = []
        all_begun = trio.Event()

        async def work(n: int, begun: list[int] = begun, all_begun: trio.Event = all_begun) -> None:
            begun.append(n)
            if len(begun) == 7:
                all_begun.set()
            await all_begun.wait()

        async with open_amap(work, items_of(kind(4)), limit=10) as results:
            for item in (10, 11, 12):
                results.add(item)
            assert len([capture async for capture in results]) == 7
        assert begun == [10, 11, 12, 0, 1, 2, 3]


@each_map
async def test_no_call_begins_once_one_has_failed(run_map: Any) -> None:
    called: list[int] = []

    async def fail(n: int) -> None:
        called.append(n)
        raise Boom

    for _ in range(10):  # in at least one round, the time slice isn't over
        called.clear()
        await error_of(run_map(fail, range(3)))
        assert called == [0]


async def test_without_items_the_loop_ends_at_once_and_a_new_loop_takes_added_items() -> None:
    async with open_amap(at_once) as results:
        assert [capture async for capture in results] == []
        results.add("a")
        assert [capture.result() async for capture in results] == ["a"]
        await wait_all_tasks_blocked()
        results.add("b")
        results.add("c")
        assert sorted([capture.result() async for capture in results]) == ["b", "c"]


async def test_items_added_by_another_task_wake_the_waiting_loop(autojump_clock: MockClock) -> None:
    async def add(results: AmapResults[str, str]) -> None:
        await trio.sleep(5)
        results.add("late")

    async with open_amap(returns, ["slow"], limit=2) as results, trio.open_nursery() as nursery:
        nursery.start_soon(add, results)
        found = [(await anext(results)).item]
        await trio.sleep(10)
        found += [capture.item async for capture in results]
    assert found == ["slow", "late"]


async def test_a_generator_continues_only_after_added_items_have_been_taken(autojump_clock: MockClock) -> None:
    found: list[int] = []
    async with open_amap(returns, AsyncSource(4).items(), limit=2) as results:
        async for capture in results:
            found.append(capture.item)
            if capture.item == 0:
                for item in (10, 11, 12):
                    results.add(item)
    assert sorted(found) == [0, 1, 2, 3, 10, 11, 12]
    assert max(map(found.index, (10, 11, 12))) < found.index(3)


async def test_nothing_can_be_added_after_the_block() -> None:
    async with open_amap(at_once, [1]) as results:
        pass
    with pytest.raises(trio.ClosedResourceError, match="has ended, so you can't add 3"):
        results.add(3)


async def test_items_added_while_the_block_is_being_cancelled_are_dropped(autojump_clock: MockClock) -> None:
    called: list[int] = []

    async def add_when_cancelled(n: int) -> None:
        called.append(n)
        try:
            await trio.sleep_forever()
        finally:
            results.add(n + 1)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                results.add(n + 2)
                await trio.sleep(1)

    async with open_amap(add_when_cancelled, [1]) as results:
        await wait_all_tasks_blocked()
    assert called == [1]


def test_results_can_be_used_only_in_their_own_run() -> None:
    async def main() -> None:
        async with open_amap(at_once, [1]) as results:

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="belongs to another Trio run"):
                    trio.run(lambda: anext(results))
                with pytest.raises(RuntimeError, match="triores needs Trio"):
                    results.add(3)

            await trio.to_thread.run_sync(elsewhere)
            assert [capture.item async for capture in results] == [1]

    trio.run(main)


async def test_a_capture_from_open_amap_cannot_be_run_again() -> None:
    called: list[str] = []

    async def note(item: str) -> None:
        called.append(item)

    [capture] = await streamed(note, ["item"])
    with pytest.raises(FutureSetAgainException):
        await capture.run()
    assert called == ["item"]


# ---- both maps: sharing the event loop


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def count_turns(turns: list[int]) -> None:
    while True:
        turns[0] += 1
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("limit", [1, 3, 100, None])
@pytest.mark.parametrize("as_generator", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_calls_that_never_wait_let_other_tasks_run(stream: bool, as_generator: bool, limit: int | None) -> None:
    async def never_waits(_: int) -> None:
        spin(0.0005)

    items: Any = (n for n in range(40)) if as_generator else range(40)
    turns = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns, turns)
        if stream:
            assert len(await streamed(never_waits, items, limit=limit)) == 40
        else:
            await amap(never_waits, items, limit=limit)
        nursery.cancel_scope.cancel()
    assert turns[0] >= 5  # 20 ms in slices of 2 ms; a call may overrun its slice


@pytest.mark.parametrize("limit", [1, 100, None])
async def test_reading_items_lets_other_tasks_run(limit: int | None) -> None:
    def items() -> Iterator[int]:
        for n in range(40):
            spin(0.0005)
            yield n

    turns = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns, turns)
        await amap(at_once, items(), limit=limit)
        nursery.cancel_scope.cancel()
    assert turns[0] >= 5


async def test_all_workers_together_get_one_slice_of_time() -> None:
    all_wait = trio.Event()
    waiting = 0
    calls_in_turn = [0]

    async def wait_once_then_never(n: int) -> None:
        nonlocal waiting
        if n < 20:
            waiting += 1
            if waiting == 20:
                all_wait.set()
            await all_wait.wait()
        else:
            calls_in_turn[-1] += 1
            spin(0.0005)

    async def begin_turns() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            calls_in_turn.append(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin_turns)
        await amap(wait_once_then_never, range(120), limit=20)
        nursery.cancel_scope.cancel()
    assert sum(calls_in_turn) == 100
    assert max(calls_in_turn) <= 30  # it may cover two turns of the event loop, each with two slices of 2 ms


@each_kind
@pytest.mark.parametrize("limit", [1, 100, None])
async def test_a_map_over_calls_that_never_wait_can_be_cancelled(limit: int | None, kind: Any) -> None:
    async def cancel(scope: trio.CancelScope) -> None:
        await trio.lowlevel.checkpoint()
        scope.cancel()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel, scope)
            await amap(at_once, items_of(kind()), limit=limit)  # an endless source
    assert scope.cancelled_caught


async def test_a_map_over_shielded_calls_can_be_cancelled() -> None:
    async def shielded(_: int) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_after_turns, scope)
            await amap(shielded, Source(), limit=10)
    assert scope.cancelled_caught


async def cancel_after_turns(scope: trio.CancelScope) -> None:
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_map_over_calls_that_never_wait_needs_only_a_few_workers() -> None:
    tasks = set[trio.lowlevel.Task]()

    async def never_waits(n: int) -> None:
        tasks.add(trio.lowlevel.current_task())
        if n % 100 == 0:
            spin(0.003)

    await amap(never_waits, range(2000))
    assert len(tasks) < 20


# ---- both maps: sources that hold something across their yields


@asynccontextmanager
async def background() -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield
        nursery.cancel_scope.cancel()


async def items_over_a_nursery(closed: list[bool], error_at: int = -1) -> AsyncGenerator[int, None]:
    try:
        async with background():
            for n in range(1000):
                if n == error_at:
                    raise Boom
                yield n
    finally:
        closed.append(True)


@pytest.mark.parametrize("left_by", ["break", "deadline", "block", "call", "source"])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_source_that_yields_inside_a_nursery_gets_no_generator_exit(
    left_by: str, ordered: bool, autojump_clock: MockClock
) -> None:
    closed: list[bool] = []

    async def work(n: int) -> int:
        await trio.sleep(1)
        if n == 5 and left_by == "call":
            raise Other
        return n

    async def main() -> None:
        source = items_over_a_nursery(closed, 7 if left_by == "source" else -1)
        with trio.move_on_after(3.5 if left_by == "deadline" else math.inf):
            async with open_amap(work, source, limit=2, ordered=ordered) as results:
                async for capture in results:
                    if capture.item == 4 and left_by == "break":
                        break
                    if capture.item == 4 and left_by == "block":
                        raise KeyError

    if left_by in ("break", "deadline"):
        await main()
    else:
        error = await error_of(main())
        assert leaf_types(error) == [{"block": KeyError, "call": Other, "source": Boom}[left_by]]
        assert isinstance(error, KeyError) == (left_by == "block")
    assert closed == [True]


@each_map
async def test_a_time_limit_around_the_yields_of_an_async_generator_works(
    run_map: Any, autojump_clock: MockClock
) -> None:
    tasks = set[trio.lowlevel.Task]()

    async def for_a_while() -> AsyncGenerator[int, None]:
        with trio.move_on_after(2.5):
            for n in range(1000):
                tasks.add(trio.lowlevel.current_task())
                yield n
        yield -1

    found = await run_map(returns, for_a_while())
    assert sorted(found) == [-1, *range(9)]
    assert len(tasks) == 1


@each_map
async def test_a_time_limit_around_the_yields_of_a_synchronous_generator_works(
    run_map: Any, autojump_clock: MockClock
) -> None:
    tasks = set[trio.lowlevel.Task]()
    closed: list[bool] = []

    def for_a_while() -> Iterator[int]:
        try:
            with trio.move_on_after(2.5):
                for n in range(1000):
                    tasks.add(trio.lowlevel.current_task())
                    yield n
        finally:
            closed.append(True)

    assert sorted(await run_map(returns, for_a_while())) == [*range(9)]
    assert (len(tasks), closed) == (1, [True])


@each_map
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_unstarted_generator_is_closed_even_if_the_map_is_cancelled_before_it_begins(
    run_map: Any, is_async: bool
) -> None:
    def synchronous() -> Iterator[int]:
        raise AssertionError("the source was read")
        yield

    async def asynchronous() -> AsyncGenerator[int, None]:
        for item in synchronous():
            yield item

    source: Any = asynchronous() if is_async else synchronous()
    await amap(at_once, [1])  # so that a slice has begun
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_map(never_called, source)
    with pytest.raises(StopAsyncIteration if is_async else StopIteration):
        next(source) if not is_async else await anext(source)


async def test_a_synchronous_generator_is_closed_when_the_block_ends() -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    async with open_amap(at_once, items(), limit=2) as results:
        await anext(results)
    assert closed == [True]


async def test_a_generator_that_swallows_its_cancellation_is_closed() -> None:
    seen: list[type[BaseException]] = []

    async def stubborn() -> AsyncGenerator[int, None]:
        for n in range(2):
            try:
                async with background():
                    yield n
            except BaseException as error:
                seen.append(leaf_types(error)[0])
                if n:
                    raise

    async with open_amap(at_once, stubborn(), limit=1):
        await wait_all_tasks_blocked()
    assert seen == [trio.Cancelled, GeneratorExit]


@pytest.mark.parametrize("error", [None, Other])
async def test_if_a_generator_swallows_its_cancellation_only_real_errors_are_raised(
    error: type[Exception] | None,
) -> None:
    async def stubborn() -> AsyncGenerator[int, None]:
        with suppress(trio.Cancelled):
            yield 1
        async with trio.open_nursery() as nursery:
            if error is not None:
                nursery.start_soon(fails_when_cancelled, error)
            await trio.lowlevel.cancel_shielded_checkpoint()
            yield 2

    async def main() -> None:
        async with open_amap(at_once, stubborn(), limit=1):
            await wait_all_tasks_blocked()

    if error is None:
        await main()
    else:
        assert leaf_types(await error_of(main())) == [error]


class Countdown:
    """An async iterator that isn't a generator."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> int:
        self.n -= 1
        if self.n < 0:
            raise StopAsyncIteration
        return self.n


async def test_an_async_iterator_that_is_not_a_generator_is_not_read_to_its_end() -> None:
    source = Countdown(10)
    async with open_amap(at_once, source, limit=2) as results:
        assert (await anext(results)).item == 9
    assert source.n > 0


# ---- both maps: context variables


class ArrayLike:
    """Like a numpy array, it can't be compared with ``==``."""

    def __eq__(self, other: object) -> Any:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]  # an array can't be hashed either


@each_map
async def test_contexts_are_compared_by_identity(run_map: Any) -> None:
    seen: list[object] = []

    async def replace(_: int) -> None:
        seen.append(variable.get())
        variable.set(ArrayLike())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # any object will do

    variable.set(first := ArrayLike())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the same
    await run_map(replace, range(6))
    assert all(value is first for value in seen)


@each_map
async def test_an_equal_but_different_value_does_not_leak_into_the_next_call(run_map: Any) -> None:
    first: list[int] = []
    variable.set(first)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # any object will do
    seen: list[object] = []

    async def replace(_: int) -> None:
        seen.append(variable.get())
        variable.set([])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the same

    await run_map(replace, range(6))
    assert all(value is first for value in seen)


@each_map
async def test_a_source_read_by_the_workers_always_runs_in_one_context(run_map: Any) -> None:
    class Counting:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            seen = variable.get()
            if len(seen) == 8:
                raise StopIteration
            variable.set(seen + "x")
            return seen

    async def look(item: str) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return item, variable.get()

    variable.set("")
    assert sorted(await run_map(look, Counting())) == [("x" * n, "") for n in range(8)]
    assert variable.get() == ""


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancelled_map_over_a_generator_leaves_no_reference_cycle(is_async: bool) -> None:
    class Watched:
        pass

    def synchronous(watched: Watched) -> Iterator[int]:
        yield from range(10)
        del watched

    async def asynchronous(watched: Watched) -> AsyncGenerator[int, None]:
        for n in range(10):
            yield n
        del watched

    async def main() -> None:
        with trio.move_on_after(1):
            await amap(trio.sleep, (asynchronous if is_async else synchronous)(watch(Watched())), limit=3)

    with no_cycles() as watch:
        trio.run(main, clock=MockClock(autojump_threshold=0))


# ---- open_amap: exceptions raised in the block, and wrong ways to use it


@pytest.mark.parametrize("error", [KeyError("own"), ExceptionGroup("own", [KeyError()])], ids=["one", "group"])
@pytest.mark.parametrize("when", ["before", "during"])
async def test_an_exception_raised_in_the_block_is_passed_on_unchanged_even_if_time_runs_out(
    error: Exception, when: str, autojump_clock: MockClock
) -> None:
    async def block(scope: trio.CancelScope) -> None:
        async with open_amap(trio.sleep, [5, 5, 5]):
            await wait_all_tasks_blocked()
            if when == "during":
                scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            raise error

    with trio.move_on_after(1) as scope:
        assert await error_of(block(scope)) is error


async def test_suppress_exception_covers_a_call_whose_clean_up_fails_in_its_own_nursery() -> None:
    async with open_amap(lambda _: mixes_failure_and_cancellation(), [1], suppress_exception=True):
        await wait_all_tasks_blocked()


async def test_if_a_call_fails_as_the_block_ends_the_exception_of_the_block_comes_first_in_the_group() -> None:
    own = KeyError("own")

    async def main() -> None:
        async with open_amap(lambda _: fails_when_cancelled(), [1]):
            await wait_all_tasks_blocked()
            raise own

    group = await group_of(main())
    assert str(group) == "open_amap failed (2 sub-exceptions)"
    assert group.exceptions[0] is own
    assert type(group.exceptions[1]) is Other


async def test_a_cancelled_call_does_not_get_another_exception_as_its_context() -> None:
    contexts: list[BaseException | None] = []

    async def note_context(_: int) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            contexts.append(cancelled.__context__)
            raise

    async def main() -> None:
        async with open_amap(note_context, [1, 2]):
            await wait_all_tasks_blocked()
            raise KeyError

    await error_of(main())
    assert contexts == [None, None]


async def test_if_a_call_cancels_its_own_nursery_an_error_says_that_results_are_missing() -> None:
    async def cancel_the_nursery(_: int) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    async def main() -> None:
        async with open_amap(cancel_the_nursery, [1]) as results:
            await anext(results)

    with pytest.raises(RuntimeError, match=r"^open_amap can't finish: one of its tasks"):
        await main()


async def test_using_open_amap_the_wrong_way_raises_an_error_that_shows_the_right_way() -> None:
    wrong: Any = open_amap(at_once, [1])
    with pytest.raises(TypeError, match=r"^use open_amap with 'async with', not with 'async for': 'async with"):
        async for _ in wrong:
            pass
    with pytest.raises(TypeError, match=r"^use open_amap with 'async with', not with 'await': 'async with"):
        await wrong
    async with wrong:
        pass
    with pytest.raises(RuntimeError, match="has been entered before; call 'open_amap"):
        await wrong.__aenter__()


async def test_reprs_show_the_function_and_the_state_but_no_private_name() -> None:
    block: Any = open_amap(returns, range(9), limit=3)
    assert repr(block) == "<open_amap(returns, ...): not entered>"
    async with block as results:
        await wait_all_tasks_blocked()
        assert repr(results) == "<results of open_amap(returns, ...): 3 running, 0 ready>"
    assert repr(block) == "<open_amap(returns, ...): ended>"


def test_a_block_that_could_not_be_entered_can_be_entered_later() -> None:
    block: Any = open_amap(at_once, [1])
    with pytest.raises(RuntimeError, match="needs Trio"):
        block.__aenter__().send(None)

    async def main() -> list[int]:
        async with block as results:
            return [capture.result() async for capture in results]

    assert trio.run(main) == [1]


# ---- Ctrl-C, shields and odd sources


@trio.lowlevel.enable_ki_protection
def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("error", [None, ValueError()])
@pytest.mark.parametrize("cancelled", [False, True])
def test_ctrl_c_while_the_block_ends_is_not_lost(error: Exception | None, cancelled: bool) -> None:
    async def clean_up_slowly(_: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
                press_ctrl_c()
                await trio.sleep(0.5)

    async def main() -> None:
        with trio.move_on_after(1 if cancelled else math.inf):
            async with open_amap(clean_up_slowly, [1]):
                with trio.CancelScope(shield=True):
                    await trio.sleep(1.2)
                if error is not None:
                    raise error

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert KeyboardInterrupt in leaf_types(caught.value)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("end", ["break", "failure", "cancellation"])
async def test_a_generator_that_shields_its_yields_does_not_hold_up_the_end(
    is_async: bool, end: str, autojump_clock: MockClock
) -> None:
    def synchronous() -> Iterator[int]:
        with trio.CancelScope(shield=True):
            yield from range(10)

    async def asynchronous() -> AsyncGenerator[int, None]:
        with trio.CancelScope(shield=True):
            for n in range(10):
                yield n

    async def work(n: int) -> int:
        if n == 3 and end == "failure":
            raise Boom
        if n == 3 and end == "cancellation":
            await trio.sleep_forever()
        return n

    async def main() -> None:
        with trio.move_on_after(1):
            async with open_amap(work, asynchronous() if is_async else synchronous(), limit=1) as results:
                async for capture in results:
                    if capture.item == 3:
                        break

    if end == "failure":
        assert leaf_types(await error_of(main())) == [Boom]
    else:
        await main()
    assert trio.current_time() == (1 if end == "cancellation" else 0)


async def test_nested_maps_share_one_slice_of_time() -> None:
    turns = [0]

    async def inner(_: int) -> None:
        async def spin_for_a_while(_: int) -> None:
            spin(0.0005)

        await amap(spin_for_a_while, range(40))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns, turns)
        await amap(inner, range(10))  # 200 ms, in slices of 2 ms
        nursery.cancel_scope.cancel()
    assert turns[0] >= 50


class Steps(trio.abc.Instrument):
    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


def test_sharing_the_loop_costs_little_however_many_calls_wait() -> None:
    steps = Steps()
    trio.run(lambda: amap(trio.sleep, [1] * 4000), clock=MockClock(autojump_threshold=0), instruments=[steps])
    assert steps.count < 8 * 4000


async def test_a_generator_that_raises_stop_async_iteration_fails_with_a_runtime_error() -> None:
    def wrong() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration("a bug")

    assert leaf_types(await error_of(amap(at_once, wrong()))) == [RuntimeError]


async def test_an_async_iterator_needs_no_aiter_method() -> None:
    class Bare:
        def __init__(self) -> None:
            self.left = 3

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    class Items:
        def __aiter__(self) -> Bare:
            return Bare()

    items: Any = Items()
    assert await amap(at_once, items) == [2, 1, 0]


async def test_a_function_whose_name_cannot_be_read_raises_an_error_before_anything_starts() -> None:
    class Odd:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

        async def __call__(self, n: int) -> int:
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"^__qualname__$|^__name__$"):
        open_amap(Odd(), [1])
