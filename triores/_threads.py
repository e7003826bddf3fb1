"""Results and tasks for threads that know nothing about Trio.

The rules that this file owns:

- Once we have handed out a concurrent future, any thread can cancel it at any time. Three parties may want to settle
  it: the result, a thread that cancels it, and the end of the run. The first one to acquire the claim, which is a lock,
  settles it.
- Cancelling either side cancels the other.
- Within one run, a result has one concurrent future and one callback, however often the future is handed out.
- No thread ever waits for a run that has ended. Each run that hands out futures has a system task, which Trio cancels
  when the main task is done; it then makes the pending futures fail.
- A future never refers to what settles it. Otherwise, a failed future would be part of a reference cycle.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from trio.lowlevel import RunVar, TrioToken, enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, refuse_uncallable, shown, task_name
from ._future import Future
from ._result import ResultBase, call_soon, current_run, current_trio_token, isfuture, of_this_run
from ._weak_cache import WeakCache

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
    """Make a `concurrent.futures.Future` from a result, so that threads can wait for it.

    A value stays a value, and an exception stays the same exception. If the result is ``cancelled()``, so is the
    future. Everything that `concurrent.futures` does with futures works: ``result(timeout)``,
    `concurrent.futures.wait`, `concurrent.futures.as_completed`.

    Cancelling the concurrent future cancels the result: a `Future` with `Future.cancel`, and a `ResultCapture` with its
    ``cancel_scope``. A capture without a cancel scope can't be cancelled on its own, so its concurrent future is
    ``running()`` from the start, and ``cancel()`` returns False. Such a future can't become ``cancelled()`` either: if
    the task is cancelled, its exception is a `concurrent.futures.CancelledError`.

    If the Trio run ends first, the future gets a `trio.RunFinishedError` when the main task is done. Never wait for the
    future in the Trio thread itself, since that is the thread that has to settle it.

    Args:
        result: A result that belongs to the current Trio run, or to none yet.

    Returns:
        The concurrent future. If you pass the same result again in this run, you get the same future.

    Raises:
        TypeError: If this isn't a result.
        RuntimeError: If the result is pending and belongs to another Trio run, or there is no Trio run here.

    Example:
        ::

            future = to_concurrent_future(result)
            threading.Thread(target=lambda: print(future.result())).start()
    """
    token = current_trio_token()
    if not isfuture(result):
        raise TypeError(f"to_concurrent_future takes a triores result, not {shown(result)}")
    cache = of_this_run(_futures, WeakCache)
    future: concurrent.futures.Future[T] | None = cache.get(result)
    if future is None:
        settler: _Settler[T] = _Settler()
        result.add_done_callback(settler.settle)  # first, because this raises if the result belongs to another run
        if not result.is_done():
            settler.allow_cancel(_canceller_of(result), token)
            settler.fail_at_run_end()
        future = settler.future
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
    goes wrong after this call becomes the future's exception: a `RuntimeError` if the nursery is closed, for example,
    or a `trio.RunFinishedError` if the Trio run ends first. Never wait for the future in the Trio thread itself.

    If the task raises an `Exception`, it goes to the future and not to the nursery, since the code that started the
    task holds the future and should handle the exception. Two kinds of exceptions propagate into the nursery: those
    that the future can't take any more, because it has been cancelled, and those that aren't an `Exception`.

    Args:
        nursery: A Trio nursery, or an anyio task group that runs on Trio.
        async_fn: An async function.
        args: Its positional arguments; use `functools.partial` for others.
        trio_token: The token of the Trio run that the nursery belongs to. As with `trio.from_thread.run`, you needn't
            pass it in the Trio thread, or in a thread that Trio started. Any other thread must pass it, since a nursery
            doesn't say which run it belongs to. To get it, call `trio.lowlevel.current_trio_token` in that run.

    Returns:
        A future for what the task returns or raises.

    Raises:
        TypeError: If ``async_fn`` is a coroutine object or isn't callable, or another argument has the wrong type.
        RuntimeError: If you don't pass ``trio_token``, and this is neither a Trio thread nor one that Trio started.

    Example:
        ::

            # in another thread; the token and the nursery come from the Trio thread
            future = start_from_thread(nursery, fetch, url, trio_token=token)
            print(future.result(timeout=10))
    """
    call = "start_from_thread(nursery, {}, ...)"
    if not callable(async_fn):
        refuse_uncallable(async_fn, call)
    check_nursery(nursery, call.format("async_fn"))
    settler: _Settler[T] = _Settler()
    scope = trio.CancelScope()
    # The capture is made later, in the nursery's run. Made here, it would belong to this thread's run, if it has one.
    make_capture = partial(ResultCapture[T], async_fn, *args, cancel_scope=scope)
    start = partial(settler.start, make_capture, nursery, contextvars.copy_context())
    try:
        token = _token_here() if trio_token is None else _checked_token(trio_token)
        settler.allow_cancel(scope.cancel, token)
        if token is current_run():
            start()  # immediately, because the current task may be about to leave the nursery
        elif not call_soon(token, start):
            settler.fail(_run_finished())
    except trio.RunFinishedError:
        settler.fail(_run_finished())
    return settler.future


class _Settler(Generic[T]):
    """Settles a concurrent future that we hand out.

    The future never refers to this object. Otherwise, a failed future would be part of a reference cycle.
    """

    __slots__ = ("_claim", "_run_end", "future")

    def __init__(self) -> None:
        from concurrent.futures import Future

        self.future: concurrent.futures.Future[T] = Future()
        self._claim = threading.Lock()  # acquired by whoever settles the future, and never released
        self._run_end: _RunEnd | None = None

    def allow_cancel(self, cancel: Callable[[str], object] | None, token: TrioToken) -> None:
        """Call ``cancel`` if a thread cancels the future. Without ``cancel``, no thread can do that."""
        if cancel is None:
            self.future.set_running_or_notify_cancel()
            return
        self.future.add_done_callback(partial(_cancel_in_trio, self._claim, token, cancel))

    def fail_at_run_end(self) -> bool:
        """Make the future fail when the run ends. If the run is ending already, make it fail now, and return False."""
        run_end = self._run_end = of_this_run(_run_end, _RunEnd)
        if run_end.is_past:
            self.fail(_run_finished())
            return False
        run_end.pending.add(self)
        return True

    @enable_ki_protection
    def start(
        self, make_capture: Callable[[], ResultCapture[T]], nursery: NurseryLike, context: contextvars.Context
    ) -> None:
        """Start the task. This is called in the Trio thread."""
        if self.future.cancelled():
            return
        try:
            _refuse_foreign(nursery)
            if self.fail_at_run_end():
                capture = make_capture()
                context.run(lambda: nursery.start_soon(self._run, capture, name=task_name(capture.routine)))
                capture.add_done_callback(self.settle)  # not too late: the task only begins at the next checkpoint
        except Exception as error:  # noqa: BLE001 # the thread that waits for the future gets it
            self.fail(error.with_traceback(None))  # the frames of the traceback hold this object

    async def _run(self, capture: ResultCapture[T]) -> None:
        running = capture.run()
        del capture  # a failure's traceback keeps this frame alive, and everything it refers to
        try:
            await running
        except Exception as error:
            if self.future.cancelled() or self.future.exception() is not error:
                raise
        finally:
            del self, running

    def settle(self, result: ResultBase[T]) -> None:
        """Settle the future with the result's outcome."""
        self._forget()
        error = result.exception()
        if error is None:
            if self._acquire_claim():
                self.future.set_result(result.result())
        elif not result.cancelled():
            self.fail(error)
        elif not self.future.cancel():  # it is running, so it can't be cancelled any more, but it can fail
            from concurrent.futures import CancelledError

            self.fail(CancelledError())

    def fail(self, error: BaseException) -> None:
        self._forget()
        if self._acquire_claim():
            self.future.set_exception(error)

    def _acquire_claim(self) -> bool:
        """Return whether the caller may settle the future: only the first may, and only if it isn't cancelled."""
        return self._claim.acquire(blocking=False) and (
            self.future.running() or self.future.set_running_or_notify_cancel()
        )

    def _forget(self) -> None:
        if self._run_end is not None:
            self._run_end.pending.discard(self)


def _canceller_of(result: ResultBase[Any]) -> Callable[[str], object] | None:
    """Return a function that cancels only this result, if there is one."""
    if isinstance(result, Future):
        return result.cancel
    if isinstance(result, ResultCapture) and result.cancel_scope is not None:
        return result.cancel_scope.cancel
    return None


@enable_ki_protection
def _cancel_in_trio(
    claim: threading.Lock, token: TrioToken, cancel: Callable[[str], object], future: concurrent.futures.Future[Any]
) -> None:
    """Cancel the task or result if the future was cancelled. This is called in whichever thread settled the future."""
    if not future.cancelled():
        return
    if claim.acquire(blocking=False):
        future.set_running_or_notify_cancel()  # notifies threads that wait in `concurrent.futures.wait`
    call_soon(token, cancel, "its concurrent.futures.Future was cancelled")


class _RunEnd:
    """The end of a Trio run, and the futures that have to fail then."""

    def __init__(self) -> None:
        self.pending: set[_Settler[Any]] = set()
        self.is_past = False
        try:
            trio.lowlevel.spawn_system_task(self._wait, name="<triores: end of run>")
        except RuntimeError:  # the system tasks have already ended
            self.is_past = True

    async def _wait(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.is_past = True
            with ExitStack() as stack:  # calls all of them, even if a callback of one future raises a SystemExit
                while self.pending:
                    stack.callback(self.pending.pop().fail, _run_finished())


_futures: RunVar[WeakCache[Any]] = RunVar("triores: the concurrent futures of results")
_run_end: RunVar[_RunEnd] = RunVar("triores: the end of this run")


def _run_finished() -> trio.RunFinishedError:
    return trio.RunFinishedError("the Trio run ended before this was done, so nothing will ever settle it")


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
            f"trio_token must be what trio.lowlevel.current_trio_token() returns in a Trio run, not {shown(token)}"
        )
    return token


def _refuse_foreign(nursery: NurseryLike) -> None:
    """Raise an error if the nursery belongs to another run: Trio would start the task, and break both runs."""
    task: Task | None = getattr(nursery, "parent_task", None)  # an anyio task group doesn't have one
    while task is not None and task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
    if task is not None and task is not trio.lowlevel.current_root_task():
        raise RuntimeError(
            "the nursery belongs to another Trio run; pass 'trio_token=token', with the token that "
            "trio.lowlevel.current_trio_token() returns in the nursery's run"
        )
