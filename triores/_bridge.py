"""Bridges into Trio: what concurrent.futures, asyncio and executors settle, as results and awaits of Trio.

The rules that this file owns:

- A result is settled in the thread of its Trio run. Whoever finds the other side done, in whichever thread, says so
  through `trio.lowlevel.TrioToken.run_sync_soon`. If that run has ended, there is nobody left to tell, and that is all.
- An asyncio future is touched in the thread of its event loop only, or once that loop is closed.
- Cancelling either side cancels the other, where it still can be.

Neither asyncio nor concurrent.futures is imported before a call needs it: Trio needs neither, and most programs use no
bridge.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import outcome
import trio
from trio.lowlevel import Abort, TrioToken, enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, shown
from ._exceptions import FutureCancelledException
from ._future import Future
from ._result import ResultBase, checkpoint, current_trio_token, isfuture

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Awaitable, Callable

    from trio.lowlevel import RaiseCancelT, Task
    from typing_extensions import TypeIs, TypeVarTuple, Unpack

    from ._capture import NurseryLike

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
ResultT = TypeVar("ResultT", bound=ResultBase[Any])


@enable_ki_protection
def wrap_future(future: concurrent.futures.Future[T] | asyncio.Future[T], /) -> Future[T]:
    """Make a future of a `concurrent.futures.Future` or an `asyncio.Future`.

    It is settled in the Trio thread, soon after the other is done, in whichever thread that is; at once where the other
    is done already. (Of an asyncio future whose loop runs in another thread, that can't be told at once.) A value, an
    exception and a cancellation each stay what they are. Cancelling either cancels the other: `Future.cancel` here, and
    ``cancel()`` there. Where the other side can't be cancelled any more, it goes on, and what it ends with is dropped.

    Once the Trio run has ended, nothing more happens here. Where a callback of the future raises, no caller is there
    to get it: as from any function given to `trio.lowlevel.TrioToken.run_sync_soon`, it ends the run with a
    `trio.TrioInternalError`.

    Args:
        future: A future of an executor, of a thread, or of an asyncio event loop, in this thread or in another.

    Returns:
        A future of the Trio run that this is called in.

    Raises:
        TypeError: If it is neither kind of future.
        RuntimeError: If there is no Trio run here, or the asyncio future is pending and its event loop is closed.

    Example:
        ::

            with concurrent.futures.ProcessPoolExecutor() as pool:
                squares = [wrap_future(pool.submit(pow, n, 2)) for n in range(10)]
                async for square in as_completed(squares):
                    print(square.result())
    """
    token = current_trio_token()
    wrapper: Future[T] = Future()
    if _is_concurrent(future):
        if future.done():
            wrapper.set_outcome(_outcome_of(future))
        else:
            _on_cancel(wrapper, future.cancel)
            future.add_done_callback(partial(_tell, token, wrapper))
    elif _is_asyncio(future):
        _wrap_asyncio(future, wrapper, token)
    else:
        raise TypeError(
            f"wrap_future takes a concurrent.futures.Future or an asyncio.Future, not {shown(future)}; "
            "'ensure_future(obj, nursery)' takes anything that can be awaited"
        )
    return wrapper


def _wrap_asyncio(future: asyncio.Future[T], wrapper: Future[T], token: TrioToken) -> None:
    loop = future.get_loop()
    if (loop.is_closed() or _runs_here(loop)) and future.done():
        wrapper.set_outcome(_outcome_of(future))
        return
    try:
        loop.call_soon_threadsafe(future.add_done_callback, partial(_tell, token, wrapper))
    except RuntimeError:
        raise RuntimeError(
            "the event loop of this asyncio future is closed, so it will never be done, nor would its wrapper; "
            "call wrap_future while that loop is running"
        ) from None
    _on_cancel(wrapper, partial(_cancel_in_loop, loop, future))


@enable_ki_protection
def _tell(token: TrioToken, wrapper: Future[T], future: concurrent.futures.Future[T] | asyncio.Future[T]) -> None:
    """Settle the wrapper soon; called in whichever thread the future was done in."""
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(_settle, wrapper, _outcome_of(future))


def _settle(wrapper: Future[T], result: outcome.Outcome[T]) -> None:
    if not wrapper.is_done():
        wrapper.set_outcome(result)


def _on_cancel(wrapper: Future[Any], cancel: Callable[[], object]) -> None:
    # Not by `add_done_callback`, whose checks of what it is given cost half as much as all the rest of a bridge.
    wrapper._register_callback(partial(_cancel_too, cancel), contextvars.copy_context())


def _cancel_too(cancel: Callable[[], object], wrapper: Future[Any]) -> None:
    if wrapper.cancelled():
        cancel()


def _outcome_of(future: concurrent.futures.Future[T] | asyncio.Future[T]) -> outcome.Outcome[T]:
    if future.cancelled():
        kind = "asyncio" if _is_asyncio(future) else "concurrent"
        return outcome.Error(FutureCancelledException(f"the {kind} future behind it was cancelled"))
    error = future.exception()
    return outcome.Value(future.result()) if error is None else outcome.Error(error)


def _is_concurrent(obj: object) -> TypeIs[concurrent.futures.Future[Any]]:
    # Whoever has such a future has imported the module; where nobody has, another thread may be in the middle of it.
    return isinstance(obj, getattr(sys.modules.get("concurrent.futures"), "Future", ()))


def _is_asyncio(obj: object) -> TypeIs[asyncio.Future[Any]]:
    isfuture = getattr(sys.modules.get("asyncio"), "isfuture", None)
    return isfuture is not None and isfuture(obj)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs the loop: it hosts Trio as a guest, or Trio runs it, as trio-asyncio does."""
    import asyncio

    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _cancel_in_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop is closed, so there is nothing left to cancel
        loop.call_soon_threadsafe(future.cancel)


@overload
def ensure_future(obj: ResultT, nursery: NurseryLike) -> ResultT: ...
@overload
def ensure_future(  # type: ignore[overload-overlap]  # an asyncio future is awaitable, too: what is told first counts
    obj: concurrent.futures.Future[T] | asyncio.Future[T], nursery: NurseryLike
) -> Future[T]: ...
@overload
def ensure_future(obj: Awaitable[T], nursery: NurseryLike) -> ResultCapture[T]: ...
def ensure_future(obj: Any, nursery: NurseryLike) -> ResultBase[Any]:
    """Make a result of whatever can be waited for.

    Args:
        obj: A result, which is returned as it is; a `concurrent.futures.Future` or an `asyncio.Future`, which is
            wrapped as by `wrap_future`; or a coroutine or another awaitable, made for Trio, which a new task awaits.
        nursery: Where such a task is started. Its exception goes on into the nursery, as that of any `ResultCapture`.

    Returns:
        The same result, a `Future`, or a `ResultCapture`.

    Raises:
        TypeError: If it can't be waited for, or the nursery is none.
        RuntimeError: If there is no Trio run here, the nursery is closed, or the asyncio future's loop is. A coroutine
            that can't be started is closed.
    """
    try:
        current_trio_token()
        if isfuture(obj):
            return obj
        if _is_concurrent(obj) or _is_asyncio(obj):
            return wrap_future(obj)
        return _started(obj, nursery)
    except BaseException:
        if inspect.iscoroutine(obj):
            obj.close()  # or Python would warn that it was never awaited
        raise


def _started(awaitable: object, nursery: NurseryLike) -> ResultCapture[Any]:
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"ensure_future takes something that can be awaited, not {shown(awaitable)}; "
            "start an async function by 'ResultCapture.start_soon(nursery, async_fn, ...)'"
        )
    check_nursery(nursery, "ensure_future(awaitable, nursery)")
    name = getattr(awaitable, "__qualname__", None) or shown(awaitable)
    return ResultCapture.start_soon(nursery, _itself, awaitable, name=name)


def _itself(awaitable: Awaitable[T]) -> Awaitable[T]:
    return awaitable


# ---- executors


@enable_ki_protection
async def run_in_executor(
    executor: concurrent.futures.Executor,
    fn: Callable[[Unpack[Ts]], T],
    *args: Unpack[Ts],
    abandon_on_cancel: bool = False,
) -> T:
    """Run a synchronous function in an executor, and wait for what it returns.

    Any `concurrent.futures.Executor` will do: threads, processes, or a cluster. The rules are those of
    `trio.to_thread.run_sync`. Where the wait is cancelled, a call that has not begun is cancelled, and never runs. One
    that has begun can't be stopped: the wait goes on until it ends, and then gives its value or its exception, unless
    ``abandon_on_cancel`` is set. (Whether it has begun is the executor's word: Dask's cancels whatever is not done, and
    forgets what a worker is at.) It is a checkpoint on every path.

    In a `concurrent.futures.ThreadPoolExecutor` the function runs in a copy of the caller's context. No other executor
    can be given one.

    Args:
        executor: Where to run it; it stays open. ``Client.get_executor(pure=False)`` gives that of a Dask cluster.
        fn: A synchronous function; for a pool of processes, one that can be pickled.
        args: Its positional arguments; use `functools.partial` for others.
        abandon_on_cancel: Where the wait is cancelled, leave a call that has begun to itself. What it ends with is
            dropped.

    Returns:
        What the function returned.

    Raises:
        TypeError: If ``fn`` is an async function or can't be called, or the executor is none.
        BaseException: What the function raised, itself and not wrapped; and what the executor raises: a `RuntimeError`
            after its shutdown, the error of what can't be pickled, a `concurrent.futures.BrokenExecutor` where a worker
            died, a `concurrent.futures.CancelledError` where somebody else cancelled the call.
        RuntimeError: If there is no Trio run here.

    Example:
        ::

            with concurrent.futures.ProcessPoolExecutor() as pool:
                digest = await run_in_executor(pool, hash_file, path)
    """
    await checkpoint()
    _check_call(executor, fn)
    abandon = bool(abandon_on_cancel)
    if _takes_context(executor):
        run: Any = contextvars.copy_context().run  # its type is too much for a type checker, together with submit's
        future: concurrent.futures.Future[T] = executor.submit(run, fn, *args)
    else:
        future = executor.submit(fn, *args)
    try:
        await _until_done(future, abandon=abandon)
        value = future.result()
    finally:
        del future  # a failed one holds its exception, whose traceback holds this frame
    if inspect.iscoroutine(value):
        value.close()  # or Python would warn that it was never awaited
        _refuse_async(fn)
    return value


async def _until_done(future: concurrent.futures.Future[Any], *, abandon: bool) -> None:
    sleeper = [trio.lowlevel.current_task()]

    def abort(_: RaiseCancelT) -> Abort:
        if not future.cancel() and not abandon:
            return Abort.FAILED
        sleeper.clear()
        return Abort.SUCCEEDED

    future.add_done_callback(partial(_wake_soon, current_trio_token(), sleeper))
    await trio.lowlevel.wait_task_rescheduled(abort)


@enable_ki_protection
def _wake_soon(token: TrioToken, sleeper: list[Task], _: object) -> None:
    """Wake the task that waits; called in whichever thread the call ended in."""
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(_wake, sleeper)


def _wake(sleeper: list[Task]) -> None:
    if sleeper:
        trio.lowlevel.reschedule(sleeper.pop())


def _check_call(executor: object, fn: object) -> None:
    from concurrent.futures import Executor

    if not isinstance(executor, Executor):
        raise TypeError(
            f"run_in_executor takes a concurrent.futures.Executor, not {shown(executor)}; for a thread of Trio's own, "
            "call 'trio.to_thread.run_sync(fn, ...)'"
        )
    if inspect.iscoroutine(fn):
        fn.close()  # or Python would warn that it was never awaited
    if not callable(fn):
        raise TypeError(
            f"expected a synchronous function, but got {shown(fn)}; "
            "the right call is 'run_in_executor(executor, fn, ...)'"
        )
    if inspect.iscoroutinefunction(fn):
        _refuse_async(fn)


def _refuse_async(fn: object) -> NoReturn:
    name = getattr(fn, "__qualname__", None) or shown(fn)
    raise TypeError(
        f"expected a synchronous function, but {name!r} is an async one, which no executor runs; "
        f"call 'await {name}(...)', or start a task"
    )


def _takes_context(executor: concurrent.futures.Executor) -> bool:
    """Whether the function runs in a thread of this interpreter, to which a context need not be pickled."""
    from concurrent.futures import ThreadPoolExecutor

    pickling = sys.modules.get("concurrent.futures.interpreter")  # from Python 3.14 on
    return isinstance(executor, ThreadPoolExecutor) and not (
        pickling is not None and isinstance(executor, pickling.InterpreterPoolExecutor)
    )
