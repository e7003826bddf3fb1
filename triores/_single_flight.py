"""One task for many callers that want the same thing.

The rules that this file owns:

- A key is in the table for exactly as long as callers can join its flight, which is the task for that key. The key is
  removed when the flight is done, when its last caller leaves, or when the block of ``async with flights`` ends; each
  time, before any other task can run. So no caller gets a result from before its call, and no caller joins a flight
  that is being cancelled. A flight removes only its own entry, never that of a later flight.
- Callers own their waits; the nursery owns the task. A caller that leaves cancels nothing, unless it was the last one.
  A caller that is already cancelled starts nothing.
- A failure belongs to the callers. If the task raises something after the last of them has left, that belongs to
  nobody, so it is dropped; only `KeyboardInterrupt` and the like propagate into the nursery.
- It's a matter of chance which caller comes first, so nothing that belongs to the first caller may reach the others:
  neither its cancel scopes nor its context variables. Likewise, nothing that belongs to the last caller may reach the
  task that it cancels.
"""

from __future__ import annotations

import contextvars
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio
from trio.lowlevel import enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, refuse_uncallable
from ._cycles import shared_scopes
from ._result import checkpoint, current_trio_token

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trio.lowlevel import TrioToken
    from typing_extensions import Self, TypeVarTuple, Unpack

    from ._capture import NurseryLike
    from ._result import ResultBase

    Ts = TypeVarTuple("Ts")

K = TypeVar("K")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Shares one call between all callers that ask for the same key at the same time.

    The task runs in a nursery, outside its callers' cancel scopes. Each caller waits in its own cancel scopes. If a
    caller is cancelled, only that caller leaves. When the last one leaves, the task is cancelled, and the next caller
    starts a new task without waiting for the old one to end.

    You can pass a nursery; otherwise, the tasks run in the nursery of the block ``async with flights:``. So you can
    make a SingleFlight outside of any Trio run, for example at the top of a module, and open it in each run. Once the
    block has ended, you can enter it again. When it ends, it cancels the tasks that are still running, waits for them,
    and lets the block's own exception through unchanged.

    The tasks see the context variables as they were when you passed the nursery, or entered the block: the first
    caller's own variables don't reach the others.

    Results aren't kept: the first call after a task is done starts a new one. If you want a cache, put one in front.

    Args:
        nursery: The nursery to run the tasks in: a Trio nursery, or an anyio task group that runs on Trio. It must stay
            open for as long as `run` may be called.

    Raises:
        TypeError: If ``nursery`` isn't a nursery.
        RuntimeError: If you pass a nursery and there is no Trio run here.

    Example:
        ::

            flights = SingleFlight[str, bytes]()

            async def page(url: str) -> bytes:
                return await flights.run(url, download, url)

            async def main() -> None:
                async with flights:
                    ...  # in here, any number of tasks may call `page`
    """

    __slots__ = ("__weakref__", "_block", "_context", "_flights", "_nursery", "_token")

    def __init__(self, nursery: NurseryLike | None = None) -> None:
        self._flights: dict[K, _Flight[T]] = {}
        self._block: AbstractAsyncContextManager[trio.Nursery] | None = None  # the open block of our own nursery
        self._nursery: NurseryLike | None = None  # None while there is nowhere to run tasks
        if nursery is not None:
            check_nursery(nursery, "SingleFlight(nursery)")
            self._use(nursery)

    def _use(self, nursery: NurseryLike) -> None:
        self._token: TrioToken = current_trio_token()
        self._context = contextvars.copy_context()
        self._nursery = nursery

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        await checkpoint()
        if self._block is not None:
            raise RuntimeError(f"the block of {self!r} is already open; enter it once, around all calls to 'run'")
        if self._nursery is not None:
            raise RuntimeError(
                f"{self!r} was given a nursery, and runs its tasks there; call 'run' without a block around it, or "
                "make a SingleFlight() without a nursery"
            )
        self._block = trio.open_nursery(strict_exception_groups=True)
        self._use(await self._block.__aenter__())
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._block is not None
        assert isinstance(self._nursery, trio.Nursery)
        nursery, self._nursery = self._nursery, None
        scope = nursery.cancel_scope
        self._flights.clear()
        try:
            # This happens in a separate task. Otherwise the exception that ends this block would become the context of
            # the tasks' `trio.Cancelled`.
            nursery.start_soon(_cancel, scope)
            scope.shield = True  # so that it catches the tasks' cancellations even if this task is cancelled too
            try:
                await self._block.__aexit__(None, None, None)  # noqa: ASYNC102 # as a nursery does
            except BaseExceptionGroup as group:  # of what captures don't suppress, such as KeyboardInterrupt
                own = None if error is None else _without_cancellations(error)
                if own is None:
                    raise
                raise group.derive([own, *group.exceptions]) from None
            if error is None:
                await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC102 # as a nursery does
        finally:
            self._block = None
            del self, error, nursery, scope

    @enable_ki_protection  # otherwise Ctrl-C could come between joining a flight and the block that leaves it
    async def run(self, key: K, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: Unpack[Ts]) -> T:
        """Run ``fn(*args)`` in a task, and share it with all callers that ask for the same key in the meantime.

        If a task for the key is already running, the call joins it, and ignores ``fn`` and ``args``, so the key must
        identify everything that the result depends on. ``fn`` must not call this for its own key: it would wait
        for itself, so it gets a `WaitCycleError`.

        Once the nursery's own cancel scope has been cancelled, calls no longer join tasks: each call starts one, which
        is cancelled at its first checkpoint.

        If a call is cancelled, the task goes on for the other callers. If there are none, the task is cancelled, and
        whatever it raises from then on is dropped, unless it is a `KeyboardInterrupt` or the like. In a cancelled
        scope, the call neither starts nor joins a task. It is always a checkpoint.

        Args:
            key: What identifies the result; anything hashable.
            fn: An async function.
            args: Its positional arguments; use `functools.partial` for others.

        Returns:
            The value that ``fn`` returned. Each caller gets the same object.

        Raises:
            BaseException: The exception that the task raised, as if ``fn`` had been called here; see
                `ResultBase.unwrap`. The nursery doesn't notice, unless it is a `KeyboardInterrupt` or the like, which
                also propagates into the nursery.
            TaskCancelledException: If the task was cancelled, by the nursery or by itself.
            TypeError: If ``fn`` is a coroutine object or isn't callable, or the key isn't hashable.
            RuntimeError: If no nursery is open, or it belongs to another Trio run, or there is no Trio run here.
            WaitCycleError: If the task can't end until this call does.
        """
        if not callable(fn):
            refuse_uncallable(fn, "flights.run(key, {}, ...)")
        flight = None
        try:
            nursery = self._nursery_here()
            await trio.lowlevel.checkpoint_if_cancelled()
            flight = self._flights.get(key)
            if flight is None or _is_cancelled(nursery):
                flight = self._start(nursery, key, fn, args)
            flight.callers += 1
            try:
                return await flight.capture
            finally:
                flight.leave()
        finally:
            del self, flight  # a failure's traceback keeps this frame alive

    def _nursery_here(self) -> NurseryLike:
        token = current_trio_token()
        if self._nursery is None:
            raise RuntimeError(
                f"{self!r} has no nursery, so no task was started; call 'run' inside 'async with flights:', or make it "
                "with a nursery: 'SingleFlight(nursery)'"
            )
        if token is not self._token:
            raise RuntimeError(
                f"{self!r} belongs to another Trio run, that of its nursery, so no task was started; make a "
                "SingleFlight in this run"
            )
        return self._nursery

    def _start(
        self, nursery: NurseryLike, key: K, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]
    ) -> _Flight[T]:
        scope = trio.CancelScope()
        shared_scopes.add(scope)
        start = partial(ResultCapture.start_soon, nursery, fn, *args, suppress_exception=True, cancel_scope=scope)
        capture: ResultCapture[T] = self._context.run(start)  # the nursery copies this context for each task
        flight = self._flights[key] = _Flight(self._flights, key, capture, scope)
        capture._register(flight, self._token)
        return flight

    def __repr__(self) -> str:
        return f"{type(self).__name__}(in_flight={len(self._flights)})"


class _Flight(Generic[T]):
    """An entry in the table. It is the first waiter of its capture, so it is notified before the callers are."""

    __slots__ = ("_flights", "_key", "_scope", "callers", "capture")

    def __init__(
        self, flights: dict[Any, _Flight[T]], key: object, capture: ResultCapture[T], scope: trio.CancelScope
    ) -> None:
        self._flights = flights
        self._key = key
        self._scope = scope
        self.capture = capture
        self.callers = 0  # how many of them are waiting for it

    def settled(self, _result: ResultBase[Any], /) -> None:
        self._forget()

    def leave(self) -> None:
        """Note that a caller has left. If it was the last one, and the task is still running, cancel the task."""
        self.callers -= 1
        if self.callers or self.capture.is_done():
            return
        self._forget()
        # We don't cancel right here, since the exception that this caller is handling would become the context of the
        # task's `trio.Cancelled`.
        cancel = partial(self._scope.cancel, reason="all callers of SingleFlight.run for this key were cancelled")
        trio.lowlevel.current_trio_token().run_sync_soon(cancel)

    def _forget(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]


def _is_cancelled(nursery: NurseryLike) -> bool:
    """Return whether the nursery's own scope was cancelled. Other tasks can't see the scopes around a nursery."""
    scope = getattr(nursery, "cancel_scope", None)
    return scope is not None and bool(scope.cancel_called)


async def _cancel(scope: trio.CancelScope) -> None:  # noqa: ASYNC124 # it is started as a task
    scope.cancel(reason="the block of 'async with flights' has ended")


def _without_cancellations(error: BaseException) -> BaseException | None:
    """Return what is left of a block's exception without the cancellations, or None."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error
