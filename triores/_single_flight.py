"""One task for many callers of the same key.

The rules that this file owns:

- A key is in the table while its flight can be joined, and no longer. Three things take it out, each before another
  task can run: the flight is done, its last caller has left, or the block of ``async with flights`` ends. So nobody is
  given a result from before the call, and nobody joins a flight that is being cancelled. A flight takes out its own
  entry alone, never that of one that came after it.
- Callers own their waits, the nursery owns the task. A caller that leaves cancels nothing, unless it was the last. A
  caller that is cancelled already starts nothing.
- A failure belongs to the callers. What a task raises when the last of them has left belongs to nobody, and stops here;
  only `KeyboardInterrupt` and its like go on into the nursery.
- Who comes first is chance, and nothing of the first caller's must reach the others: neither its cancel scopes nor its
  context variables. Nor must anything of the last caller's reach the task that it cancels.
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
    """One task for many callers: those that ask for the same key at the same time share one call.

    The task runs in a nursery, in none of its callers' cancel scopes. Each caller waits in its own cancel scopes. A
    caller that is cancelled leaves alone; when the last one leaves, the task is cancelled, and the next caller starts a
    new one without waiting for that.

    The nursery is the one that is given here, or, if none is, that of the block ``async with flights:``. So flights can
    be made before any Trio run, at the top of a module say, and opened in each run. The block can be entered again once
    it has ended. When it ends, it cancels the tasks that still run, waits for them, and lets its own exception leave as
    it is.

    The tasks have the context variables as they were when the nursery was given, or the block entered: the first
    caller's are no business of the others.

    A result isn't kept: the next call after the task is done starts a new one. Keep a cache in front if you want one.

    Args:
        nursery: Where the tasks run: a Trio nursery, or an anyio task group that runs on Trio. It has to stay open as
            long as `run` is called.

    Raises:
        TypeError: If this isn't a nursery.
        RuntimeError: If a nursery is given, and there is no Trio run here.

    Example:
        ::

            flights = SingleFlight[str, bytes]()

            async def page(url: str) -> bytes:
                return await flights.run(url, download, url)

            async def main() -> None:
                async with flights:
                    ...  # here, any number of tasks may call `page`
    """

    __slots__ = ("__weakref__", "_block", "_context", "_flights", "_nursery", "_token")

    def __init__(self, nursery: NurseryLike | None = None) -> None:
        self._flights: dict[K, _Flight[T]] = {}
        self._block: AbstractAsyncContextManager[trio.Nursery] | None = None  # that of the nursery, if it is our own
        self._nursery: NurseryLike | None = None  # None while there is no place for tasks
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
            raise RuntimeError(f"the block of {self!r} is open already; enter it once, around all that calls 'run'")
        if self._nursery is not None:
            raise RuntimeError(
                f"{self!r} was given a nursery, and its tasks run there; call 'run' without a block around it, or make "
                "a SingleFlight() without a nursery"
            )
        self._block = trio.open_nursery()
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
            # By a task, since the others' `trio.Cancelled` would have the exception that ends this block for a context.
            nursery.start_soon(_cancel, scope)
            scope.shield = True  # so that it takes all cancellations of the tasks, also if this task is cancelled
            try:
                await self._block.__aexit__(None, None, None)  # noqa: ASYNC102 # as a nursery does
            except BaseExceptionGroup as group:  # of what no flight keeps, such as a KeyboardInterrupt
                own = None if error is None else _without_cancellations(error)
                if own is None:
                    raise
                raise group.derive([own, *group.exceptions]) from None
            if error is None:
                await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC102 # as a nursery does
        finally:
            self._block = None
            del self, error, nursery, scope

    @enable_ki_protection  # or Ctrl-C could come between joining a flight and the block that leaves it
    async def run(self, key: K, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: Unpack[Ts]) -> T:
        """Run ``fn(*args)`` in a task that is shared with all who call this for the same key meanwhile.

        If a task for the key is running already, that one is joined, and ``fn`` and ``args`` aren't used; so the key
        has to name all that the result depends on. ``fn`` must not call this for its own key: it would wait for itself,
        and gets a `WaitCycleError`.

        Once the nursery's own cancel scope is cancelled, nobody joins a task any more: each call starts one, which is
        cancelled at its first checkpoint.

        Cancelling the call leaves the task to the other callers. If there are none, the task is cancelled, and what it
        raises from then on is dropped, unless it is a `KeyboardInterrupt` or the like. In a cancelled scope, nothing is
        started or joined. The call is a checkpoint.

        Args:
            key: What the result is known by; anything hashable.
            fn: An async function.
            args: Its positional arguments; use `functools.partial` for others.

        Returns:
            The value, the same object for each caller.

        Raises:
            BaseException: The exception that the task raised, as if ``fn`` had been called here; see
                `ResultBase.unwrap`. The nursery doesn't notice, unless it is a `KeyboardInterrupt` or the like, which
                goes on into the nursery too.
            TaskCancelledException: If the task was cancelled: by the nursery, or by itself.
            TypeError: If ``fn`` is a coroutine object, or can't be called, or the key isn't hashable.
            RuntimeError: If no nursery is open, or it belongs to another Trio run, or there is no Trio run here.
            WaitCycleError: If the task needs this very call first.
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
                f"{self!r} has no nursery, so no task was started; call 'run' inside of 'async with flights:', or make "
                "it with a nursery: 'SingleFlight(nursery)'"
            )
        if token is not self._token:
            raise RuntimeError(
                f"{self!r} belongs to another Trio run, where its nursery is, and no task was started; make a "
                "SingleFlight in this run"
            )
        return self._nursery

    def _start(
        self, nursery: NurseryLike, key: K, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]
    ) -> _Flight[T]:
        scope = trio.CancelScope()
        shared_scopes.add(scope)
        start = partial(ResultCapture.start_soon, nursery, fn, *args, suppress_exception=True, cancel_scope=scope)
        capture: ResultCapture[T] = self._context.run(start)  # the nursery makes a copy of it for each task
        flight = self._flights[key] = _Flight(self._flights, key, capture, scope)
        capture._register(flight, self._token)
        return flight

    def __repr__(self) -> str:
        return f"{type(self).__name__}(in_flight={len(self._flights)})"


class _Flight(Generic[T]):
    """An entry of the table. As a waiter of its capture it is told when that is done, before any caller runs."""

    __slots__ = ("_flights", "_key", "_scope", "callers", "capture")

    def __init__(
        self, flights: dict[Any, _Flight[T]], key: object, capture: ResultCapture[T], scope: trio.CancelScope
    ) -> None:
        self._flights = flights
        self._key = key
        self._scope = scope
        self.capture = capture
        self.callers = 0  # how many wait for it

    def settled(self, _result: ResultBase[Any], /) -> None:
        self._forget()

    def leave(self) -> None:
        """Count a caller out. If it was the last, and the task still runs, cancel the task."""
        self.callers -= 1
        if self.callers or self.capture.is_done():
            return
        self._forget()
        # Not here: the task's `trio.Cancelled` would have for its context what this caller is handling.
        cancel = partial(self._scope.cancel, reason="all callers of SingleFlight.run for this key were cancelled")
        trio.lowlevel.current_trio_token().run_sync_soon(cancel)

    def _forget(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]


def _is_cancelled(nursery: NurseryLike) -> bool:
    """Whether the nursery's own scope was cancelled. One around the nursery can't be seen from another task."""
    scope = getattr(nursery, "cancel_scope", None)
    return scope is not None and bool(scope.cancel_called)


async def _cancel(scope: trio.CancelScope) -> None:  # noqa: ASYNC124 # it is started as a task
    scope.cancel(reason="the block of 'async with flights' has ended")


def _without_cancellations(error: BaseException) -> BaseException | None:
    """Return what is left of a block's exception if the nursery of the block was cancelled since a task failed."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error
