"""With the garbage collector off, failures are freed as soon as the last reference to them is dropped."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Boom, no_cycles
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    FutureSetAgainException,
    ResultBase,
    ResultCapture,
    TaskFailedException,
    TaskNotDoneException,
    as_completed,
    results_to_channel,
    wait_all,
    wait_any,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Watch = Any  # what `no_cycles` yields


async def fail(watch: Watch) -> None:
    await trio.lowlevel.checkpoint()
    raise watch(Boom())


def raise_boom(_result: object) -> None:
    raise Boom


async def expect(kind: type[BaseException], awaitable: Awaitable[object]) -> None:
    """Await something that fails. The exception keeps this frame alive, so the frame must not refer to the result."""
    with pytest.raises(kind):
        await awaitable


async def expect_group(use: Callable[[trio.Nursery], Awaitable[object]]) -> None:
    try:
        async with trio.open_nursery() as nursery:
            await use(nursery)
    except BaseExceptionGroup:
        return
    pytest.fail("not reached")


# Each program makes something fail, and passes the exception and the result to `watch`, which returns its argument.


async def a_failed_capture(watch: Watch) -> None:
    async def use(nursery: trio.Nursery) -> None:
        watch(ResultCapture.start_soon(nursery, fail, watch))

    await expect_group(use)


async def read(results: list[Any]) -> None:
    await results.pop()


async def read_failure(result: ResultBase[object]) -> None:
    await result.wait_done()
    with pytest.raises(TaskFailedException):
        result.result()


async def a_failed_capture_with_many_waiters(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, fail, watch, suppress_exception=True))
        for _ in range(3):
            nursery.start_soon(expect, Boom, read([capture]))
            nursery.start_soon(read_failure, capture)
        nursery.start_soon(wait_all, [capture])
        nursery.start_soon(wait_any, [capture])


async def a_failed_capture_with_a_scope(watch: Watch) -> None:
    async def use(nursery: trio.Nursery) -> None:
        watch(ResultCapture.start_soon(nursery, fail, watch, cancel_scope=trio.CancelScope()))

    await expect_group(use)


async def a_suppressed_failure(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        for scope in (None, trio.CancelScope()):
            watch(ResultCapture.start_soon(nursery, fail, watch, suppress_exception=True, cancel_scope=scope))


async def a_capture_whose_routine_returns_a_failed_future(watch: Watch) -> None:
    def routine() -> Future[None]:
        future = watch(Future[None]())
        future.set_exception(watch(Boom()))
        return future  # type: ignore[no-any-return] # `watch` returns its argument

    async with trio.open_nursery() as nursery:
        for scope in (None, trio.CancelScope()):
            watch(ResultCapture.start_soon(nursery, routine, suppress_exception=True, cancel_scope=scope))


async def a_failed_capture_run_by_hand(watch: Watch) -> None:
    for scope in (None, trio.CancelScope()):
        await expect(Boom, watch(ResultCapture(fail, watch, cancel_scope=scope)).run())


async def cancel_soon(scope: trio.CancelScope) -> None:
    """Cancel from another task, since a `trio.Cancelled` keeps the frame that called ``cancel`` alive."""
    await wait_all_tasks_blocked()
    scope.cancel()


async def a_cancelled_capture(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, trio.sleep_forever))
        nursery.start_soon(cancel_soon, nursery.cancel_scope)
    watch(capture.exception())


async def a_capture_cancelled_by_its_own_scope(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=trio.CancelScope()))
        nursery.start_soon(cancel_soon, capture.cancel_scope)
    watch(capture.exception())


async def a_capture_whose_scope_cannot_be_entered(watch: Watch) -> None:
    scope = trio.CancelScope()

    async def use(nursery: trio.Nursery) -> None:
        for _ in range(2):
            watch(ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=scope))

    await expect_group(use)


async def failing_callbacks_of_captures(watch: Watch) -> None:
    def boom(_result: object) -> None:
        raise watch(Boom())

    def read(result: ResultCapture[None]) -> None:
        result.result()

    async with trio.open_nursery() as nursery:
        for routine in (partial(trio.sleep, 0), partial(fail, watch)):
            for scope in (None, trio.CancelScope()):
                capture = ResultCapture.start_soon(nursery, routine, suppress_exception=True, cancel_scope=scope)
                watch(capture)
                for callback in (boom, read):
                    capture.add_done_callback(callback)


async def a_callback_that_ends_the_program(watch: Watch) -> None:
    def leave(_result: object) -> None:
        raise watch(Exit())

    def settle(futures: list[Future[int]]) -> None:
        futures.pop().set_exception(Boom())

    future = watch(Future[int]())
    future.add_done_callback(leave)
    futures = [future]
    del future
    with pytest.raises(Exit):
        settle(futures)


class Exit(BaseException):
    """Stands in for `SystemExit`, which doesn't allow weak references."""


async def a_pending_future_with_callbacks(watch: Watch) -> None:
    future = watch(Future[int]())
    future.add_done_callback(print)
    await wait_all([settled(watch)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def settled(watch: Watch) -> Future[int]:
    future = watch(Future[int]())
    future.add_done_callback(id)
    future.set_result(3)
    return future  # type: ignore[no-any-return] # `watch` returns its argument


async def a_second_run(watch: Watch) -> None:
    for scope in (None, trio.CancelScope()):
        capture = watch(ResultCapture(trio.sleep, 0, cancel_scope=scope))
        await capture.run()
        try:
            await capture.run()
        except FutureSetAgainException as error:
            watch(error)


async def a_second_run_of_a_failed_capture(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, fail, watch, suppress_exception=True))
    await expect(FutureSetAgainException, capture.run())


async def serve(end: str, watch: Watch, *, task_status: trio.TaskStatus[None]) -> None:
    await trio.lowlevel.checkpoint()
    if end != "returned":
        task_status.started()
        await trio.lowlevel.checkpoint()
        raise watch(Boom())


# No routine here raises before `started`, since Trio itself would make its exception part of a cycle: the traceback has
# a frame of `Nursery.start`, which refers to the function, and so to the capture.


async def a_failure_under_nursery_start(watch: Watch) -> None:
    for scope in (None, trio.CancelScope()):

        async def use(nursery: trio.Nursery, scope: trio.CancelScope | None = scope) -> None:
            await nursery.start(watch(ResultCapture(serve, "failed", watch, cancel_scope=scope)).run)

        await expect_group(use)


async def failed_start_and_done_results(watch: Watch) -> None:
    for end in ("failed", "returned"):

        async def use(nursery: trio.Nursery, end: str = end) -> None:
            for result in ResultCapture.capture_start_and_done_results(nursery, serve, end, watch):
                watch(result)

        await expect_group(use)


async def a_failed_future_read_many_times(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, fail, watch, suppress_exception=True))
    future = watch(Future[int]())
    future.set_exception(capture.exception())  # an exception with a traceback
    async with trio.open_nursery() as nursery:  # in other tasks, since a frame keeps its caller's frame alive
        for _ in range(5):
            nursery.start_soon(expect, Boom, read([future]))
            nursery.start_soon(expect, Boom, unwrap([future]))
    for _ in range(5):
        try:
            future.result()
        except TaskFailedException as error:
            watch(error)


async def unwrap(futures: list[Future[Any]]) -> None:
    futures.pop().unwrap()


async def a_failure_that_must_not_be_raised_here(watch: Watch) -> None:
    future = watch(Future[int]())
    future.set_exception(StopIteration())
    for read in (future.unwrap, future.result):
        try:
            read()
        except TaskFailedException as error:
            watch(error)
        try:
            await future
        except TaskFailedException as error:
            watch(error)


async def early_and_repeated_settling(watch: Watch) -> None:
    future = watch(Future[int]())
    for read in ("result", "exception", "outcome"):
        try:
            getattr(future, read)()
        except TaskNotDoneException as error:
            watch(error)
    future.set_exception(watch(Boom()))
    try:
        future.set_exception(watch(Boom()))
    except FutureSetAgainException as error:
        watch(error)


async def cancelled_futures(watch: Watch) -> None:
    future = watch(Future[int]())
    future.cancel("why")
    watch(future.exception())
    with pytest.raises(TaskFailedException):
        await future


async def failing_callbacks_of_futures(watch: Watch) -> None:
    def boom(_result: object) -> None:
        raise watch(Boom())

    for settle in ("set_result", "set_exception", "cancel"):
        future = watch(Future[Any]())
        future.add_done_callback(boom)
        getattr(future, settle)(*[Boom()][: settle != "cancel"])


async def must_set_without_settling(watch: Watch) -> None:
    future = watch(Future[int]())
    with future.must_set():
        pass
    watch(future.exception())


async def must_set_blocks_that_raise(watch: Watch) -> None:
    async def raise_in_block(blocks: list[Any]) -> None:
        with blocks.pop():
            raise watch(Boom())  # in a frame without the future, or the test itself would create a cycle

    def block(*callbacks: Callable[[object], object]) -> Any:
        future = watch(Future[int]())
        for callback in callbacks:
            future.add_done_callback(callback)
        return future.must_set()

    await expect(Boom, raise_in_block([block()]))
    await expect(Boom, raise_in_block([block(raise_boom)]))


async def wait_done(futures: list[Future[Any]]) -> None:
    await futures.pop().wait_done()


async def wait_for_all(futures: list[Future[Any]]) -> None:
    await wait_all([futures.pop()])


async def wait_for_any(futures: list[Future[Any]]) -> None:
    await wait_any([futures.pop()])


async def iterate(futures: list[Future[Any]]) -> None:
    async for _ in as_completed([futures.pop()]):
        pytest.fail("not reached")


async def send(futures: list[Future[Any]]) -> None:
    channel, _receiver = trio.open_memory_channel[Future[Any]](0)
    await results_to_channel([futures.pop()], channel)


WAITS = (wait_done, read, wait_for_all, wait_for_any, iterate, send)


async def cancelled_waits(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        for wait in WAITS:
            future = watch(Future[Any]())
            capture = watch(ResultCapture.start_soon(nursery, wait, [future]))
            # If a frame of the wait kept the future, this would create a cycle: future, callback, capture, exception.
            future.add_done_callback(partial(print, capture))
        nursery.start_soon(cancel_soon, nursery.cancel_scope)


async def send_into_closed(futures: list[Future[Any]]) -> None:
    channel, _receiver = trio.open_memory_channel[Future[Any]](0)
    channel.close()
    done = Future[Any]()  # a separate future, since Trio's frames keep the object that is sent
    done.set_result(3)
    await results_to_channel([done, futures.pop()], channel)


async def a_channel_that_fails(watch: Watch) -> None:
    future = watch(Future[Any]())
    async with trio.open_nursery() as nursery:
        capture = watch(ResultCapture.start_soon(nursery, send_into_closed, [future], suppress_exception=True))
        future.add_done_callback(partial(print, capture))
    assert isinstance(capture.exception(), trio.ClosedResourceError)


async def leaving_as_completed_early(watch: Watch) -> None:
    done = watch(Future[int]())
    done.set_exception(watch(Boom()))
    pending = watch(Future[int]())
    async for _ in as_completed([done, pending]):
        break
    with pytest.raises(KeyError):
        async for _ in as_completed([done, pending]):
            raise KeyError


async def waits_that_raise_an_error(watch: Watch) -> None:
    def refused() -> Any:
        return [watch(Future[int]()), 3]

    await expect(TypeError, wait_all(refused()))
    await expect(TypeError, wait_any(refused()))


@pytest.mark.leaves_results
@pytest.mark.parametrize(
    "program",
    [
        a_failed_capture,
        a_failed_capture_with_many_waiters,
        a_failed_capture_with_a_scope,
        a_suppressed_failure,
        a_capture_whose_routine_returns_a_failed_future,
        a_failed_capture_run_by_hand,
        a_cancelled_capture,
        a_capture_cancelled_by_its_own_scope,
        a_capture_whose_scope_cannot_be_entered,
        failing_callbacks_of_captures,
        a_callback_that_ends_the_program,
        a_pending_future_with_callbacks,
        a_second_run,
        a_second_run_of_a_failed_capture,
        a_failure_under_nursery_start,
        failed_start_and_done_results,
        a_failed_future_read_many_times,
        a_failure_that_must_not_be_raised_here,
        early_and_repeated_settling,
        cancelled_futures,
        failing_callbacks_of_futures,
        must_set_without_settling,
        must_set_blocks_that_raise,
        cancelled_waits,
        a_channel_that_fails,
        leaving_as_completed_early,
        waits_that_raise_an_error,
    ],
)
def test_there_is_no_reference_cycle_after(
    program: Callable[[Watch], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("triores"), "disabled", True)  # pytest keeps log records
    with no_cycles() as watch:
        trio.run(program, watch)
