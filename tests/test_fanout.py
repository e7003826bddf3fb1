"""Many tasks at once: gather, gather_outcomes, race, first_success, amap, open_amap."""

from __future__ import annotations

import contextvars
import gc
import math
import re
import sys
import weakref
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import outcome
import pytest
import trio
from _helpers import Boom, leaf_types, no_cycles, seed_scheduler
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from triores import (
    ResultCapture,
    amap,
    first_success,
    gather,
    gather_outcomes,
    open_amap,
    race,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator

Fn = Any  # an async function without arguments
Call = Any  # what runs several of them at once

needs_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are new in Python 3.11")
variable = contextvars.ContextVar("variable", default="unset")


class Other(Exception):
    """What fails after something else has."""


async def returns(value: Any, after: float = 1) -> Any:
    await trio.sleep(after)
    return value


async def fails(after: float = 1, kind: type[BaseException] = Boom) -> Any:
    await trio.sleep(after)
    raise kind


async def fails_when_cancelled(kind: type[BaseException] = Other) -> Any:
    try:
        await trio.sleep_forever()
    finally:
        raise kind


async def mixes_failure_and_cancellation() -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fails_when_cancelled)


async def at_once(value: Any = None) -> Any:
    return value


def call_it(fn: Fn) -> Any:
    return fn()


async def map_them(*fns: Fn) -> Any:
    return await amap(call_it, fns)


async def map_them_from_an_async_source(*fns: Fn) -> Any:
    return await amap(call_it, source_of(fns))


async def stream_them(*fns: Fn) -> Any:
    return [capture.result() for capture in await streamed(call_it, fns, limit=len(fns) or 1)]


async def stream_them_in_order_from_an_async_source(*fns: Fn) -> Any:
    captures = await streamed(call_it, source_of(fns), limit=len(fns) or 1, ordered=True)
    return [capture.result() for capture in captures]


async def stagger_them(*fns: Fn) -> Any:
    return await first_success(*fns, stagger=0)


async def streamed(fn: Any, items: Any, **options: Any) -> list[ResultCapture[Any]]:
    async with open_amap(fn, items, **options) as results:
        return [capture async for capture in results]


async def source_of(items: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for item in items:
        await trio.lowlevel.checkpoint()
        yield item


def named(*calls: Call) -> list[Any]:
    return [pytest.param(call, id=call.__name__) for call in calls]


MAPS = [map_them, map_them_from_an_async_source, stream_them, stream_them_in_order_from_an_async_source]
CALLS = [gather, gather_outcomes, race, first_success, stagger_them, *MAPS]
each_call = pytest.mark.parametrize("call", named(*CALLS))
each_call_of_functions = pytest.mark.parametrize("call", named(gather, gather_outcomes, race, first_success))
# Those that raise as soon as one fails.
each_strict_call = pytest.mark.parametrize("call", named(gather, race, *MAPS))


async def error_of(awaitable: Awaitable[object]) -> BaseException:
    """What it raises. Nothing of the call may be left running by then."""
    task = trio.lowlevel.current_task()
    nurseries = list(task.child_nurseries)
    try:
        await awaitable
    except BaseException as error:
        assert task.child_nurseries == nurseries
        return error
    raise AssertionError("it raised nothing")


async def group_of(awaitable: Awaitable[object]) -> BaseExceptionGroup[BaseException]:
    """The exception group that it raises."""
    error = await error_of(awaitable)
    assert isinstance(error, BaseExceptionGroup)

    return cast("Any", error)  # type: ignore[no-any-return]  # the checkers do not know of what it is a group


# ---- what all of them have in common


@each_call
async def test_cancelled_from_outside_it_raises_a_plain_cancelled(call: Call) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_blocked, scope)
            error = await error_of(call(trio.sleep_forever, trio.sleep_forever))
            assert type(error) is trio.Cancelled
            raise error
    assert scope.cancelled_caught


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


@each_call
async def test_cancelled_before_it_begins_it_starts_nothing(call: Call) -> None:
    async def never() -> None:
        raise AssertionError

    with trio.CancelScope() as scope:
        scope.cancel()
        assert type(await error_of(call(never, never))) is trio.Cancelled


@each_call
async def test_cancelled_while_others_fail_it_raises_a_group_of_both(call: Call) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_blocked, scope)
            error = await group_of(call(trio.sleep_forever, partial(fails_when_cancelled, KeyboardInterrupt)))
            assert set(leaf_types(error)) == {trio.Cancelled, KeyboardInterrupt}


@each_call
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_is_neither_collected_nor_suppressed(
    call: Call, kind: type[BaseException], autojump_clock: MockClock
) -> None:
    error = await group_of(call(trio.sleep_forever, partial(fails, 1, kind)))
    assert leaf_types(error) == [kind]
    assert trio.current_time() < 1.5


@each_strict_call
async def test_the_first_exception_cancels_the_rest_and_arrives_in_a_group(
    call: Call, autojump_clock: MockClock
) -> None:
    error = await error_of(call(fails, partial(returns, 3, 2), trio.sleep_forever))
    assert trio.current_time() == 1
    assert pytest.RaisesGroup(Boom).matches(error)


@each_strict_call
async def test_what_others_raise_as_they_are_cancelled_is_in_the_same_group(
    call: Call, autojump_clock: MockClock
) -> None:
    error = await error_of(call(fails, fails_when_cancelled, mixes_failure_and_cancellation))
    assert pytest.RaisesGroup(Boom, Other, pytest.RaisesGroup(Other)).matches(error)


@each_strict_call
def test_a_single_failure_is_in_a_group_also_where_trio_was_told_otherwise(call: Call) -> None:
    async def main() -> None:
        error = await error_of(call(partial(fails, 0)))
        assert pytest.RaisesGroup(Boom).matches(error)

    with pytest.warns(trio.TrioDeprecationWarning):
        trio.run(main, strict_exception_groups=False)


@each_call
def test_cancelled_where_trio_was_told_otherwise_it_raises_a_plain_cancelled_too(call: Call) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_blocked, scope)
                assert type(await error_of(call(trio.sleep_forever, trio.sleep_forever))) is trio.Cancelled

    with pytest.warns(trio.TrioDeprecationWarning):
        trio.run(main, strict_exception_groups=False)


@each_call
async def test_it_is_a_checkpoint_also_where_no_function_is_one(call: Call) -> None:
    with assert_checkpoints():
        await call(at_once)


@pytest.mark.parametrize("call", named(gather, gather_outcomes, *MAPS))
async def test_of_nothing_it_is_a_checkpoint_with_an_empty_result(call: Call) -> None:
    with assert_checkpoints():
        assert len(await call()) == 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


@pytest.mark.parametrize("call", named(race, first_success))
async def test_of_nothing_there_can_be_no_first(call: Call) -> None:
    with pytest.raises(ValueError, match=f"^{call.__name__} was given no functions, so it has nothing to return"):
        await call()


@each_call
def test_it_needs_trio_and_says_so(call: Call) -> None:
    with pytest.raises(RuntimeError, match=r"^triores needs Trio: call this from inside trio\.run\(\.\.\.\)$"):
        call(at_once).send(None)


@each_call_of_functions
async def test_a_coroutine_in_place_of_a_function_is_refused_and_every_coroutine_is_closed(call: Call) -> None:
    coroutines = [at_once(), at_once(), at_once()]
    with pytest.raises(TypeError) as caught:  # warnings are errors, so a coroutine that is not closed fails the test
        await call(never_called, coroutines[0], coroutines[1], never_called, coroutines[2])
    assert str(caught.value) == (
        "expected an async function, but got the coroutine that calling 'at_once' made; "
        f"not '{call.__name__}(at_once(...), ...)' but '{call.__name__}(functools.partial(at_once, *args), ...)'"
    )
    del caught
    for coroutine in coroutines:
        with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
            coroutine.send(None)


@each_call_of_functions
async def test_what_can_not_be_called_is_refused_and_coroutines_beside_it_are_closed(call: Call) -> None:
    coroutine = at_once()
    with pytest.raises(TypeError) as caught:
        await call(never_called, 3, 4, coroutine)
    assert str(caught.value) == (
        "expected an async function, but got 3; "
        f"the right call is '{call.__name__}(functools.partial(async_fn, *args), ...)'"
    )
    with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
        coroutine.send(None)


async def never_called() -> None:
    raise AssertionError


@each_call
async def test_a_synchronous_function_fails_with_a_sentence(call: Call) -> None:
    def synchronous() -> int:
        return 3

    if call.__name__ == "gather_outcomes":
        [failed] = await call(synchronous)
        error: BaseException = failed.error
    else:
        [error] = (await group_of(call(synchronous))).exceptions
    assert type(error) is TypeError
    assert str(error).startswith("expected an async function, but '")
    assert "is a synchronous one that returned 3; define it with 'async def'" in str(error)


@each_call
async def test_tasks_carry_the_name_of_the_function(call: Call) -> None:
    names: list[str] = []

    async def observed() -> None:
        names.append(trio.lowlevel.current_task().name)

    await call(partial(observed), observed)
    expected = observed if call in (gather, gather_outcomes, race, first_success, stagger_them) else call_it
    assert set(names) == {f"{expected.__module__}.{expected.__qualname__}"}


@each_call
async def test_functions_see_the_variables_of_the_caller_and_not_what_others_set(call: Call) -> None:
    seen: list[str] = []

    async def look_and_set() -> None:
        seen.append(variable.get())
        variable.set("by a function")
        await trio.lowlevel.checkpoint()

    token = variable.set("by the caller")
    await call(*[look_and_set] * 5)
    assert set(seen) == {"by the caller"}
    assert variable.get() == "by the caller"
    variable.reset(token)


async def raises_a_foreign_cancelled() -> None:
    foreign: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        foreign.append(await error_of(trio.lowlevel.checkpoint()))
    raise foreign[0]


@each_call
async def test_a_cancelled_that_belongs_elsewhere_does_not_pass_for_an_end(call: Call) -> None:
    error = await error_of(call(raises_a_foreign_cancelled))
    assert type(error) is RuntimeError
    told = {stagger_them: "first_success", **dict.fromkeys(MAPS[:2], "amap"), **dict.fromkeys(MAPS[2:], "open_amap")}
    assert str(error).startswith(
        f"{told.get(call, call.__name__)} lacks results: a task in it raised a trio.Cancelled that belongs elsewhere, "
        "or cancelled the nursery"
    )


@each_call
async def test_ctrl_c_can_interrupt_the_functions(call: Call) -> None:
    protected: list[bool] = []

    async def look() -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    await call(look)
    assert protected == [False]


async def fail_watched(watch: Any, kind: type[BaseException] = Boom) -> None:
    try:
        await trio.lowlevel.checkpoint()
    finally:
        raise watch(kind())


class Watched(KeyboardInterrupt):
    """One that can be weakly referred to."""


@each_call
def test_no_failing_path_leaves_a_reference_cycle(call: Call) -> None:
    async def main() -> None:
        with suppress(Boom, BaseExceptionGroup):
            await call(
                partial(fail_watched, watch), partial(fail_watched, watch), partial(fail_watched, watch, Watched)
            )

    with no_cycles() as watch:
        trio.run(main)


@each_call
def test_no_cancelled_path_leaves_a_reference_cycle(call: Call) -> None:
    async def be_cancelled() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            watch(error)
            raise

    async def cancelled() -> None:
        try:
            await call(be_cancelled, be_cancelled)
        except trio.Cancelled as error:
            watch(error)
            raise

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_blocked, scope)
                await cancelled()

    with no_cycles() as watch:
        trio.run(main)


@each_call
def test_what_was_returned_is_not_kept(call: Call) -> None:
    class Value:
        pass

    async def make() -> object:
        return watch(Value())

    async def main() -> None:
        await call(make)

    with no_cycles() as watch:
        trio.run(main)


# ---- gather and gather_outcomes


async def test_values_come_in_the_order_of_the_functions_which_run_at_once(autojump_clock: MockClock) -> None:
    assert await gather(partial(returns, "a", 3), partial(returns, 2, 1), partial(returns, None, 2)) == ("a", 2, None)
    assert trio.current_time() == 3


async def test_more_functions_than_the_types_count_are_gathered_too() -> None:
    assert await gather(*[partial(returns, n, 0) for n in range(100)]) == tuple(range(100))


async def test_outcomes_tell_how_each_function_ended_and_no_exception_cancels_the_others(
    autojump_clock: MockClock,
) -> None:
    failed, value = await gather_outcomes(partial(fails, 1), partial(returns, 3, 2))
    assert isinstance(failed, outcome.Error)
    assert type(failed.error) is Boom
    assert value == outcome.Value(3)
    assert trio.current_time() == 2


# ---- race


@pytest.mark.parametrize("value", [3, None])
async def test_the_first_to_finish_wins_and_the_others_are_cancelled(value: object, autojump_clock: MockClock) -> None:
    cleaned_up: list[float] = []

    async def loser() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            cleaned_up.append(trio.current_time())

    assert await race(loser, partial(returns, value, 2), loser) == value
    assert cleaned_up == [3, 3]


@pytest.mark.parametrize("call", named(race, first_success))
async def test_a_loser_learns_why_it_is_cancelled(call: Call, autojump_clock: MockClock) -> None:
    reasons: list[str | None] = []

    async def loser() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            reasons.append(cancelled.reason)
            raise

    await call(loser, returns_three)
    assert reasons == [f"another function of {call.__name__} was first"]


async def test_an_exception_wins_too(autojump_clock: MockClock) -> None:
    error = await error_of(race(partial(returns, 3, 2), fails))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert trio.current_time() == 1


async def test_what_a_loser_raises_is_not_lost(autojump_clock: MockClock) -> None:
    error = await error_of(race(partial(returns, 3), fails_when_cancelled))
    assert pytest.RaisesGroup(Other).matches(error)


@pytest.mark.parametrize("call", named(race, first_success))
def test_of_several_that_finish_in_one_tick_the_very_first_wins(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        finished: list[int] = []

        async def finish(number: int) -> int:
            for _ in range(number // 3):
                await trio.lowlevel.checkpoint()
            finished.append(number)
            return number

        assert await call(*[partial(finish, number) for number in range(6)]) == finished[0]
        return finished[0]

    winners: set[int] = set()
    for seed in range(30):
        seed_scheduler(seed, monkeypatch)
        winners.add(trio.run(main))
    assert winners == {0, 1, 2}


# ---- first_success


async def test_the_first_value_wins_and_failures_before_it_are_dropped(autojump_clock: MockClock) -> None:
    assert await first_success(fails, partial(returns, 3, 2), partial(returns, 4, 3)) == 3
    assert trio.current_time() == 2


@pytest.mark.parametrize("loser", named(fails_when_cancelled, mixes_failure_and_cancellation))
async def test_what_a_loser_raises_because_it_is_cancelled_is_raised_instead_of_the_value(
    loser: Fn, autojump_clock: MockClock
) -> None:
    discarded: list[object] = []
    error = await group_of(first_success(loser, returns_three, discard=discarded.append))
    assert leaf_types(error) == [Other]
    assert str(error).startswith("first_success failed")
    assert discarded == [3]


async def returns_three() -> int:
    await trio.sleep(1)
    return 3


async def test_ctrl_c_in_a_loser_is_not_dropped(autojump_clock: MockClock) -> None:
    error = await group_of(first_success(partial(fails_when_cancelled, KeyboardInterrupt), returns_three))
    assert leaf_types(error) == [KeyboardInterrupt]


@pytest.mark.parametrize("stagger", [None, 0.1])
async def test_if_all_fail_their_failures_are_in_a_group_in_the_order_given(
    stagger: float | None, autojump_clock: MockClock
) -> None:
    kinds = [ValueError, Boom, Other]
    functions = [partial(fails, 3 - n, kind) for n, kind in enumerate(kinds)]
    error = await error_of(first_success(*functions, stagger=stagger))
    assert type(error) is ExceptionGroup
    assert error.message == "each of the 3 functions of first_success failed"
    assert leaf_types(error) == kinds


async def test_without_a_winner_no_failure_beside_a_foreign_cancelled_is_dropped() -> None:
    async def fail_twice() -> None:
        raise BaseExceptionGroup("two", [await error_of(raises_a_foreign_cancelled()), Boom()])

    error = await error_of(first_success(fail_twice))
    assert leaf_types(error) == [Boom]


class Attempts:
    """Attempts of `first_success` that note the time at which they start."""

    def __init__(self) -> None:
        self.started: list[float] = []

    def __call__(self, fn: Fn) -> Fn:
        async def attempt() -> Any:
            self.started.append(trio.current_time())
            return await fn()

        return attempt


async def test_an_attempt_starts_each_time_that_the_stagger_is_over(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    slow = attempt(partial(returns, "slow", 100))
    assert await first_success(slow, slow, slow, attempt(partial(returns, "quick", 1)), slow, stagger=10) == "quick"
    assert attempt.started == [0, 10, 20, 30]


async def test_an_attempt_starts_as_soon_as_the_one_before_it_fails(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    failing = attempt(partial(fails, 3))
    assert await first_success(failing, failing, attempt(partial(returns, 3, 9)), failing, stagger=5) == 3
    assert attempt.started == [0, 3, 6, 11]


async def test_an_earlier_attempt_may_win_while_a_later_one_is_waited_for(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    slow = attempt(partial(returns, "slow", 7))
    assert await first_success(slow, slow, slow, stagger=5) == "slow"
    assert attempt.started == [0, 5]
    assert trio.current_time() == 7


async def test_the_failure_of_an_earlier_attempt_starts_none(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    failing_later = attempt(partial(fails, 7))
    slow = attempt(partial(returns, 3, 100))
    assert await first_success(failing_later, slow, slow, stagger=5) == 3
    assert attempt.started == [0, 5, 10]


async def test_no_attempt_starts_once_one_has_succeeded(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    quick, slow = attempt(partial(returns, 3, 1)), attempt(partial(returns, 4, 2))
    assert await first_success(quick, slow, stagger=2) == 3
    assert await first_success(slow, quick, slow, stagger=math.inf) == 4
    assert attempt.started == [0, 1]


def test_no_attempt_starts_when_an_earlier_one_succeeds_in_the_tick_in_which_the_last_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> list[float]:
        attempt = Attempts()
        succeeding, failing = attempt(partial(returns, 3, 7)), attempt(partial(fails, 2))
        assert await first_success(succeeding, failing, attempt(never_called), stagger=5) == 3
        return attempt.started

    for seed in range(10):  # the two end in either order
        seed_scheduler(seed, monkeypatch)
        assert trio.run(main, clock=MockClock(autojump_threshold=0)) == [0, 5]


async def test_without_a_stagger_worth_the_name_all_start_at_once(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    assert await first_success(*[attempt(partial(returns, n, 3 - n)) for n in range(3)], stagger=0) == 2
    assert attempt.started == [0, 0, 0]


@pytest.mark.parametrize(
    ("stagger", "kind"), [(-1, ValueError), (math.nan, ValueError), ("3", TypeError), (1j, TypeError)]
)
async def test_a_wrong_stagger_is_refused_before_anything_starts(stagger: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        await first_success(never_called, stagger=stagger)
    assert str(caught.value) == (
        f"stagger is a number of seconds of at least 0, or None to start all at once, not {stagger!r}"
    )


# ---- both maps: what they take


class Source:
    """Items that are counted as they are taken; ``count`` of them, or ``error`` after so many."""

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


class AsyncSource(Source):
    """The same, asynchronous, and telling how it was closed."""

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
            assert len(set(tasks)) == 1, "it was run in several tasks"


def items_of(source: Source) -> Any:
    return source.items() if isinstance(source, AsyncSource) else source


each_kind = pytest.mark.parametrize("kind", [pytest.param(Source, id="sync"), pytest.param(AsyncSource, id="async")])


async def run_amap(fn: Any, items: Any) -> list[Any]:
    return await amap(fn, items, limit=3)


async def run_open_amap(fn: Any, items: Any) -> list[Any]:
    return [capture.result() for capture in await streamed(fn, items, limit=3)]


async def run_open_amap_ordered(fn: Any, items: Any) -> list[Any]:
    return [capture.result() for capture in await streamed(fn, items, limit=3, ordered=True)]


each_map = pytest.mark.parametrize("run_map", named(run_amap, run_open_amap, run_open_amap_ordered))


@each_map
@each_kind
async def test_each_item_is_worked_on_once(run_map: Any, kind: Any, autojump_clock: MockClock) -> None:
    async def square(n: int) -> int:
        await trio.sleep(n % 4)
        return n * n

    found = await run_map(square, items_of(kind(20)))
    assert (sorted(found) if run_map is run_open_amap else found) == [n * n for n in range(20)]


@each_map
@each_kind
async def test_no_more_calls_run_than_the_limit_and_no_item_is_taken_before_there_is_room(
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


async def test_amap_without_a_limit_runs_all_at_once(autojump_clock: MockClock) -> None:
    assert await amap(returns, range(100)) == list(range(100))
    assert await amap(returns, range(3), limit=None) == [0, 1, 2]
    assert await amap(returns, source_of(range(100))) == list(range(100))
    assert await amap(returns, range(100), limit=10**30) == list(range(100))
    assert trio.current_time() == 4


@each_map
async def test_all_that_may_start_do_so_within_a_few_ticks(run_map: Any) -> None:
    started: list[int] = []

    async def work(n: int) -> None:
        started.append(n)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        if run_map is run_amap:
            nursery.start_soon(partial(amap, work, range(1000), limit=50))
        else:
            nursery.start_soon(partial(streamed, work, range(1000), limit=50))
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert started
        assert set(started) == set(range(50))
        nursery.cancel_scope.cancel()


@each_map
@each_kind
async def test_an_endless_source_ends_with_a_failure(run_map: Any, kind: Any) -> None:
    async def fail_at_ten(n: int) -> None:
        await trio.lowlevel.checkpoint()
        if n == 10:
            raise Boom

    source = kind()
    error = await error_of(run_map(fail_at_ten, items_of(source)))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert source.taken <= 20


@each_map
async def test_a_source_that_has_ended_is_not_read_again(run_map: Any) -> None:
    class Resuming:
        """Such as a file that others still write to."""

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
async def test_a_source_that_raises_ends_the_call_with_its_exception(run_map: Any, kind: Any, count: int) -> None:
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
async def test_an_async_generator_is_run_and_closed_by_one_task(
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
async def test_an_async_generator_is_closed_also_where_the_call_is_cancelled_before_it_begins(run_map: Any) -> None:
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
async def test_what_closing_a_source_raises_is_in_a_group(run_map: Any) -> None:
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
async def test_a_source_may_hold_over_its_yields_what_belongs_to_a_context(
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
            async with lock:  # which only the task that has acquired it may release
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

    await run_map(at_once, look() if kind is Source else look_asynchronously())
    assert protected == [False] * 5


@each_map
async def test_what_can_be_iterated_over_both_ways_is_read_asynchronously(run_map: Any) -> None:
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
async def test_a_call_sees_nothing_of_what_another_has_set_before_it(
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
@each_kind
async def test_the_task_that_goes_on_after_such_a_call_has_its_name_too(run_map: Any, kind: Any) -> None:
    names: set[str] = set()

    async def set_and_note(n: int) -> None:
        variable.set(f"by call {n}")
        await trio.lowlevel.checkpoint()
        names.add(trio.lowlevel.current_task().name)

    await run_map(set_and_note, items_of(kind(10)))
    assert len(names) == 1
    assert names.pop().endswith(".<locals>.set_and_note")


# ---- both maps: what they refuse


def amap_now(*args: Any, **kwargs: Any) -> None:
    """Call `amap`, and run it as far as it goes before the first checkpoint."""
    amap(*args, **kwargs).send(None)


def no_items() -> Iterator[int]:
    raise AssertionError("items were taken")
    yield


each_map_now = pytest.mark.parametrize(
    ("name", "call_map"), [("amap", amap_now), ("open_amap", partial(open_amap, limit=3))]
)


@each_map_now
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused_at_the_call(name: str, call_map: Any, limit: int) -> None:
    with pytest.raises(
        ValueError, match=f"^the limit of {name} is how many calls run at once, at least 1, not {limit}$"
    ):
        call_map(at_once, no_items(), limit=limit)


@each_map_now
@pytest.mark.parametrize("limit", [1.5, True, "3", math.inf])
def test_a_limit_that_is_no_integer_is_refused_at_the_call(name: str, call_map: Any, limit: object) -> None:
    with pytest.raises(TypeError) as caught:
        call_map(at_once, no_items(), limit=limit)
    assert str(caught.value) == (
        f"the limit of {name} is how many calls run at once, an integer such as 10, not {limit!r}"
    )


def test_open_amap_needs_a_limit() -> None:
    with pytest.raises(TypeError, match=r"^the limit of open_amap is .* an integer such as 10, not None$"):
        open_amap(at_once, no_items(), limit=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake


async def test_a_limit_may_be_any_integer() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert await amap(at_once, [1, 2], limit=Three()) == [1, 2]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what numpy's integers are


@each_map_now
def test_a_coroutine_in_place_of_the_function_is_refused_and_closed(name: str, call_map: Any) -> None:
    with pytest.raises(TypeError) as caught:
        call_map(at_once(), no_items(), limit=0)
    assert str(caught.value) == (
        "expected an async function, but got the coroutine that calling 'at_once' made; "
        f"not '{name}(at_once(...), items)' but '{name}(at_once, items)'"
    )


@each_map_now
def test_a_function_that_can_not_be_called_is_refused(name: str, call_map: Any) -> None:
    with pytest.raises(TypeError) as caught:
        call_map(3, no_items())
    assert str(caught.value) == f"expected an async function, but got 3; the right call is '{name}(async_fn, items)'"


@each_map_now
def test_items_that_can_not_be_iterated_over_are_refused(name: str, call_map: Any) -> None:
    told = f"^{name} takes its items from an iterable or an async iterable, not from "
    with pytest.raises(TypeError, match=f"{told}3$"):
        call_map(at_once, 3)
    with pytest.raises(TypeError, match=f"{told}<coroutine object at_once at "):  # and no warning: it was closed
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
async def test_a_failure_carries_a_note_with_the_position_and_the_item(run_map: Any, kind: Any) -> None:
    async def fail_at_five(n: int) -> None:
        if n == 5:
            raise Boom

    error = await group_of(run_map(fail_at_five, items_of(kind())))
    assert notes_of(error.exceptions[0]) == ["raised for item 5: 5"]
    assert notes_of(error) == []


@each_map
async def test_a_failure_that_is_a_group_carries_one_on_every_python(run_map: Any) -> None:
    error = await group_of(run_map(fail_with, [ExceptionGroup("", [Boom()])]))
    assert [note[:19] for note in notes_of(error.exceptions[0])] == ["raised for item 0: "]


@needs_notes
async def test_a_suppressed_failure_carries_one_too() -> None:
    errors = [Boom(), Other()]
    for capture in await streamed(fail_with, errors, limit=2, suppress_exception=True):
        position = int(capture.args[0] is errors[1])
        assert notes_of(errors[position]) == [f"raised for item {position}: {errors[position]!r}"]


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError


Unsized: Any = type("deque", (Unshowable,), {})  # which reprlib takes for the real one, up to Python 3.11


@each_map
@needs_notes
@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("x" * 200, r"'x{47}\.\.\.x{48}'"),
        (list(range(1000)), r"\[0, 1, 2, 3, 4, 5, \.\.\.\]"),
        (Unshowable(), r"<Unshowable whose repr\(\) raised ValueError>"),
        (Unsized(), r"<deque (whose repr\(\) raised TypeError|instance at 0x[0-9a-f]+)>"),
    ],
)
async def test_the_item_is_shown_in_short_whatever_it_is(run_map: Any, item: object, shown: str) -> None:
    async def fail(_: object) -> None:
        raise Boom

    error = await group_of(run_map(fail, [item]))
    [note] = notes_of(error.exceptions[0])
    assert re.fullmatch(f"raised for item 0: {shown}", note)


@each_map
@needs_notes
async def test_a_cancellation_carries_no_note(run_map: Any) -> None:
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


# ---- open_amap: how results are given out


def test_results_come_in_the_exact_order_of_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[int, ...]:
        finished: list[int] = []

        async def finish(n: int) -> int:
            for _ in range(n // 3):
                await trio.lowlevel.checkpoint()
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
def test_ordered_results_come_in_the_order_of_the_items(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def finish(n: int) -> int:
            await trio.sleep(n * 7 % 5)
            return n

        captures = await streamed(finish, items_of(kind(20)), limit=6, ordered=True)
        assert [capture.result() for capture in captures] == list(range(20))

    for seed in range(10):
        seed_scheduler(seed, monkeypatch)
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_capture_that_is_given_out_is_done_and_knows_its_item() -> None:
    [capture] = await streamed(returns_later, ["item"], limit=1)
    assert type(capture) is ResultCapture
    assert capture.args == ("item",)
    assert capture.routine is returns_later
    assert capture.result() == "item"


async def returns_later(value: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return value


@each_kind
@pytest.mark.parametrize("ordered", [False, True])
async def test_while_nobody_takes_results_no_more_than_the_limit_are_made(kind: Any, ordered: bool) -> None:
    source = kind()
    async with open_amap(at_once, items_of(source), limit=3, ordered=ordered) as results:
        for consumed in range(5):
            await wait_all_tasks_blocked()
            assert source.taken == consumed + 3
            await anext(results)


@pytest.mark.parametrize("ordered", [False, True])
async def test_each_step_is_a_checkpoint(ordered: bool) -> None:
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


async def test_with_suppress_exception_failures_are_given_out_and_nothing_ends(autojump_clock: MockClock) -> None:
    async def fail_if_odd(n: int) -> int:
        if n % 2:
            raise Boom
        return n

    captures = await streamed(fail_if_odd, range(6), limit=3, ordered=True, suppress_exception=True)
    assert [type(capture.exception()) for capture in captures] == [type(None), Boom] * 3


async def test_suppress_exception_suppresses_nothing_but_exceptions() -> None:
    error = await group_of(streamed(partial(fails, 0), [KeyboardInterrupt], limit=1, suppress_exception=True))
    assert leaf_types(error) == [KeyboardInterrupt]


async def test_ctrl_c_before_a_call_begins_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultCapture, "_capture", interrupted)
    error = await group_of(streamed(at_once, [3], limit=1, ordered=True))
    assert leaf_types(error) == [KeyboardInterrupt]


async def test_a_call_that_fails_while_the_block_waits_ends_the_block_with_nothing_else(
    autojump_clock: MockClock,
) -> None:
    error = await error_of(streamed(fails, [2, 3], limit=2))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert trio.current_time() == 2


@each_kind
@pytest.mark.parametrize("ordered", [False, True])
async def test_consumers_that_get_nothing_more_end(kind: Any, ordered: bool, autojump_clock: MockClock) -> None:
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
async def test_a_shielded_consumer_does_not_wait_for_a_source_that_is_gone(
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
async def test_a_consumer_that_is_cancelled_loses_no_result(ready: bool, autojump_clock: MockClock) -> None:
    async with open_amap(returns_later, range(3), limit=2) as results:
        if ready:
            await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(results)
        assert scope.cancelled_caught
        assert sorted([capture.result() async for capture in results]) == [0, 1, 2]


async def test_a_consumer_that_is_cancelled_as_its_result_arrives_loses_no_result() -> None:
    go = trio.Event()

    async def work(n: int) -> int:
        await go.wait()
        return n

    found: list[int] = []

    async def consume() -> None:
        with scope:
            found.append((await anext(results)).result())

    scope = trio.CancelScope()
    async with open_amap(work, [3], limit=2) as results:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await wait_all_tasks_blocked()
            scope.cancel()
            go.set()
        found += [capture.result() async for capture in results]
    assert found == [3]


async def test_results_are_given_out_in_the_block_only() -> None:
    async with open_amap(returns_later, [1, 2], limit=1) as results:
        await anext(results)
    told = r"^open_amap gives no more results: its block has ended, or is being cancelled$"
    with pytest.raises(trio.ClosedResourceError, match=told):
        await anext(results)


@pytest.mark.parametrize("end", ["left", "failed", "cancelled"])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_consumer_outside_the_block_does_not_wait_for_ever(
    end: str, ordered: bool, autojump_clock: MockClock
) -> None:
    """Nor does one that is shielded: to both, the cancellation of the block means nothing."""
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
    """Calls that note how they end."""

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
async def test_leaving_by_break_cancels_what_runs_and_waits_for_it(ordered: bool, autojump_clock: MockClock) -> None:
    work = Cleanup()
    async with open_amap(work, Source(), limit=4, ordered=ordered) as results:
        async for capture in results:
            if capture.result() == 1:
                break
    assert (work.running, work.cleaned_up) == (0, 4)
    assert work.reasons == {"the block of open_amap has ended"}
    assert trio.current_time() == 2


async def test_leaving_by_return_cancels_what_runs_and_waits_for_it(autojump_clock: MockClock) -> None:
    work = Cleanup()

    async def find() -> int:
        async with open_amap(work, Source(), limit=4) as results:
            async for capture in results:
                return capture.result()
        raise AssertionError

    assert await find() == 0
    assert (work.running, work.cleaned_up) == (0, 4)


async def test_a_block_that_takes_no_result_cancels_what_runs(autojump_clock: MockClock) -> None:
    work = Cleanup()
    async with open_amap(work, Source(), limit=4):
        await trio.sleep(0.5)
    assert (work.running, work.cleaned_up) == (0, 3)
    async with open_amap(work, Source(), limit=4):
        pass
    assert work.running == 0


@pytest.mark.parametrize(
    "raised",
    [Boom(), KeyboardInterrupt(), GeneratorExit(), ExceptionGroup("one", [Boom()])],
    ids=lambda e: type(e).__name__,
)
async def test_an_exception_of_the_block_leaves_as_it_is(raised: BaseException, autojump_clock: MockClock) -> None:
    work = Cleanup()

    async def leave() -> None:
        async with open_amap(work, Source(), limit=4) as results:
            await anext(results)
            raise raised

    error = await error_of(leave())
    assert error is raised
    assert error.__context__ is None
    assert (work.running, work.cleaned_up) == (0, 4)


async def test_an_exception_of_the_block_is_in_a_group_with_those_of_calls() -> None:
    raised = Boom()

    async def leave() -> None:
        async with open_amap(fails_when_cancelled, [Other, Other], limit=4):
            await wait_all_tasks_blocked()
            raise raised

    error = await group_of(leave())
    assert set(leaf_types(error)) == {Boom, Other}
    assert raised in error.exceptions


async def test_a_generator_that_is_closed_in_the_block_ends_quietly(autojump_clock: MockClock) -> None:
    work = Cleanup()

    async def stream() -> AsyncGenerator[int, None]:
        async with open_amap(work, Source(), limit=4) as results:
            async for capture in results:
                yield capture.result()

    async with aclosing(stream()) as numbers:
        assert await anext(numbers) == 0
        assert await anext(numbers) == 1
    assert (work.running, work.cleaned_up) == (0, 4)


async def test_the_block_may_be_cancelled_by_a_scope_inside_it(autojump_clock: MockClock) -> None:
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
def test_open_amap_keeps_neither_items_nor_results_that_were_taken(kind: Any, ordered: bool) -> None:
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
            # `enumerate` holds the last item that it has given out, as the variable of a loop does.
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
        go.set()  # so the worker that has the third item is idle after the other one, which goes on before it
        await wait_all_tasks_blocked()
        await anext(results)
        await wait_all_tasks_blocked()
        assert things[2]() is None
