"""Many tasks at once, and what each call does when one of them fails.

Every call here owns a nursery, so nothing outlives it. What goes wrong leaves as Trio's strict nurseries raise it, in
an exception group; where the call was cancelled from outside and nothing else went wrong, as a plain `trio.Cancelled`.
`gather`, `gather_outcomes`, `race` and `first_success` start a captured task a function. The two maps run on worker
tasks that share one source of items: each takes the next item when it is free, and so the source is read lazily.
"""

from __future__ import annotations

import inspect
import operator
import reprlib
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar, overload

import trio
from trio.lowlevel import enable_ki_protection

from ._capture import COROUTINE, ResultCapture, check_awaitable, refuse_uncallable, task_name
from ._exceptions import is_cancellation, leaves
from ._result import ResultBase, checkpoint, current_trio_token

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup  # Trio itself requires the backport on Python 3.10

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from outcome import Error, Value
    from typing_extensions import Self

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
ItemT = TypeVar("ItemT")

if TYPE_CHECKING:
    Fn = Callable[[], Awaitable[T]]
    Out = Value[T] | Error


@overload
async def gather(f1: Fn[T1], /) -> tuple[T1]: ...
@overload
async def gather(f1: Fn[T1], f2: Fn[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def gather(f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], /) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], /) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], /
) -> tuple[T1, T2, T3, T4, T5, T6]: ...
@overload
async def gather(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], f7: Fn[T7], /
) -> tuple[T1, T2, T3, T4, T5, T6, T7]: ...
@overload
async def gather(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], f7: Fn[T7], f8: Fn[T8], /
) -> tuple[T1, T2, T3, T4, T5, T6, T7, T8]: ...
@overload
async def gather(*fns: Fn[T]) -> tuple[T, ...]: ...
async def gather(*fns: Fn[Any]) -> tuple[Any, ...]:
    """Run async functions at once, and return their values in the order given.

    The first exception cancels the rest. It is a checkpoint, also without functions.

    Args:
        fns: Async functions without arguments; use `functools.partial`, or a lambda, to give them some.

    Returns:
        A tuple of their values, typed one by one for up to eight functions.

    Raises:
        TypeError: If a function can't be called, or is a coroutine object. Nothing is started, and every coroutine that
            was passed is closed.
        BaseExceptionGroup: Of what the functions raised; an `ExceptionGroup` where it was nothing but `Exception`.

    Example:
        ::

            user, orders = await gather(partial(get_user, 7), partial(get_orders, 7))
    """
    _check_functions(fns, "gather")
    async with _FanOutNursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, fn) for fn in fns]
    return tuple([capture.result() for capture in captures])


@overload
async def gather_outcomes(f1: Fn[T1], /) -> tuple[Out[T1]]: ...
@overload
async def gather_outcomes(f1: Fn[T1], f2: Fn[T2], /) -> tuple[Out[T1], Out[T2]]: ...
@overload
async def gather_outcomes(f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], /) -> tuple[Out[T1], Out[T2], Out[T3]]: ...
@overload
async def gather_outcomes(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], /
) -> tuple[Out[T1], Out[T2], Out[T3], Out[T4]]: ...
@overload
async def gather_outcomes(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], /
) -> tuple[Out[T1], Out[T2], Out[T3], Out[T4], Out[T5]]: ...
@overload
async def gather_outcomes(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], /
) -> tuple[Out[T1], Out[T2], Out[T3], Out[T4], Out[T5], Out[T6]]: ...
@overload
async def gather_outcomes(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], f7: Fn[T7], /
) -> tuple[Out[T1], Out[T2], Out[T3], Out[T4], Out[T5], Out[T6], Out[T7]]: ...
@overload
async def gather_outcomes(
    f1: Fn[T1], f2: Fn[T2], f3: Fn[T3], f4: Fn[T4], f5: Fn[T5], f6: Fn[T6], f7: Fn[T7], f8: Fn[T8], /
) -> tuple[Out[T1], Out[T2], Out[T3], Out[T4], Out[T5], Out[T6], Out[T7], Out[T8]]: ...
@overload
async def gather_outcomes(*fns: Fn[T]) -> tuple[Out[T], ...]: ...
async def gather_outcomes(*fns: Fn[Any]) -> tuple[Out[Any], ...]:
    """Run async functions at once, wait until all have ended, and return how each of them ended.

    No `Exception` cancels the others. It is a checkpoint, also without functions.

    Args:
        fns: Async functions without arguments; use `functools.partial`, or a lambda, to give them some.

    Returns:
        An `outcome.Value` or `outcome.Error` for each, in the order given.

    Raises:
        TypeError: If a function can't be called, or is a coroutine object. Nothing is started, and every coroutine that
            was passed is closed.
        BaseExceptionGroup: Of what is no `Exception`, such as `KeyboardInterrupt`; it cancels the rest.
    """
    _check_functions(fns, "gather_outcomes")
    async with _FanOutNursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, fn, suppress_exception=True) for fn in fns]
    return tuple([capture.outcome for capture in captures])


async def race(*fns: Fn[T]) -> T:
    """Run async functions at once, and return the value of the first to finish; the rest are cancelled.

    The first to finish decides, by exact order of completion, whether with a value or with an exception. What a
    function raises while it is being cancelled is not lost: it is raised in place of the value.

    Args:
        fns: Async functions without arguments; at least one.

    Returns:
        The value of the first function to finish.

    Raises:
        ValueError: If there are no functions.
        TypeError: If a function can't be called, or is a coroutine object. Nothing is started, and every coroutine that
            was passed is closed.
        BaseExceptionGroup: Of what the functions raised; an `ExceptionGroup` where it was nothing but `Exception`.
    """
    _check_functions(fns, "race", least=1)
    async with _FanOutNursery() as nursery:
        winner = _Winner(nursery, needs_value=False)
        for fn in fns:
            ResultCapture.start_soon(nursery, fn)._register(winner)
    assert winner.capture is not None
    return winner.capture.result()  # type: ignore[no-any-return]  # the type of the winner is one of theirs


async def first_success(*fns: Fn[T], stagger: float | None = None) -> T:
    """Run async functions until one of them succeeds, and return its value; the rest are cancelled.

    All start at once, or, with ``stagger``, one after another: the next starts when the one before it fails or after so
    many seconds, whichever comes first. This is the staggered start of RFC 8305 (Happy Eyeballs), section 5.

    Args:
        fns: Async functions without arguments; at least one.
        stagger: Seconds between two starts; None starts all at once.

    Returns:
        The first value that a function returned. What others raised, before or while they were cancelled, is dropped.

    Raises:
        ValueError: If there are no functions, or ``stagger`` is negative or not a number (NaN).
        TypeError: If a function can't be called, or is a coroutine object. Nothing is started, and every coroutine that
            was passed is closed. Also if ``stagger`` is no number.
        ExceptionGroup: If every function failed: all their exceptions, in the order of the functions.
        BaseExceptionGroup: Of what is no `Exception`, such as `KeyboardInterrupt`; it cancels the rest.
    """
    _check_functions(fns, "first_success", least=1)
    if stagger is not None and not operator.ge(stagger, 0):  # false for NaN too
        raise ValueError(f"stagger is a number of seconds of at least 0, or None to start all at once, not {stagger!r}")
    attempts: list[ResultCapture[T]] = []
    async with _FanOutNursery() as nursery:
        winner = _Winner(nursery, needs_value=True)
        for fn in fns:
            attempts.append(ResultCapture.start_soon(nursery, fn, suppress_exception=True))
            attempts[-1]._register(winner)
            if stagger is not None:
                with trio.move_on_after(stagger):
                    await attempts[-1].wait_done()
                if winner.capture is not None:
                    break
    if winner.capture is not None:
        return winner.capture.result()  # type: ignore[no-any-return]  # the type of the winner is one of theirs
    errors = [attempt.exception() for attempt in attempts]
    try:
        raise ExceptionGroup(
            f"each of the {len(fns)} functions of first_success failed",
            [error for error in errors if isinstance(error, Exception)],
        )
    finally:
        del attempts, errors, winner


async def amap(
    fn: Callable[[ItemT], Awaitable[T]], items: Iterable[ItemT] | AsyncIterable[ItemT], *, limit: int | None = None
) -> list[T]:
    """Call an async function with each item, many at once, and return the values in the order of the items.

    The first exception cancels the rest. The items are read one by one, as workers come free, so at most ``limit`` are
    taken and not finished. It is a checkpoint, also without items. An async generator as source is closed at the end.

    Args:
        fn: An async function of one argument.
        items: An iterable or an async iterable.
        limit: The greatest number of calls at once; None for no limit.

    Returns:
        The values, in the order of the items.

    Raises:
        TypeError: If ``fn`` can't be called, ``items`` can't be iterated over, or ``limit`` is not an integer.
        ValueError: If ``limit`` is less than 1.
        BaseExceptionGroup: Of what the calls or the source raised; an `ExceptionGroup` where it was nothing but
            `Exception`. An exception of a call carries a note with the item and its position, counted from 0, on
            Python 3.11 and later.

    Example:
        ::

            pages = await amap(fetch, urls, limit=20)
    """
    _check_map(fn, "amap")
    most = sys.maxsize if limit is None else _checked_limit(limit, "amap")
    name = task_name(fn)
    values: dict[int, T] = {}
    source = _Source(items, "amap")
    workers = 0

    def start_worker() -> None:
        nonlocal workers
        if workers < most:
            workers += 1
            nursery.start_soon(work, name=name)

    async def work() -> None:
        fresh = True
        async for index, item in source:
            if fresh:  # there may be more items, so there is work for one more
                fresh = False
                start_worker()
            try:
                awaitable = fn(item)
                if type(awaitable) is not COROUTINE:
                    check_awaitable(fn, awaitable)
                values[index] = await awaitable
            except BaseException as error:
                _note(error, index, item)
                raise

    async with source, _FanOutNursery() as nursery:
        start_worker()
    return [values[index] for index in range(len(values))]


def open_amap(
    fn: Callable[[ItemT], Awaitable[T]],
    items: Iterable[ItemT] | AsyncIterable[ItemT],
    *,
    limit: int,
    ordered: bool = False,
    suppress_exception: bool = False,
) -> AbstractAsyncContextManager[AsyncIterator[ResultCapture[T]]]:
    """Call an async function with each item, many at once, and give the results while they come.

    ``async with`` gives an async iterator of captures, each of which is done; ``capture.args`` has its item. The source
    may be endless: at most ``limit`` items are taken from it and not yet given out, in whatever order they come.
    Several tasks may share the iterator. Each of its steps is a checkpoint; cancelling one loses no result.

    Leaving the block, by ``break``, ``return`` or an exception, cancels what is running and waits for it. An exception
    of the block leaves as it is, or in a group with others if calls fail too. An async generator as source is closed
    at the end.

    Args:
        fn: An async function of one argument.
        items: An iterable or an async iterable.
        limit: The greatest number of items that are worked on, or done and not yet given out.
        ordered: Give the captures in the order of the items; by default in the order of completion.
        suppress_exception: Give captures that failed with an `Exception` too, in place of ending.

    Returns:
        An async context manager.

    Raises:
        TypeError: If ``fn`` can't be called, ``items`` can't be iterated over, or ``limit`` is not an integer.
        ValueError: If ``limit`` is less than 1.
        BaseExceptionGroup: From the block, of what the calls or the source raised; an `ExceptionGroup` where it was
            nothing but `Exception`. An exception of a call carries a note with the item and its position, counted from
            0, on Python 3.11 and later.

    Example:
        ::

            async with open_amap(fetch, urls, limit=20) as results:
                async for page in results:
                    print(page.args[0], len(page.result()))
    """
    _check_map(fn, "open_amap")
    checked = _checked_limit(limit, "open_amap")
    source = _Source(items, "open_amap")
    return _OpenAmap(source, _AmapResults(fn, source, checked, ordered=ordered, suppress=suppress_exception))


class _FanOutNursery:
    """A strict nursery that begins with a cancellation point, and raises a plain `Cancelled` where it was just that."""

    __slots__ = ("_manager",)

    @enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        current_trio_token()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        return await self._manager.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if all(isinstance(leaf, trio.Cancelled) for leaf in leaves(group)):
                # They come from a scope outside, so this raises the one that stands for all.
                await trio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            del self, error, traceback


class _Winner:
    """The waiter of `race` and `first_success`: the first to finish, or to succeed, cancels the rest."""

    __slots__ = ("_needs_value", "_nursery", "capture")

    def __init__(self, nursery: trio.Nursery, *, needs_value: bool) -> None:
        self._nursery = nursery
        self._needs_value = needs_value
        self.capture: ResultBase[Any] | None = None

    def settled(self, result: ResultBase[Any], _times: int, /) -> None:
        if self.capture is None and not (self._needs_value and result.exception() is not None):
            self.capture = result
            self._nursery.cancel_scope.cancel(reason="another function was first")


class _Source(Generic[ItemT]):
    """The items with their positions, for workers that share them. One reads at a time."""

    __slots__ = ("_async", "_count", "_exhausted", "_lock", "_sync")

    def __init__(self, items: Iterable[ItemT] | AsyncIterable[ItemT], call: str) -> None:
        self._sync: Iterator[ItemT] | None = None
        self._async: AsyncIterator[ItemT] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        elif isinstance(items, Iterable):
            self._sync = iter(items)
        else:
            raise TypeError(f"{call} takes its items from an iterable or an async iterable, not from {items!r}")
        self._lock = trio.Lock()
        self._count = 0
        self._exhausted = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, ItemT]:
        if self._sync is None:
            async with self._lock:
                item = await self._read()
        else:
            try:
                item = next(self._sync)
            except StopIteration:
                raise StopAsyncIteration from None
        index = self._count
        self._count += 1
        return index, item

    async def _read(self) -> ItemT:
        if self._exhausted or self._async is None:
            raise StopAsyncIteration
        self._exhausted = True  # whatever ends it, it is not read again
        item = await anext(self._async)
        self._exhausted = False
        return item

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc_info: object) -> None:
        source: AsyncIterator[Any] | None = self._async
        if isinstance(source, AsyncGenerator):
            await source.aclose()


class _AmapResults(AsyncIterator[ResultCapture[T]]):
    """What `open_amap` gives: workers at one end, consumers at the other."""

    def __init__(
        self, fn: Callable[[Any], Awaitable[T]], source: _Source[Any], limit: int, *, ordered: bool, suppress: bool
    ) -> None:
        self._fn = fn
        self._source = source
        self._limit = limit
        self._ordered = ordered
        self._suppress = suppress
        self._room = limit  # how many more items may be taken now
        self._queue: deque[ResultCapture[T]] = deque()  # in the order of giving out; where that is fixed, some pending
        self._event: trio.Event | None = None  # where consumers wait
        self._idle = trio.lowlevel.ParkingLot()  # where workers wait for room
        self._workers = 0
        self._exhausted = False
        self._closed = False

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._start_worker()

    def close(self) -> None:
        self._closed = True
        self._nursery.cancel_scope.cancel(reason="the block of open_amap has ended")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ResultCapture[T]:
        if self._closed:
            raise trio.ClosedResourceError("the block of open_amap has ended; loop over its results inside the block")
        if self._is_ready() or self._is_finished():
            await checkpoint()
        while not self._is_ready():
            if self._is_finished():
                raise StopAsyncIteration
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
        capture = self._queue.popleft()
        self._room += 1
        self._idle.unpark()
        if self._is_finished():
            self._wake_consumers()  # those that get nothing more
        return capture

    def _is_ready(self) -> bool:
        return bool(self._queue) and self._queue[0].is_done()

    def _is_finished(self) -> bool:
        return self._exhausted and self._room == self._limit

    def _wake_consumers(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    def _start_worker(self) -> None:
        if self._workers < self._limit:
            self._workers += 1
            self._nursery.start_soon(self._work, name=task_name(self._fn))

    async def _work(self) -> None:
        fresh = True
        while True:
            while not self._room:
                await self._idle.park()
            self._room -= 1  # before the source is asked: while it is slow, others must not take the same room
            try:
                index, item = await anext(self._source)
            except StopAsyncIteration:
                self._room += 1
                self._exhausted = True
                self._wake_consumers()
                return
            if fresh:  # there may be more items, so there is work for one more
                fresh = False
                self._start_worker()
            await self._run(index, item)
            self._wake_consumers()

    async def _run(self, index: int, item: object) -> None:
        capture = ResultCapture(self._fn, item, suppress_exception=self._suppress)
        capture._begin()
        if self._ordered:
            self._queue.append(capture)
        try:
            await capture._capture()
        finally:
            _note(capture.exception(), index, item)
            if not self._ordered:
                self._queue.append(capture)
            del self, capture


class _OpenAmap(Generic[T]):
    __slots__ = ("_nursery", "_results", "_source")

    def __init__(self, source: _Source[Any], results: _AmapResults[T]) -> None:
        self._source = source
        self._results = results
        self._nursery = _FanOutNursery()

    @enable_ki_protection
    async def __aenter__(self) -> _AmapResults[T]:
        self._results.start(await self._nursery.__aenter__())
        return self._results

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._results.close()
        try:
            async with self._source:
                return await self._nursery.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1 and group.exceptions[0] is error:
                return False  # the block's own exception, which goes on as it is
            raise
        finally:
            del self, error, traceback


def _check_functions(fns: tuple[object, ...], call: str, least: int = 0) -> None:
    if len(fns) < least:
        raise ValueError(f"{call} was given no functions, and so has nothing to return; pass at least {least}")
    wrong = [fn for fn in fns if not callable(fn)]
    if not wrong:
        return
    for fn in wrong[1:]:
        if inspect.iscoroutine(fn):
            fn.close()  # or Python would warn that it was never awaited
    refuse_uncallable(
        wrong[0], f"{call}({{}}, ...)", f"functools.partial({getattr(wrong[0], '__name__', 'async_fn')}, *args)"
    )


def _check_map(fn: object, call: str) -> None:
    if not callable(fn):
        refuse_uncallable(fn, f"{call}({{}}, items)")


def _checked_limit(limit: object, call: str) -> int:
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise TypeError(f"the limit of {call} is how many calls run at once, an integer such as 10, not {limit!r}")
    checked = operator.index(limit)
    if checked < 1:
        raise ValueError(f"the limit of {call} is how many calls run at once, at least 1, not {checked}")
    return checked


def _note(error: BaseException | None, index: int, item: object) -> None:
    """Say which item an exception came from; a cancellation comes from none."""
    if sys.version_info >= (3, 11) and error is not None and not is_cancellation(error):
        error.add_note(f"raised for item {index}: {reprlib.repr(item)}")
