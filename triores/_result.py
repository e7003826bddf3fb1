"""The state of a result, its one transition, and everything that reads it.

The rules that this file owns, and that everything else in triores relies on:

- A result is pending, then done; never anything else, and never again. `ResultBase._settle` is the only code that makes
  the change. Trio's protection from ``KeyboardInterrupt`` covers it whole: Ctrl-C comes before it or after it, so no
  waiter sleeps on a done result.
- It stores first, then wakes the waiters, then runs the callbacks, so whoever is told finds the result done.
- Reading changes nothing. The original exception is never raised again, only named as the cause of a new one: its
  traceback does not grow, and a stored `trio.Cancelled` never escapes its own cancel scope.
- A waiter or a callback belongs to a Trio run, and only that run's own thread can wake it. While any is registered, the
  result belongs to that run, and is refused to everybody else before anything is changed.
- A wait takes back what it registered, in whatever way it ends.
- A failed result holds its exception, whose traceback holds frames. So no frame that the exception passes through may
  hold the result once it is settled, or dropping the result would not free it.
"""

from __future__ import annotations

import contextvars
import inspect
import reprlib
import sys
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, final

import outcome
import trio
from trio.lowlevel import enable_ki_protection

from ._exceptions import (
    FutureSetAgainException,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    is_cancellation,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # Trio itself requires the backport on Python 3.10

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from typing_extensions import Self, TypeIs

T_co = TypeVar("T_co", covariant=True)


class Waiter(Protocol):
    """Who waits for several results at once: told of each as it is settled, synchronously and so in exact order."""

    def settled(self, result: ResultBase[Any], times: int, /) -> None:
        """Note that a result on which this was registered so many times is done now. Must not raise."""


@final
class _Pending:
    """The state of a result that is not done."""

    __slots__ = ()


@final
class _Failed:
    """The state of a result that ended with an exception.

    A value is stored bare, and `outcome` objects are made when asked for: making one for every result costs a captured
    task 5 to 7 % of its whole life. This class is private, so no value can be mistaken for it, as could happen with
    `outcome.Error`.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


@final
class _Several:
    """What is registered on one result, where that is more than one waiter, and the run of all of it."""

    __slots__ = ("callbacks", "token", "waiters")

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.token = token
        self.waiters: dict[trio.lowlevel.Task | Waiter, int] = {}  # and how often each registered
        self.callbacks: list[tuple[Callable[[Any], object], contextvars.Context]] = []

    def is_empty(self) -> bool:
        return not self.waiters and not self.callbacks


PENDING = _Pending()


class ResultBase(Generic[T_co]):
    """The read side that `Future` and `ResultCapture` share.

    Annotate with it where a function takes or returns either of them. It is covariant: a ``ResultBase[bool]`` is a
    ``ResultBase[int]``.
    """

    # A pending result takes 56 bytes.
    __slots__ = ("__weakref__", "_home", "_state")

    # Pending, failed, or the value itself.
    _state: Any
    # What is registered, and the run that all of it belongs to; where nothing is, the run that the result belongs to or
    # last belonged to. One waiter is the common case: a tuple takes a quarter of the time of an object. A task that
    # waits for this result alone is registered itself, since an event between the two costs 12 % of a future.
    _home: _Several | tuple[trio.lowlevel.TrioToken, trio.lowlevel.Task | Waiter] | trio.lowlevel.TrioToken | None

    def __init__(self) -> None:
        self._state = PENDING
        self._home = None

    # ---- reading

    def result(self) -> T_co:
        """Return the value. May be called any number of times, by any number of readers.

        Returns:
            The value that the task returned, or that the future was given.

        Raises:
            TaskNotDoneException: If the result is still pending.
            TaskCancelledException: If it ended by cancellation; the original exception is the cause.
            TaskFailedException: If it ended with any other exception, which is the cause.
        """
        state = self._state
        if state is PENDING:
            raise TaskNotDoneException(self)
        if type(state) is _Failed:
            raise self._failure(state.error) from state.error
        return state  # type: ignore[no-any-return]  # neither pending nor failed, so the value

    def _failure(self, error: BaseException) -> TaskFailedException:
        return TaskCancelledException(self) if is_cancellation(error) else TaskFailedException(self)

    def exception(self) -> BaseException | None:
        """Return the exception that the result ended with, itself and not wrapped.

        Returns:
            The original exception, or None where there is a value.

        Raises:
            TaskNotDoneException: If the result is still pending.
        """
        state = self._state
        if state is PENDING:
            raise TaskNotDoneException(self)
        return state.error if type(state) is _Failed else None

    @property
    def outcome(self) -> outcome.Value[T_co] | outcome.Error:
        """The outcome, as a new object at each access, so that each can be unwrapped once.

        Raises:
            TaskNotDoneException: If the result is still pending.
        """
        error = self.exception()
        return outcome.Value(self._state) if error is None else outcome.Error(error)

    def is_done(self) -> bool:
        """Return whether the result is settled, in whatever way."""
        return self._state is not PENDING

    def done(self) -> bool:
        """Return whether the result is settled: asyncio's name for `is_done`."""
        return self._state is not PENDING

    def cancelled(self) -> bool:
        """Return whether the result ended by cancellation.

        That is: by `Future.cancel`, by a `trio.Cancelled` in a captured task, or by an exception group of nothing but
        those, at any depth.

        Returns:
            False while the result is pending.
        """
        state = self._state
        return type(state) is _Failed and is_cancellation(state.error)

    @property
    def trio_token(self) -> trio.lowlevel.TrioToken | None:
        """The Trio run that this result belongs to, or last belonged to; None where there was none yet.

        A result belongs to a run while anything of that run is registered on it, a waiter or a callback. A capture also
        belongs to the run that its task was started in.
        """
        home = self._home
        if isinstance(home, tuple):
            return home[0]
        return home.token if isinstance(home, _Several) else home

    # ---- waiting

    @enable_ki_protection
    async def wait_done(self) -> None:
        """Wait until the result is done.

        This never raises the exception that the result ended with. Cancelling the wait cancels the wait alone. It is a
        checkpoint, also where the result is done already.

        Raises:
            RuntimeError: If the result belongs to another Trio run, or there is no Trio run here.
        """
        if self._state is not PENDING:
            await checkpoint()
            return
        stop_waiting = self._register_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(stop_waiting)
        except BaseException:
            stop_waiting()  # Trio has done so, unless this coroutine was closed from outside
            del self, stop_waiting
            raise

    @enable_ki_protection
    def __await__(self) -> Generator[Any, Any, T_co]:
        stop_waiting = None
        try:
            if self._state is PENDING:  # as in `wait_done`, whose coroutine would cost 4 %
                stop_waiting = self._register_task()
                sleep = trio.lowlevel.wait_task_rescheduled(stop_waiting)  # noqa: ASYNC105 - awaited in the next line
                yield from sleep.__await__()
            else:
                yield from checkpoint().__await__()
            return self.result()
        except BaseException:
            if stop_waiting is not None:
                stop_waiting()
            del self, stop_waiting
            raise

    def add_done_callback(self, fn: Callable[[Self], object], /, *, context: contextvars.Context | None = None) -> None:
        """Call ``fn(self)`` once, when the result is done; at once where it is done already.

        Callbacks run synchronously inside the call that settles the result, in the order of registration, after the
        outcome is stored and the waiters are woken. They may register, remove and settle, on this result or on others.
        One that raises stops no other: the exceptions of all of them are raised together, as an exception group, from
        the call that settled the result. Ctrl-C is held back until the last one has returned.

        Args:
            fn: A synchronous function.
            context: What to run it in; by default a copy of the context at this call.

        Raises:
            TypeError: If ``fn`` is not callable, or is an async function.
            RuntimeError: If the result belongs to another Trio run, or it is pending and there is no Trio run here.
            BaseException: What ``fn`` raises, where the result is done already.
        """
        if not callable(fn) or inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
            raise TypeError(
                f"a done callback is a synchronous function of one argument, not {shown(fn)}; "
                "to run async code when a result is done, start a task that does 'await result.wait_done()' first"
            )
        if context is None:
            context = contextvars.copy_context()
        elif not isinstance(context, contextvars.Context):
            raise TypeError(
                f"context is a contextvars.Context, not {shown(context)}; pass 'contextvars.copy_context()'"
            )
        if not self._register_callback(fn, context):
            context.run(fn, self)

    @enable_ki_protection
    def _register_callback(self, fn: Callable[[Any], object], context: contextvars.Context) -> bool:
        """Call this when the result is done. Returns False, and registers nothing, where it is done already."""
        if self._state is not PENDING:
            return False
        several = self._several(self._token_here("given a callback"))
        several.callbacks.append((fn, context))
        self._home = several  # see `_several`
        return True

    @enable_ki_protection
    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int:
        """Take back every registration of a callback that has not begun to run.

        Returns:
            How many registrations were removed.

        Raises:
            RuntimeError: If the result belongs to another Trio run.
        """
        several = self._home
        if type(several) is not _Several or not several.callbacks:
            return 0
        self._refuse_elsewhere(several.token, "rid of a callback")
        kept = [entry for entry in several.callbacks if entry[0] != fn]
        removed = len(several.callbacks) - len(kept)
        several.callbacks[:] = kept  # in place: `_run_callbacks` may be at work on this list
        if self._state is PENDING:
            self._forget_if_empty(several)
        return removed

    def _register_task(self) -> Callable[..., trio.lowlevel.Abort]:
        """Register the task here, to be rescheduled when the result is done. Returns what takes that back."""
        try:
            task = trio.lowlevel.current_task()
            token = trio.lowlevel.current_trio_token()
        except RuntimeError:
            raise_no_trio()
        if self._home is None:  # a fast path: the call costs 1 % of a future that one task sets for another
            self._home = token, task
        else:
            self._register((token, task))

        registered_on: ResultBase[T_co] | None = self

        def stop_waiting(_raise_cancel: object = None) -> trio.lowlevel.Abort:
            nonlocal registered_on
            if registered_on is not None:
                registered_on._unregister(task)
                registered_on = None  # the traceback of a `trio.Cancelled` holds this function, in a frame of Trio's
            return trio.lowlevel.Abort.SUCCEEDED

        return stop_waiting

    # ---- hooks for the modules beside this one

    @enable_ki_protection
    def _register(self, registration: tuple[trio.lowlevel.TrioToken, trio.lowlevel.Task | Waiter]) -> bool:
        """Wake a waiter of the Trio run here, which is given with it, when the result is done.

        A wait for many results gives each the same tuple: one for each would be work for the garbage collector.
        Returns False, and registers nothing, where the result is done already.
        """
        if self._state is not PENDING:
            return False
        token, waiter = registration
        home = self._home
        if home is None or home is token:  # a fast path: a wait for many results has one of these calls for each
            self._home = registration
            return True
        if self._is_owned() and self.trio_token is not token:
            self._raise_elsewhere("waited for")
        if isinstance(home, trio.lowlevel.TrioToken):  # that of a run before this one
            self._home = registration
            return True
        several = self._several(token)
        several.waiters[waiter] = several.waiters.get(waiter, 0) + 1
        self._home = several  # see `_several`
        return True

    @enable_ki_protection
    def _unregister(self, waiter: trio.lowlevel.Task | Waiter) -> None:
        """Take back all registrations of this waiter. There need not be any."""
        home = self._home
        if type(home) is tuple:
            if home[1] is waiter:
                self._home = home[0]
        elif type(home) is _Several and home.waiters.pop(waiter, 0):
            self._forget_if_empty(home)

    def _several(self, token: trio.lowlevel.TrioToken) -> _Several:
        """Where to register one more.

        The caller stores it again after that: meanwhile the garbage collector may have dropped an `as_completed` that
        alone was registered, and this with it.
        """
        if type(self._home) is _Several:
            return self._home
        several = _Several(token)
        home = self._home
        if type(home) is tuple:
            several.waiters[home[1]] = 1
        self._home = several
        return several

    def _forget_if_empty(self, several: _Several) -> None:
        if several.is_empty():
            self._home = several.token

    def _settle_error(self, error: BaseException, *, going_on: bool = False) -> None:
        """Settle with an exception; ``going_on`` where the caller will raise it too, see `_settle`."""
        self._settle(_Failed(error), error if going_on else None)

    @enable_ki_protection
    def _settle(self, state: object, going_on: BaseException | None = None) -> None:
        """The one transition from pending to done.

        Where callbacks raise, this raises all of that as one exception group, together with the exception ``going_on``:
        the one that the caller is about to raise, and that would be lost if only theirs went on.
        """
        if self._state is not PENDING:
            raise FutureSetAgainException(self)
        home = self._home
        if type(home) is tuple:
            token, waiter = home
            try:  # as `_refuse_elsewhere`, whose call costs 1 to 2 % of a future that one task sets for another
                here = trio.lowlevel.current_trio_token() is token
            except RuntimeError:
                here = False
            if not here:
                self._raise_elsewhere("settled")
            if type(waiter) is trio.lowlevel.Task:
                _need_4_frames()
                self._state = state
                self._home = token
                trio.lowlevel.reschedule(waiter)
            else:
                _need_8_frames()
                self._state = state
                self._home = token
                waiter.settled(self, 1)
        elif type(home) is _Several:
            self._refuse_elsewhere(home.token, "settled")
            _need_8_frames()
            self._settle_several(state, home, going_on)
        else:
            self._state = state

    def _settle_several(self, state: object, several: _Several, going_on: BaseException | None) -> None:
        self._state = state
        waiters, several.waiters = several.waiters, {}  # so that nothing leaves it while it is read
        for waiter, times in waiters.items():
            if isinstance(waiter, trio.lowlevel.Task):
                trio.lowlevel.reschedule(waiter)
            else:
                waiter.settled(self, times)
        try:
            if several.callbacks:
                self._run_callbacks(several.callbacks, going_on)
        finally:
            self._home = several.token

    def _run_callbacks(
        self, callbacks: list[tuple[Callable[[Any], object], contextvars.Context]], going_on: BaseException | None
    ) -> None:
        errors: list[BaseException] = []
        callbacks.reverse()  # so that each is taken from the cheap end, and one that removes others finds them here
        while callbacks:
            try:
                _call(*callbacks.pop(), self)
            except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below with the others
                errors.append(error)
        try:
            if errors:
                told = (
                    "callbacks of a result failed"
                    if going_on is None
                    else "a result failed, and so did callbacks of it"
                )
                raise BaseExceptionGroup(told, [*([] if going_on is None else [going_on]), *errors])
        finally:
            del errors  # each of them holds this frame

    # ---- whose it is

    def _is_owned(self) -> bool:
        """Whether the result belongs to the run in `trio_token` at present."""
        return type(self._home) is tuple or type(self._home) is _Several

    def _token_here(self, what: str) -> trio.lowlevel.TrioToken:
        """The Trio run here, to register something for; refused where the result belongs to another."""
        token = self.trio_token
        if token is None or not self._is_owned():
            return current_trio_token()
        self._refuse_elsewhere(token, what)
        return token

    def _refuse_elsewhere(self, token: trio.lowlevel.TrioToken, what: str) -> None:
        try:
            if trio.lowlevel.current_trio_token() is token:
                return
        except RuntimeError:
            pass
        self._raise_elsewhere(what)

    def _raise_elsewhere(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{self!r} belongs to another Trio run, and can't be {what} from here; nothing was changed. From another "
            "thread, call 'trio.from_thread.run_sync(fn, trio_token=result.trio_token)'; from another Trio run, "
            "'result.trio_token.run_sync_soon(fn)', where fn makes the call"
        )

    # ---- showing

    def _routine_str(self) -> str:
        """What ``format(result, "#")`` adds."""
        return ""

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        return self.__format__("")

    def __format__(self, format_spec: str) -> str:
        """Show the state; with ``#``, a capture also shows its routine and arguments."""
        if format_spec not in ("", "#"):
            raise ValueError(f"a result is formatted with '' or '#', not with {format_spec!r}")
        state = self._state
        if state is PENDING:
            told = "is_done=False"
        elif type(state) is _Failed:
            told = f"exception={shown(state.error)}"
        else:
            told = f"result={shown(state, str)}"
        return f"{type(self).__name__}({self._routine_str() if format_spec else ''}{told})"


def _call(fn: Callable[[Any], object], context: contextvars.Context, result: ResultBase[Any]) -> None:
    context.run(fn, result)


# These raise the `RecursionError`, before anything is changed, that waking the waiters would run into half-way. They do
# nothing else, not even count, since that would cost 1 % of a future that one task sets for another.


def _need_8_frames() -> None:
    _need_7_frames()


def _need_7_frames() -> None:
    _need_6_frames()


def _need_6_frames() -> None:
    _need_5_frames()


def _need_5_frames() -> None:
    _need_4_frames()


def _need_4_frames() -> None:
    _need_3_frames()


def _need_3_frames() -> None:
    _need_2_frames()


def _need_2_frames() -> None:
    _need_1_frame()


def _need_1_frame() -> None:
    pass


def shown(value: object, show: Callable[[object], str] = repr) -> str:
    """The text of a value; a stand-in where it has none to give, since error messages are made of these."""
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 - whatever a user's __repr__ raises must not hide the error being told
        return f"<{type(value).__name__} whose {show.__name__}() raised {type(error).__name__}>"


def isfuture(obj: object) -> TypeIs[ResultBase[Any]]:
    """Return whether an object is a result of triores: a `Future`, a `ResultCapture`, or another `ResultBase`."""
    return isinstance(obj, ResultBase)


def current_trio_token() -> trio.lowlevel.TrioToken:
    """The token of the Trio run here, or a `RuntimeError` that says what is missing."""
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise_no_trio()


async def checkpoint() -> None:
    """Trio's checkpoint, or a `RuntimeError` that says what is missing."""
    if not trio.lowlevel.in_trio_task():
        raise_no_trio()
    await trio.lowlevel.checkpoint()


def raise_no_trio() -> NoReturn:
    """Raise the `RuntimeError` for a call outside a Trio run, in place of Trio's own, which does not say what to do."""
    raise RuntimeError("triores needs Trio: call this from inside trio.run(...)") from None
