"""Run several functions at once, and return all of their values, or the first one.

Every call here owns a nursery, so nothing outlives the call. As with Trio's strict nurseries, exceptions come out in an
exception group, which names the call. If the call was cancelled from outside and nothing else went wrong, it raises a
plain `trio.Cancelled`.

No value is lost: whatever a function returns, the call either returns it or passes it to ``discard``. No exception is
lost either, except those of failed attempts in `first_success`, and only if they failed on their own, not because they
were cancelled.
"""

from __future__ import annotations

import inspect
import math
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from ._capture import ResultCapture
from ._checks import (
    checked_seconds,
    close_coroutines,
    exception_types,
    refuse_unawaitable,
    refuse_uncallable,
    shown,
    task_name,
)
from ._exceptions import comes_from_cancellation, is_cancellation, parts, unmatched
from ._result import current_trio_token, isfuture

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from outcome import Error, Value

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
T = TypeVar("T")

if TYPE_CHECKING:
    Fn = Callable[[], Awaitable[T]]
    Out = Value[T] | Error
    Discard = Callable[[T], object] | None
    Catch = type[Exception] | tuple[type[Exception], ...]


# ---- all of them


@overload
async def gather() -> tuple[()]: ...
@overload
async def gather(a: Fn[A], /) -> tuple[A]: ...
@overload
async def gather(a: Fn[A], b: Fn[B], /) -> tuple[A, B]: ...
@overload
async def gather(a: Fn[A], b: Fn[B], c: Fn[C], /) -> tuple[A, B, C]: ...
@overload
async def gather(a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], /) -> tuple[A, B, C, D]: ...
@overload
async def gather(a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], /) -> tuple[A, B, C, D, E]: ...
@overload
async def gather(a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], /) -> tuple[A, B, C, D, E, F]: ...
@overload
async def gather(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], g: Fn[G], /
) -> tuple[A, B, C, D, E, F, G]: ...
@overload
async def gather(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], g: Fn[G], h: Fn[H], /
) -> tuple[A, B, C, D, E, F, G, H]: ...
@overload
async def gather(*fns: Fn[T]) -> tuple[T, ...]: ...
@enable_ki_protection
async def gather(*fns: Fn[Any]) -> tuple[Any, ...]:
    """Run async functions concurrently, and return their values in the order given.

    The first exception cancels the rest. This is always a checkpoint.

    Args:
        fns: Async functions that take no arguments; to pass arguments, use `functools.partial` or a lambda.

    Returns:
        A tuple of their values. For up to eight functions, each value has its own type.

    Raises:
        TypeError: If a function isn't callable, or is a coroutine object. Nothing is started, and every coroutine that
            you passed is closed.
        RuntimeError: If there is no Trio run here, or a function cancelled the nursery that it runs in.
        BaseExceptionGroup: If a function raised an exception. It contains every exception that the functions raised,
            and is an `ExceptionGroup` if each of them is an `Exception`.

    Example:
        ::

            user, orders = await gather(partial(get_user, 7), partial(get_orders, 7))
    """
    _check_functions(fns, "gather")
    values: list[Any] = [None] * len(fns)
    async with FanOutNursery("gather") as nursery:
        await checkpoint_if_cancelled()
        for index, fn in enumerate(fns):
            nursery.start_soon(_store, values, index, fn, name=task_name(fn))
    return tuple(values)


async def _store(values: list[Any], index: int, fn: Fn[Any]) -> None:
    values[index] = await checked(fn, fn())


def checked(fn: object, awaitable: Awaitable[T]) -> Awaitable[T]:
    """Return what a function returned, or raise a `TypeError` if it can't be awaited."""
    if not hasattr(type(awaitable), "__await__"):
        refuse_unawaitable(fn, awaitable)
    return awaitable


@overload
async def gather_outcomes() -> tuple[()]: ...
@overload
async def gather_outcomes(a: Fn[A], /) -> tuple[Out[A]]: ...
@overload
async def gather_outcomes(a: Fn[A], b: Fn[B], /) -> tuple[Out[A], Out[B]]: ...
@overload
async def gather_outcomes(a: Fn[A], b: Fn[B], c: Fn[C], /) -> tuple[Out[A], Out[B], Out[C]]: ...
@overload
async def gather_outcomes(a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], /) -> tuple[Out[A], Out[B], Out[C], Out[D]]: ...
@overload
async def gather_outcomes(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], /
) -> tuple[Out[A], Out[B], Out[C], Out[D], Out[E]]: ...
@overload
async def gather_outcomes(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], /
) -> tuple[Out[A], Out[B], Out[C], Out[D], Out[E], Out[F]]: ...
@overload
async def gather_outcomes(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], g: Fn[G], /
) -> tuple[Out[A], Out[B], Out[C], Out[D], Out[E], Out[F], Out[G]]: ...
@overload
async def gather_outcomes(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], g: Fn[G], h: Fn[H], /
) -> tuple[Out[A], Out[B], Out[C], Out[D], Out[E], Out[F], Out[G], Out[H]]: ...
@overload
async def gather_outcomes(*fns: Fn[T]) -> tuple[Out[T], ...]: ...
@enable_ki_protection
async def gather_outcomes(*fns: Fn[Any]) -> tuple[Out[Any], ...]:
    """Run async functions concurrently, wait until all of them have ended, and return how each of them ended.

    An `Exception` in one of them doesn't cancel the others. This is always a checkpoint.

    Args:
        fns: Async functions that take no arguments; to pass arguments, use `functools.partial` or a lambda.

    Returns:
        An `outcome.Value` or `outcome.Error` for each, in the order given.

    Raises:
        TypeError: If a function isn't callable, or is a coroutine object. Nothing is started, and every coroutine that
            you passed is closed.
        RuntimeError: If there is no Trio run here, or a function cancelled the nursery that it runs in.
        BaseExceptionGroup: If a function raised something that isn't an `Exception`, such as a `KeyboardInterrupt`.
            This cancels the rest.
    """
    _check_functions(fns, "gather_outcomes")
    async with FanOutNursery("gather_outcomes") as nursery:
        await checkpoint_if_cancelled()
        captures = [ResultCapture.start_soon(nursery, fn, suppress_exception=True) for fn in fns]
    return tuple([capture.outcome for capture in captures])


# ---- the first of them


@overload
async def race(a: Fn[A], /, *, discard: Discard[A] = None) -> A: ...
@overload
async def race(a: Fn[A], b: Fn[B], /, *, discard: Discard[A | B] = None) -> A | B: ...
@overload
async def race(a: Fn[A], b: Fn[B], c: Fn[C], /, *, discard: Discard[A | B | C] = None) -> A | B | C: ...
@overload
async def race(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], /, *, discard: Discard[A | B | C | D] = None
) -> A | B | C | D: ...
@overload
async def race(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], /, *, discard: Discard[A | B | C | D | E] = None
) -> A | B | C | D | E: ...
@overload
async def race(
    a: Fn[A], b: Fn[B], c: Fn[C], d: Fn[D], e: Fn[E], f: Fn[F], /, *, discard: Discard[A | B | C | D | E | F] = None
) -> A | B | C | D | E | F: ...
@overload
async def race(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    f: Fn[F],
    g: Fn[G],
    /,
    *,
    discard: Discard[A | B | C | D | E | F | G] = None,
) -> A | B | C | D | E | F | G: ...
@overload
async def race(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    f: Fn[F],
    g: Fn[G],
    h: Fn[H],
    /,
    *,
    discard: Discard[A | B | C | D | E | F | G | H] = None,
) -> A | B | C | D | E | F | G | H: ...
@overload
async def race(*fns: Fn[T], discard: Discard[T] = None) -> T: ...
@enable_ki_protection
async def race(*fns: Fn[Any], discard: Discard[Any] = None) -> Any:
    """Run async functions concurrently, and return the value of the first to finish; the rest are cancelled.

    The first to finish wins, whether it returns a value or raises an exception. If a function raises something while it
    is being cancelled, that isn't lost: the call raises it instead of returning the value. This is always a checkpoint.

    Args:
        fns: At least one async function that takes no arguments. A function isn't called if another one finishes before
            it begins.
        discard: A sync or async function that is called with each value that isn't returned. For example,
            ``discard=close`` closes a connection that was opened too late. It runs in the task that produced the value,
            which may be cancelled. If ``race`` itself raises an exception, the first value is discarded too, in the
            caller's task.

    Returns:
        The value of the first function to finish.

    Raises:
        ValueError: If there are no functions.
        TypeError: If a function isn't callable, or is a coroutine object, or ``discard`` isn't callable. Nothing is
            started, and every coroutine that you passed is closed.
        RuntimeError: If there is no Trio run here, or a function cancelled the nursery that it runs in.
        BaseExceptionGroup: If a function or ``discard`` raised an exception. It contains every exception that they
            raised, and is an `ExceptionGroup` if each of them is an `Exception`.
    """
    _check_functions(fns, "race", least=1)
    attempts: _Attempts[Any] = _Attempts((), discard, "race")
    return await attempts.run(fns, None)


@overload
async def first_success(
    a: Fn[A], /, *, stagger: float | None = None, catch: Catch = Exception, discard: Discard[A] = None
) -> A: ...
@overload
async def first_success(
    a: Fn[A], b: Fn[B], /, *, stagger: float | None = None, catch: Catch = Exception, discard: Discard[A | B] = None
) -> A | B: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C] = None,
) -> A | B | C: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C | D] = None,
) -> A | B | C | D: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C | D | E] = None,
) -> A | B | C | D | E: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    f: Fn[F],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C | D | E | F] = None,
) -> A | B | C | D | E | F: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    f: Fn[F],
    g: Fn[G],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C | D | E | F | G] = None,
) -> A | B | C | D | E | F | G: ...
@overload
async def first_success(
    a: Fn[A],
    b: Fn[B],
    c: Fn[C],
    d: Fn[D],
    e: Fn[E],
    f: Fn[F],
    g: Fn[G],
    h: Fn[H],
    /,
    *,
    stagger: float | None = None,
    catch: Catch = Exception,
    discard: Discard[A | B | C | D | E | F | G | H] = None,
) -> A | B | C | D | E | F | G | H: ...
@overload
async def first_success(
    *fns: Fn[T], stagger: float | None = None, catch: Catch = Exception, discard: Discard[T] = None
) -> T: ...
@enable_ki_protection
async def first_success(
    *fns: Fn[Any], stagger: float | None = None, catch: Catch = Exception, discard: Discard[Any] = None
) -> Any:
    """Run async functions until one of them succeeds, and return its value; the rest are cancelled.

    All of them start at once, or, with ``stagger``, one after another: the next one starts after that many seconds, or
    when one of the others fails, whichever comes first. This is the staggered start of RFC 8305 (Happy Eyeballs),
    section 5. The call is always a checkpoint.

    Args:
        fns: At least one async function that takes no arguments. A function isn't called if another one succeeds before
            it begins.
        stagger: How many seconds to wait before starting the next function; None starts all of them at once.
        catch: The exception types that count as a failed attempt: a subclass of `Exception`, or a tuple of those. An
            exception group counts if everything in it matches. Any other exception ends the call.
        discard: As for `race`.

    Returns:
        The value of the first function to succeed. The exceptions of attempts that failed on their own are dropped. If
        a function raises something because it is being cancelled, the call raises that instead of returning the value.

    Raises:
        ValueError: If there are no functions, or ``stagger`` is negative or NaN.
        TypeError: If a function isn't callable, or is a coroutine object, or if ``stagger``, ``catch`` or ``discard``
            has the wrong type. Nothing is started, and every coroutine that you passed is closed.
        RuntimeError: If there is no Trio run here, or a function cancelled the nursery that it runs in.
        ExceptionGroup: If every function failed. It contains all of their exceptions, in the order of the functions.
        BaseExceptionGroup: If a function raised something that ``catch`` doesn't match, or ``discard`` raised
            something.
    """
    _check_functions(fns, "first_success", least=1)
    seconds = _checked_stagger(stagger)
    attempts: _Attempts[Any] = _Attempts(exception_types(catch, "catch"), discard, "first_success")
    return await attempts.run(fns, seconds)


class _Attempts(Generic[T]):
    """The attempts of one `race` or `first_success`. The first one that counts ends the others."""

    def __init__(self, catch: tuple[type[Exception], ...], discard: Discard[T], call: str) -> None:
        if discard is not None and not callable(discard):
            raise TypeError(
                f"discard must be a function that takes one argument, not {shown(discard)}; call '{call}(..., "
                "discard=close)' with a function that closes a connection, for example"
            )
        self._catch = catch
        self._discard = discard
        self._call = call
        self._decided = False
        self._ended = trio.Semaphore(0)  # how many attempts have ended and haven't been replaced yet
        self._values: list[T] = []  # the winner's, once there is one
        self._failures: dict[int, BaseException] = {}

    async def run(self, fns: tuple[Fn[T], ...], stagger: float | None) -> T:
        failure: BaseException | None = None
        decided = self._values.__len__
        try:
            async with FanOutNursery(self._call, decided) as nursery:
                await checkpoint_if_cancelled()
                for index, fn in enumerate(fns):
                    nursery.start_soon(self._attempt, nursery.cancel_scope, index, fn, name=task_name(fn))
                    if stagger is not None:
                        with trio.move_on_after(stagger):
                            await self._ended.acquire()  # takes only one, so each failure starts one more attempt
        except BaseException as error:  # noqa: ASYNC103, BLE001 # raised below: if `discard` ran in here, a Cancelled that it raises would have this as its context
            failure = error
        try:
            if failure is not None:
                raise await self._discard_winner(failure)
            if self._values:
                return self._values.pop()
            failures = [self._failures[index] for index in sorted(self._failures)]
            raise ExceptionGroup(f"all {len(fns)} functions of {self._call} failed", failures)  # type: ignore[type-var] # they match `catch`, so each of them is an Exception
        finally:
            del self, failure

    @enable_ki_protection  # otherwise Ctrl-C could come between the function's return and the storing of its value
    async def _attempt(self, scope: trio.CancelScope, index: int, fn: Fn[T]) -> None:
        try:
            if self._decided:
                return
            try:
                value = await _unprotected(fn)
            except BaseException as error:  # noqa: ASYNC103 # raised below, or a failed attempt
                if not self._is_failed_attempt(error):
                    self._decided = True
                    raise
                self._failures[index] = error
                return  # noqa: ASYNC104 # a failed attempt isn't a cancellation
            if self._decided:
                await self._discard_value(value)
            else:
                self._decided = True
                self._values.append(value)
                scope.cancel(reason=f"another function of {self._call} finished first")
        finally:
            self._ended.release()
            del self

    def _is_failed_attempt(self, error: BaseException) -> bool:
        if unmatched(error, self._catch) is not None:
            return False
        is_cancelled = trio.current_effective_deadline() == -math.inf
        return not (is_cancelled and comes_from_cancellation(error))  # it may have failed because it was cancelled

    async def _discard_value(self, value: T) -> None:
        if self._discard is not None:
            returned = self._discard(value)
            if inspect.isawaitable(returned):
                await returned

    async def _discard_winner(self, failure: BaseException) -> BaseException:
        """Discard the winner's value, if any. Return the failure, in a group with whatever `discard` raised."""
        more: BaseException | None = None
        try:
            if self._values:
                await self._discard_value(self._values.pop())
        except BaseException as error:  # noqa: ASYNC103, BLE001 # returned
            more = error
        try:
            if more is None or (is_cancellation(more) and is_cancellation(failure)):
                return failure
            return BaseExceptionGroup(f"{self._call} failed", [*parts(failure), more])
        finally:
            del self, failure, more


@disable_ki_protection  # this runs the user's code
async def _unprotected(fn: Fn[T]) -> T:
    return await checked(fn, fn())


class FanOutNursery:
    """A strict nursery whose exception groups name the call, and which, if cancelled, raises a plain `trio.Cancelled`.

    Not a generator: contextlib's frames would keep a cancelled call in a reference cycle.

    Args:
        call: The name of the public function that opens it.
        decided: Returns whether the call has cancelled the nursery itself, because it has what it needs.
    """

    __slots__ = ("_call", "_decided", "_manager", "_nursery")

    def __init__(self, call: str, decided: Callable[[], object] = bool) -> None:
        self._call = call
        self._decided = decided

    @enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        current_trio_token()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._decided is not bool:
            trio.lowlevel.current_task().custom_sleep_data = self  # this wait doesn't need all of the tasks to end
        try:
            swallowed = await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 # as a nursery does
        except BaseExceptionGroup as group:
            if is_cancellation(group):  # the cancellation comes from outside, so this raises a single one
                await checkpoint_if_cancelled()  # noqa: ASYNC102 # its purpose is to raise a cancellation
            raise BaseExceptionGroup(f"{self._call} failed", [*group.exceptions]) from None
        else:
            if self._nursery.cancel_scope.cancelled_caught and not self._decided():
                raise RuntimeError(
                    f"{self._call} can't finish: one of its tasks raised a trio.Cancelled that belongs to "
                    "another scope, or cancelled the nursery it runs in; to stop a single task, give it a cancel scope "
                    "of its own"
                )
            return swallowed
        finally:
            del self, error


def _check_functions(fns: tuple[object, ...], call: str, least: int = 0) -> None:
    if len(fns) < least:
        raise ValueError(f"{call} got no functions, so it has nothing to return; pass at least {least}")
    wrong = [fn for fn in fns if not callable(fn)]
    if not wrong:
        return
    close_coroutines(*wrong[1:])
    if isfuture(wrong[0]):
        raise TypeError(
            f"{call} takes async functions, not results such as {wrong[0]!r}; to wait for results, call "
            "'wait_all(results)', or pass a function that waits: 'result.wait_done'"
        )
    refuse_uncallable(
        wrong[0], f"{call}({{}}, ...)", f"functools.partial({getattr(wrong[0], '__name__', 'async_fn')}, *args)"
    )


def _checked_stagger(stagger: object) -> float | None:
    if stagger is None:
        return None
    message = f"stagger must be a number of seconds, 0 or more, or None to start all at once, not {shown(stagger)}"
    return checked_seconds(stagger, message)
