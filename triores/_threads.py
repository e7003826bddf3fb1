"""Results and tasks of Trio, for threads that know nothing of Trio.

The rules that this file owns:

- A concurrent future that is handed out can be cancelled by any thread, at any time. It is settled by whoever takes its
  claim first: the result, a thread that cancels it, or the end of the run.
- Cancelling either side cancels the other.
- In one run a result has one concurrent future and one callback, however often it is handed out.
- No thread waits for a run that has ended. A system task, one for each run that hands anything out, is cancelled when
  the main task is done, and then fails the futures that are pending.
- A future never refers to what settles it, or a failed one would be part of a reference cycle.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from trio.lowlevel import RunVar, TrioToken, enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, refuse_uncallable, shown, task_name
from ._future import Future
from ._result import ResultBase, current_trio_token, isfuture
from ._weak_cache import WeakCache, cache_of_this_run

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable

    from trio.lowlevel import Task
    from typing_extensions import TypeVarTuple, Unpack

    from ._capture import NurseryLike

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


@enable_ki_protection
def to_concurrent_future(result: ResultBase[T]) -> concurrent.futures.Future[T]:
    """Make a `concurrent.futures.Future` of a result, so that threads can wait for it.

    A value stays a value, and an exception the same exception. A result that is ``cancelled()`` becomes a cancelled
    future. Everything that `concurrent.futures` does with futures works: ``result(timeout)``,
    `concurrent.futures.wait`, `concurrent.futures.as_completed`.

    Cancelling the concurrent future cancels the result: `Future.cancel` for a `Future`, and the ``cancel_scope`` of a
    `ResultCapture`. A capture without a cancel scope can't be cancelled alone, so its concurrent future is
    ``running()`` from the start, and ``cancel()`` returns False. As such a future can't become ``cancelled()`` either,
    it gets a `concurrent.futures.CancelledError` as its exception if the task is cancelled.

    If the Trio run ends first, the future gets a `trio.RunFinishedError` when the main task is done. Never wait for the
    future in the Trio thread itself, which is the one that has to settle it.

    Args:
        result: A result of the Trio run that this is called in, or a free one.

    Returns:
        The future, the same one if this result was passed in this run before.

    Raises:
        TypeError: If it isn't a result.
        RuntimeError: If the result is pending and belongs to another Trio run, or there is no Trio run here.

    Example:
        ::

            future = to_concurrent_future(result)
            threading.Thread(target=lambda: print(future.result())).start()
    """
    token = current_trio_token()
    if not isfuture(result):
        raise TypeError(f"to_concurrent_future takes a result of triores, not {shown(result)}")
    cache = cache_of_this_run(_futures)
    future: concurrent.futures.Future[T] | None = cache.get(result)
    if future is None:
        handed_out: _HandedOut[T] = _HandedOut()
        result.add_done_callback(handed_out.settle)  # first, as it refuses a result of another run
        if not result.is_done():
            handed_out.let_cancel(_cancel_of(result), token)
            handed_out.end_with_run()
        future = handed_out.future
        cache.set(result, future)
    return future


def start_from_thread(
    nursery: NurseryLike,
    async_fn: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: Unpack[Ts],
    trio_token: TrioToken | None = None,
) -> concurrent.futures.Future[T]:
    """Start a task in a nursery, from any thread.

    The task gets a copy of the caller's context. Cancelling the future cancels the task, and nothing else. Whatever
    goes wrong after this call, a closed nursery included, becomes the future's exception: if the Trio run ends first,
    that is a `trio.RunFinishedError`. Never wait for the future in the Trio thread itself.

    An `Exception` of the task goes to the future and not to the nursery, since the code that started the task holds the
    future and should handle it. If the future was cancelled, and so can't take the exception, it goes on into the
    nursery; so does anything that isn't an `Exception`.

    Args:
        nursery: A Trio nursery, or an anyio task group that runs on Trio.
        async_fn: An async function.
        args: Its positional arguments; use `functools.partial` for others.
        trio_token: The Trio run that the nursery belongs to. As with `trio.from_thread.run`, neither the Trio thread
            nor a thread that Trio started needs to pass it. Any other thread does: a nursery doesn't say which run it
            belongs to. Call `trio.lowlevel.current_trio_token` in that run to get it.

    Returns:
        A future that is settled with what the task returns or raises.

    Raises:
        TypeError: If ``async_fn`` is a coroutine object or can't be called, or another argument has the wrong type.
        RuntimeError: If it's unclear which Trio run is meant.

    Example:
        ::

            # in a thread of its own; the token and the nursery come from the Trio thread
            future = start_from_thread(nursery, fetch, url, trio_token=token)
            print(future.result(timeout=10))
    """
    call = "start_from_thread(nursery, {}, ...)"
    if not callable(async_fn):
        refuse_uncallable(async_fn, call)
    check_nursery(nursery, call.format("async_fn"))
    handed_out: _HandedOut[T] = _HandedOut()
    scope = trio.CancelScope()
    # The capture is made in the run that it is to belong to, since the run here, if there is one, may be another.
    make_capture = partial(ResultCapture[T], async_fn, *args, cancel_scope=scope)
    start = partial(handed_out.start, make_capture, nursery, contextvars.copy_context())
    try:
        token = _token_here() if trio_token is None else _checked_token(trio_token)
        handed_out.let_cancel(scope.cancel, token)
        if trio.lowlevel.in_trio_run() and token is current_trio_token():
            start()  # at once, as the task that calls this may be about to leave the nursery
        else:
            token.run_sync_soon(start)
    except trio.RunFinishedError:
        handed_out.fail(_run_finished())
    return handed_out.future


class _HandedOut(Generic[T]):
    """A concurrent future that was handed out, seen from the side that has to settle it.

    The future never refers to this object, or a failed one would be part of a reference cycle.
    """

    __slots__ = ("_claim", "_run_end", "future")

    def __init__(self) -> None:
        from concurrent.futures import Future

        self.future: concurrent.futures.Future[T] = Future()
        self._claim = threading.Lock()  # taken, for good, by whoever settles the future
        self._run_end: _RunEnd | None = None

    def let_cancel(self, cancel: Callable[[str], object] | None, token: TrioToken) -> None:
        """Have this called if the future is cancelled; without it, the future can't be cancelled."""
        if cancel is None:
            self.future.set_running_or_notify_cancel()
            return
        self.future.add_done_callback(partial(_cancel_in_trio, self._claim, token, cancel))

    def end_with_run(self) -> bool:
        """Have the future fail when the run ends. Returns False if the run has ended, and the future has failed."""
        run_end = self._run_end = _end_of_this_run()
        if run_end.is_past:
            self.fail(_run_finished())
            return False
        run_end.pending.add(self)
        return True

    @enable_ki_protection
    def start(
        self, make_capture: Callable[[], ResultCapture[T]], nursery: NurseryLike, context: contextvars.Context
    ) -> None:
        """Start the task; called in the Trio thread."""
        if self.future.cancelled():
            return
        try:
            _refuse_foreign(nursery)
            if self.end_with_run():
                capture = make_capture()
                context.run(lambda: nursery.start_soon(self._run, capture, name=task_name(capture.routine)))
                capture.add_done_callback(self.settle)  # in time, as the task begins only at the next checkpoint
        except Exception as error:  # noqa: BLE001 # it is for the thread that waits for the future
            self.fail(error.with_traceback(None))  # the frames of the traceback hold this object

    async def _run(self, capture: ResultCapture[T]) -> None:
        running = capture.run()
        del capture  # a failure's traceback keeps this frame alive, and with it what it holds
        try:
            await running
        except Exception as error:
            if self.future.cancelled() or self.future.exception() is not error:
                raise
        finally:
            del self, running

    def settle(self, result: ResultBase[T]) -> None:
        """Pass on what the result ended with."""
        self._forget()
        error = result.exception()
        if error is None:
            if self._take():
                self.future.set_result(result.result())
        elif not result.cancelled():
            self.fail(error)
        elif not self.future.cancel():  # it is running, and so can fail, but can't be cancelled any more
            from concurrent.futures import CancelledError

            self.fail(CancelledError())

    def fail(self, error: BaseException) -> None:
        self._forget()
        if self._take():
            self.future.set_exception(error)

    def _take(self) -> bool:
        """Whether the caller is the one to settle the future."""
        return self._claim.acquire(blocking=False) and (
            self.future.running() or self.future.set_running_or_notify_cancel()
        )

    def _forget(self) -> None:
        if self._run_end is not None:
            self._run_end.pending.discard(self)


def _cancel_of(result: ResultBase[Any]) -> Callable[[str], object] | None:
    """Return what cancels the result alone, if anything does."""
    if isinstance(result, Future):
        return result.cancel
    if isinstance(result, ResultCapture) and result.cancel_scope is not None:
        return result.cancel_scope.cancel
    return None


@enable_ki_protection
def _cancel_in_trio(
    claim: threading.Lock, token: TrioToken, cancel: Callable[[str], object], future: concurrent.futures.Future[Any]
) -> None:
    """Called in whichever thread the future was done in."""
    if not future.cancelled():
        return
    if claim.acquire(blocking=False):
        future.set_running_or_notify_cancel()  # tells those who wait in `concurrent.futures.wait`
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(cancel, "the concurrent future made of it was cancelled")


class _RunEnd:
    """The end of a Trio run, and the futures that have to fail then."""

    def __init__(self) -> None:
        self.pending: set[_HandedOut[Any]] = set()
        self.is_past = False

    async def wait(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.is_past = True
            while self.pending:
                self.pending.pop().fail(_run_finished())


_futures: RunVar[WeakCache[Any]] = RunVar("triores: the concurrent futures of results")
_run_end: RunVar[_RunEnd | None] = RunVar("triores: the end of this run", None)


def _end_of_this_run() -> _RunEnd:
    run_end = _run_end.get()
    if run_end is None:
        run_end = _RunEnd()
        try:
            trio.lowlevel.spawn_system_task(run_end.wait, name="triores: end of run")
        except RuntimeError:  # the system tasks have ended already
            run_end.is_past = True
        _run_end.set(run_end)
    return run_end


def _run_finished() -> trio.RunFinishedError:
    return trio.RunFinishedError("the Trio run ended before this was done, so nothing will settle it any more")


def _token_here() -> TrioToken:
    if trio.lowlevel.in_trio_run():
        return current_trio_token()
    try:
        return trio.from_thread.run_sync(trio.lowlevel.current_trio_token)
    except trio.RunFinishedError:
        raise
    except RuntimeError:
        raise RuntimeError(
            "triores needs Trio, and Trio didn't start this thread; call 'start_from_thread(nursery, async_fn, ..., "
            "trio_token=token)', with the token that trio.lowlevel.current_trio_token() returns in the nursery's run"
        ) from None


def _checked_token(token: TrioToken) -> TrioToken:
    if not isinstance(token, TrioToken):
        raise TypeError(
            f"trio_token is what trio.lowlevel.current_trio_token() returns in a Trio run, not {shown(token)}"
        )
    return token


def _refuse_foreign(nursery: NurseryLike) -> None:
    """Refuse a nursery of another run: Trio would start the task, and break both runs."""
    task: Task | None = getattr(nursery, "parent_task", None)  # an anyio task group doesn't say
    while task is not None and task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
    if task is not None and task is not trio.lowlevel.current_root_task():
        raise RuntimeError(
            "the nursery belongs to another Trio run than the one that was meant; pass 'trio_token=token', with the "
            "token that trio.lowlevel.current_trio_token() returns in the nursery's run"
        )
