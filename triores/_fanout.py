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
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar

import trio
from trio.lowlevel import checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from ._capture import COROUTINE, ResultCapture
from ._checks import check_awaitable, refuse_uncallable, shown, task_name
from ._exceptions import is_cancellation, leaves
from ._gather import FanOutNursery
from ._result import checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # Trio itself requires the backport on Python 3.10

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")
ItemT = TypeVar("ItemT")

if TYPE_CHECKING:
    FnOf = Callable[[ItemT], Awaitable[T]]
    Items = Iterable[ItemT] | AsyncIterable[ItemT]


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
    async with FanOutNursery("amap") as nursery:
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

    __slots__ = ("_ended", "_manager", "_nursery", "_results")

    def __init__(self, results: _AmapResults[T]) -> None:
        self._results = results
        self._ended: list[bool] = []  # has an item once the block has ended
        self._manager = FanOutNursery("open_amap", self._ended.__len__)

    @enable_ki_protection
    async def __aenter__(self) -> _AmapResults[T]:
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._results.run, self._nursery)
        return self._results

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._results.close()
        if error is None:
            self._ended.append(True)
            self._nursery.cancel_scope.cancel(reason="the block of open_amap has ended")
        try:
            return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - as a nursery does
        except BaseExceptionGroup as group:
            # They are compared by their leaves, since Trio copies a group to take its own Cancelled out.
            if {*map(id, leaves(group))} == {*map(id, leaves(error))}:
                return False  # the block's own exception goes on as it is
            raise


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
