"""Waiting for several results at once.

A wait registers one waiter on each pending result and sleeps on one event. It starts no tasks. `ResultBase._settle`
notifies the waiter synchronously, so the notifications come in the order in which the results are settled.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

import trio
from trio.lowlevel import enable_ki_protection

from ._checks import refuse_result
from ._cycles import about_to_sleep
from ._result import ResultBase, call_soon, checkpoint, current_run, current_trio_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio.lowlevel import TrioToken

ResultT = TypeVar("ResultT", bound=ResultBase[Any])
T_contra = TypeVar("T_contra", contravariant=True)


class SendChannelLike(Protocol[T_contra]):
    """Anything you can send results to: a Trio memory channel, or an anyio memory object stream."""

    async def send(self, value: T_contra, /) -> None: ...

    def close(self) -> None: ...


async def wait_all(results: Iterable[ResultBase[object]]) -> None:
    """Wait until all results are done.

    This never raises an exception that a result ended with. Cancelling this cancels only the wait, not the work. It is
    always a checkpoint.

    Args:
        results: Any iterable of results; it is read once.

    Raises:
        TypeError: If an item isn't a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.
        WaitCycleError: If the wait could never end, because a task that settles one of them is waiting for this one.
    """
    try:
        await _wait_all(list(_by_id(results, "wait_all").values()))
    finally:
        del results  # a traceback keeps this frame alive


@enable_ki_protection
async def _wait_all(results: list[ResultBase[object]]) -> None:
    run = current_trio_token()
    waiter = CountDown(results)
    try:
        for result in results:
            if not result._register(waiter, run):
                waiter.settled()
        waiter.settled()
        if waiter.left:
            about_to_sleep(waiter, results)
        await waiter.event.wait()
    except BaseException:
        for result in results:
            result._unregister(waiter)
        raise
    finally:
        result = None  # type: ignore[assignment] # a traceback keeps this frame alive, and everything it refers to
        del results, waiter


class CountDown:
    """The waiter of a task that sleeps until each of its results is done."""

    __slots__ = ("event", "left", "results")

    def __init__(self, results: Sequence[ResultBase[object]]) -> None:
        self.event = trio.Event()
        self.left = len(results) + 1  # how many results to wait for, plus 1 until it is registered on all of them
        self.results = results

    def _awaited(self) -> Sequence[ResultBase[object]]:
        return self.results

    def settled(self, _result: object = None, /) -> None:
        self.left -= 1
        if not self.left:
            self.event.set()


@overload
async def wait_any(results: Iterable[ResultT]) -> ResultT: ...
@overload  # for mypy, which infers a list[object] for a list of results of several types
async def wait_any(  # type: ignore[overload-cannot-match]  # see the line above
    results: Iterable[ResultBase[Any]],
) -> ResultBase[Any]: ...
async def wait_any(results: Iterable[ResultBase[Any]]) -> ResultBase[Any]:
    """Wait until one of the results is done, and return that result.

    This never raises the exception that a result ended with. Cancelling this cancels only the wait, not the work. It is
    always a checkpoint.

    Args:
        results: Any iterable of results; it is read once.

    Returns:
        The result that was settled first. If some are already done, the first of those in the order given.

    Raises:
        RuntimeError: If there are no results, a pending result belongs to another Trio run, or there is no Trio run
            here.
        TypeError: If an item isn't a result.
    """
    try:
        return await _next_of(_AsCompleted(_by_id(results, "wait_any"), current_trio_token()))
    finally:
        del results  # a traceback keeps this frame alive


@enable_ki_protection
async def _next_of(completed: _AsCompleted[ResultT]) -> ResultT:
    try:
        if not completed.left:
            raise RuntimeError("wait_any got no results, so it would never return; pass at least one")
        return await completed.__anext__()
    finally:
        completed.forget()
        del completed


@overload
def as_completed(results: Iterable[ResultT]) -> AsyncIterator[ResultT]: ...
@overload  # for mypy, which infers a list[object] for a list of results of several types
def as_completed(  # type: ignore[overload-cannot-match]  # see the line above
    results: Iterable[ResultBase[Any]],
) -> AsyncIterator[ResultBase[Any]]: ...
def as_completed(results: Iterable[ResultBase[Any]]) -> AsyncIterator[ResultBase[Any]]:
    """Iterate over results in the order in which they are settled.

    The wait begins with this call: results that are already done come first, in the order given, and then the others as
    they are settled. If you pass a result twice, you get it once. Several tasks may share one iterator; each result
    goes to one of them. Each step is a checkpoint, and cancelling a step doesn't lose a result.

    You can leave the loop early: once the iterator is dropped, nothing stays registered.

    Args:
        results: Any iterable of results; it is read once, at the call.

    Returns:
        An async iterator over the result objects that you passed.

    Raises:
        TypeError: If an item isn't a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.

    Example:
        ::

            async for page in as_completed(pages):
                print(page.args, page.result())
    """
    return _AsCompleted(_by_id(results, "as_completed"), current_trio_token())


async def results_to_channel(
    results: Iterable[ResultT], channel: SendChannelLike[ResultT], close_on_complete: bool = True
) -> None:
    """Send results to a channel in the order in which they are settled.

    Results that are already done come first, in the order given. The call returns when the last one has been sent. If
    it finds that the receiving end is closed, it returns early, without an error. It is always a checkpoint.

    Args:
        results: Any iterable of results; it is read once.
        channel: The sending end of a Trio memory channel, or of an anyio memory object stream.
        close_on_complete: Whether to close the channel at the end, even if the call is cancelled or fails, so that a
            loop over the receiving end terminates.

    Raises:
        TypeError: If an item isn't a result.
        RuntimeError: If a pending result belongs to another Trio run, or there is no Trio run here.
        trio.ClosedResourceError: If somebody else closed the sending end. anyio's streams raise anyio's own error.
    """
    try:
        run = current_trio_token()
        await _send_all(_AsCompleted(_by_id(results, "results_to_channel"), run), channel, close_on_complete)
    finally:
        del results


@enable_ki_protection
async def _send_all(completed: _AsCompleted[ResultT], channel: SendChannelLike[ResultT], close: bool) -> None:
    try:
        await checkpoint()  # sending isn't a checkpoint if the receiving end is closed
        while completed.left:
            await completed.wait_until_ready()
            await channel.send(completed.take())
    except Exception as error:
        if not _says_that_receiver_is_closed(error):
            raise
    finally:
        completed.forget()
        del completed
        if close:
            channel.close()


class Arrivals(Generic[ResultT]):
    """The waiter of tasks that take results in the order in which they are settled."""

    __slots__ = ("_event", "ready")

    def __init__(self) -> None:
        self._event: trio.Event | None = None
        self.ready: deque[ResultT] = deque()  # results that are done and haven't been taken yet

    def settled(self, result: Any, /) -> None:
        self.ready.append(result)
        self.wake()

    def wake(self) -> None:
        """Wake all waiting tasks, so that they check again."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Sleep until a result is ready, or `wake` is called. Not a checkpoint if one is ready already."""
        if not self.ready:
            if self._event is None:
                self._event = trio.Event()
            event = self._event
            trio.lowlevel.current_task().custom_sleep_data = self
            del self  # the traceback of a cancelled wait keeps this frame alive, and everything it refers to
            await event.wait()


class _AsCompleted(AsyncIterator[ResultT]):
    # This isn't the waiter itself, since the results on which a waiter is registered would keep the iterator alive.

    __slots__ = ("_arrivals", "_token", "left")

    @enable_ki_protection
    def __init__(self, results: dict[int, ResultT], run: TrioToken) -> None:
        self._arrivals: Arrivals[ResultT] = Arrivals()
        self._token = run
        self.left = results  # by id; those that haven't been taken yet
        try:
            for result in results.values():
                if not result._register(self._arrivals, self._token):
                    self._arrivals.settled(result)
        except BaseException:
            self.forget()
            raise

    def __repr__(self) -> str:
        return f"<as_completed: {len(self.left)} left, {len(self._arrivals.ready)} of them done>"

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
            del self, ready  # or the traceback of a cancelled step would keep the iterator alive and registered

    async def wait_until_ready(self) -> None:
        """Wait until there is a result to take, or none are left. This is a checkpoint only if it has to wait."""
        arrivals = self._arrivals
        try:
            while self.left and not arrivals.ready:
                count = len(self.left)
                await arrivals.wait()
                if len(self.left) < count:
                    # Another task has taken the result that woke this one, and the next result may have been cancelled
                    # together with this task. If so, this task must raise its own Cancelled instead of reading it.
                    await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            del self, arrivals

    def take(self) -> ResultT:
        result = self._arrivals.ready.popleft()
        del self.left[id(result)]
        return result

    def forget(self) -> None:
        _unregister(self._arrivals, self.left)

    def __del__(self) -> None:
        # The garbage collector may run in any thread, but a result may only be changed in its own run.
        elsewhere = self.left and current_run() is not self._token
        if not (elsewhere and call_soon(self._token, _unregister, self._arrivals, self.left)):
            self.forget()


def _unregister(arrivals: Arrivals[Any], left: dict[int, ResultT]) -> None:
    for result in left.values():
        result._unregister(arrivals)
    left.clear()


def _by_id(results: Iterable[ResultT], call: str) -> dict[int, ResultT]:
    """Return the results without duplicates, by their ids, or raise a `TypeError` that shows the right call."""
    if isinstance(results, ResultBase):
        raise TypeError(f"{call} takes an iterable of results, not a single {results!r}; call '{call}([result])'")
    try:
        listed = list(results)
    except TypeError:
        if hasattr(results, "__iter__"):
            raise  # it comes from the user's own code
        refuse_result(call, results, [results])
    for result in listed:
        if not isinstance(result, ResultBase):
            refuse_result(call, result, listed)
    return {id(result): result for result in listed}


def _says_that_receiver_is_closed(error: Exception) -> bool:
    anyio = sys.modules.get("anyio")  # if the user passed one of its streams, it has been imported
    return isinstance(error, trio.BrokenResourceError) or (
        anyio is not None and isinstance(error, anyio.BrokenResourceError)
    )
