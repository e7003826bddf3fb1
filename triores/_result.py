"""The state of a result, its one transition, and everything that reads it.

The rules that this file owns, and that the rest of triores relies on:

- A result is pending, then done, and then never changes again. `ResultBase._settle` is the only code that makes the
  change. All of it is protected from ``KeyboardInterrupt``: Ctrl-C comes before it or after it, so no waiter sleeps on
  a done result.
- `_settle` stores the outcome, then notifies the waiters, then runs the callbacks, so all of them find that the result
  is done.
- Reading changes nothing. The original exception is only raised if that is harmless, and it then has the traceback that
  it had when the result was settled. A stored `trio.Cancelled` never escapes its own cancel scope.
- A result belongs to one Trio run, and only that run's thread may change it. Waiters are registered only once the
  result belongs to their run, so they are notified in the right thread.
- However a wait ends, it removes whatever it registered.
- A failed result holds its exception, whose traceback holds frames. So no frame that the exception passes through may
  keep a reference to the result, or dropping the last outside reference to the result wouldn't free it.

The debugging tools can look up which task is waiting for which result. This costs nothing unless they do:

- A task that sleeps in one of our waits says so in its ``custom_sleep_data``, which Trio resets when it wakes the task.
  This holds the result itself; or a `triores._wait.CountDown`, if the task waits until several results are all done;
  or, if it waits for the next of several, the `triores._wait.Arrivals` that is registered on them.
- The first two have a method ``_awaited``. It returns the results that the task waits for, all of which must be done.
- `ResultBase._owner` is the task that will settle a result: for a capture, the task that runs it.
"""

from __future__ import annotations

import contextvars
import reprlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import trio
from outcome import Error, Value
from trio.lowlevel import current_trio_token as run_here
from trio.lowlevel import enable_ki_protection

from ._callbacks import Callback, calls, nothing
from ._checks import check_callback, shown
from ._cycles import about_to_sleep
from ._exceptions import (
    FutureSetAgainException,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    is_cancellation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import TracebackType

    from outcome import Outcome
    from trio.lowlevel import RunVar, Task, TrioToken
    from typing_extensions import Self, TypeIs

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_claiming = threading.RLock()  # reentrant, as the garbage collector may run finalizers while it is held
_set_context: Any = BaseException.__dict__["__context__"].__set__  # works even if an exception class forbids it


class Listener(Protocol):
    """A waiter that is called with the result."""

    def settled(self, result: Any, /) -> None:
        """React to the result being done. This must not raise an exception."""


# Waiters are notified when a result is settled, synchronously and in order of registration. A task that waits for a
# single result sleeps on a bare event: wrapping the event in an object would make a future 6% slower.
Waiter: TypeAlias = "trio.Event | Listener"


class _Crowd(dict["Waiter", None]):
    """A waiter that stands for several others, in order of registration."""

    __slots__ = ()

    def settled(self, result: ResultBase[Any], /) -> None:
        for waiter in self:
            if type(waiter) is trio.Event:
                waiter.set()
            else:
                waiter.settled(result)


@dataclass(frozen=True)
class ResultStatistics:
    """What `ResultBase.statistics` returns.

    Attributes:
        waiters: How many waits are registered on the result, including iterators of `as_completed`.
        callbacks: How many callbacks are registered and haven't begun to run.
    """

    waiters: int
    callbacks: int


class ResultBase(Generic[T_co]):
    """What `Future` and `ResultCapture` have in common: reading a result and waiting for it.

    Use it in annotations for functions that take or return either of them. It is covariant: a ``ResultBase[bool]`` is a
    ``ResultBase[int]``, too.

    A result belongs to the Trio run it was made in. If it was made outside of any run, it belongs to the first run that
    waits for it, registers a callback on it or starts it. Once that run has ended, the result can belong to another
    one. Other threads and other runs can read the result. If they try to change it, or to wait for it while it is
    pending, they get a `RuntimeError` that shows the right call, and nothing changes.
    """

    __slots__ = ("__weakref__", "_outcome", "_token", "_traceback", "_waiter")

    _owner: Task | None = None  # the task that will settle it, if that is known
    _AGAIN: ClassVar[str] = "was already settled, and a result can only be settled once; check 'result.is_done()' first"

    _outcome: Value[T_co] | Error | None  # None while pending
    _traceback: TracebackType | None  # the exception's traceback, as it was when the result was settled
    _waiter: Waiter | None  # the one to notify; a `_Crowd` if there are several
    _token: TrioToken | None  # the run that the result belongs to

    def __init__(self) -> None:
        self._outcome = None
        self._traceback = None
        self._waiter = None
        self._token = current_run()

    # ---- reading

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Wait until the result is done, then return its value or raise its exception, as `unwrap` does.

        It's as if you had done the work right here. Cancelling this cancels only the wait, not the work. It is always a
        checkpoint.

        Returns:
            The value that the task returned, or that the future was set to.

        Raises:
            TaskCancelledException: If the result was cancelled.
            BaseException: The original exception, as `unwrap` raises it.
            RuntimeError: If the result is pending and belongs to another Trio run, or there is no Trio run here.
            WaitCycleError: If the wait could never end, because the task that settles the result is waiting for
                this one.
        """
        try:
            yield from self.wait_done().__await__()
            return self.unwrap()
        finally:
            del self

    def unwrap(self) -> T_co:
        """Return the value, or raise the original exception.

        However often you read it, the exception is raised as it was when the result was settled: its traceback and
        context don't grow. Some exceptions would do harm in another task, so they are raised as the cause of a
        `TaskFailedException` instead: those that aren't an `Exception`, such as a `KeyboardInterrupt`, and
        `StopIteration` and `StopAsyncIteration`.

        Returns:
            The value that the task returned, or that the future was set to.

        Raises:
            TaskNotDoneException: If the result is still pending.
            TaskCancelledException: If it was cancelled; the original exception is the cause.
            BaseException: The original exception.
            TaskFailedException: If the original exception, which is the cause, would do harm in another task.
        """
        outcome = self._outcome
        if type(outcome) is Value:
            return outcome.value
        error = self.exception()
        if (
            not isinstance(error, Exception)
            or isinstance(error, (StopIteration, StopAsyncIteration))
            or self.cancelled()
        ):
            raise self._failure() from error
        context = error.__context__
        try:
            raise error.with_traceback(self._traceback)
        finally:
            _set_context(error, context)  # otherwise readers would see what other readers were handling
            del self, outcome, error, context

    def result(self) -> T_co:
        """Return the value, or raise a `TaskFailedException` from the original exception. See also `unwrap`.

        Returns:
            The value that the task returned, or that the future was set to.

        Raises:
            TaskNotDoneException: If the result is still pending.
            TaskCancelledException: If it was cancelled; the original exception is the cause.
            TaskFailedException: If it failed with any other exception, which is the cause.
        """
        outcome = self._outcome
        if type(outcome) is Value:
            return outcome.value
        raise self._failure() from self.exception()

    def exception(self) -> BaseException | None:
        """Return the exception that the result ended with, not wrapped in another one.

        Returns:
            The original exception, or None if the result has a value.

        Raises:
            TaskNotDoneException: If the result is still pending.
        """
        outcome = self._done()
        return outcome.error if type(outcome) is Error else None

    @property
    def outcome(self) -> Value[T_co] | Error:
        """The outcome. Each access makes a new object, which can be unwrapped once.

        Raises:
            TaskNotDoneException: If the result is still pending.
        """
        outcome = self._done()
        if type(outcome) is Error:
            return Error(outcome.error.with_traceback(self._traceback))
        return Value(outcome.value)

    def is_done(self) -> bool:
        """Return whether the result is settled, with a value or an exception."""
        return self._outcome is not None

    def done(self) -> bool:
        """Return whether the result is settled: asyncio's name for `is_done`."""
        return self._outcome is not None

    def cancelled(self) -> bool:
        """Return whether the result was cancelled.

        A `Future` was cancelled if `Future.cancel` settled it. A capture was cancelled if its task ended with a
        `trio.Cancelled`, or with an exception group that contains nothing else, at any depth. If a capture failed
        because it awaited a cancelled result, that counts as a failure.

        Returns:
            Whether it was cancelled; False while the result is pending.
        """
        outcome = self._outcome
        return type(outcome) is Error and self._is_cancellation(outcome.error)

    @property
    def trio_token(self) -> TrioToken | None:
        """The token of the Trio run that the result belongs to, or None if it doesn't belong to one yet.

        It stays the same after the run has ended, until the result is used elsewhere.
        """
        return self._token

    def statistics(self) -> ResultStatistics:
        """Return how many waits and callbacks are registered, for debugging and tests."""
        registered = self._registered()
        callbacks = sum(type(waiter) is Callback for waiter in registered)
        return ResultStatistics(len(registered) - callbacks, callbacks)

    # ---- waiting

    @enable_ki_protection
    async def wait_done(self) -> None:
        """Wait until the result is done.

        This never raises the exception that the result ended with. Cancelling this cancels only the wait, not the work.
        It is always a checkpoint.

        Raises:
            RuntimeError: If the result is pending and belongs to another Trio run, or there is no Trio run here.
            WaitCycleError: If the wait could never end, because the task that settles the result is waiting for
                this one.
        """
        if self._outcome is not None:
            await checkpoint()
            return
        event = trio.Event()
        try:
            if self._register(event, current_trio_token()):
                about_to_sleep(self, (self,))
            else:
                event.set()
            await event.wait()
        except BaseException:
            self._unregister(event)
            raise
        finally:
            del self

    def add_done_callback(self, fn: Callable[[Self], object], /, *, context: contextvars.Context | None = None) -> None:
        """Call ``fn`` with this result once it is done, or immediately if it already is.

        Callbacks run in the Trio thread, inside the call that settles the result, in order of registration, after the
        outcome has been stored and the waiters have been woken. If a callback itself settles a result, that result's
        callbacks run right after the first callback returns. Ctrl-C is held back until the last callback has returned.

        If a callback raises an `Exception`, it is logged by the logger ``triores``, and everything goes on. Anything
        else, such as a `SystemExit`, is raised by the call that settled the result, once all callbacks have run.

        Args:
            fn: A synchronous function.
            context: The context to run it in; by default, a copy of the current one. If that context is in use when
                the callback runs, the callback gets a copy of it.

        Raises:
            TypeError: If ``fn`` isn't callable or is an async function, or ``context`` isn't a context.
            RuntimeError: If the result is pending and belongs to another Trio run, or there is no Trio run here.
        """
        context = contextvars.copy_context() if context is None else context
        check_callback(fn, context)
        self._register_callback(fn, context)

    @enable_ki_protection
    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int:
        """Remove a callback, however often it was added. Calls that have already begun aren't affected.

        Returns:
            How many times it was removed.

        Raises:
            RuntimeError: If the result is pending and belongs to another Trio run.
        """
        token = self._token
        if self._outcome is None and token is not None and token is not current_run():
            self._refuse_elsewhere(token, "changed")
        queued = [callback for callback in calls.waiting() if callback.result is self]
        registered = [waiter for waiter in self._registered() if type(waiter) is Callback]
        removed = [callback for callback in (*queued, *registered) if callback.fn == fn]
        for callback in removed:
            self._unregister(callback)
            callback.fn = nothing  # in case it is in the queue already
        return len(removed)

    # ---- hooks for the other modules

    @enable_ki_protection
    def _settle(self, outcome: Outcome[Any]) -> None:
        """The one transition from pending to done."""
        token = self._token
        if self._outcome is None and token is not None and token is not current_run():
            try:
                self._refuse_elsewhere(token, "settled")
            except RuntimeError:
                del self  # the traceback keeps this frame alive, and the exception may end up in this very result
                raise
            token = None
        traceback = outcome.error.__traceback__ if type(outcome) is Error else None
        if token is None:
            with _claiming:  # another thread may be about to settle it too
                self._store(outcome, traceback)
        else:
            self._store(outcome, traceback)
        if token is None and self._token is not None:
            # A task in another thread has just begun to wait. It may have registered before the outcome was stored;
            # if not, it sees the outcome, because it checks again after claiming the result for its run.
            call_soon(self._token, self._notify)
        elif self._waiter is not None:
            self._notify()

    def _settle_if_pending(self, outcome: Outcome[Any]) -> bool:
        """Settle the result, unless it is done already; return whether this call did."""
        try:
            if self._outcome is None:
                self._settle(outcome)
                return True
        except FutureSetAgainException:
            pass  # a finalizer, or another thread, has settled it since the check
        finally:
            del self  # a traceback keeps this frame alive
        return False

    def _store(self, outcome: Outcome[Any], traceback: TracebackType | None) -> None:
        if self._outcome is not None:  # checked last: any call may run finalizers, which may settle the result
            raise FutureSetAgainException(self)
        self._traceback = traceback
        self._outcome = outcome  # type: ignore[assignment] # each Outcome is a Value or an Error

    @enable_ki_protection
    def _notify(self) -> None:
        waiter, self._waiter = self._waiter, None  # detached first, since finalizers may unregister it at any time
        if type(waiter) is trio.Event:
            waiter.set()
        elif waiter is not None:
            waiter.settled(self)
            if calls.new:
                calls.run()

    def _register(self, waiter: Waiter, run: TrioToken, what: str = "waited for") -> bool:
        """Register a waiter of the current run, to be notified when the result is done. It is only notified once.

        Returns:
            Whether the waiter was registered; False if the result is already done.
        """
        crowd: _Crowd | None = None
        if self._outcome is None:
            if self._token is not run:
                self._claim(run, what)
            crowd = None if self._waiter is None else self._crowd()
        if self._outcome is not None:  # checked last: the calls above may run finalizers, which may settle the result
            return False
        if crowd is None:
            self._waiter = waiter
        else:
            crowd[waiter] = None
        return True

    def _crowd(self) -> _Crowd:
        if type(self._waiter) is _Crowd:
            return self._waiter
        crowd = _Crowd()
        if self._waiter is not None:  # only read now: making an object may run finalizers, which may unregister waiters
            crowd[self._waiter] = None
        self._waiter = crowd
        return crowd

    def _unregister(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is registered."""
        if self._waiter is waiter:
            self._waiter = None
        elif type(self._waiter) is _Crowd:
            self._waiter.pop(waiter, None)

    def _registered(self) -> list[Waiter]:
        if type(self._waiter) is _Crowd:
            return list(self._waiter)
        return [] if self._waiter is None else [self._waiter]

    @enable_ki_protection
    def _register_callback(self, fn: Callable[[Any], object], context: contextvars.Context) -> None:
        callback = Callback(fn, context)
        if self.is_done() or not self._register(callback, current_trio_token(), "given a callback"):
            callback.settled(self)
            calls.run()

    def _awaited(self) -> Sequence[ResultBase[Any]]:
        return (self,)

    def _is_cancellation(self, error: BaseException) -> bool:
        return is_cancellation(error)

    def _done(self) -> Value[T_co] | Error:
        """Return the outcome. Every read of a failure goes through this, so `triores.pytest_plugin` replaces it."""
        if self._outcome is None:
            raise TaskNotDoneException(self)
        return self._outcome

    def _failure(self) -> TaskFailedException:
        return TaskCancelledException(self) if self.cancelled() else TaskFailedException(self)

    # ---- the run it belongs to

    def _claim(self, run: TrioToken, what: str) -> None:
        """Claim a pending result for the current run, or raise an error if it belongs to another run."""
        while (token := self._token) is not run:
            if token is not None:
                self._refuse_elsewhere(token, what)
            with _claiming:
                if self._token is None:
                    self._token = run

    def _refuse_elsewhere(self, token: TrioToken, what: str) -> None:
        """Raise the error for a call from outside the result's run. If that run has ended, free the result instead."""
        if not call_soon(token, nothing):
            with _claiming:
                if self._token is token:
                    for waiter in self._registered():
                        if type(waiter) is not Callback:
                            self._unregister(waiter)  # its task ended with the run
                    self._token = None
            return
        shown_here = repr(self)
        del self  # the traceback keeps this frame alive
        raise RuntimeError(
            f"{shown_here} belongs to another Trio run, and can't be {what} from here; nothing was changed. Put the "
            "call into a function fn: another thread can then call 'trio.from_thread.run_sync(fn, "
            "trio_token=result.trio_token)', and another Trio run or event loop can call "
            "'result.trio_token.run_sync_soon(fn)'"
        )

    # ---- copying and showing

    def __reduce__(self) -> tuple[Callable[..., ResultBase[Any]], tuple[object, ...]]:
        """A copy of a done result is a done `Future`; a pending result can't be copied."""
        from ._future import copied  # an import at the top would be circular

        if self._outcome is None:
            raise TypeError(
                f"{self!r} is pending, so it can't be copied or pickled: nothing would settle the copy; "
                "call 'await result.wait_done()' first, or pass the result itself"
            )
        outcome = self.outcome
        return copied, ((outcome.error, None) if isinstance(outcome, Error) else (None, outcome.value))

    def _work(self) -> str:
        """Return the name that messages use for this result. A capture shows its call."""
        return f"this {type(self).__name__}"

    def _name(self) -> str:
        """Return a shorter form of the same, for use inside other messages."""
        return type(self).__name__

    def _routine_str(self) -> str:
        """Return what ``format(result, "#")`` adds to the repr."""
        return ""

    def _shown_outcome(self) -> str:
        outcome = self._outcome
        assert outcome is not None
        return shown(outcome.error if type(outcome) is Error else outcome.value)

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        return self.__format__("")

    def __format__(self, format_spec: str) -> str:
        """Show the state; with ``#``, a capture also shows its routine and arguments."""
        if format_spec not in ("", "#"):
            raise ValueError(f"the format of a result must be '' or '#', not {format_spec!r}")
        if self._outcome is None:
            state = "is_done=False"
        else:
            state = f"{'exception' if type(self._outcome) is Error else 'result'}={self._shown_outcome()}"
        return f"{type(self).__name__}({self._routine_str() if format_spec else ''}{state})"


def isfuture(obj: object) -> TypeIs[ResultBase[Any]]:
    """Return whether an object is a triores result: a `Future`, a `ResultCapture`, or another `ResultBase`."""
    return isinstance(obj, ResultBase)


def current_run() -> TrioToken | None:
    """Return the token of the current Trio run, or None outside of a run."""
    try:
        return run_here()
    except RuntimeError:
        return None


def current_trio_token() -> TrioToken:
    """Return the token of the current Trio run, or raise a `RuntimeError` that, unlike Trio's own, says what to do."""
    try:
        return run_here()
    except RuntimeError:
        raise RuntimeError("triores needs Trio: call this from inside trio.run(...)") from None


def call_soon(run: TrioToken, fn: Callable[..., object], *args: object) -> bool:
    """Have a run call a function soon. Return False if the run has ended or crashed."""
    try:
        run.run_sync_soon(fn, *args)
    except (trio.RunFinishedError, OSError):  # OSError: a crash has closed the socket that wakes the run
        return False
    return True


def of_this_run(variable: RunVar[T], make: Callable[[], T]) -> T:
    """Return what a run variable holds in this Trio run. Make it first if necessary."""
    try:
        return variable.get()
    except LookupError:
        variable.set(made := make())
        return made


async def checkpoint() -> None:
    """Run a checkpoint, or raise a `RuntimeError` that says what to do if there is no Trio run here."""
    current_trio_token()
    await trio.lowlevel.checkpoint()
