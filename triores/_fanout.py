"""Many tasks at once, and what each call does when one of them fails.

Every call here owns a nursery, so nothing outlives it. What goes wrong leaves as Trio's strict nurseries raise it, in
an exception group; where the call was cancelled from outside and nothing else went wrong, as a plain `trio.Cancelled`.
`gather`, `gather_outcomes`, `race` and `first_success` start a task a function. The two maps read their items lazily: a
plain iterable by worker tasks, each of which takes the next item when it is free, and an async iterable by one task.
"""

from __future__ import annotations

import contextvars
import inspect
import operator
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Generic, SupportsFloat, SupportsIndex, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from ._capture import COROUTINE, ResultCapture
from ._checks import check_awaitable, refuse_uncallable, shown, task_name
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

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
T = TypeVar("T")
ItemT = TypeVar("ItemT")

if TYPE_CHECKING:
    Fn = Callable[[], Awaitable[T]]
    FnOf = Callable[[ItemT], Awaitable[T]]
    Items = Iterable[ItemT] | AsyncIterable[ItemT]
    Out = Value[T] | Error


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
    values: dict[int, Any] = {}
    async with _FanOutNursery("gather") as nursery:
        await checkpoint_if_cancelled()
        for index, fn in enumerate(fns):
            nursery.start_soon(_store, values, index, fn, name=task_name(fn))
    return tuple([values[index] for index in range(len(fns))])


async def _store(values: dict[int, Any], index: int, fn: Fn[Any]) -> None:
    awaitable = fn()
    if type(awaitable) is not COROUTINE:
        check_awaitable(fn, awaitable)
    values[index] = await awaitable


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
    async with _FanOutNursery("gather_outcomes") as nursery:
        await checkpoint_if_cancelled()
        captures = [ResultCapture.start_soon(nursery, fn, suppress_exception=True) for fn in fns]
    return tuple([capture.outcome for capture in captures])


@enable_ki_protection
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
    manager = _FanOutNursery("race")
    winner = _Winner(manager, needs_value=False)
    async with manager as nursery:
        await checkpoint_if_cancelled()
        for fn in fns:
            ResultCapture.start_soon(nursery, fn)._register(winner, current_trio_token())
    assert winner.capture is not None
    return winner.capture.result()  # type: ignore[no-any-return]  # the type of the winner is one of theirs


@enable_ki_protection
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
    seconds = _checked_stagger(stagger)
    attempts: list[ResultCapture[T]] = []
    manager = _FanOutNursery("first_success")
    winner = _Winner(manager, needs_value=True)
    try:
        async with manager as nursery:
            await checkpoint_if_cancelled()
            for fn in fns:
                attempts.append(ResultCapture.start_soon(nursery, fn, suppress_exception=True))
                attempts[-1]._register(winner, current_trio_token())
                if seconds is not None:
                    with trio.move_on_after(seconds):
                        await attempts[-1].wait_done()
                if winner.capture is not None:
                    break
    except ExceptionGroup:
        if winner.capture is None:
            raise
        # Else a loser with a nursery of its own has mixed its failure with the cancellation.
    if winner.capture is not None:
        return winner.capture.result()  # type: ignore[no-any-return]  # the type of the winner is one of theirs
    errors = [error for attempt in attempts if isinstance(error := attempt.exception(), Exception)]
    raise ExceptionGroup(f"each of the {len(fns)} functions of first_success failed", errors)


@enable_ki_protection
async def amap(
    fn: Callable[[ItemT], Awaitable[T]], items: Iterable[ItemT] | AsyncIterable[ItemT], *, limit: int | None = None
) -> list[T]:
    """Call an async function with each item, many at once, and return the values in the order of the items.

    The first exception cancels the rest. The items are read one by one, as there is room, so at most ``limit`` are
    taken and not finished. Each call has its own copy of the caller's context variables. An async generator as source
    is run and closed in one task. It is a checkpoint, also without items.

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
    calls = _Amap(fn, items, sys.maxsize if limit is None else limit)
    async with _FanOutNursery("amap") as nursery:
        await calls.read(nursery)
    return [calls.values[index] for index in range(len(calls.values))]


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
    of the block leaves as it is, or in a group with others if calls fail too. Each call has its own copy of the
    caller's context variables. An async generator as source is run and closed in one task, which is cancelled with the
    rest.

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
    return _OpenAmap(_AmapResults(fn, items, limit, ordered=ordered, suppress=suppress_exception))


class _FanOutNursery:
    """A strict nursery that raises a plain `trio.Cancelled` where it was nothing but that."""

    __slots__ = ("_call", "_ended", "_manager", "_nursery")

    def __init__(self, call: str) -> None:
        self._call = call
        self._ended = False

    @enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        current_trio_token()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    def end(self, reason: str) -> None:
        """Cancel what is left, since the call has what it wants."""
        self._ended = True
        self._nursery.cancel_scope.cancel(reason=reason)

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            swallowed = await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - as a nursery does
        except BaseExceptionGroup as group:
            if all(isinstance(leaf, trio.Cancelled) for leaf in leaves(group)):
                # They come from a scope outside, so this raises the one that stands for all.
                await checkpoint_if_cancelled()  # noqa: ASYNC102 - a cancellation is what this is for
            raise
        else:
            if self._nursery.cancel_scope.cancelled_caught and not self._ended:
                raise RuntimeError(
                    f"{self._call} lacks results: a task in it raised a trio.Cancelled that belongs elsewhere, or "
                    "cancelled the nursery it runs in; to stop a single task, give it a cancel scope of its own"
                )
            return swallowed


class _Winner:
    """The waiter of `race` and `first_success`: the first to finish, or to succeed, ends the others."""

    __slots__ = ("_manager", "_needs_value", "capture")

    def __init__(self, manager: _FanOutNursery, *, needs_value: bool) -> None:
        self._manager = manager
        self._needs_value = needs_value
        self.capture: ResultBase[Any] | None = None

    def settled(self, result: ResultBase[Any], /) -> None:
        if self.capture is None and not (self._needs_value and result.exception() is not None):
            self.capture = result
            self._manager.end("another function was first")


class _Map(ABC, Generic[ItemT, T]):
    """What both maps are made of: the source of the items, and the tasks that call the function with them.

    An iterable is read by worker tasks, each of which takes the next item when it is free. An async iterable is read by
    one task, which starts a task for each item: what an async generator holds over a ``yield``, a lock or a context
    variable, belongs to the task that took it, and so one task has to run it from beginning to end.
    """

    def __init__(self, fn: FnOf[ItemT, T], items: Items[ItemT], limit: int, call: str) -> None:
        if not callable(fn):
            refuse_uncallable(fn, f"{call}({{}}, items)")
        self._fn = fn
        self._name = task_name(fn)
        self._limit = self._room = _checked_limit(limit, call)  # room: how many more items may be taken now
        self._waiting = trio.lowlevel.ParkingLot()  # those who wait for room
        self._exhausted = False
        self._async: AsyncIterator[ItemT] | None = None
        self._sync: Iterator[tuple[int, ItemT]] = iter(())
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        elif isinstance(items, Iterable):
            self._sync = enumerate(items)
        else:
            if inspect.iscoroutine(items):
                items.close()  # or Python would warn that it was never awaited
            raise TypeError(f"{call} takes its items from an iterable or an async iterable, not from {shown(items)}")

    @disable_ki_protection  # it is the source's code that runs here
    async def read(self, nursery: trio.Nursery) -> None:
        """Start tasks for all items of an async iterable, or for as many of another as there is room for."""
        self._nursery = nursery
        self._context = contextvars.copy_context()  # for a sync source, so that all workers read it in the same one
        if self._async is not None:
            await self._read_async(self._async)
            return
        await checkpoint_if_cancelled()
        while self._room and (taken := self._take()) is not None:
            self._start(taken)

    async def _read_async(self, source: AsyncIterator[ItemT]) -> None:
        index = 0
        try:
            await checkpoint_if_cancelled()
            while True:
                taken = index, await anext(source)
                index += 1
                self._room -= 1
                self._context.run(self._start, taken)
                del taken
                while not self._room:
                    await self._waiting.park()
        except StopAsyncIteration:
            self._exhaust()
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    def _take(self) -> tuple[int, ItemT] | None:
        taken = self._context.run(next, self._sync, None)
        if taken is None:
            self._exhaust()
        else:
            self._room -= 1
        return taken

    def _exhaust(self) -> None:
        self._exhausted = True
        self._sync = iter(())  # which some sources, read again after their end, would go on from

    @abstractmethod
    def _start(self, taken: tuple[int, ItemT]) -> None:
        """Start a task that calls the function with this item, and then with more items of a plain iterable."""


class _Amap(_Map[ItemT, T]):
    """The calls of `amap`: a worker that ends makes room."""

    def __init__(self, fn: FnOf[ItemT, T], items: Items[ItemT], limit: int) -> None:
        super().__init__(fn, items, limit, "amap")
        self.values: dict[int, T] = {}

    def _start(self, taken: tuple[int, ItemT]) -> None:
        self._nursery.start_soon(self._work, taken, name=self._name)

    async def _work(self, taken: tuple[int, ItemT] | None) -> None:
        context = contextvars.copy_context()
        while taken is not None:
            if contextvars.copy_context() != context:
                context.run(self._start, taken)  # so that this call does not see what the one before it has set
                return
            index, item = taken
            try:
                awaitable = self._fn(item)
                if type(awaitable) is not COROUTINE:
                    check_awaitable(self._fn, awaitable)
                self.values[index] = await awaitable
            except BaseException as error:
                _note(error, index, item)
                self._exhaust()  # since no cancellation reaches a worker whose calls have no checkpoint
                raise
            taken = self._context.run(next, self._sync, None)
        self._exhaust()
        self._room += 1
        self._waiting.unpark()


class _AmapResults(_Map[Any, T], AsyncIterator[ResultCapture[T]]):
    """What `open_amap` gives: whoever takes a result makes room."""

    def __init__(self, fn: FnOf[Any, T], items: Items[Any], limit: int, *, ordered: bool, suppress: bool) -> None:
        super().__init__(fn, items, limit, "open_amap")
        self._ordered = ordered
        self._suppress = suppress
        self._queue: deque[ResultCapture[T]] = deque()  # in the order of giving out; where that is fixed, some pending
        self._event: trio.Event | None = None  # where consumers wait
        self._closed = False

    async def run(self, nursery: trio.Nursery) -> None:
        """Read, and close the results where that fails or is cancelled."""
        try:
            await self.read(nursery)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let consumers go that would wait for ever: those that are shielded, or that run outside the block."""
        self._closed = True
        self._queue.clear()
        self._wake_consumers()

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> ResultCapture[T]:
        if self._has_answer():
            await checkpoint()
        while not self._has_answer():
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
        if self._closed:
            await checkpoint()  # Cancelled, for those that run inside the block
            raise trio.ClosedResourceError(
                "open_amap gives no more results: its block has ended, or is being cancelled"
            )
        if not self._queue:
            raise StopAsyncIteration
        capture = self._queue.popleft()
        self._room += 1
        self._waiting.unpark()
        return capture

    def _has_answer(self) -> bool:
        return self._closed or (self._queue[0].is_done() if self._queue else self._is_finished())

    def _is_finished(self) -> bool:
        return self._exhausted and self._room == self._limit

    def _wake_consumers(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    def _exhaust(self) -> None:
        super()._exhaust()
        self._wake_consumers()

    def _start(self, taken: tuple[int, Any]) -> None:
        self._nursery.start_soon(self._work, taken[0], self._admit(taken[1]), name=self._name)

    def _admit(self, item: object) -> ResultCapture[T]:
        capture = ResultCapture(self._fn, item, suppress_exception=self._suppress)
        if self._ordered:
            self._queue.append(capture)
        return capture

    async def _work(self, index: int, capture: ResultCapture[T]) -> None:
        context = contextvars.copy_context()
        while True:
            running = self._run(index, capture)
            del capture  # a failure's traceback keeps this frame alive; and a worker that waits holds no item
            await running
            if self._async is not None:
                return
            while not self._room:
                await self._waiting.park()
            taken = self._take()
            if taken is None:
                return
            if contextvars.copy_context() != context:
                context.run(self._start, taken)
                return
            index, capture = taken[0], self._admit(taken[1])
            del taken

    async def _run(self, index: int, capture: ResultCapture[T]) -> None:
        try:
            await capture._capture()
            if not self._ordered:
                self._queue.append(capture)
            self._wake_consumers()
        except BaseException:
            self.close()
            raise
        finally:
            if capture.is_done():
                _note(capture.exception(), index, capture.args[0])
            del self, capture


class _OpenAmap(Generic[T]):
    """The block of `open_amap`."""

    __slots__ = ("_manager", "_results")

    def __init__(self, results: _AmapResults[T]) -> None:
        self._results = results
        self._manager = _FanOutNursery("open_amap")

    @enable_ki_protection
    async def __aenter__(self) -> _AmapResults[T]:
        nursery = await self._manager.__aenter__()
        nursery.start_soon(self._results.run, nursery)
        return self._results

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._results.close()
        if error is None:
            self._manager.end("the block of open_amap has ended")
        try:
            return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - as a nursery does
        except BaseExceptionGroup as group:
            # They are compared by their leaves, since Trio copies a group to take its own Cancelled out.
            if {*map(id, leaves(group))} == {*map(id, leaves(error))}:
                return False  # the block's own exception goes on as it is
            raise


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


def _checked_stagger(stagger: object) -> float | None:
    if stagger is None:
        return None
    told = f"stagger is a number of seconds of at least 0, or None to start all at once, not {shown(stagger)}"
    if not isinstance(stagger, SupportsFloat):
        raise TypeError(told)
    if not float(stagger) >= 0:  # not so for NaN either
        raise ValueError(told)
    return float(stagger)


def _checked_limit(limit: object, call: str) -> int:
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise TypeError(f"the limit of {call} is how many calls run at once, an integer such as 10, not {shown(limit)}")
    checked = operator.index(limit)
    if checked < 1:
        raise ValueError(f"the limit of {call} is how many calls run at once, at least 1, not {checked}")
    return checked


def _note(error: BaseException | None, index: int, item: object) -> None:
    """Say which item an exception came from; a cancellation comes from none."""
    if error is not None and hasattr(error, "add_note") and not is_cancellation(error):  # not so on Python 3.10
        error.add_note(f"raised for item {index}: {shown(item)}")
