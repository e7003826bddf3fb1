"""`race` and `first_success`: no value is lost, and only failed attempts are dropped."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Boom, leaf_types, no_cycles, seed_scheduler
from trio.testing import MockClock, open_stream_to_socket_listener

from triores import Future, first_success, gather, race

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable

calls = pytest.mark.parametrize("call", [race, first_success])


async def returns(value: object, after: float = 0) -> Any:
    await trio.sleep(after)
    return value


async def shielded(value: object, after: float) -> Any:
    with trio.CancelScope(shield=True):
        return await returns(value, after)


async def fails(error: BaseException, after: float = 0) -> Any:
    await trio.sleep(after)
    raise error


async def fails_when_cancelled(error: BaseException) -> Any:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise error from None


@calls
async def test_if_a_loser_succeeds_late_discard_is_called_with_its_value(call: Any, autojump_clock: MockClock) -> None:
    discarded: list[object] = []
    assert await call(partial(shielded, "late", 2), partial(returns, "first", 1), discard=discarded.append) == "first"
    assert discarded == ["late"]


@calls
async def test_without_discard_a_late_value_is_dropped(call: Any, autojump_clock: MockClock) -> None:
    assert await call(partial(shielded, "late", 2), partial(returns, "first", 1)) == "first"


@calls
async def test_discard_may_be_async_and_runs_in_the_cancelled_task_that_made_the_value(
    call: Any, autojump_clock: MockClock
) -> None:
    seen: list[object] = []

    async def discard(value: object) -> None:
        seen.append(value)
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    assert await call(partial(shielded, "late", 2), partial(returns, "first", 1), discard=discard) == "first"
    assert seen == ["late", "cancelled"]


@calls
async def test_if_a_loser_fails_when_cancelled_the_first_value_is_discarded(
    call: Any, autojump_clock: MockClock
) -> None:
    discarded: list[object] = []
    with pytest.RaisesGroup(Boom, match=f"^{call.__name__} failed"):
        await call(partial(fails_when_cancelled, Boom()), partial(returns, 3, 1), discard=discarded.append)
    assert discarded == [3]


@calls
async def test_exceptions_raised_by_discard_are_grouped_with_the_failure(call: Any, autojump_clock: MockClock) -> None:
    def discard(value: object) -> None:
        raise ValueError(value)

    with pytest.RaisesGroup(Boom, ValueError, match=f"^{call.__name__} failed"):
        await call(partial(fails_when_cancelled, Boom()), partial(returns, 3, 1), discard=discard)
    with pytest.RaisesGroup(ValueError, ValueError, match=f"^{call.__name__} failed"):
        await call(partial(shielded, "late", 2), partial(returns, "first", 1), discard=discard)


@calls
async def test_if_the_deadline_passes_at_the_moment_of_success_the_value_is_returned_or_discarded(
    call: Any, autojump_clock: MockClock
) -> None:
    for _ in range(30):  # Trio runs the tasks of one tick in random order
        kept: list[object] = []
        with trio.move_on_after(1):
            kept.append(await call(partial(shielded, 3, 1), trio.sleep_forever, discard=kept.append))
        assert kept == [3]


@pytest.mark.parametrize("seed", range(10))  # the cancellation comes before the value or after it
async def test_if_a_winner_cancels_the_caller_its_value_is_returned_or_discarded(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_scheduler(seed, monkeypatch)
    seen: list[object] = []

    async def discard(value: object) -> None:
        seen.append(value)
        await trio.lowlevel.checkpoint()

    def fail_to_discard(value: object) -> None:
        raise Boom(value)

    async def cancels_the_caller() -> int:
        scope.cancel()
        return 3

    with trio.CancelScope() as scope:
        seen.append(await race(cancels_the_caller, trio.sleep_forever, discard=discard))
    assert seen == [3]

    with trio.CancelScope() as scope:
        try:
            assert await race(cancels_the_caller, trio.sleep_forever, discard=fail_to_discard) == 3
        except BaseExceptionGroup as group:
            assert leaf_types(group) == [trio.Cancelled, Boom]


async def test_racing_two_real_connections_leaves_none_open() -> None:
    async with trio.open_nursery() as nursery:
        listener = await open_stream_to_socket_listener_here(nursery)
        opened: list[trio.SocketStream] = []

        async def open_one() -> trio.SocketStream:
            stream: trio.SocketStream = await listener()
            opened.append(stream)
            return stream

        for _ in range(200):
            stream = await first_success(open_one, open_one, discard=trio.SocketStream.aclose)
            await stream.aclose()
        assert len(opened) >= 200
        assert all(stream.socket.fileno() == -1 for stream in opened)
        nursery.cancel_scope.cancel()


async def open_stream_to_socket_listener_here(nursery: trio.Nursery) -> Any:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.aclose()

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return partial(open_stream_to_socket_listener, listeners[0])


async def test_an_exception_that_catch_does_not_match_ends_the_call(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(AttributeError, match="^first_success failed"):
        await first_success(partial(fails, AttributeError()), partial(returns, 3, 1), catch=OSError)
    assert trio.current_time() == 0


@pytest.mark.parametrize("catch", [OSError, (ValueError, OSError)])
async def test_an_exception_that_catch_matches_is_a_failed_attempt(catch: Any) -> None:
    group = ExceptionGroup("both", [OSError(1), OSError(2)])
    assert await first_success(partial(fails, OSError()), partial(fails, group), partial(returns, 3), catch=catch) == 3
    with pytest.raises(ExceptionGroup, match=r"^all 2 functions of first_success failed") as caught:
        await first_success(partial(fails, OSError(1)), partial(fails, group), catch=catch)
    assert leaf_types(caught.value) == [OSError, OSError, OSError]


async def test_a_group_with_something_that_catch_does_not_match_ends_the_call() -> None:
    group = ExceptionGroup("both", [OSError(), KeyError()])
    with pytest.raises(ExceptionGroup, match=r"^first_success failed") as caught:
        await first_success(partial(fails, group), catch=OSError)
    assert leaf_types(caught.value) == [OSError, KeyError]


async def test_a_loser_that_fails_on_its_own_after_the_first_success_is_a_failed_attempt(
    autojump_clock: MockClock,
) -> None:
    async def fails_shielded() -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        raise Boom

    assert await first_success(fails_shielded, partial(returns, 3, 1)) == 3


async def test_a_failure_whose_contexts_form_a_loop_is_a_failed_attempt(autojump_clock: MockClock) -> None:
    async def fails_with_loop() -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        one, other = Boom(1), Boom(2)
        one.__context__, other.__context__ = other, one
        raise one

    assert await first_success(fails_with_loop, partial(returns, 3, 1)) == 3


async def test_no_attempt_is_called_once_another_has_succeeded() -> None:
    begun: list[int] = []

    async def attempt(number: int) -> int:
        begun.append(number)
        return number

    for call in (race, first_success):
        for _ in range(20):
            begun.clear()
            assert [await call(partial(attempt, 1), partial(attempt, 2), partial(attempt, 3))] == begun


async def test_no_attempt_starts_once_another_has_succeeded_even_if_the_clock_jumps(mock_clock: MockClock) -> None:
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            second: list[object] = []

            async def first() -> str:
                await trio.sleep(0.5)
                return "first"

            async def jump() -> None:
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(10)

            async def not_called(second: list[object] = second) -> str:
                second.append(3)
                return "second"

            nursery.start_soon(jump)
            assert await first_success(first, not_called, stagger=1) == "first"
            assert not second


async def test_two_failures_at_once_start_two_attempts(autojump_clock: MockClock) -> None:
    begun: list[float] = []
    start = trio.current_time()

    async def attempt(until: float) -> None:
        begun.append(trio.current_time() - start)
        await trio.sleep_until(start + until)
        raise ValueError

    with pytest.raises(ExceptionGroup):
        await first_success(*[partial(attempt, until) for until in (15, 15, 99, 99, 99)], stagger=10)
    assert begun == [0, 10, 15, 15, 25]


@calls
async def test_a_cancelled_loser_does_not_get_another_exception_as_its_context(
    call: Any, autojump_clock: MockClock
) -> None:
    contexts: list[BaseException | None] = []

    async def loser() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            contexts.append(cancelled.__context__)
            raise

    with pytest.raises(BaseExceptionGroup):
        await call(loser, partial(fails, KeyboardInterrupt(), 1))
    assert await call(loser, partial(returns, 3, 1)) == 3
    assert contexts == [None, None]


async def test_passing_a_result_raises_an_error_that_shows_the_right_call() -> None:
    wrong: Any = Future[int]()
    for call in (gather, race, first_success):
        with pytest.raises(
            TypeError, match=rf"^{call.__name__} takes async functions, not results.*wait_all\(results\)"
        ):
            await call(wrong)


@calls
async def test_an_uncallable_discard_raises_an_error_before_anything_starts(call: Any) -> None:
    with pytest.raises(TypeError, match=r"^discard must be a function that takes one argument, not 3; call"):
        await call(partial(fails, Boom()), discard=3)


async def test_catch_has_to_be_an_exception_type_or_a_tuple_of_them() -> None:
    wrong: Any
    for wrong in (3, BaseException, ValueError(), (OSError, trio.Cancelled)):
        with pytest.raises(TypeError, match=r"^catch must be .*a subclass of Exception or a tuple of those, not "):
            await first_success(partial(fails, Boom()), catch=wrong)


def test_a_failed_call_whose_value_is_discarded_leaves_no_reference_cycle() -> None:
    async def fails_as_it_is_cancelled(watch: Callable[[Any], Any]) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise watch(Boom()) from None

    async def main(watch: Callable[[Any], Any]) -> None:
        for call in (race, first_success):
            with contextlib.suppress(BaseExceptionGroup):
                await call(partial(fails_as_it_is_cancelled, watch), partial(returns, 3, 1), discard=str)

    with no_cycles() as watch:
        trio.run(main, watch, clock=MockClock(autojump_threshold=0))
