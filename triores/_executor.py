"""Synchronous calls that run in an executor while a Trio task waits.

The rules that this file owns:

- The task is woken once, and in its own thread: by the end of the call or by a cancellation, whichever comes first.
- A cancellation takes effect if the call can still be cancelled, or may be abandoned. Otherwise the wait continues, as
  with `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import trio
from trio.lowlevel import Abort, enable_ki_protection

from ._checks import close_coroutines, name_of, shown
from ._result import call_soon, checkpoint, current_trio_token

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from trio.lowlevel import RaiseCancelT, Task, TrioToken
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


class ExecutorLike(Protocol):
    """Anything with the ``submit`` method of a `concurrent.futures.Executor`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> concurrent.futures.Future[Any]: ...


@enable_ki_protection
async def run_in_executor(
    executor: ExecutorLike,
    fn: Callable[[Unpack[Ts]], T],
    *args: Unpack[Ts],
    abandon_on_cancel: bool = False,
) -> T:
    """Run a synchronous function in an executor, and wait for its return value.

    The executor may use threads, processes or a cluster: any object works if it has a method ``submit(fn, *args)`` that
    returns a `concurrent.futures.Future`. The rules are the same as for `trio.to_thread.run_sync`. If the wait is
    cancelled and the call hasn't begun, the call is cancelled and never runs. Once it has begun, it can't be stopped:
    the wait continues until the call ends, and then returns its value or raises its exception, unless you set
    ``abandon_on_cancel``. (The executor decides whether a call has begun. Dask's executor cancels any call that isn't
    done, and drops whatever the worker returns.) This is always a checkpoint.

    In a `concurrent.futures.ThreadPoolExecutor`, the function runs in a copy of the caller's context. Other executors
    don't get the context.

    Args:
        executor: Where to run the function. It stays open. In async code, shut it down with
            ``pool.shutdown(wait=False)``: the end of a ``with pool:`` block would block the Trio thread. For a Dask
            cluster, pass ``client.get_executor(pure=False)``.
        fn: A synchronous function. For a process pool, it must be picklable.
        args: Its positional arguments; use `functools.partial` for others.
        abandon_on_cancel: Whether a cancelled wait ends at once even if the call has begun. The call then runs to
            completion, and its outcome is dropped.

    Returns:
        What the function returned.

    Raises:
        TypeError: If ``fn`` is an async function or isn't callable, or ``executor`` isn't an executor.
        RuntimeError: If there is no Trio run here, or the executor has been shut down.
        BaseException: What the function raised, not wrapped; or what the executor raised: a pickling error, a
            `concurrent.futures.BrokenExecutor` if a worker died, or a `concurrent.futures.CancelledError` if somebody
            else cancelled the call.

    Example:
        ::

            async def main(pool):
                print(await run_in_executor(pool, hash_file, path))

            spawn = multiprocessing.get_context("spawn")  # a forked worker couldn't run Trio
            with concurrent.futures.ProcessPoolExecutor(mp_context=spawn) as pool:
                trio.run(main, pool)
    """
    await checkpoint()
    _check_function(fn)
    future: concurrent.futures.Future[T] = _submit(executor, fn, args)
    try:
        await _until_done(future, abandon=bool(abandon_on_cancel))
        value = future.result()
    finally:
        del future  # if it failed, it holds the exception, whose traceback holds this frame
    if inspect.iscoroutine(value):
        value.close()  # or Python would warn that it was never awaited
        _refuse_async(fn)
    return value


async def _until_done(future: concurrent.futures.Future[Any], *, abandon: bool) -> None:
    # Not a `trio.Event`: only an abort function can decide whether a cancellation ends the wait.
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
    """Have the waiting task woken. This is called in the thread in which the call ended."""
    call_soon(token, _wake, sleeper)


def _wake(sleeper: list[Task]) -> None:
    if sleeper:
        trio.lowlevel.reschedule(sleeper.pop())


def _submit(executor: ExecutorLike, fn: Any, args: tuple[Any, ...]) -> concurrent.futures.Future[Any]:
    from concurrent.futures import Future

    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"run_in_executor takes an executor, not {shown(executor)}; pass an object whose 'submit(fn, ...)' returns "
            "a concurrent.futures.Future, or, to use one of Trio's own threads, call "
            "'trio.to_thread.run_sync(fn, ...)'"
        )
    if _takes_context(executor):
        future = executor.submit(contextvars.copy_context().run, fn, *args)
    else:
        future = executor.submit(fn, *args)
    if not isinstance(future, Future):
        _refuse_submitted(executor, future)
    return future


def _refuse_submitted(executor: object, submitted: object) -> NoReturn:
    close_coroutines(submitted)
    if inspect.isawaitable(submitted) and not hasattr(executor, "get_executor"):
        right = "its 'submit' is async, so call that: 'await executor.submit(fn, ...)'"
        if hasattr(submitted, "get_loop"):
            right = "its 'submit' belongs to asyncio, so call 'await wrap_future(executor.submit(fn, ...))'"
    else:
        right = "if it is a Dask client, pass 'client.get_executor(pure=False)'"
    raise TypeError(
        "run_in_executor takes an executor whose 'submit' returns a concurrent.futures.Future, but "
        f"{shown(executor)}.submit returned {shown(submitted)}; {right}"
    )


def _check_function(fn: object) -> None:
    close_coroutines(fn)
    if not callable(fn):
        raise TypeError(
            f"expected a synchronous function, but got {shown(fn)}; call 'run_in_executor(executor, fn, ...)'"
        )
    if inspect.iscoroutinefunction(fn):
        _refuse_async(fn)


def _refuse_async(fn: object) -> NoReturn:
    name = name_of(fn)
    raise TypeError(
        f"expected a synchronous function, but {name!r} is async, and executors can't run async functions; "
        f"call 'await {name}(...)', or start a task"
    )


def _takes_context(executor: object) -> bool:
    """Return whether the executor runs calls in threads of this interpreter, and so needn't pickle the context."""
    from concurrent.futures import ThreadPoolExecutor

    pickling = sys.modules.get("concurrent.futures.interpreter")  # new in Python 3.14
    return isinstance(executor, ThreadPoolExecutor) and not (
        pickling is not None and isinstance(executor, pickling.InterpreterPoolExecutor)
    )
