"""Futures of concurrent.futures and asyncio, as results that Trio tasks can wait for.

The rules that this file owns:

- A wrapper is settled in the thread of its Trio run. The other future may become done in any thread, which then
  notifies the run with `trio.lowlevel.TrioToken.run_sync_soon`. If the run has ended, nobody is waiting any more.
- An asyncio future is only touched in the thread of its event loop, or after that loop has been closed.
- Cancelling either side cancels the other, if that is still possible, and passes the reason on.
- Within one run, a future has one wrapper and one callback, however often it is wrapped.

Neither asyncio nor concurrent.futures is imported before a call needs it: Trio doesn't need them, and most programs
don't use foreign futures.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from outcome import Error, Value
from trio.lowlevel import RunVar, TrioToken, enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, close_coroutines, shown
from ._exceptions import FutureCancelledException
from ._future import Future
from ._result import ResultBase, call_soon, current_trio_token, isfuture, of_this_run
from ._weak_cache import WeakCache

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Awaitable, Callable

    from outcome import Outcome
    from typing_extensions import TypeIs

    from ._capture import NurseryLike

T = TypeVar("T")
ResultT = TypeVar("ResultT", bound=ResultBase[Any])

_wrappers: RunVar[WeakCache[Future[Any]]] = RunVar("triores: the wrappers of foreign futures")


@overload
def wrap_future(future: ResultT, /) -> ResultT: ...
@overload
def wrap_future(future: concurrent.futures.Future[T] | asyncio.Future[T], /) -> Future[T]: ...
@enable_ki_protection
def wrap_future(future: Any, /) -> ResultBase[Any]:
    """Wrap a `concurrent.futures.Future` or an `asyncio.Future` in a triores future.

    The wrapper is settled in the Trio thread, soon after the other future is done, whichever thread that happens in. If
    the other future is already done, the wrapper is done immediately, unless it wraps an asyncio future whose loop is
    running in another thread. A value stays a value, an exception stays the same exception, and a cancellation stays a
    cancellation.

    Cancelling either side cancels the other: `Future.cancel` here, and ``cancel()`` there. The reason is passed on; on
    asyncio's side, it's the ``msg`` of ``cancel(msg=...)``. If the other side can't be cancelled any more, it
    continues, and its outcome is dropped. A time limit around a wait cancels neither side, as with any result.

    Once the Trio run has ended, the wrapper doesn't change any more. asyncio doesn't notify anybody when an event loop
    ends, so if the loop ends first, the wrapper stays pending: use a time limit if that can happen.

    Args:
        future: A future from an executor, from a thread, or from an asyncio event loop in this or another thread.

    Returns:
        A future that belongs to the current Trio run. If you wrap the same future again in this run, you get the same
        wrapper. A triores result is returned unchanged.

    Raises:
        TypeError: If this is neither kind of future, nor a result.
        RuntimeError: If there is no Trio run here, or the asyncio future is pending and its event loop is closed.

    Example:
        ::

            squares = [wrap_future(pool.submit(pow, n, 2)) for n in range(10)]
            async for square in as_completed(squares):
                print(square.result())
    """
    token = current_trio_token()
    if isfuture(future):
        return future
    wrappers = of_this_run(_wrappers, WeakCache)
    wrapper = wrappers.get(future)
    if wrapper is None:
        wrapper = Future[Any]()
        if _is_concurrent(future):
            _wrap_concurrent(future, wrapper, token)
        elif _is_asyncio(future):
            _wrap_asyncio(future, wrapper, token)
        else:
            raise TypeError(
                f"wrap_future takes a concurrent.futures.Future or an asyncio.Future, not {shown(future)}; "
                f"{_instead_of_wrapping(future)}"
            )
        wrappers.set(future, wrapper)
    return wrapper


def _wrap_concurrent(future: concurrent.futures.Future[T], wrapper: Future[T], token: TrioToken) -> None:
    if future.done():
        wrapper.set_outcome(_outcome_of(future))
    else:
        _on_cancel(wrapper, lambda _reason: future.cancel())
        future.add_done_callback(partial(_settle_soon, token, wrapper))


def _wrap_asyncio(future: asyncio.Future[T], wrapper: Future[T], token: TrioToken) -> None:
    loop = future.get_loop()
    if (loop.is_closed() or _runs_here(loop)) and future.done():
        wrapper.set_outcome(_outcome_of(future))
        return
    try:
        loop.call_soon_threadsafe(future.add_done_callback, partial(_settle_soon, token, wrapper))
    except RuntimeError:
        raise RuntimeError(
            "the event loop of this asyncio future is closed, so neither the future nor a wrapper would ever be done; "
            "call wrap_future while the loop is running"
        ) from None
    _on_cancel(wrapper, partial(_cancel_in_loop, loop, future))


@enable_ki_protection
def _settle_soon(
    token: TrioToken, wrapper: Future[T], future: concurrent.futures.Future[T] | asyncio.Future[T]
) -> None:
    """Have the wrapper settled in its run. This is called in whichever thread settled the future."""
    call_soon(token, wrapper._settle_if_pending, _outcome_of(future))


def _on_cancel(wrapper: Future[Any], cancel: Callable[[str | None], object]) -> None:
    # Not `add_done_callback`, whose checks cost half as much as the rest of the call.
    wrapper._register_callback(partial(_cancel_too, cancel), contextvars.copy_context())


def _cancel_too(cancel: Callable[[str | None], object], wrapper: Future[Any]) -> None:
    if wrapper.cancelled():
        cancel(getattr(wrapper.exception(), "reason", None))


def _cancel_in_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], reason: str | None) -> None:
    with suppress(RuntimeError):  # raised if the loop is closed, and then there is nothing left to cancel
        loop.call_soon_threadsafe(future.cancel if reason is None else partial(future.cancel, reason))


def _outcome_of(future: concurrent.futures.Future[T] | asyncio.Future[T]) -> Outcome[T]:
    if future.cancelled():
        return Error(FutureCancelledException(_reason_of(future)))
    error = future.exception()
    return Value(future.result()) if error is None else Error(error)


def _reason_of(future: concurrent.futures.Future[Any] | asyncio.Future[Any]) -> str:
    """Return why a future was cancelled. concurrent.futures doesn't keep a reason."""
    if _is_concurrent(future):
        return "the concurrent.futures.Future that it wraps was cancelled"
    import asyncio

    reason: object = None
    try:
        future.exception()
    except asyncio.CancelledError as cancelled:  # noqa: ASYNC103 # the foreign future's cancellation, not Trio's
        if cancelled.args:
            reason = cancelled.args[0]
    if reason is None:
        return "the asyncio.Future that it wraps was cancelled"
    # Only the first reader gets the reason from an asyncio task; this puts it back for the next one.
    with suppress(AttributeError):
        future._cancel_message = reason  # type: ignore[attr-defined] # private, so it may be gone one day
    return reason if isinstance(reason, str) else shown(reason)


def _is_concurrent(obj: object) -> TypeIs[concurrent.futures.Future[Any]]:
    # If the caller has such a future, the module has been imported. The attribute may be missing while another thread
    # is still importing it.
    return isinstance(obj, getattr(sys.modules.get("concurrent.futures"), "Future", ()))


def _is_asyncio(obj: object) -> TypeIs[asyncio.Future[Any]]:
    isfuture = getattr(sys.modules.get("asyncio"), "isfuture", None)
    return isfuture is not None and isfuture(obj)


def _is_dask(obj: object) -> bool:
    return isinstance(obj, getattr(sys.modules.get("distributed"), "Future", ()))


def _instead_of_wrapping(obj: object) -> str:
    if _is_dask(obj):
        return (
            "submit the work with 'run_in_executor(client.get_executor(pure=False), fn, ...)', or wait for this future "
            "in a thread: 'await trio.to_thread.run_sync(future.result)'"
        )
    return "for other awaitables, call 'ensure_future(obj, nursery)'"


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this thread runs the loop: Trio is its guest, or Trio runs it, as in trio-asyncio."""
    import asyncio

    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


@overload
def ensure_future(obj: ResultT, nursery: NurseryLike) -> ResultT: ...
@overload
def ensure_future(  # type: ignore[overload-overlap] # an asyncio future is awaitable too; the first overload counts
    obj: concurrent.futures.Future[T] | asyncio.Future[T], nursery: NurseryLike
) -> Future[T]: ...
@overload
def ensure_future(obj: Awaitable[T], nursery: NurseryLike) -> ResultCapture[T]: ...
def ensure_future(obj: Any, nursery: NurseryLike) -> ResultBase[Any]:
    """Turn anything that can be awaited into a result.

    Args:
        obj: A result, which is returned unchanged; a `concurrent.futures.Future` or an `asyncio.Future`, which is
            wrapped as by `wrap_future`; or a coroutine or another awaitable that is meant for Trio, which a new task
            awaits.
        nursery: The nursery to start such a task in. As with any `ResultCapture`, its exception propagates into the
            nursery.

    Returns:
        The result that you passed, a `Future` that wraps the foreign future, or the new task's `ResultCapture`.

    Raises:
        TypeError: If ``obj`` can't be awaited, or ``nursery`` isn't a nursery.
        RuntimeError: If there is no Trio run here, the nursery is closed, or ``obj`` is a pending asyncio future whose
            event loop is closed.

    If this raises an exception, a coroutine that you passed is closed.
    """
    try:
        current_trio_token()
        if isfuture(obj) or _is_concurrent(obj) or _is_asyncio(obj):
            return wrap_future(obj)
        return _started(obj, nursery)
    except BaseException:
        close_coroutines(obj)
        raise


def _started(awaitable: object, nursery: NurseryLike) -> ResultCapture[Any]:
    if _is_dask(awaitable):  # it looks awaitable, but its `__await__` blocks the thread
        raise TypeError(
            f"ensure_future can't wait for {shown(awaitable)} without blocking Trio; {_instead_of_wrapping(awaitable)}"
        )
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"ensure_future takes something that can be awaited, not {shown(awaitable)}; "
            "to start an async function, call 'ResultCapture.start_soon(nursery, async_fn, ...)'"
        )
    check_nursery(nursery, "ensure_future(awaitable, nursery)")
    name = getattr(awaitable, "__qualname__", None) or shown(awaitable)
    return ResultCapture.start_soon(nursery, _identity, awaitable, name=name)


def _identity(awaitable: Awaitable[T]) -> Awaitable[T]:
    return awaitable
