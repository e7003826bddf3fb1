"""One async function and many items: a worker pool with backpressure that shares the loop.

Both maps run on one engine, which has these rules:

- Workers are tasks. Each takes an item, calls the function with it, and goes on to the next. There are at most
  ``limit`` of them, and no more than needed: while calls are waiting and there are more items, the number of workers
  doubles at each turn of the loop; if the calls never wait, two or three workers do everything.
- An item is *busy* from the moment it is taken from the source until its call has ended (`amap`) or its capture has
  been handed to the consumer (`open_amap`). At most ``limit`` items are busy; an item is only read if there is room.
- A generator, sync or async, and any async iterable is read by a single task, because if it holds a nursery or a cancel
  scope across a ``yield``, that belongs to the task that entered it. Workers read any other iterable.
- Calls begin, and items are read, in time slices of a few milliseconds. After each slice, the other tasks of the
  program get a turn, even if no call ever waits.
- Each call sees the caller's context variables, and nothing that other calls have set.
"""

from __future__ import annotations

import contextvars
import operator
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

import trio
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from . import _capture
from ._capture import ResultCapture
from ._checks import checked_limit, close_coroutines, exception_types, name_of, refuse_uncallable, shown, task_name
from ._exceptions import is_cancellation, parts
from ._gather import FanOutNursery, checked
from ._result import current_trio_token, of_this_run
from ._wait import Arrivals

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)

_NO_ITEMS: Any = ()  # untyped, or type checkers would infer the function's item type from it
_SLICE = 0.002  # seconds; long compared with a turn of the loop, but too short for people or other programs to notice


@enable_ki_protection
async def amap(
    fn: Callable[[ItemT], Awaitable[T]], items: Iterable[ItemT] | AsyncIterable[ItemT], *, limit: int | None = None
) -> list[T]:
    """Call an async function with each item, many at once, and return the values in the order of the items.

    The first exception cancels the rest. Items are read one by one, when there is room for them. Each call has its own
    copy of the caller's context variables. Cancelling this call cancels all the calls to ``fn``. This is always a
    checkpoint, and other tasks get a turn every few milliseconds, even if ``fn`` never waits.

    Args:
        fn: An async function that takes one argument.
        items: An iterable or an async iterable. A generator is read by a single task, and closed when the call ends,
            however it ends.
        limit: How many calls may run at once; None means no limit.

    Returns:
        The values, in the order of the items.

    Raises:
        TypeError: If ``fn`` isn't callable, ``items`` isn't iterable, or ``limit`` isn't an integer.
        ValueError: If ``limit`` is less than 1.
        RuntimeError: If there is no Trio run here, or a call cancelled the nursery that it runs in.
        BaseExceptionGroup: If a call or the source raised an exception. It contains every exception that they raised,
            and is an `ExceptionGroup` if each of them is an `Exception`. On Python 3.11 and later, exceptions from
            calls have a note with the item and its position, counted from 0.

    Example:
        ::

            pages = await amap(fetch, urls, limit=20)
    """
    calls = _AmapEngine(fn, items, limit)
    async with FanOutNursery("amap") as nursery:
        calls.begin(nursery)
        await checkpoint_if_cancelled()
    return [calls.values[index] for index in range(len(calls.values))]


def open_amap(
    fn: Callable[[ItemT], Awaitable[T]],
    items: Iterable[ItemT] | AsyncIterable[ItemT] = _NO_ITEMS,
    *,
    limit: int | None = None,
    ordered: bool = False,
    suppress_exception: bool | type[Exception] | tuple[type[Exception], ...] = False,
) -> AbstractAsyncContextManager[AmapResults[ItemT, T]]:
    """Call an async function with each item, many at once, and get the results as they come.

    ``async with`` gives you an `AmapResults`: an async iterator of captures, each of which is done and knows its item.
    You can add items with `AmapResults.add` while the block runs. The source may be endless: at any time, at most
    ``limit`` items are in progress, or done and waiting for you to take them.

    Leaving the block, by ``break``, ``return`` or an exception, cancels the calls that are still running, and waits for
    them. If neither a call nor the source has failed, the block's own exception comes out unchanged; otherwise it comes
    out in a group with their exceptions. Each call has its own copy of the caller's context variables. Other tasks get
    a turn every few milliseconds, even if ``fn`` never waits.

    Args:
        fn: An async function that takes one argument.
        items: An iterable or an async iterable. A generator is read by a single task, and closed when the block ends,
            however it ends.
        limit: How many items may be in progress, or done and not taken yet; None means no limit.
        ordered: Whether you get the captures in the order of the items; by default, you get them in the order in which
            the calls end.
        suppress_exception: Which failures don't cancel the rest: True for any `Exception`, or a type, or a tuple of
            types. You then get the capture of the failed call like any other. By default, the first failure cancels
            the rest.

    Returns:
        An async context manager, which you can enter once.

    Raises:
        TypeError: If ``fn`` isn't callable, ``items`` isn't iterable, or ``limit`` or ``suppress_exception`` has the
            wrong type.
        ValueError: If ``limit`` is less than 1.
        RuntimeError: On entering, if the block has been entered before, or there is no Trio run here.
        BaseExceptionGroup: From the block, if a call or the source raised an exception. It contains every exception
            that they raised, and is an `ExceptionGroup` if each of them is an `Exception`. On Python 3.11 and later,
            exceptions from calls have a note with the item and its position, counted from 0.

    Example:
        ::

            async with open_amap(fetch, urls, limit=20) as results:
                async for page in results:
                    print(page.item, len(page.result()))
    """
    return _OpenAmap(_OpenAmapEngine(fn, items, limit, ordered=ordered, suppress=suppress_exception))


class ItemCapture(ResultCapture[T_co], Generic[ItemT_co, T_co]):
    """What you get from `open_amap`: the capture of the call for one item."""

    __slots__ = ()

    @property
    def item(self) -> ItemT_co:
        """The item that the function was called with."""
        return cast("ItemT_co", self._args[0])


class AmapResults(AsyncIterator[ItemCapture[ItemT, T]], Generic[ItemT, T]):
    """What ``async with open_amap(...)`` gives you: an async iterator of captures, to which you can add items.

    Several tasks may share the iterator; each capture goes to one of them. Each step is a checkpoint, and cancelling a
    step doesn't lose a result. The iteration ends when the source is exhausted, no call is running, and every capture
    has been taken. If a call has failed, or the block has ended, a step raises `trio.ClosedResourceError`, unless the
    step itself is cancelled.
    """

    __slots__ = ("_engine",)

    def __init__(self, engine: Any) -> None:
        self._engine: _OpenAmapEngine[ItemT, T] = engine  # private, and so not in the signature

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> ItemCapture[ItemT, T]:
        engine = self._engine
        engine.check_run()
        if engine.has_answer():
            await trio.lowlevel.checkpoint()
        while not engine.has_answer():
            await engine.arrivals.wait()
            if not engine.arrivals.ready:  # the block is being cancelled, or another task has taken the capture
                await checkpoint_if_cancelled()
        if engine.arrivals.ready:
            return engine.hand_out()
        if not engine.stopped:
            raise StopAsyncIteration
        raise trio.ClosedResourceError("open_amap has no more results: its block has ended, or is being cancelled")

    def add(self, item: ItemT) -> None:
        """Add an item while the block is running, from the loop over the results or from one of the calls.

        It goes ahead of any item that hasn't been read from the source yet. If the block is being cancelled, the
        item is dropped.

        Raises:
            trio.ClosedResourceError: If the block has ended.
            RuntimeError: If this is called outside the Trio run of the block.
        """
        self._engine.add(item)

    def __repr__(self) -> str:
        return f"<results of {self._engine}: {self._engine.state()}>"


# ---- the engine


class _Slices:
    """The time slices in which all the maps of a run begin calls and read items, before other tasks get a turn.

    Attributes:
        number: The number of the current slice.
        end: When it ends, by `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.number = 0
        self.end = 0.0
        self._opening = False  # whether a task is about to begin the next slice
        self._waiting = ParkingLot()  # the other tasks that need the next slice

    @enable_ki_protection
    async def give_way(self, number: int, others_ran: bool) -> None:
        """Give other tasks a turn, unless they have had one since slice ``number`` began.

        Only one task begins the next slice, and the others share it: if each of a hundred workers began its own slice,
        together they would hold the loop for a hundred slices. The others sleep until the next slice begins: going
        through a checkpoint in each turn of the loop would cost more than the calls.
        """
        try:
            while self._opening and perf_counter() > self.end:
                await self._waiting.park()
            if perf_counter() > self.end:
                await self._begin_next(number, others_ran)
        finally:
            self._waiting.unpark(count=2)  # each task that continues wakes two more, so soon all of them are awake

    async def _begin_next(self, number: int, others_ran: bool) -> None:
        self._opening = True
        try:
            if others_ran and number == self.number:
                await checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
            self.number += 1
            self.end = perf_counter() + _SLICE
        finally:
            self._opening = False


_slices: trio.lowlevel.RunVar[_Slices] = trio.lowlevel.RunVar("triores slices")


class _Engine(ABC, Generic[ItemT]):
    """The workers, and where their items come from."""

    def __init__(self, call: str, fn: object, items: Iterable[ItemT] | AsyncIterable[ItemT], limit: object) -> None:
        if not callable(fn):
            refuse_uncallable(fn, f"{call}({{}}, items)")
        self._fn: Any = fn
        self._name = task_name(fn)
        self._limit = sys.maxsize
        if limit is not None:
            self._limit = checked_limit(
                limit, f"the limit of {call}", "an integer or None", "the number of calls to run at once"
            )
        self._iterator: Iterator[ItemT] | None = None  # what the workers read; None once it is exhausted
        self._source: AsyncIterator[ItemT] | None = None  # what a separate task reads
        if isinstance(items, AsyncIterable):
            self._source = aiter(items)
        elif isinstance(items, Iterable):
            iterator = iter(items)
            if isinstance(iterator, Generator):
                self._source = _AsAsync(cast("Generator[ItemT, Any, Any]", iterator))
            else:
                self._iterator = iterator
        else:
            close_coroutines(items)
            raise TypeError(f"the items of {call} must be an iterable or an async iterable, not {shown(items)}")
        self._exhausted = False
        self._added: deque[ItemT] = deque()  # these come before the rest of the source
        self._backlog: deque[tuple[int, ItemT]] = deque()  # items that were taken, but whose calls haven't begun
        self._count = 0  # items taken so far
        self._busy = 0
        self._workers = 0
        self._looking = 0  # workers that are about to look for an item, within the next few turns of the loop
        self._sleeping = 0  # workers that are waiting for items
        self._idle = ParkingLot()
        self._room: trio.Event | None = None  # the reading task waits for it
        self.stopped = False

    def begin(self, nursery: trio.Nursery) -> None:
        """Start reading and calling in this nursery, with the caller's context variables."""
        self._nursery = nursery
        self._slices = of_this_run(_slices, _Slices)
        self._context = contextvars.copy_context()  # for the calls
        self._variables = [*self._context.values()]
        self._reading = contextvars.copy_context()  # for the source, if the workers read it
        if self._source is None:
            self._start_worker()
        else:
            nursery.start_soon(self._read, self._source, name=f"{self._name} (reading items)")

    def stop(self) -> None:
        """Don't begin any more calls. Cancelling the nursery isn't enough: calls that never wait don't notice it."""
        self.stopped = True
        self._iterator = None
        self._backlog.clear()
        self._added.clear()
        self._tell_reader()

    @abstractmethod
    def _call(self, item: ItemT) -> Awaitable[Any]:
        """Call the function with an item."""

    @abstractmethod
    def _returned(self, index: int, value: Any) -> None:
        """Handle the value that the call with the item at this position returned."""

    @abstractmethod
    def _is_over(self) -> bool:
        """Return whether a worker that finds no item may end."""

    # ---- the workers

    @enable_ki_protection
    async def _work(self, number: int) -> None:
        try:
            await checkpoint_if_cancelled()
            await self._make_calls(number)
        except BaseException:
            self.stop()
            raise
        self._workers -= 1

    @disable_ki_protection  # this runs the user's code; a Ctrl-C between two calls stops the whole map
    async def _make_calls(self, number: int) -> None:
        slices = self._slices
        context = trio.lowlevel.current_task().context
        count = -1  # how many items had been taken when this worker began its last call; -1 if it has slept since
        self._looking -= 1
        while True:
            if perf_counter() > slices.end:
                self._looking += 1
                # If other workers have taken items since this one began its last call, that call waited.
                await slices.give_way(number, others_ran=count != self._count)
                self._looking -= 1
            taken = self._backlog.popleft() if self._backlog else self._take()
            number, count = slices.number, self._count
            if taken is not None:
                self._add_workers()
                try:
                    self._returned(taken[0], await self._call(taken[1]))
                except BaseException as error:
                    _note(error, *taken)
                    raise
                if (context or self._variables) and self._has_new(context):
                    self._start_worker()  # because the next call must not see what this one has set
                    break
            elif self._is_over():
                break
            else:
                count = -1
                self._sleeping += 1
                await self._idle.park()
                self._looking -= 1

    def _running(self) -> int:
        """Return how many workers are in the middle of a call."""
        return self._workers - self._sleeping - self._looking

    @enable_ki_protection
    def _start_worker(self) -> None:
        self._workers += 1
        self._looking += 1

        def start() -> None:
            self._nursery.start_soon(self._work, self._slices.number, name=self._name)

        self._context.run(start)

    @enable_ki_protection
    def _add_worker(self) -> None:
        """Get one more worker to look for an item: wake one that is asleep, or start one unless enough are looking."""
        if self._sleeping:
            self._sleeping -= 1
            self._looking += 1
            self._idle.unpark()
        elif self._workers < self._limit and self._looking <= self._running():
            self._start_worker()

    def _add_workers(self) -> None:
        while (self._workers < self._limit or self._sleeping) and self._looking <= self._running():
            if len(self._backlog) <= self._looking:
                taken = self._take()
                if taken is None:
                    break
                self._backlog.append(taken)
            self._add_worker()

    def _has_new(self, context: contextvars.Context) -> bool:
        """Return whether a call has set context variables in its worker. Values are compared by identity."""
        return len(context) != len(self._variables) or not all(map(operator.is_, context.values(), self._variables))

    # ---- the items

    def _take(self) -> tuple[int, ItemT] | None:
        """Return the position of the next item and the item, or None if there is no item or no room for it."""
        if self._busy >= self._limit:
            return None
        if self._added:
            item = self._added.popleft()
            self._tell_reader()
        elif self._iterator is not None:
            try:
                item = self._reading.run(next, self._iterator)
            except StopIteration:
                self._iterator = None  # some iterators go on if they are read again
                self._exhaust()
                return None
        else:
            return None
        return self._admit(item)

    def _admit(self, item: ItemT) -> tuple[int, ItemT]:
        index = self._count
        self._count = index + 1
        self._busy += 1
        return index, item

    def _tell_reader(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _exhaust(self) -> None:
        self._exhausted = True

    @enable_ki_protection
    async def _read(self, source: Any) -> None:
        """Read a source in this task alone, and close it.

        If the source is a generator, whatever is raised while this task waits for room is thrown into the generator, as
        if its ``yield`` had raised it. So the generator's nurseries and cancel scopes work, and when the map ends, the
        generator is cancelled like any other task.
        """
        throw: Any = getattr(source, "athrow", None)  # only generators have it
        take: Any = anext
        step: tuple[Any, Any] = (take, source)
        try:
            await checkpoint_if_cancelled()
            while True:
                try:
                    await self._wait_for_room()
                except BaseException as error:  # noqa: ASYNC103 # the generator raises it, or handles it
                    if throw is None:
                        raise
                    step = (throw, error)
                if self.stopped and step[0] is take:  # the source is shielded, so the wait wasn't cancelled
                    break
                self._accept(await _step(*step))
                if self.stopped and step[0] is not take:  # the generator went on although it was cancelled
                    break
                step = (take, source)
        except StopAsyncIteration:
            self._exhaust()
        except BaseException:
            self.stop()
            raise
        finally:
            del step  # it may hold an exception whose traceback keeps this frame alive
            if throw is not None:
                await _close(source)  # noqa: ASYNC102 # a cancellation may interrupt this, like any other clean-up

    def _accept(self, item: ItemT) -> None:
        if not self.stopped:
            self._backlog.append(self._admit(item))
            self._add_worker()

    async def _wait_for_room(self) -> None:
        while (self._added or self._busy >= self._limit) and not self.stopped:
            self._room = trio.Event()
            await self._room.wait()
        if self.stopped:
            while not self._nursery.cancel_scope.cancel_called:  # noqa: ASYNC110 # this takes only a turn or two
                await trio.lowlevel.checkpoint()
            await checkpoint_if_cancelled()
        elif perf_counter() > self._slices.end:
            await self._slices.give_way(self._slices.number, others_ran=False)


class _AmapEngine(_Engine[ItemT], Generic[ItemT, T]):
    """The engine of `amap`: it stores what the calls return."""

    def __init__(self, fn: Callable[[ItemT], Awaitable[T]], items: Any, limit: object) -> None:
        super().__init__("amap", fn, items, limit)
        self.values: dict[int, T] = {}

    def _call(self, item: ItemT) -> Awaitable[T]:
        return checked(self._fn, self._fn(item)) if _capture.on_begin is None else _recorded(self._fn, item)

    def _returned(self, index: int, value: T) -> None:
        self.values[index] = value
        self._busy -= 1
        self._tell_reader()

    def _is_over(self) -> bool:
        return self._exhausted or self.stopped

    def _exhaust(self) -> None:
        super()._exhaust()
        self._looking += self._sleeping
        self._sleeping = 0
        self._idle.unpark_all()


class _OpenAmapEngine(_Engine[ItemT], Generic[ItemT, T]):
    """The engine of `open_amap`: it keeps each call's capture until the consumer takes it."""

    def __init__(
        self,
        fn: Callable[[ItemT], Awaitable[T]],
        items: Any,
        limit: object,
        *,
        ordered: bool,
        suppress: bool | type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        super().__init__("open_amap", fn, items, limit)
        self._suppress = exception_types(suppress, "suppress_exception")
        self.token: trio.lowlevel.TrioToken | None = None  # the run of the block, once it is entered
        self._in_order: deque[ItemCapture[ItemT, T]] | None = deque() if ordered else None  # begun, but not ready yet
        self.arrivals: Arrivals[ItemCapture[ItemT, T]] = Arrivals()
        self.leaving = False  # whether the calls are being cancelled because the block has ended
        self.closed = False

    def begin(self, nursery: trio.Nursery) -> None:
        self.token = current_trio_token()
        super().begin(nursery)

    def stop(self) -> None:
        super().stop()
        self.arrivals.ready.clear()
        if self._in_order is not None:
            self._in_order.clear()
        self.arrivals.wake()  # otherwise consumers that are shielded, or outside the block, would wait forever

    def check_run(self) -> None:
        if current_trio_token() is not self.token:
            raise RuntimeError(f"{self} belongs to another Trio run; use it in that run")

    def add(self, item: ItemT) -> None:
        self.check_run()
        if self.closed:
            raise trio.ClosedResourceError(
                f"the block of {self} has ended, so you can't add {shown(item)}; add items while the block is running"
            )
        if not self.stopped:
            self._added.append(item)
            self._add_worker()

    def has_answer(self) -> bool:
        return bool(self.arrivals.ready) or self.stopped or not (self._busy or self._added or not self._exhausted)

    def hand_out(self) -> ItemCapture[ItemT, T]:
        capture = self.arrivals.ready.popleft()
        self._busy -= 1
        self._tell_reader()
        if self._iterator is not None or self._added:
            self._add_worker()
        return capture

    async def _call(self, item: ItemT) -> None:
        capture: ItemCapture[ItemT, T] = ItemCapture(self._fn, item, suppress_exception=self._suppress)
        capture._started = True
        if self._in_order is not None:
            self._in_order.append(capture)
        try:
            await capture._capture()
            if self._in_order is None:
                self.arrivals.settled(capture)
            while self._in_order and self._in_order[0].is_done():
                self.arrivals.settled(self._in_order.popleft())
        finally:
            del capture  # a failure's traceback keeps this frame alive

    def _returned(self, index: int, value: Any) -> None:
        """Do nothing, since the consumer takes the capture."""

    def _is_over(self) -> bool:
        return self.stopped  # until then, the user may add more items

    def _exhaust(self) -> None:
        super()._exhaust()
        self.arrivals.wake()

    def state(self) -> str:
        """Return how far along the block is, for the reprs."""
        if self.closed:
            return "ended"
        if self.token is None:
            return "not entered"
        return f"{self._running()} running, {len(self.arrivals.ready)} ready"

    def __str__(self) -> str:
        return f"open_amap({name_of(self._fn)}, ...)"


class _OpenAmap(Generic[ItemT, T]):
    """The block of `open_amap`."""

    __slots__ = ("_engine", "_manager", "_nursery")

    def __init__(self, engine: _OpenAmapEngine[ItemT, T]) -> None:
        self._engine = engine
        self._manager = FanOutNursery("open_amap", lambda: engine.leaving)

    @enable_ki_protection
    async def __aenter__(self) -> AmapResults[ItemT, T]:
        if self._engine.token is not None:
            raise RuntimeError("this open_amap block has been entered before; call 'open_amap(...)' for each block")
        self._nursery = await self._manager.__aenter__()
        self._engine.begin(self._nursery)
        return AmapResults(self._engine)

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._engine.stop()
        try:
            if self._nursery.cancel_scope.cancel_called:
                return await self._leave_cancelled(kind, error, traceback)  # noqa: ASYNC102 # as a nursery does
            await self._leave(error)  # noqa: ASYNC102 # the same
            return False
        finally:
            self._engine.closed = True

    async def _leave(self, error: BaseException | None) -> None:
        """Cancel all running calls, and raise what they raise, in a group with the block's own exception, if any."""
        self._engine.leaving = True
        # This happens in a separate task: here, the block's exception would become the context of every Cancelled.
        self._nursery.start_soon(_cancel, self._nursery.cancel_scope, name="open_amap (leaving)")
        try:
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102 # as a nursery does
        except BaseException as failure:  # noqa: ASYNC103 # if these are only cancellations, the block's exception propagates instead
            if error is None:
                raise
            if not is_cancellation(failure):
                raise BaseExceptionGroup("open_amap failed", [error, *parts(failure)]) from None  # noqa: ASYNC104 # the group has it

    async def _leave_cancelled(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Leave a nursery that is already cancelled, because a call or the source raised something."""
        try:
            return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 # as a nursery does
        except BaseException as failure:  # noqa: ASYNC103 # the block's exception propagates instead
            others = [part for part in parts(failure) if part is not error and not is_cancellation(part)]
            if error is None or others or self._nursery.cancel_scope.cancelled_caught:
                raise
            return False  # noqa: ASYNC104 # the calls raised only cancellations that came from outside

    def __repr__(self) -> str:
        return f"<{self._engine}: {self._engine.state()}>"

    def __aiter__(self) -> NoReturn:
        self._refuse("async for")

    def __await__(self) -> NoReturn:
        self._refuse("await")

    def __enter__(self) -> NoReturn:
        self._refuse("with")

    __exit__ = __enter__  # Python wants it to exist, but never calls it

    def _refuse(self, how: str) -> NoReturn:
        raise TypeError(
            f"use open_amap with 'async with', not with '{how}': 'async with open_amap(fn, items) as results:', and in "
            "the block, 'async for capture in results:'"
        )


async def _cancel(scope: trio.CancelScope) -> None:  # noqa: ASYNC124 # it is started as a task
    scope.cancel(reason="the block of open_amap has ended")


class _AsAsync(AsyncGenerator[ItemT, None]):
    """Makes a sync generator look like an async one."""

    def __init__(self, generator: Generator[ItemT, Any, Any]) -> None:
        self._generator = generator

    async def asend(self, value: Any) -> ItemT:
        return self._answer(self._generator.send, value)

    async def athrow(self, *error: Any) -> ItemT:
        try:
            return self._answer(self._generator.throw, *error)
        finally:
            del error  # its traceback keeps this frame alive

    def _answer(self, call: Callable[..., ItemT], *args: Any) -> ItemT:
        try:
            return call(*args)
        except StopIteration:
            raise StopAsyncIteration from None
        except StopAsyncIteration as error:
            raise RuntimeError("the generator raised StopAsyncIteration") from error  # as in async generators
        finally:
            del args  # they may contain that exception


async def _close(generator: AsyncGenerator[Any, Any]) -> None:
    try:
        await _step(generator.aclose)
    except BaseExceptionGroup as group:  # raised by a nursery around a `yield`
        rest = group.split(GeneratorExit)[1]
        if rest is not None:
            raise rest from None


@disable_ki_protection  # this runs the user's code
async def _step(step: Callable[..., Awaitable[T]], *args: Any) -> T:
    try:
        return await step(*args)
    finally:
        del args  # an exception's traceback keeps this frame alive, and `args` may contain that exception


async def _recorded(fn: Callable[[ItemT], Awaitable[T]], item: ItemT) -> T:
    """Call the function for `amap`, but in a capture, so that `triores.trace` sees the call."""
    capture: ItemCapture[ItemT, T] = ItemCapture(fn, item)
    capture._started = True
    try:
        await capture._capture()
        return capture.result()
    finally:
        del capture  # a failure's traceback keeps this frame alive


class _Note(str):
    """A note that says which item an exception came from. An exception has at most one of these."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # so that it can be unpickled without triores


def _note(error: BaseException, index: int, item: object) -> None:
    """Add a note to an exception, saying which item it came from. Cancellations don't get one."""
    if is_cancellation(error):
        return
    with suppress(Exception):  # there are no notes before Python 3.11, and some exception classes refuse them
        notes = getattr(error, "__notes__", [])
        notes[:] = [note for note in notes if type(note) is not _Note]
        error.add_note(_Note(f"item {index}: {shown(item)}"))
