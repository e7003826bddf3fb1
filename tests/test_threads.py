"""to_concurrent_future and start_from_thread."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from _helpers import in_foreign_run, is_free
from trio.testing import wait_all_tasks_blocked

import triores._threads
from triores import Future, FutureCancelledException, ResultCapture, start_from_thread, to_concurrent_future

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LIMIT = 20  # seconds to wait for a thread that should have been woken

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class OurError(Exception):
    pass


class OurBaseError(BaseException):
    pass


async def in_thread(fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread that Trio didn't start, and wait for its return value."""
    answer: list[Any] = []

    def run() -> None:
        try:
            answer.append(fn(*args))
        except BaseException as error:
            answer.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await trio.to_thread.run_sync(thread.join, LIMIT)
    if isinstance(answer[0], BaseException):
        raise answer[0]
    return answer[0]


async def three() -> int:
    await trio.lowlevel.checkpoint()
    return 3


async def fails(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pending() -> int:
    """How many concurrent futures would fail if the run ended now."""
    try:
        return len(triores._threads._run_end.get().pending)
    except LookupError:
        return 0


# ---- to_concurrent_future


async def test_a_thread_can_wait_for_a_value() -> None:
    result = Future[int]()
    future = to_concurrent_future(result)
    async with trio.open_nursery() as nursery:
        answer = ResultCapture.start_soon(nursery, in_thread, future.result, LIMIT)
        await wait_all_tasks_blocked()
        result.set_result(3)
    assert answer.result() == 3


@pytest.mark.parametrize("error", [OurError(), OurBaseError()])
async def test_an_exception_is_passed_to_the_thread_unchanged(error: BaseException) -> None:
    result = Future[int]()
    future = to_concurrent_future(result)
    result.set_exception(error)
    assert future.exception(0) is error


async def test_if_the_result_is_cancelled_so_is_the_concurrent_future() -> None:
    result = Future[int]()
    future = to_concurrent_future(result)
    result.cancel()
    assert future.cancelled()
    assert concurrent.futures.wait([future], 0).done == {future}


async def test_the_concurrent_future_of_a_done_result_is_done_at_once() -> None:
    value, failed, cancelled = (Future[int]() for _ in range(3))
    value.set_result(3)
    failed.set_exception(OurError())
    cancelled.cancel()
    assert to_concurrent_future(value).result(0) == 3
    assert isinstance(to_concurrent_future(failed).exception(0), OurError)
    assert to_concurrent_future(cancelled).cancelled()
    assert not pending()


async def test_wait_and_as_completed_of_concurrent_futures_work() -> None:
    results = [Future[int]() for _ in range(4)]
    futures = [to_concurrent_future(result) for result in results]
    results[3].set_result(3)
    watching = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def watch() -> list[int]:
        order: list[int] = []
        for future in concurrent.futures.as_completed(futures, LIMIT):
            order.append(futures.index(future))
            token.run_sync_soon(watching.set)  # as_completed watches all futures before it yields the first
        return order

    async with trio.open_nursery() as nursery:
        order = ResultCapture.start_soon(nursery, in_thread, watch)
        await watching.wait()
        results[2].set_result(2)
        await in_thread(futures[0].cancel)
        results[1].set_exception(OurError())
    assert order.result() == [3, 2, 0, 1]
    assert concurrent.futures.wait(futures, 0).done == set(futures)


async def test_a_thread_can_cancel_the_future() -> None:
    result = Future[int]()
    future = to_concurrent_future(result)
    assert await in_thread(future.cancel)
    await wait_all_tasks_blocked()
    assert result.cancelled()
    assert isinstance(result.exception(), FutureCancelledException)
    assert str(result.exception()).endswith(": its concurrent.futures.Future was cancelled")
    assert not pending()


async def test_a_thread_can_cancel_the_task_of_a_capture_that_has_a_cancel_scope(nursery: trio.Nursery) -> None:
    scope = trio.CancelScope()
    result = ResultCapture.start_soon(nursery, trio.sleep_forever, cancel_scope=scope)
    future = to_concurrent_future(result)
    assert await in_thread(future.cancel)
    await result.wait_done()
    assert result.cancelled()
    assert not pending()


async def test_a_thread_cannot_cancel_a_capture_without_a_cancel_scope(nursery: trio.Nursery) -> None:
    result = ResultCapture.start_soon(nursery, three)
    future = to_concurrent_future(result)
    assert future.running()
    assert not await in_thread(future.cancel)
    assert await result == 3
    assert future.result(0) == 3


async def test_if_a_capture_without_a_cancel_scope_is_cancelled_the_thread_gets_a_cancelled_error() -> None:
    async with trio.open_nursery() as nursery:
        result = ResultCapture.start_soon(nursery, trio.sleep_forever)
        future = to_concurrent_future(result)
        nursery.cancel_scope.cancel()
    assert result.cancelled()
    assert type(future.exception(0)) is concurrent.futures.CancelledError
    assert not pending()


async def test_a_result_cancelled_and_set_at_the_same_time_is_settled_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class CancelledMeanwhile:
        """A lock: when it is first acquired, another thread cancels the future at once."""

        def __init__(self) -> None:
            self.taken = False

        def acquire(self, *, blocking: bool) -> bool:
            assert not blocking
            if self.taken:
                return False
            self.taken = True
            thread = threading.Thread(target=future.cancel)
            thread.start()
            thread.join(LIMIT)
            return True

    monkeypatch.setattr("triores._threads.threading.Lock", CancelledMeanwhile)
    result = Future[int]()
    future = to_concurrent_future(result)
    monkeypatch.undo()
    result.set_result(3)
    await wait_all_tasks_blocked()
    assert future.cancelled()
    assert concurrent.futures.wait([future], 0).done == {future}
    assert result.result() == 3
    assert not caplog.records  # concurrent.futures would log a second notification of the cancellation


class AllEqual(Future[int]):
    """A future that equals everything, and can't be hashed."""

    __hash__ = None  # type: ignore[assignment] # how a class says that its objects can't be hashed

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("kind", [Future, AllEqual])
async def test_a_result_passed_500_times_has_one_concurrent_future_and_one_callback(
    kind: type[Future[int]],
) -> None:
    result, other = kind(), kind()
    future = to_concurrent_future(result)
    for _ in range(500):
        assert to_concurrent_future(result) is future
    assert result.statistics().callbacks == 1
    assert pending() == 1
    assert to_concurrent_future(other) is not future
    result.set_result(3)
    assert to_concurrent_future(result) is future
    assert future.result(0) == 3


async def test_a_result_has_one_callback_even_if_nobody_keeps_its_concurrent_future() -> None:
    result = Future[int]()
    for _ in range(500):
        to_concurrent_future(result)
    assert result.statistics().callbacks == 1
    result.set_result(3)
    assert to_concurrent_future(result).result(0) == 3


def test_a_result_that_outlives_its_run_gets_a_new_concurrent_future_in_the_next_run() -> None:
    async def hand_out() -> concurrent.futures.Future[int]:
        return to_concurrent_future(result)

    async def hand_out_and_settle() -> concurrent.futures.Future[int]:
        future = to_concurrent_future(result)
        result.set_result(3)
        return future

    result = Future[int]()
    assert isinstance(trio.run(hand_out).exception(0), trio.RunFinishedError)
    assert trio.run(hand_out_and_settle).result(0) == 3


def test_a_thread_that_is_waiting_when_the_run_ends_gets_an_exception() -> None:
    class Kept:
        futures: list[concurrent.futures.Future[Any]]

    async def main() -> None:
        result = Future[int]()
        scoped = ResultCapture[int](three, cancel_scope=trio.CancelScope())
        Kept.futures = [to_concurrent_future(result), to_concurrent_future(scoped)]
        waits = threading.Thread(target=lambda: concurrent.futures.wait(Kept.futures, LIMIT))
        waits.start()
        trio.lowlevel.spawn_system_task(still_in_the_run, waits)

    async def still_in_the_run(waits: threading.Thread) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(waits.join, LIMIT)

    trio.run(main)
    for future in Kept.futures:
        with pytest.raises(trio.RunFinishedError, match=r"^the Trio run ended before this was done"):
            future.result(0)
        assert not future.cancel()


@pytest.mark.parametrize("before", [0, 1])
def test_futures_made_at_the_end_of_the_run_fail_at_once(before: int) -> None:
    futures: list[concurrent.futures.Future[int]] = []

    async def at_the_end() -> AsyncIterator[None]:
        try:
            yield
        finally:  # Trio runs this after all system tasks have ended
            futures.append(to_concurrent_future(Future[int]()))
            futures.append(to_concurrent_future(Future[int]()))
            async with trio.open_nursery() as nursery:
                futures.append(start_from_thread(nursery, three))

    async def main() -> None:
        for _ in range(before):
            futures.append(to_concurrent_future(Future[int]()))
        iterator = at_the_end()
        await iterator.__anext__()
        kept.append(iterator)

    kept: list[AsyncIterator[None]] = []
    trio.run(main)
    assert [type(future.exception(0)) for future in futures] == [trio.RunFinishedError] * (before + 3)


def test_when_the_run_ends_all_futures_fail_even_if_a_callback_of_one_raises_a_system_exit() -> None:
    def leave(_future: object) -> None:
        raise SystemExit

    async def main() -> None:
        for _ in range(3):
            futures.append(to_concurrent_future(Future[int]()))
            futures[-1].add_done_callback(leave)

    futures: list[concurrent.futures.Future[int]] = []
    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    assert [type(future.exception(0)) for future in futures] == [trio.RunFinishedError] * 3


def test_cancelling_after_the_run_has_ended_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    token = trio.run(main)
    future = concurrent.futures.Future[int]()
    cancel = triores._threads._cancel_in_trio
    future.add_done_callback(lambda _: cancel(threading.Lock(), token, print, future))
    assert future.cancel()
    assert not caplog.records


async def test_a_failed_concurrent_future_is_freed_without_the_garbage_collector(no_collector: None) -> None:
    result = Future[int]()
    future = to_concurrent_future(result)
    result.set_exception(OurError())
    future_ref, error = weakref.ref(future), weakref.ref(result.exception() or OurError())
    del result, future
    assert future_ref() is None
    assert error() is None


async def test_passing_a_pending_result_of_another_run_raises_an_error() -> None:
    result = Future[int]()

    async def other() -> int:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be given a callback"):
            to_concurrent_future(result)
        return pending()

    assert await in_foreign_run(other) == 0
    assert is_free(result)


async def test_to_concurrent_future_takes_only_results() -> None:
    wrong: Any = concurrent.futures.Future[int]()
    with pytest.raises(TypeError, match=r"^to_concurrent_future takes a triores result, not <Future at "):
        to_concurrent_future(wrong)


# ---- start_from_thread


async def test_a_foreign_thread_can_start_a_task(nursery: trio.Nursery) -> None:
    token = trio.lowlevel.current_trio_token()

    def start() -> int:
        return start_from_thread(nursery, three, trio_token=token).result(LIMIT)

    assert await in_thread(start) == 3
    assert not pending()


@pytest.mark.parametrize("abandon", [False, True])
async def test_a_thread_started_by_trio_needs_no_token(abandon: bool, nursery: trio.Nursery) -> None:
    def start() -> int:
        return start_from_thread(nursery, three).result(LIMIT)

    assert await trio.to_thread.run_sync(start, abandon_on_cancel=abandon) == 3


async def test_in_the_trio_thread_the_task_is_started_at_once() -> None:
    async with trio.open_nursery() as nursery:
        future = start_from_thread(nursery, three)
        assert [task.name.rpartition(".")[2] for task in nursery.child_tasks] == ["three"]
    assert future.result(0) == 3


def test_a_thread_not_started_by_trio_needs_a_token() -> None:
    nursery: Any = trio.run(a_closed_nursery)
    with pytest.raises(RuntimeError, match=r"^triores needs Trio, and .* trio.lowlevel.current_trio_token\(\)"):
        start_from_thread(nursery, three)


async def a_closed_nursery() -> trio.Nursery:
    async with trio.open_nursery() as nursery:
        pass
    return nursery


async def test_the_task_is_named_after_its_function_and_has_the_callers_context(nursery: trio.Nursery) -> None:
    token = trio.lowlevel.current_trio_token()

    async def report(mark: str) -> tuple[str, str, str]:
        before = colour.get()
        colour.set("blue")
        return mark, trio.lowlevel.current_task().name, before

    def start() -> tuple[tuple[str, str, str], str]:
        colour.set("red")
        answer = start_from_thread(nursery, report, "x", trio_token=token).result(LIMIT)
        return answer, colour.get()

    colour.set("green")
    (mark, name, before), after = await in_thread(start)
    assert (mark, before, after) == ("x", "red", "red")
    assert name.endswith("<locals>.report")


async def test_an_exception_reaches_the_future_but_not_the_nursery() -> None:
    error = OurError()
    async with trio.open_nursery() as nursery:
        future = start_from_thread(nursery, fails, error)
    assert future.exception(0) is error


async def test_a_base_exception_reaches_the_nursery_too() -> None:
    error = OurBaseError()
    futures: list[concurrent.futures.Future[None]] = []
    with pytest.RaisesGroup(OurBaseError):
        async with trio.open_nursery() as nursery:
            futures.append(start_from_thread(nursery, fails, error))
    assert futures[0].exception(0) is error


async def test_if_the_future_is_already_cancelled_an_exception_reaches_the_nursery() -> None:
    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OurError

    with pytest.RaisesGroup(OurError):
        async with trio.open_nursery() as nursery:
            future = start_from_thread(nursery, fails_when_cancelled)
            await wait_all_tasks_blocked()
            assert await in_thread(future.cancel)
            assert future.cancelled()


async def test_cancelling_the_future_cancels_only_its_task(nursery: trio.Nursery) -> None:
    future = start_from_thread(nursery, trio.sleep_forever)
    other = start_from_thread(nursery, three)
    await wait_all_tasks_blocked()
    assert await in_thread(future.cancel)
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert other.result(0) == 3
    assert not pending()
    assert concurrent.futures.wait([future], 0).done == {future}


async def test_a_task_cancelled_before_it_has_begun_never_runs(nursery: trio.Nursery) -> None:
    token = trio.lowlevel.current_trio_token()
    ran: list[int] = []

    async def run() -> None:
        ran.append(3)

    def start_and_cancel() -> None:  # the Trio thread is blocked meanwhile, so the task can't begin
        assert start_from_thread(nursery, run, trio_token=token).cancel()

    thread = threading.Thread(target=start_and_cancel)
    thread.start()
    thread.join(LIMIT)
    await wait_all_tasks_blocked()
    assert not ran
    assert not pending()


async def test_if_the_nursery_is_cancelled_so_is_the_future() -> None:
    async with trio.open_nursery() as nursery:
        future = start_from_thread(nursery, trio.sleep_forever)
        nursery.cancel_scope.cancel()
    assert future.cancelled()


async def test_if_the_nursery_is_closed_the_future_fails() -> None:
    nursery = await a_closed_nursery()
    token = trio.lowlevel.current_trio_token()
    future: concurrent.futures.Future[int] = await in_thread(
        lambda: start_from_thread(nursery, three, trio_token=token)
    )
    await wait_all_tasks_blocked()
    assert isinstance(future.exception(0), RuntimeError)
    assert str(future.exception(0)) == "Nursery is closed to new arrivals"
    assert not pending()


async def test_the_future_of_a_task_that_could_not_start_is_freed_without_the_garbage_collector(
    no_collector: None,
) -> None:
    future = start_from_thread(await a_closed_nursery(), three)
    future_ref = weakref.ref(future)
    assert future.done()
    del future
    assert future_ref() is None


async def test_a_failed_task_is_freed_without_the_garbage_collector(no_collector: None) -> None:
    async with trio.open_nursery() as nursery:
        future = start_from_thread(nursery, fails_anew)
    future_ref, error = weakref.ref(future), weakref.ref(future.exception(0) or OurError())
    assert error() is not None
    del future
    await wait_all_tasks_blocked()
    assert future_ref() is None
    assert error() is None


async def fails_anew() -> None:
    raise OurError


def test_if_the_run_has_ended_the_future_fails() -> None:
    class Kept:
        nursery: trio.Nursery
        token: trio.lowlevel.TrioToken

    async def main() -> None:
        Kept.token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as Kept.nursery:
            pass

    trio.run(main)
    future = start_from_thread(Kept.nursery, three, trio_token=Kept.token)
    with pytest.raises(trio.RunFinishedError, match=r"^the Trio run ended before this was done"):
        future.result(0)


def test_if_the_run_has_ended_the_future_fails_even_in_a_thread_started_by_trio() -> None:
    futures: list[concurrent.futures.Future[int]] = []
    began, ended, started = threading.Event(), threading.Event(), threading.Event()

    def outlives_the_run(nursery: trio.Nursery) -> None:
        began.set()
        ended.wait(LIMIT)
        futures.append(start_from_thread(nursery, three))
        started.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: trio.to_thread.run_sync(outlives_the_run, nursery, abandon_on_cancel=True))
            await trio.to_thread.run_sync(began.wait, LIMIT)
            nursery.cancel_scope.cancel()

    trio.run(main)
    ended.set()
    assert started.wait(LIMIT)
    assert isinstance(futures[0].exception(0), trio.RunFinishedError)


async def test_if_the_nursery_belongs_to_another_run_the_future_fails() -> None:
    def start() -> trio.Nursery:
        async def main() -> trio.Nursery:
            async with trio.open_nursery() as nursery:
                return nursery

        return trio.run(main)

    nursery = await in_thread(start)
    future = start_from_thread(nursery, three)
    error = future.exception(0)
    assert isinstance(error, RuntimeError)
    assert str(error) == (
        "the nursery belongs to another Trio run; pass 'trio_token=token', with the token that "
        "trio.lowlevel.current_trio_token() returns in the nursery's run"
    )


async def test_an_anyio_task_group_can_be_the_nursery() -> None:
    futures: list[concurrent.futures.Future[int]] = []
    async with anyio.create_task_group() as group:
        futures.append(start_from_thread(group, three))
    assert futures[0].result(0) == 3


async def test_passing_anything_but_an_async_function_to_start_from_thread_raises_an_error(
    nursery: trio.Nursery,
) -> None:
    wrong: Any = three()
    with pytest.raises(
        TypeError, match=r"call '.*, three, ...\)', not 'start_from_thread\(nursery, three\(...\), ...\)'"
    ):
        start_from_thread(nursery, wrong)
    wrong = 3
    with pytest.raises(TypeError, match=r"^expected an async function, but got 3"):
        start_from_thread(nursery, wrong)
    wrong = int
    future = start_from_thread(nursery, wrong)
    await wait_all_tasks_blocked()
    assert str(future.exception(0)).startswith("expected an async function, but 'int' is synchronous")


async def test_passing_a_wrong_nursery_or_token_to_start_from_thread_raises_an_error(nursery: trio.Nursery) -> None:
    wrong: Any = three
    with pytest.raises(TypeError, match=r"^expected a nursery, but got <function three"):
        start_from_thread(wrong, three)
    with pytest.raises(TypeError, match=r"^trio_token must be what .* returns in a Trio run, not <function three"):
        start_from_thread(nursery, three, trio_token=wrong)
    assert not nursery.child_tasks
