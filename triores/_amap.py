"""One function and many items: the maps, and the engine they share.

The engine is a number of worker tasks, each of which takes an item, calls the function, reports, and takes the next
one. The rules that it keeps:

- Items are taken only as far as there is room. A generator, sync or async, and any other async iterable is read by one
  task, since what it holds over a ``yield``, a nursery or a cancel scope, belongs to the task that runs it. From any
  other iterable the workers take the items themselves. Either way it is read in one context.
- A generator is closed when the call ends, however it ends, by the task that reads it.
- A map shares the loop even if the function never waits. Workers measure the time: once one of them has run on for a
  slice, all of them let the other tasks run before they begin a new call.
- Each call has its own copy of the caller's context. A worker whose context was changed by a call leaves the next item
  to a new worker.
"""

from __future__ import annotations

import contextvars
import operator
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, SupportsIndex, TypeVar, cast

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from ._capture import ResultCapture
from ._checks import close_coroutines, refuse_uncallable, shown, task_name
from ._exceptions import is_cancellation, parts
from ._gather import called, fan_out_nursery
from ._result import checkpoint as checkpoint_in_trio
from ._result import current_trio_token
from ._wait import Arrivals

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trio.lowlevel import TrioToken
    from typing_extensions import Self

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)
WorkT = TypeVar("WorkT")

if TYPE_CHECKING:
    Items = Iterable[ItemT] | AsyncIterable[ItemT]

SLICE = 0.002  # seconds that calls may run on before other tasks get a turn


@enable_ki_protection
async def amap(
    fn: Callable[[ItemT], Awaitable[T]], items: Iterable[ItemT] | AsyncIterable[ItemT], *, limit: int | None = None
) -> list[T]:
    """Call an async function with each item, many at once, and return the values in the order of the items.

    The first exception cancels the rest. Items are read as there is room, so at most ``limit`` are taken and not
    finished. Other tasks get a turn every few milliseconds, and the call can be cancelled, even if ``fn`` never waits.
    Each call has its own copy of the caller's context variables. A generator as source, sync or async, is run by one
    task, and closed at the end. It is always a checkpoint.

    Args:
        fn: An async function of one argument.
        items: An iterable or an async iterable.
        limit: The greatest number of calls at once; None for no limit.

    Returns:
        The values, in the order of the items.

    Raises:
        TypeError: If ``fn`` can't be called, ``items`` can't be iterated over, or ``limit`` isn't an integer.
        ValueError: If ``limit`` is less than 1.
        BaseExceptionGroup: Of what the calls or the source raised; an `ExceptionGroup` if all of that is an
            `Exception`. On Python 3.11 and later, an exception of a call carries a note that shows the item and its
            position, counted from 0.

    Example:
        ::

            pages = await amap(fetch, urls, limit=20)
    """
    calls: _Values[ItemT, T] = _Values(fn, items, limit, "amap")
    async with fan_out_nursery("amap") as nursery:
        calls.begin(nursery)
        await calls.read()
    return [calls.values[index] for index in range(len(calls.values))]


def open_amap(
    fn: Callable[[ItemT], Awaitable[T]],
    items: Iterable[ItemT] | AsyncIterable[ItemT] = (),
    *,
    limit: int | None = None,
    ordered: bool = False,
    suppress_exception: bool = False,
) -> AbstractAsyncContextManager[AmapResults[ItemT, T]]:
    """Call an async function with each item, many at once, and give out the results as they come.

    ``async with`` gives an `AmapResults`: an async iterator of captures, each of which is done and has its ``item``,
    with a method ``add`` for further items. The source may be endless: at most ``limit`` items are taken from it and
    not yet given out.

    Leaving the block, by ``break``, ``return`` or an exception, cancels what is running and waits for it. An exception
    of the block leaves as it is, or in a group with others if calls fail too. Other tasks get a turn every few
    milliseconds, and the block can be cancelled, even if ``fn`` never waits. Each call has its own copy of the context
    variables that the block begins with. A generator as source, sync or async, is run by one task, and closed at the
    end.

    Args:
        fn: An async function of one argument.
        items: An iterable or an async iterable; by default there are only the items that are added.
        limit: The greatest number of items that are worked on, or done and not yet given out; None for no limit.
        ordered: Give out the captures in the order in which the items were taken; by default in order of completion.
        suppress_exception: Give out captures that failed with an `Exception` too, instead of ending.

    Returns:
        An async context manager.

    Raises:
        TypeError: If ``fn`` can't be called, ``items`` can't be iterated over, or ``limit`` isn't an integer.
        ValueError: If ``limit`` is less than 1.
        BaseExceptionGroup: From the block, of what the calls or the source raised; an `ExceptionGroup` if all of that
            is an `Exception`. On Python 3.11 and later, an exception of a call carries a note that shows the item and
            its position, counted from 0.

    Example:
        ::

            async with open_amap(fetch, urls, limit=20) as results:
                async for page in results:
                    print(page.item, len(page.result()))
    """
    return _OpenAmap(_Stream(fn, items, limit, ordered=ordered, suppress=suppress_exception))


class ItemCapture(ResultCapture[T_co], Generic[ItemT_co, T_co]):
    """What `open_amap` gives out: the capture of one call, with its item."""

    __slots__ = ()

    @property
    def item(self) -> ItemT_co:
        """The item that the function was called with."""
        return cast("ItemT_co", self._args[0])


class AmapResults(AsyncIterator[ItemCapture[ItemT, T]]):
    """The results of `open_amap`: an async iterator, to which further items can be added while its block runs.

    The iteration ends when the source is exhausted, nothing runs, and everything has been given out. Several tasks may
    share the iterator. Each of its steps is a checkpoint; cancelling one loses no result. After the block, or once a
    call has failed, a step raises `trio.ClosedResourceError`.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: _Stream[ItemT, T]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> ItemCapture[ItemT, T]:
        return await self._stream.next()

    @enable_ki_protection
    def add(self, item: ItemT) -> None:
        """Add an item, which goes before all that was not yet read from the source.

        It may be called in the loop over the results, or by a call: a crawl adds the links that it finds.

        Raises:
            trio.ClosedResourceError: If the block has ended, or is being cancelled.
            RuntimeError: If this is another Trio run than that of the block, or none.
        """
        self._stream.add(item)

    def __repr__(self) -> str:
        return f"<{self._stream.text()}>"


class _Engine(Generic[ItemT, T, WorkT]):
    """The workers of a map, and the source of their items."""

    def __init__(self, fn: Callable[[ItemT], Awaitable[T]], items: Items[ItemT], limit: object, call: str) -> None:
        if not callable(fn):
            refuse_uncallable(fn, f"{call}({{}}, items)")
        self._fn = fn
        self._limit = _checked_limit(limit, call)
        self._source: Iterator[ItemT] | AsyncIterator[ItemT] = _iterated(items, call)
        self._is_read_by_task = isinstance(self._source, (AsyncIterator, Generator))
        self._exhausted = False
        self._stopped = False  # something has failed, so no further call begins
        self._next_index = 0
        self._added: deque[ItemT] = deque()
        self._read: deque[ItemT] = deque()  # by the task that reads, and not taken yet
        self._busy = 0  # items that were taken and take up room
        self._workers = 0
        self._idle = trio.lowlevel.ParkingLot()  # workers without an item
        self._reader = trio.lowlevel.ParkingLot()  # the task that reads, while there is no room
        self._running: object = None  # the last task that began a call, or read
        self._slice_end = 0.0
        self._is_giving_way = False

    def begin(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._caller = contextvars.copy_context()
        self._source_context = contextvars.copy_context()
        self._slice_end = time.perf_counter() + SLICE

    # ---- the source

    async def read(self) -> None:
        """Start workers, and read a source that one task has to read."""
        try:
            await checkpoint_if_cancelled()
            if self._is_read_by_task:
                await self._read_source()
            else:
                await self._start_workers()
        except BaseException:
            self.stop()
            raise
        finally:
            await _close(self._source)

    @disable_ki_protection  # it is the source's code that runs here
    async def _read_source(self) -> None:
        source = self._source
        step: Callable[[], Any] = partial(next, source) if isinstance(source, Generator) else source.__anext__  # type: ignore[union-attr] # one of the two
        first_step = step
        while True:
            self._running = self._reader
            try:
                item = step()
                if not isinstance(source, Generator):
                    item = await item
            except (StopIteration, StopAsyncIteration):
                self._exhaust()
                return
            self._read.append(item)
            del item
            self._employ()
            try:
                step = first_step
                await self._let_others_run(self._reader)
                while self._read and self._busy + len(self._read) >= self._limit:
                    await self._reader.park()
            except BaseException as error:  # as if the `yield` had raised it
                if not isinstance(source, (Generator, AsyncGenerator)):
                    raise
                step = partial(source.throw if isinstance(source, Generator) else source.athrow, error)

    async def _start_workers(self) -> None:
        self._running = self._idle
        while self._workers < self._limit and (work := self._take()) is not None:
            self._start_worker(work)
            await self._let_others_run(self._idle)
            self._running = self._idle

    def _take(self) -> WorkT | None:
        """Take the next item, if there is one now, and room for it."""
        if self._busy >= self._limit or self._stopped:
            return None
        if self._added:
            item = self._added.popleft()
        elif self._read:
            item = self._read.popleft()
            self._let_read()
        elif self._exhausted or self._is_read_by_task:
            return None
        else:
            try:
                item = self._source_context.run(next, self._source)  # type: ignore[arg-type] # not an async one
            except StopIteration:
                self._exhaust()
                return None
        self._busy += 1
        self._next_index += 1
        return self._admit(self._next_index - 1, item)

    def _admit(self, index: int, item: ItemT) -> WorkT:
        """Make the work of an item that was taken."""
        raise NotImplementedError

    def _let_read(self) -> None:
        if self._reader:
            self._reader.unpark()

    def _exhaust(self) -> None:
        self._exhausted = True
        self._idle.unpark_all()

    def _is_drained(self) -> bool:
        return self._exhausted and not self._added and not self._read

    def stop(self) -> None:
        """Begin no further call."""
        self._stopped = True

    # ---- the workers

    def _employ(self) -> None:
        """Have a worker look for an item, after there is a new one, or new room."""
        if self._busy >= self._limit or self._is_drained() or self._stopped:
            return
        if self._idle:
            self._idle.unpark()
        elif self._workers < self._limit:
            self._start_worker(None)

    def _start_worker(self, work: WorkT | None) -> None:
        self._workers += 1
        self._caller.run(partial(self._nursery.start_soon, self._work, work, name=task_name(self._fn)))

    async def _work(self, work: WorkT | None) -> None:
        me = object()
        self._running = me
        context = contextvars.copy_context()
        try:
            while True:
                if work is None and (work := await self._next_work()) is None:
                    return
                if self._is_giving_way or time.perf_counter() >= self._slice_end:
                    await self._let_others_run(me)
                self._running = me
                doing, work = self._do(work), None  # a worker that waits, or has failed, holds no item
                await doing
                del doing
                if not _is_same(context, contextvars.copy_context()):
                    self._start_worker(None)  # the next call must not see what this one has set
                    return
        except BaseException:
            self.stop()
            raise
        finally:
            self._workers -= 1
            work = None

    async def _next_work(self) -> WorkT | None:
        while not self._stopped:
            work = self._take()
            if work is not None:
                return work
            if self._is_drained():
                break
            await self._idle.park()
        return None

    async def _do(self, work: WorkT) -> None:
        """Call the function with an item that was taken, and report how it ended."""
        raise NotImplementedError

    def _note(self, error: BaseException, index: int, item: object) -> None:
        """Say which item an exception comes from; a cancellation comes from none."""
        if not is_cancellation(error):
            with suppress(Exception):  # an exception class may refuse notes
                _add_note(error, self._idle, f"item {index}: {shown(item)}")

    async def _let_others_run(self, me: object) -> None:
        """Give the other tasks of the run a turn, if the workers together have run on for a slice.

        One of them ends the slice, and begins the next one when it runs again. Until then, the others don't begin a
        call either: if each had a slice of its own, the loop would wait for all of them. If another worker has run
        since this one began its call, that call has waited, and the loop has had its turn.
        """
        if self._running is not me:
            return
        if self._is_giving_way:
            while self._is_giving_way:
                await checkpoint()
        elif time.perf_counter() >= self._slice_end:
            self._is_giving_way = True
            try:
                await checkpoint()
            finally:
                self._is_giving_way = False
                self._slice_end = time.perf_counter() + SLICE


class _Values(_Engine[ItemT, T, tuple[int, Any]]):
    """The calls of `amap`: one that ends makes room."""

    def __init__(self, fn: Callable[[ItemT], Awaitable[T]], items: Items[ItemT], limit: object, call: str) -> None:
        super().__init__(fn, items, limit, call)
        self.values: dict[int, T] = {}

    def _admit(self, index: int, item: ItemT) -> tuple[int, Any]:
        return index, item

    async def _do(self, work: tuple[int, Any]) -> None:
        index, item = work
        try:
            self.values[index] = await called(self._fn, item)
        except BaseException as error:
            self._note(error, index, item)
            raise
        self._busy -= 1
        self._let_read()


class _Stream(_Engine[ItemT, T, tuple[int, ItemCapture[Any, Any]]]):
    """The calls of `open_amap`: a result that is given out makes room."""

    def __init__(
        self,
        fn: Callable[[ItemT], Awaitable[T]],
        items: Items[ItemT],
        limit: object,
        *,
        ordered: bool,
        suppress: bool,
    ) -> None:
        super().__init__(fn, items, limit, "open_amap")
        self._ordered = ordered
        self._suppress = suppress
        self._arrivals: Arrivals[ItemCapture[ItemT, T]] = Arrivals()
        self._in_order: deque[ItemCapture[ItemT, T]] = deque()  # those that were taken and can't be given out yet
        self._closed = False
        self._token: TrioToken | None = None
        self.failed = False  # a call or the source

    def begin(self, nursery: trio.Nursery) -> None:
        super().begin(nursery)
        self._token = current_trio_token()
        nursery.start_soon(self._read_all, name="triores.open_amap: the source")

    async def _read_all(self) -> None:
        try:
            await self.read()
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        self.failed = self.failed or not is_cancellation(error)
        self.close()

    def close(self) -> None:
        """Give out no more results, and let those go that wait for one."""
        self._closed = True
        self.stop()
        self._in_order.clear()
        self._arrivals.ready.clear()
        self._arrivals.wake()

    def _admit(self, index: int, item: ItemT) -> tuple[int, ItemCapture[Any, Any]]:
        capture: ItemCapture[ItemT, T] = ItemCapture(self._fn, item, suppress_exception=self._suppress)
        if self._ordered:
            self._in_order.append(capture)
        return index, capture

    async def _do(self, work: tuple[int, ItemCapture[Any, Any]]) -> None:
        index, capture = work
        del work
        try:
            await capture._capture()
            self._report(capture)
        except BaseException as error:
            self._note(error, index, capture.item)
            self._fail(error)
            raise
        finally:
            del self, capture  # a failure's traceback keeps this frame alive

    def _report(self, capture: ItemCapture[ItemT, T]) -> None:
        if self._closed:
            return
        if not self._ordered:
            self._arrivals.settled(capture)
        while self._in_order and self._in_order[0].is_done():
            self._arrivals.settled(self._in_order.popleft())

    def _exhaust(self) -> None:
        super()._exhaust()
        self._arrivals.wake()

    def add(self, item: ItemT) -> None:
        if current_trio_token() is not self._token:
            raise RuntimeError(f"these results belong to another Trio run, so {shown(item)} can't be added from here")
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED.format("takes no more items"))
        self._added.append(item)
        self._employ()

    async def next(self) -> ItemCapture[ItemT, T]:
        arrivals = self._arrivals
        try:
            if self._has_answer():
                await checkpoint_in_trio()
            while not self._has_answer():
                await arrivals.wait()
                await checkpoint_if_cancelled()  # another task may have taken what this one was woken for
            if self._closed:
                await checkpoint()  # raises Cancelled inside of the block
                raise trio.ClosedResourceError(_CLOSED.format("gives no more results"))
            if not arrivals.ready:
                raise StopAsyncIteration
            capture = arrivals.ready.popleft()
            self._busy -= 1
            self._let_read()
            self._employ()
            if self._is_finished():
                arrivals.wake()
            return capture
        finally:
            del self, arrivals

    def _has_answer(self) -> bool:
        return self._closed or bool(self._arrivals.ready) or self._is_finished()

    def _is_finished(self) -> bool:
        return self._is_drained() and not self._busy

    def text(self) -> str:
        done = len(self._arrivals.ready)
        return f"open_amap: {'closed' if self._closed else 'open'}, {self._busy - done} running, {done} done"


_CLOSED = "open_amap {}: its block has ended, or is being cancelled"


class _OpenAmap(Generic[ItemT, T]):
    """The block of `open_amap`. Not a generator: Ctrl-C in contextlib's code would leave the nursery open."""

    __slots__ = ("_ended", "_manager", "_nursery", "_stream")

    def __init__(self, stream: _Stream[ItemT, T]) -> None:
        self._stream = stream

    @enable_ki_protection
    async def __aenter__(self) -> AmapResults[ItemT, T]:
        self._ended: list[bool] = []  # has an item once the block has ended, and not the nursery in it
        self._manager = fan_out_nursery("open_amap", self._ended.__len__)
        self._nursery = await self._manager.__aenter__()
        self._stream.begin(self._nursery)
        return AmapResults(self._stream)

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._stream.close()
        scope = self._nursery.cancel_scope
        failure: BaseException | None = None
        try:
            if (
                scope.cancel_called
            ):  # since something in it failed; so a `trio.Cancelled` of the block may be the scope's
                return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 # as a nursery does
            # By a task, or the `trio.Cancelled` of the calls would have the block's exception for a context.
            self._ended.append(True)
            self._nursery.start_soon(_cancel, scope)
            try:
                await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102 # as a nursery does
            except BaseException as group:  # noqa: BLE001 # raised below
                failure = group
            if failure is None or (error is not None and not self._stream.failed):
                return False
            raise failure if error is None else BaseExceptionGroup("open_amap failed", [error, *parts(failure)])
        finally:
            del self, error, failure

    def __aiter__(self) -> NoReturn:
        self._refuse()

    def __await__(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            "open_amap has a block, in which its calls run; not 'async for' or 'await', but 'async with open_amap(fn, "
            "items) as results:', and in it 'async for result in results:'"
        )

    def __repr__(self) -> str:
        return f"<{self._stream.text()}; use it in 'async with'>"


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel(reason="the block of open_amap has ended")


async def _close(source: object) -> None:
    """Close a generator. What this throws in doesn't come out, even if a nursery in the generator wraps it."""
    rest: BaseException | None = None
    try:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
        elif isinstance(source, Generator):
            source.close()
    except BaseExceptionGroup as group:
        rest = group.split(GeneratorExit)[1]
    try:
        if rest is not None:
            raise rest
    finally:
        del rest


def _iterated(items: Items[ItemT], call: str) -> Iterator[ItemT] | AsyncIterator[ItemT]:
    if isinstance(items, AsyncIterable):
        return aiter(items)
    if isinstance(items, Iterable):
        return iter(items)
    close_coroutines(items)
    raise TypeError(f"{call} takes its items from an iterable or an async iterable, not from {shown(items)}")


def _is_same(one: contextvars.Context, other: contextvars.Context) -> bool:
    """Whether two contexts have the same variables with the same objects: what `==` does is up to these."""
    if len(one) != len(other):
        return False
    for variable, value in one.items():  # noqa: SIM110 # faster than a generator
        if other.get(variable, one) is not value:
            return False
    return True


def _checked_limit(limit: object, call: str) -> int:
    if limit is None:
        return sys.maxsize
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise TypeError(
            f"the limit of {call} is how many calls run at once, an integer such as 10, or None, not {shown(limit)}"
        )
    checked = operator.index(limit)
    if checked < 1:
        raise ValueError(f"the limit of {call} is how many calls run at once, at least 1, not {checked}")
    return checked


class _Note(str):  # noqa: SLOT000 # it has an attribute
    """The note of a map; one object may be raised by many calls, and then has the note of the first."""

    of: object  # something that only one map has


def _add_note(error: BaseException, of: object, text: str) -> None:
    notes: list[str] = list(getattr(error, "__notes__", ()))
    if any(isinstance(note, _Note) and note.of is of for note in notes):
        return
    note = _Note(text)
    note.of = of
    if hasattr(error, "add_note"):  # not so on Python 3.10
        error.add_note(note)
        notes = [*[note for note in notes if not isinstance(note, _Note)], note]
        if len(notes) < len(error.__notes__):  # it was raised in an earlier map, too
            error.__notes__ = notes
