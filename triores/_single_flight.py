"""One task for many callers of the same key.

The rules that this file owns:

- A key is in the table while its flight can be joined, and no longer. Two things take it out, each before another task
  can run: the flight is done, or its last caller has left. So nobody is given a result from before the call, and nobody
  joins a flight that is being cancelled. A flight takes out its own entry alone, never that of one that came after it.
- Callers own their waits, the nursery owns the task. A caller that leaves cancels nothing, unless it was the last.
- A failure belongs to the callers. What a task raises when the last of them has left belongs to nobody, and stops here;
  only `KeyboardInterrupt` and its like go on into the nursery.
- Who comes first is chance, and nothing of the first caller's must reach the others: neither its cancel scopes nor its
  context variables.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from ._capture import ResultCapture
from ._checks import check_nursery, refuse_uncallable, task_name
from ._result import current_trio_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import TypeVarTuple, Unpack

    from ._capture import NurseryLike
    from ._result import ResultBase

    Ts = TypeVarTuple("Ts")

K = TypeVar("K")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """One task for many callers: those that ask for the same key at the same time share one call.

    The task runs in the nursery, in none of its callers' cancel scopes, and with the context variables as they were
    when this object was made: the first caller's are no business of the others. Each caller waits in its own cancel
    scopes. A caller that is cancelled leaves alone; when the last one leaves, the task is cancelled, and the next
    caller starts a new one without waiting for that.

    A result is not kept: the next call after the task is done starts a new one. Keep a cache in front where one is
    wanted.

    Args:
        nursery: Where the tasks run: a Trio nursery, or an anyio task group that runs on Trio. It has to stay open as
            long as `run` is called.

    Raises:
        TypeError: If this is not a nursery.
        RuntimeError: If there is no Trio run here.

    Example:
        ::

            async with trio.open_nursery() as nursery:
                flights = SingleFlight[str, bytes](nursery)

                async def page(url: str) -> bytes:
                    return await flights.run(url, download, url)
    """

    __slots__ = ("__weakref__", "_context", "_flights", "_nursery", "_token")

    def __init__(self, nursery: NurseryLike) -> None:
        check_nursery(nursery, "SingleFlight(nursery)")
        self._nursery = nursery
        self._token = current_trio_token()
        self._context = contextvars.copy_context()
        self._flights: dict[K, _Flight[T]] = {}

    @enable_ki_protection  # or Ctrl-C could come between joining a flight and the block that leaves it
    async def run(self, key: K, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: Unpack[Ts]) -> T:
        """Run ``fn(*args)`` in a task that is shared with all who call this for the same key meanwhile.

        Where a task for the key is running already, that one is joined, and ``fn`` and ``args`` are not used; so the
        key has to name all that the result depends on. ``fn`` must not call this for its own key: it would wait for
        itself.

        Cancelling the call leaves the task to the other callers. If there are none, the task is cancelled, and what it
        raises from then on is dropped, unless it is a `KeyboardInterrupt` or the like. The call is a checkpoint.

        Args:
            key: What the result is known by; anything hashable.
            fn: An async function.
            args: Its positional arguments; use `functools.partial` for others.

        Returns:
            The value, the same object for each caller.

        Raises:
            TaskFailedException: If the task failed; the original exception is the cause. The nursery does not notice,
                unless it is a `KeyboardInterrupt` or the like, which goes on into the nursery too.
            TaskCancelledException: If the nursery was cancelled, and the caller is outside of it.
            TypeError: If ``fn`` is a coroutine object, or can't be called, or the key is not hashable.
            RuntimeError: If the nursery is closed, or belongs to another Trio run, or there is no Trio run here.
        """
        if not callable(fn):
            refuse_uncallable(fn, "flights.run(key, {}, ...)")
        if current_trio_token() is not self._token:
            raise RuntimeError(
                f"{self!r} belongs to another Trio run, where its nursery is, and no task was started; make a "
                "SingleFlight with a nursery of this run"
            )
        flight = self._flights.get(key)
        if flight is None:
            flight = self._take_off(key, fn, args)
        flight.callers += 1
        try:
            await flight.capture.wait_done()
        except BaseException:
            abandoned = flight.leave()
            del flight  # the `trio.Cancelled` that the task gets here keeps this frame alive
            if abandoned is not None:
                abandoned.cancel(reason="all callers of SingleFlight.run for this key were cancelled")
            raise
        return flight.capture.result()

    def _take_off(self, key: K, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> _Flight[T]:
        scope = trio.CancelScope()
        capture = ResultCapture(fn, *args, suppress_exception=True, cancel_scope=scope)
        # Inside the context, of which the nursery makes a copy for each task.
        self._context.run(lambda: self._nursery.start_soon(_fly, capture, scope, name=task_name(fn)))
        flight = self._flights[key] = _Flight(self._flights, key, capture, scope)
        capture._register(flight)
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

    def leave(self) -> trio.CancelScope | None:
        """Count a caller out. Returns what to cancel where it was the last."""
        self.callers -= 1
        if self.callers:
            return None
        self._forget()
        return self._scope

    def _forget(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]


async def _fly(capture: ResultCapture[Any], scope: trio.CancelScope) -> None:
    """Run a flight's task.

    The capture suppresses an `Exception`. A group of one and a `trio.Cancelled` is none; what the scope leaves of it
    when the last caller has left must not reach the nursery either.
    """
    flying = capture.run()
    del capture  # a failure's traceback keeps this frame alive, and with it what it holds
    try:
        await flying
    except Exception:
        if not scope.cancel_called:
            raise
