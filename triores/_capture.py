"""A capture: a result that is settled by a task."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from ._exceptions import FutureSetAgainException
from ._result import PENDING, ResultBase, current_trio_token, raise_no_trio, shown

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

COROUTINE: Any = CoroutineType  # not as a type, or the type checkers would forget what the coroutine returns


class NurseryLike(Protocol):
    """What tasks are started in: a Trio nursery, or an anyio task group that runs on Trio."""

    def start_soon(self, func: Callable[[Unpack[Ts]], Any], /, *args: Unpack[Ts], name: object = None) -> object: ...

    async def start(self, func: Callable[..., Any], /, *args: object, name: object = None) -> Any: ...


class ResultCapture(ResultBase[T_co]):
    """A result that is settled by a task, with what its routine returns or raises.

    Capturing is not catching: an exception is recorded and then goes on into the nursery as ever, unless
    ``suppress_exception`` is set, and then only an `Exception`. `trio.Cancelled`, `KeyboardInterrupt` and `SystemExit`
    always go on.

    Most captures are made by `start_soon`. One that is made by the constructor is run by its `run` method.

    Args:
        routine: An async function.
        args: Its positional arguments; use `functools.partial` for others.
        suppress_exception: Keep an `Exception` of the routine away from the nursery.
        name: The task's name in Trio's task tree; by default the routine's own.
        cancel_scope: Entered around the routine. It may carry a time limit, as ``trio.move_on_after(5)`` does, and
            ``capture.cancel_scope.cancel(reason="...")`` stops this task alone. The nursery does not notice; the result
            is ``cancelled()``. A scope can be entered once only, so each capture needs one of its own.

    Raises:
        TypeError: If the routine is a coroutine object, or can't be called, or the scope is no `trio.CancelScope`.
        RuntimeError: If the scope was entered before.

    Example:
        ::

            async with trio.open_nursery() as nursery:
                page = ResultCapture.start_soon(nursery, fetch, url)
                size = ResultCapture.start_soon(nursery, measure, path)
            print(page.result(), size.result())
    """

    __slots__ = ("_args", "_cancel_scope", "_name", "_routine", "_started", "_suppress_exception")

    def __init__(
        self,
        routine: Callable[..., Awaitable[T_co]],
        *args: object,
        suppress_exception: bool = False,
        name: object = None,
        cancel_scope: trio.CancelScope | None = None,
    ) -> None:
        if not callable(routine):
            refuse_uncallable(routine, "ResultCapture({}, *args)")
        if cancel_scope is not None:
            _check_cancel_scope(cancel_scope)
        super().__init__()
        self._routine = routine
        self._args = args
        self._suppress_exception = suppress_exception
        self._name = name
        self._cancel_scope = cancel_scope
        self._started = False

    @classmethod
    def start_soon(
        cls,
        nursery: NurseryLike,
        routine: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        suppress_exception: bool = False,
        name: object = None,
        cancel_scope: trio.CancelScope | None = None,
    ) -> ResultCapture[T]:
        """Start a task in a nursery, and capture its result.

        Args:
            nursery: A Trio nursery, or an anyio task group that runs on Trio.
            routine: An async function.
            args: Its positional arguments; use `functools.partial` for others.
            suppress_exception: As in the constructor.
            name: As in the constructor.
            cancel_scope: As in the constructor.

        Returns:
            The capture, which is pending, as the task begins at the next checkpoint.

        Raises:
            TypeError: If the routine is a coroutine object, or can't be called, the nursery is none, or the scope is no
                `trio.CancelScope`.
            RuntimeError: If the nursery is closed, the scope was entered before, or there is no Trio run here.
        """
        if not callable(routine):
            refuse_uncallable(routine, "ResultCapture.start_soon(nursery, {}, *args)")
        capture: ResultCapture[T]
        if cls is ResultCapture:  # a fast path: the calls of two constructors cost 4 % of a task's whole life
            if cancel_scope is not None:
                _check_cancel_scope(cancel_scope)
            capture = object.__new__(cls)  # type: ignore[arg-type]  # T is that of the routine
            capture._state = PENDING
            capture._routine = routine
            capture._args = args
            capture._suppress_exception = suppress_exception
            capture._name = name
            capture._cancel_scope = cancel_scope
        else:
            capture = cls(  # type: ignore[assignment]  # the same
                routine,  # type: ignore[arg-type]  # the same
                *args,
                suppress_exception=suppress_exception,
                name=name,
                cancel_scope=cancel_scope,
            )
        try:
            capture._home = trio.lowlevel.current_trio_token()
        except RuntimeError:
            raise_no_trio()
        capture._started = True
        if name is None:
            name = routine
        if type(nursery) is not trio.Nursery:
            check_nursery(nursery, "ResultCapture.start_soon(nursery, async_fn, *args)")
            name = task_name(name)
        if cancel_scope is None:
            nursery.start_soon(capture._capture, name=name)
        else:
            nursery.start_soon(capture._capture_in, cancel_scope, name=name)
        return capture

    async def run(self, **kwargs: Any) -> None:
        """Run the routine and capture its result. `start_soon` has done so already.

        Use it where a capture made by the constructor is to run elsewhere than in a nursery's ``start_soon``; above all
        with ``await nursery.start(capture.run)``.

        Args:
            kwargs: Keyword arguments for the routine: the ``task_status`` that ``nursery.start`` gives.

        Raises:
            FutureSetAgainException: If it was called before. The routine does not run again.
            RuntimeError: If somebody in another Trio run waits for this capture already. The routine does not run.
            BaseException: What the routine raised, unless it is suppressed; and what the callbacks raised.
        """
        current_trio_token()  # the next line would fail too, but not say what is missing
        task = trio.lowlevel.current_task()
        if task.name == _RUN:
            task.name = task_name(self._routine if self._name is None else self._name)
        if self._started:
            raise FutureSetAgainException(self)
        try:
            self._begin()
            if self._cancel_scope is None:
                await self._capture(kwargs)
            else:
                await self._capture_in(self._cancel_scope, kwargs)
        except BaseException as error:  # also Ctrl-C as one of these two begins
            if self._started:
                self._settle_failure(error)
            raise
        finally:
            del self  # a failure's traceback keeps this frame alive, and with it what it holds

    def _begin(self) -> None:
        """Take the capture for one task, and for the run of this task: a reader in another would never be woken."""
        token = self._token_here("run")
        if not self._is_owned():
            self._home = token
        self._started = True

    async def _capture_in(self, scope: trio.CancelScope, kwargs: dict[str, Any] | None = None) -> None:
        try:
            with scope:
                await self._capture(kwargs)
        except BaseException as error:  # noqa: ASYNC103 - goes on, but for what the capture was told to suppress
            # This is also what a scope raises that can't be entered.
            if self._settle_failure(error):
                raise
        finally:
            del self

    async def _capture(self, kwargs: dict[str, Any] | None = None) -> None:
        # Where nothing more was asked for, this is the only frame between task and routine, since each costs 4 %.
        try:
            awaitable = self._routine(*self._args, **kwargs) if kwargs else self._routine(*self._args)
            if type(awaitable) is not COROUTINE:  # a fast path: looking at an abstract class costs 1 %
                check_awaitable(self._routine, awaitable)
            value = await awaitable
            self._settle(value)
        except BaseException as error:  # noqa: ASYNC103 - goes on, but for what the capture was told to suppress
            if self._settle_failure(error):
                raise
        finally:
            del self

    @enable_ki_protection
    def _settle_failure(self, error: BaseException) -> bool:
        """Settle with what was raised, and return whether that goes on into the nursery."""
        if self.is_done():  # its callbacks raised this, or Ctrl-C did
            return True
        going_on = not (self._suppress_exception and isinstance(error, Exception))
        self._settle_error(error, going_on=going_on)
        return going_on

    @property
    def routine(self) -> Callable[..., Awaitable[T_co]]:
        """The routine that the task runs, as it was given."""
        return self._routine

    @property
    def args(self) -> tuple[Any, ...]:
        """The routine's positional arguments, as they were given."""
        return self._args

    @property
    def cancel_scope(self) -> trio.CancelScope | None:
        """The cancel scope around the routine, as it was given."""
        return self._cancel_scope

    @classmethod
    def capture_start_and_done_results(
        cls,
        run_nursery: NurseryLike,
        routine: Callable[..., Awaitable[T]],
        *args: Any,
        start_nursery: NurseryLike | None = None,
    ) -> tuple[ResultCapture[Any], ResultCapture[T]]:
        """Start a task as ``nursery.start`` does, and capture both what it started with and its result.

        Until the routine calls ``task_status.started(value)`` it runs in the start nursery, and from then on in the run
        nursery. If it raises before that call, both results fail with its exception, which goes to the start nursery.
        If it returns before that call, the done result has its value, and the start result fails with Trio's
        `RuntimeError`.

        Args:
            run_nursery: Where the task runs once it has started.
            routine: An async function that takes a keyword argument ``task_status``.
            args: Its positional arguments.
            start_nursery: Where the task runs until then; the run nursery by default.

        Returns:
            The start result, with the value given to ``started``, and the done result, with the value returned.

        Raises:
            TypeError: If the routine is a coroutine object, or can't be called, or a nursery is none.
            RuntimeError: If the start nursery is closed, or there is no Trio run here.
        """
        current_trio_token()  # the nursery would fail too, but not say what is missing
        if not callable(routine):
            refuse_uncallable(routine, f"{_START_AND_DONE}(run_nursery, {{}}, *args)")
        start_nursery = run_nursery if start_nursery is None else start_nursery
        done_result: ResultCapture[T] = cls(routine, *args)  # type: ignore[arg-type, assignment]  # T is the routine's
        for nursery in (run_nursery, start_nursery):
            check_nursery(nursery, f"{_START_AND_DONE}(run_nursery, async_fn, *args)")
        start_result: ResultCapture[Any] = cls(run_nursery.start, done_result.run)
        start_nursery.start_soon(start_result.run)
        return start_result, done_result

    def _is_owned(self) -> bool:
        return super()._is_owned() or (self._started and not self.is_done())

    def _routine_str(self) -> str:
        routine = getattr(self._routine, "__qualname__", None) or shown(self._routine)
        return f"routine={routine}, args={shown(self._args)}, "


_START_AND_DONE = "ResultCapture.capture_start_and_done_results"
_RUN = f"{__name__}.ResultCapture.run"  # what Trio and anyio name a task that was started with `capture.run`


def task_name(name: object) -> str:
    """The name that Trio would give a task for this routine; anyio's rules differ."""
    if isinstance(name, functools.partial):
        name = name.func
    if isinstance(name, str):
        return name
    try:
        return f"{name.__module__}.{name.__qualname__}"  # type: ignore[attr-defined]  # whatever has none is caught
    except AttributeError:
        return repr(name)


def _check_cancel_scope(scope: object) -> None:
    right = "pass 'cancel_scope=trio.CancelScope()', or a time limit: 'cancel_scope=trio.move_on_after(5)'"
    if not isinstance(scope, trio.CancelScope):
        raise TypeError(f"cancel_scope is a trio.CancelScope, not {shown(scope)}; {right}")
    if scope.is_relative is None:
        raise RuntimeError(f"{scope!r} was entered before, and can't be entered around another task; {right}")


def check_nursery(nursery: object, call: str) -> None:
    """Raise the `TypeError` for what is no nursery; it names the right call."""
    if not callable(getattr(nursery, "start_soon", None)):
        raise TypeError(f"expected a nursery, but got {shown(nursery)}; the right call is '{call}'")


def refuse_uncallable(routine: object, call: str, right: str = "") -> NoReturn:
    """Raise the `TypeError` for what was passed in place of an async function; a coroutine is closed.

    The call has ``{}`` where the function goes; the right thing to pass there is the function unless it is given.
    """
    if inspect.iscoroutine(routine):
        name = routine.__name__
        routine.close()  # or Python would warn that it was never awaited
        raise TypeError(
            f"expected an async function, but got the coroutine that calling {name!r} made; "
            f"not '{call.format(name + '(...)')}' but '{call.format(right or name)}'"
        )
    raise TypeError(
        f"expected an async function, but got {shown(routine)}; the right call is '{call.format(right or 'async_fn')}'"
    )


def check_awaitable(routine: object, returned: object) -> None:
    """Raise the `TypeError` for what a routine returned that can't be awaited: it is no async function."""
    if isinstance(returned, Awaitable):
        return
    name = getattr(routine, "__qualname__", None) or shown(routine)
    if inspect.isasyncgen(returned):
        raise TypeError(
            f"expected an async function, but {name!r} is an async generator; loop over it with 'async for'"
        )
    raise TypeError(
        f"expected an async function, but {name!r} is a synchronous one that returned {shown(returned)}; "
        f"define it with 'async def', or run it in a thread: 'start_soon(nursery, trio.to_thread.run_sync, {name})'"
    )
