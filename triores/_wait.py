"""Waiting for several results at once.

A wait registers one waiter on each pending result and sleeps on one event. It starts no task. `ResultBase._settle`
tells the waiter synchronously, so the order in which it is told is the order in which the results were settled.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from ._result import ResultBase, checkpoint, current_trio_token, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from ._result import Waiter

ResultT = TypeVar("ResultT", bound=ResultBase[Any])
T_contra = TypeVar("T_contra", contravariant=True)


class SendChannelLike(Protocol[T_contra]):
    """What results are sent to: a Trio memory channel, or an anyio memory object stream."""

    async def send(self, value: T_contra, /) -> None: ...

    def close(self) -> None: ...


async def wait_all(results: Iterable[ResultBase[object]]) -> None:
    """Wait until all results are done.

    This never raises an exception that a result ended with. Cancelling the wait cancels the wait alone. It is a
    checkpoint, also where there is nothing to wait for.

    Args:
        results: Any iterable of results; it is read once.

    Raises:
        TypeError: If an item is not a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.
    """
    try:
        await _wait_all(_listed(results, "wait_all"))
    finally:
        del results  # a traceback keeps this frame alive


@enable_ki_protection
async def _wait_all(results: list[ResultBase[object]]) -> None:
    waiter = _CountDown()
    try:
        waiter.remaining = _register(waiter, results)
        await (waiter.event.wait() if waiter.remaining else checkpoint())
    except BaseException:
        _unregister(waiter, results)
        raise
    finally:
        del results


async def wait_any(results: Iterable[ResultT]) -> ResultT:
    """Wait until one of the results is done, and return it.

    This never raises the exception that a result ended with. Cancelling the wait cancels the wait alone. It is a
    checkpoint, also where a result is done already.

    Args:
        results: Any iterable of results; it is read once.

    Returns:
        The result that was settled first. Where some were done when the wait began, the first of those in the order
        given.

    Raises:
        RuntimeError: If there are no results, a pending one belongs to another Trio run, or there is no Trio run here.
        TypeError: If an item is not a result.
    """
    try:
        return await _wait_any(_listed(results, "wait_any"))
    finally:
        del results


@enable_ki_protection
async def _wait_any(results: list[ResultT]) -> ResultT:
    if not results:
        raise RuntimeError("wait_any was given no results, and so would wait for ever; pass at least one")
    waiter: _First[ResultT] = _First(next((result for result in results if result.is_done()), None))
    try:
        if waiter.first is not None:
            await checkpoint()
        else:
            _register(waiter, results)
            await waiter.event.wait()
        assert waiter.first is not None
        return waiter.first
    finally:
        _unregister(waiter, results)
        del waiter, results


def as_completed(results: Iterable[ResultT]) -> AsyncIterator[ResultT]:
    """Iterate over results in the order in which they are settled.

    The wait begins at this call: results that are done by then come first, in the order given, and after them each
    other one in its turn. A result that is given twice comes twice. Several tasks may share one iterator; each result
    goes to one of them. Each step is a checkpoint; cancelling one loses no result.

    The iterator can be left early: once it is dropped, nothing of it stays registered.

    Args:
        results: Any iterable of results; it is read once, now.

    Returns:
        An async iterator of the same result objects.

    Raises:
        TypeError: If an item is not a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.

    Example:
        ::

            async for page in as_completed(pages):
                print(page.args, page.result())
    """
    return _AsCompleted(_listed(results, "as_completed"))


async def results_to_channel(
    results: Iterable[ResultT], channel: SendChannelLike[ResultT], close_on_complete: bool = True
) -> None:
    """Send results into a channel in the order in which they are settled.

    Those that are done at the call come first, in the order given. It ends when the last one is sent, or quietly as
    soon as it finds that the receiving end is closed. It is a checkpoint, also where there are no results.

    Args:
        results: Any iterable of results; it is read once.
        channel: The sending end of a Trio memory channel, or of an anyio memory object stream.
        close_on_complete: Close the channel at the end, in whatever way it comes, cancellation included. So a receiver
            that loops over the channel ends too.

    Raises:
        TypeError: If an item is not a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.
        trio.ClosedResourceError: If the sending end was closed by somebody else. anyio's streams raise anyio's own.
    """
    try:
        await _send_all(_AsCompleted(_listed(results, "results_to_channel")), channel, close_on_complete)
    finally:
        del results


@enable_ki_protection
async def _send_all(completed: _AsCompleted[ResultT], channel: SendChannelLike[ResultT], close: bool) -> None:
    try:
        await checkpoint()  # sending is none where the receiving end is closed
        while completed.left:
            await completed.wait_until_ready()
            await channel.send(completed.take())
    except Exception as error:
        if not _tells_of_closed_receiver(error):
            raise
    finally:
        completed.forget()
        del completed
        if close:
            channel.close()


class _CountDown:
    """The waiter of `wait_all`."""

    __slots__ = ("event", "remaining")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.remaining = 0  # how many registrations are still pending

    def settled(self, _result: ResultBase[Any], times: int, /) -> None:
        self.remaining -= times
        if not self.remaining:
            self.event.set()


class _First(Generic[ResultT]):
    """The waiter of `wait_any`."""

    __slots__ = ("event", "first")

    def __init__(self, first: ResultT | None) -> None:
        self.event = trio.Event()
        self.first = first

    def settled(self, result: Any, _times: int, /) -> None:
        if self.first is None:
            self.first = result
            self.event.set()


class _Arrivals(Generic[ResultT]):
    """The waiter of `as_completed`: results that are done and were not taken yet.

    It is apart from the iterator, so that the results on which it is registered do not keep the iterator alive.
    """

    __slots__ = ("event", "ready")

    def __init__(self) -> None:
        self.event: trio.Event | None = None
        self.ready: deque[ResultT] = deque()

    def settled(self, result: Any, times: int, /) -> None:
        self.ready.append(result)
        if times > 1:  # seldom, and a list for each result costs 1 % of a captured task
            self.ready.extend([result] * (times - 1))
        if self.event is not None:
            self.event.set()
            self.event = None


class _AsCompleted(AsyncIterator[ResultT]):
    __slots__ = ("_arrivals", "_pending", "_token", "left")

    @enable_ki_protection
    def __init__(self, results: list[ResultT]) -> None:
        self._arrivals: _Arrivals[ResultT] = _Arrivals()
        self._pending: set[ResultT] = set()  # those on which the arrivals may be registered
        self._token = current_trio_token()
        self.left = len(results)  # how many are still to be taken
        try:
            registration = self._token, self._arrivals
            for result in results:
                if result._register(registration):
                    self._pending.add(result)
                else:
                    self._arrivals.ready.append(result)
        except BaseException:
            self.forget()
            raise

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> ResultT:
        if current_trio_token() is not self._token:
            raise RuntimeError("this iterator belongs to another Trio run; call 'as_completed(results)' in this one")
        ready = self._arrivals.ready
        try:
            if ready or not self.left:
                await trio.lowlevel.checkpoint()
            if not ready:
                await self.wait_until_ready()
                if not self.left:
                    raise StopAsyncIteration
            return self.take()
        finally:
            del self, ready  # or the traceback of a cancelled step would keep them alive, and the iterator registered

    async def wait_until_ready(self) -> None:
        """Wait until there is one to take, or nothing is left. This is a checkpoint only where it has to wait."""
        arrivals = self._arrivals
        try:
            while self.left and not arrivals.ready:
                if arrivals.event is None:
                    arrivals.event = trio.Event()
                await arrivals.event.wait()
                # Another task may have taken what this one was woken for, and what came next may have been cancelled
                # together with this task, which then must not read it, but be cancelled.
                await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            del self, arrivals

    def take(self) -> ResultT:
        result = self._arrivals.ready.popleft()
        self._pending.discard(result)
        self.left -= 1
        return result

    def forget(self) -> None:
        _unregister(self._arrivals, self._pending)
        self._pending.clear()

    def __del__(self) -> None:
        if not self._pending:
            return
        # The garbage collector runs in whichever thread it likes, but a result may be changed in its own run only.
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token:
            self.forget()
            return
        try:
            self._token.run_sync_soon(_unregister, self._arrivals, self._pending)
        except trio.RunFinishedError:
            self.forget()


def _listed(results: Iterable[ResultT], call: str) -> list[ResultT]:
    """The results as a list, or a `TypeError` that names the call."""
    if isinstance(results, ResultBase):
        raise TypeError(f"{call} takes several results, not {results!r} alone; call '{call}([result])'")
    listed = list(results)
    for result in listed:
        if not isinstance(result, ResultBase):
            raise TypeError(f"{call} takes results of triores, but {shown(result)} is none; nothing is waited for")
    return listed


def _register(waiter: Waiter, results: Iterable[ResultBase[Any]]) -> int:
    """Register on the results that are pending, and return how many these are."""
    registration = current_trio_token(), waiter
    return sum([result._register(registration) for result in results])


def _unregister(waiter: Waiter, results: Iterable[ResultBase[Any]]) -> None:
    for result in results:
        result._unregister(waiter)


def _tells_of_closed_receiver(error: Exception) -> bool:
    anyio = sys.modules.get("anyio")  # whoever passes one of its streams has imported it
    return isinstance(error, trio.BrokenResourceError) or (
        anyio is not None and isinstance(error, anyio.BrokenResourceError)
    )
