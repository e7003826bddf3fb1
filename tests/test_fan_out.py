"""What all fan-out calls have in common, and what gather, gather_outcomes, race and first_success return."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

import outcome
import pytest
import trio
from _fan_out import (
    MAPS,
    Call,
    Fn,
    Other,
    at_once,
    call_it,
    cancel_when_blocked,
    each_call,
    each_call_of_functions,
    each_strict_call,
    error_of,
    fails,
    fails_when_cancelled,
    group_of,
    mixes_failure_and_cancellation,
    named,
    never_called,
    returns,
    stagger_them,
    variable,
)
from _helpers import Boom, leaf_types, no_cycles, seed_scheduler
from trio.testing import MockClock, assert_checkpoints

from triores import (
    first_success,
    gather,
    gather_outcomes,
    race,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


# ---- what they all have in common


@each_call
async def test_a_call_cancelled_from_outside_raises_a_plain_cancelled(call: Call) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_blocked, scope)
            error = await error_of(call(trio.sleep_forever, trio.sleep_forever))
            assert type(error) is trio.Cancelled
            raise error
    assert scope.cancelled_caught


@each_call
async def test_a_call_cancelled_before_it_begins_starts_nothing(call: Call) -> None:
    async def never() -> None:
        raise AssertionError

    with trio.CancelScope() as scope:
        scope.cancel()
        assert type(await error_of(call(never, never))) is trio.Cancelled


@each_call
async def test_a_call_cancelled_while_a_function_fails_raises_a_group_of_both(call: Call) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_blocked, scope)
            error = await group_of(call(trio.sleep_forever, partial(fails_when_cancelled, KeyboardInterrupt)))
            assert set(leaf_types(error)) == {trio.Cancelled, KeyboardInterrupt}


@each_call
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_base_exceptions_are_neither_collected_nor_suppressed(
    call: Call, kind: type[BaseException], autojump_clock: MockClock
) -> None:
    error = await group_of(call(trio.sleep_forever, partial(fails, 1, kind)))
    assert leaf_types(error) == [kind]
    assert trio.current_time() < 1.5


@each_strict_call
async def test_the_first_exception_cancels_the_rest_and_is_raised_in_a_group(
    call: Call, autojump_clock: MockClock
) -> None:
    error = await error_of(call(fails, partial(returns, 3, 2), trio.sleep_forever))
    assert trio.current_time() == 1
    assert pytest.RaisesGroup(Boom).matches(error)


@each_strict_call
async def test_exceptions_that_others_raise_when_cancelled_are_in_the_same_group(
    call: Call, autojump_clock: MockClock
) -> None:
    error = await error_of(call(fails, fails_when_cancelled, mixes_failure_and_cancellation))
    assert pytest.RaisesGroup(Boom, Other, pytest.RaisesGroup(Other)).matches(error)


@each_strict_call
def test_a_single_failure_is_in_a_group_even_without_strict_exception_groups(call: Call) -> None:
    async def main() -> None:
        error = await error_of(call(partial(fails, 0)))
        assert pytest.RaisesGroup(Boom).matches(error)

    with pytest.warns(trio.TrioDeprecationWarning):
        trio.run(main, strict_exception_groups=False)


@each_call
def test_a_cancelled_call_raises_a_plain_cancelled_even_without_strict_exception_groups(call: Call) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_blocked, scope)
                assert type(await error_of(call(trio.sleep_forever, trio.sleep_forever))) is trio.Cancelled

    with pytest.warns(trio.TrioDeprecationWarning):
        trio.run(main, strict_exception_groups=False)


@each_call
async def test_a_call_is_a_checkpoint_even_if_no_function_is(call: Call) -> None:
    with assert_checkpoints():
        await call(at_once)


@pytest.mark.parametrize("call", named(gather, gather_outcomes, *MAPS))
async def test_a_call_without_functions_is_a_checkpoint_and_its_result_is_empty(call: Call) -> None:
    with assert_checkpoints():
        assert len(await call()) == 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


@pytest.mark.parametrize("call", named(race, first_success))
async def test_race_and_first_success_need_at_least_one_function(call: Call) -> None:
    with pytest.raises(ValueError, match=rf"^{call.__name__} got no functions"):
        await call()


@each_call
def test_outside_a_trio_run_a_call_says_that_it_needs_trio(call: Call) -> None:
    with pytest.raises(RuntimeError, match="triores needs Trio"):
        call(at_once).send(None)


@each_call_of_functions
async def test_passing_a_coroutine_raises_an_error_and_closes_every_coroutine(call: Call) -> None:
    coroutines = [at_once(), at_once(), at_once()]
    right = rf"the coroutine that 'at_once' returned; call '{call.__name__}\(functools\.partial\(at_once, "
    with pytest.raises(TypeError, match=right):  # warnings are errors, so a coroutine that is not closed fails the test
        await call(never_called, coroutines[0], coroutines[1], never_called, coroutines[2])
    for coroutine in coroutines:
        with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
            coroutine.send(None)


@each_call_of_functions
async def test_passing_something_uncallable_raises_an_error_and_closes_the_coroutines(call: Call) -> None:
    coroutine = at_once()
    with pytest.raises(TypeError, match=rf"got 3; call '{call.__name__}\("):
        await call(never_called, 3, 4, coroutine)
    with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
        coroutine.send(None)


@each_call
async def test_a_synchronous_function_fails_with_a_helpful_error(call: Call) -> None:
    def synchronous() -> int:
        return 3

    if call.__name__ == "gather_outcomes":
        [failed] = await call(synchronous)
        error: BaseException = failed.error
    else:
        [error] = (await group_of(call(synchronous))).exceptions
    assert type(error) is TypeError
    assert str(error).startswith("expected an async function, but '")
    assert "is synchronous, and returned 3; define it with 'async def'" in str(error)


@each_call
async def test_tasks_are_named_after_their_function(call: Call) -> None:
    names: list[str] = []

    async def observed() -> None:
        names.append(trio.lowlevel.current_task().name)

    await call(partial(observed), observed)
    expected = observed if call in (gather, gather_outcomes, race, first_success, stagger_them) else call_it
    assert set(names) == {f"{expected.__module__}.{expected.__qualname__}"}


@each_call
async def test_functions_see_the_context_variables_of_the_caller_and_not_of_each_other(call: Call) -> None:
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
async def test_if_a_function_raises_a_cancelled_that_belongs_elsewhere_the_call_raises_an_error(call: Call) -> None:
    error = await error_of(call(raises_a_foreign_cancelled))
    assert type(error) is RuntimeError
    names = {stagger_them: "first_success", **dict.fromkeys(MAPS[:2], "amap"), **dict.fromkeys(MAPS[2:], "open_amap")}
    assert str(error).startswith(
        f"{names.get(call, call.__name__)} can't finish: one of its tasks raised a trio.Cancelled that "
        "belongs to another scope, or cancelled the nursery"
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
    """A `KeyboardInterrupt` that weak references can point to."""


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
def test_returned_values_are_not_kept_alive(call: Call) -> None:
    class Value:
        pass

    async def make() -> object:
        return watch(Value())

    async def main() -> None:
        await call(make)

    with no_cycles() as watch:
        trio.run(main)


# ---- gather and gather_outcomes


async def test_gather_runs_functions_concurrently_and_returns_values_in_their_order(autojump_clock: MockClock) -> None:
    assert await gather(partial(returns, "a", 3), partial(returns, 2, 1), partial(returns, None, 2)) == ("a", 2, None)
    assert trio.current_time() == 3


async def test_gather_takes_more_functions_than_its_overloads_cover() -> None:
    assert await gather(*[partial(returns, n, 0) for n in range(100)]) == tuple(range(100))


async def test_gather_outcomes_returns_each_outcome_and_no_exception_cancels_the_others(
    autojump_clock: MockClock,
) -> None:
    failed, value = await gather_outcomes(partial(fails, 1), partial(returns, 3, 2))
    assert isinstance(failed, outcome.Error)
    assert type(failed.error) is Boom
    assert value == outcome.Value(3)
    assert trio.current_time() == 2


# ---- race


@pytest.mark.parametrize("value", [3, None])
async def test_in_a_race_the_first_to_finish_wins_and_the_others_are_cancelled(
    value: object, autojump_clock: MockClock
) -> None:
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
async def test_a_loser_is_cancelled_with_a_reason(call: Call, autojump_clock: MockClock) -> None:
    reasons: list[str | None] = []

    async def loser() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            reasons.append(cancelled.reason)
            raise

    await call(loser, returns_three)
    assert reasons == [f"another function of {call.__name__} finished first"]


async def test_an_exception_can_win_a_race_too(autojump_clock: MockClock) -> None:
    error = await error_of(race(partial(returns, 3, 2), fails))
    assert pytest.RaisesGroup(Boom).matches(error)
    assert trio.current_time() == 1


async def test_an_exception_raised_by_a_loser_is_not_lost(autojump_clock: MockClock) -> None:
    error = await error_of(race(partial(returns, 3), fails_when_cancelled))
    assert pytest.RaisesGroup(Other).matches(error)


@pytest.mark.parametrize("call", named(race, first_success))
def test_if_several_finish_in_one_tick_the_very_first_wins(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_the_first_value_wins_and_earlier_failures_are_dropped(autojump_clock: MockClock) -> None:
    assert await first_success(fails, partial(returns, 3, 2), partial(returns, 4, 3)) == 3
    assert trio.current_time() == 2


@pytest.mark.parametrize("loser", named(fails_when_cancelled, mixes_failure_and_cancellation))
async def test_if_a_loser_fails_when_cancelled_its_exception_is_raised_and_the_value_discarded(
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
async def test_if_all_fail_their_exceptions_are_grouped_in_the_order_given(
    stagger: float | None, autojump_clock: MockClock
) -> None:
    kinds = [ValueError, Boom, Other]
    functions = [partial(fails, 3 - n, kind) for n, kind in enumerate(kinds)]
    error = await error_of(first_success(*functions, stagger=stagger))
    assert type(error) is ExceptionGroup
    assert error.message == "all 3 functions of first_success failed"
    assert leaf_types(error) == kinds


async def test_without_a_winner_a_failure_grouped_with_a_foreign_cancelled_is_kept() -> None:
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


async def test_an_attempt_starts_every_stagger_seconds(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    slow = attempt(partial(returns, "slow", 100))
    assert await first_success(slow, slow, slow, attempt(partial(returns, "quick", 1)), slow, stagger=10) == "quick"
    assert attempt.started == [0, 10, 20, 30]


async def test_an_attempt_starts_as_soon_as_the_one_before_it_fails(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    failing = attempt(partial(fails, 3))
    assert await first_success(failing, failing, attempt(partial(returns, 3, 9)), failing, stagger=5) == 3
    assert attempt.started == [0, 3, 6, 11]


async def test_an_earlier_attempt_can_still_win_after_a_later_one_has_started(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    slow = attempt(partial(returns, "slow", 7))
    assert await first_success(slow, slow, slow, stagger=5) == "slow"
    assert attempt.started == [0, 5]
    assert trio.current_time() == 7


async def test_the_failure_of_an_earlier_attempt_starts_the_next_one(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    failing_later = attempt(partial(fails, 7))
    slow = attempt(partial(returns, 3, 100))
    assert await first_success(failing_later, slow, slow, stagger=5) == 3
    assert attempt.started == [0, 5, 7]


async def test_no_attempt_starts_once_one_has_succeeded(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    quick, slow = attempt(partial(returns, 3, 1)), attempt(partial(returns, 4, 2))
    assert await first_success(quick, slow, stagger=2) == 3
    assert await first_success(slow, quick, slow, stagger=math.inf) == 4
    assert attempt.started == [0, 1]


def test_no_attempt_starts_if_one_succeeds_in_the_tick_in_which_the_latest_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> list[float]:
        attempt = Attempts()
        succeeding, failing = attempt(partial(returns, 3, 7)), attempt(partial(fails, 2))
        assert await first_success(succeeding, failing, attempt(never_called), stagger=5) == 3
        return attempt.started

    for seed in range(10):  # the two may end in either order
        seed_scheduler(seed, monkeypatch)
        assert trio.run(main, clock=MockClock(autojump_threshold=0)) == [0, 5]


async def test_with_a_stagger_of_zero_all_start_at_once(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    assert await first_success(*[attempt(partial(returns, n, 3 - n)) for n in range(3)], stagger=0) == 2
    assert attempt.started == [0, 0, 0]


async def test_a_stagger_may_be_any_kind_of_number(autojump_clock: MockClock) -> None:
    attempt = Attempts()
    functions = [attempt(partial(returns, n, 2)) for n in range(3)]
    stagger: Any = Decimal("1.5")
    assert await first_success(*functions, stagger=stagger) == 0
    assert attempt.started == [0, 1.5]


@pytest.mark.parametrize("stagger", [math.inf, pytest.param(10**400, id="huge")])
async def test_with_an_endless_stagger_the_next_starts_when_one_fails(stagger: Any, autojump_clock: MockClock) -> None:
    assert await first_success(partial(fails, 3), partial(returns, 4, 1), stagger=stagger) == 4
    assert trio.current_time() == 4


@pytest.mark.parametrize(
    ("stagger", "kind"),
    [
        (-1, ValueError),
        pytest.param(-(10**400), ValueError, id="huge"),
        (math.nan, ValueError),
        (Decimal("sNaN"), ValueError),
        ("3", TypeError),
        (1j, TypeError),
        (True, TypeError),
    ],
)
async def test_a_wrong_stagger_raises_an_error_before_anything_starts(stagger: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^stagger must be a number of seconds, 0 or more"):
        await first_success(never_called, stagger=stagger)
