"""Captures: results that tasks settle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import trio
from outcome import Error, Value
from trio.lowlevel import enable_ki_protection

from ._checks import (
    call_of,
    check_cancel_scope,
    check_nursery,
    exception_types,
    name_of,
    refuse_unawaitable,
    refuse_uncallable,
    shown,
    task_name,
)
from ._exceptions import FutureSetAgainException, unmatched
from ._result import ResultBase, current_trio_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outcome import Outcome
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# While `triores.trace` is recording, each task that runs a capture calls this before the routine. Otherwise None.
on_begin: Callable[[ResultCapture[Any]], object] | None = None


class NurseryLike(Protocol):
    """Anything you can start tasks in: a Trio nursery, or an anyio task group that runs on Trio."""

    def start_soon(self, func: Callable[..., Any], /, *args: Any, name: object = None) -> object: ...

    async def start(self, func: Callable[..., Any], /, *args: Any, name: object = None) -> Any: ...


class ResultCapture(ResultBase[T_co]):
    """A result that a task settles with what its routine returns or raises.

    Capturing is not catching: the exception is recorded, and then propagates into the nursery as usual, unless
    ``suppress_exception`` says otherwise. `trio.Cancelled`, `KeyboardInterrupt` and `SystemExit` always propagate.

    Most captures are made with `start_soon`. If you make one with the constructor, run it with its `run` method.

    Args:
        routine: An async function.
        args: Its positional arguments; use `functools.partial` for others.
        suppress_exception: Which of the routine's exceptions don't propagate into the nursery: True for any
            `Exception`, or a subclass of `Exception`, or a tuple of those. An exception group is suppressed if
            everything in it matches; if it also contains a `trio.Cancelled`, only that part propagates.
        name: The task's name in Trio's task tree; by default, the routine's own name.
        cancel_scope: A scope to run the routine in. It can have a time limit, like ``trio.move_on_after(5)``, and
            ``capture.cancel_scope.cancel(reason="...")`` stops only this task. The nursery doesn't notice, and the
            result is ``cancelled()``. If the cancelled routine raises something else too, the scope first takes its
            own `trio.Cancelled` out of the group; the rest is recorded and propagates. A scope can only be entered
            once, so each capture needs its own.

    Raises:
        TypeError: If the routine is a coroutine object or isn't callable, or if ``suppress_exception`` or
            ``cancel_scope`` has the wrong type.
        RuntimeError: If the cancel scope has been entered before.

    Example:
        ::

            async with trio.open_nursery() as nursery:
                page = ResultCapture.start_soon(nursery, fetch, url)
                size = ResultCapture.start_soon(nursery, measure, path)
            print(page.result(), size.result())
    """

    __slots__ = ("_args", "_cancel_scope", "_name_given", "_owner", "_routine", "_started", "_suppressed")

    _AGAIN: ClassVar[str] = "was already started, and a capture can only run once; to run it again, make a new one"

    def __init__(
        self,
        routine: Callable[..., Awaitable[T_co]],
        *args: object,
        suppress_exception: bool | type[Exception] | tuple[type[Exception], ...] = False,
        name: object = None,
        cancel_scope: trio.CancelScope | None = None,
    ) -> None:
        if not callable(routine):
            refuse_uncallable(routine, "ResultCapture({}, *args)")
        if cancel_scope is not None:
            check_cancel_scope(cancel_scope)
        self._suppressed = exception_types(suppress_exception, "suppress_exception")
        super().__init__()
        self._routine = routine
        self._args = args
        self._name_given = name
        self._cancel_scope = cancel_scope
        self._started = False
        self._owner = None  # the task, while it runs

    @classmethod
    def start_soon(
        cls,
        nursery: NurseryLike,
        routine: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        suppress_exception: bool | type[Exception] | tuple[type[Exception], ...] = False,
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
            The capture. It is still pending, since the task only begins to run at the next checkpoint.

        Raises:
            TypeError: As for the constructor, and also if ``nursery`` isn't a nursery.
            RuntimeError: If the nursery is closed, the scope has been entered before, or there is no Trio run here.
        """
        if not callable(routine):
            refuse_uncallable(routine, "ResultCapture.start_soon(nursery, {}, *args)")
        capture: ResultCapture[T] = cls(  # type: ignore[assignment] # T is the routine's, which cls doesn't know
            routine,  # type: ignore[arg-type] # the same
            *args,
            suppress_exception=suppress_exception,
            name=name,
            cancel_scope=cancel_scope,
        )
        if capture._token is None:
            current_trio_token()  # raises the error for a call outside Trio
        if name is None:
            name = routine
        if type(nursery) is not trio.Nursery:  # a fast path: Trio's own needs no check, and names tasks the same
            check_nursery(nursery, "ResultCapture.start_soon(nursery, async_fn, *args)")
            name = task_name(name)
        capture._started = True
        nursery.start_soon(capture._capture, name=name)
        return capture

    async def run(self, **kwargs: Any) -> None:
        """Run the routine in the current task, and capture its result. You don't need this after `start_soon`.

        Use it for captures that you made with the constructor, usually with ``await nursery.start(capture.run)``.

        Args:
            kwargs: Keyword arguments for the routine, such as the ``task_status`` that ``nursery.start`` passes.

        Raises:
            FutureSetAgainException: If the capture was already started. The routine isn't run again.
            RuntimeError: If the capture belongs to another Trio run, or there is no Trio run here. The routine isn't
                run.
            BaseException: What the routine raised, unless that is suppressed.
        """
        run = current_trio_token()
        task = trio.lowlevel.current_task()
        if task.name == _RUN:
            task.name = task_name(self._routine if self._name_given is None else self._name_given)
        if self._started:
            raise FutureSetAgainException(self)
        try:
            self._claim(run, "run")
            self._started = True
            await self._capture(**kwargs)
        except BaseException as error:  # it may be a Ctrl-C, just as this call begins
            if self._started:
                self._settle_failure(error)
            raise
        finally:
            del self  # a failure's traceback keeps this frame alive, and everything it refers to

    async def _capture(self, **kwargs: Any) -> None:
        propagating: BaseException | None = None
        try:
            try:
                self._owner = trio.lowlevel.current_task()
                if on_begin is not None:
                    on_begin(self)
                if self._cancel_scope is None:
                    self._settle(Value(await self._call(kwargs)))
                else:
                    self._settle(await self._call_in(self._cancel_scope, kwargs))
            except BaseException as error:  # noqa: ASYNC103 # only what the capture has to suppress doesn't propagate
                propagating = self._settle_failure(error)
                if propagating is error:
                    raise
            if propagating is not None:
                raise propagating
        finally:
            self._owner = None  # or the result would keep the task and its context variables alive
            del self, propagating

    async def _call_in(self, scope: trio.CancelScope, kwargs: dict[str, Any]) -> Outcome[T_co]:
        outcome: Outcome[T_co] | None = None
        try:
            with scope:
                try:
                    outcome = Value(await self._call(kwargs))
                except BaseException as error:
                    outcome = Error(error)  # in case the scope catches all of it
                    raise
            assert outcome is not None
            return outcome
        finally:
            del self, outcome

    def _call(self, kwargs: dict[str, Any]) -> Awaitable[T_co]:
        try:
            awaitable = self._routine(*self._args, **kwargs)
            if not hasattr(type(awaitable), "__await__"):
                refuse_unawaitable(self._routine, awaitable)
            return awaitable
        finally:
            del self

    @enable_ki_protection
    def _settle_failure(self, error: BaseException) -> BaseException | None:
        """Settle with the exception, and return the part of it that propagates into the nursery."""
        if self.is_done():  # one of its callbacks raised this, or it is a Ctrl-C
            return error
        self._settle(Error(error))
        return unmatched(error, self._suppressed) if self._suppressed else error

    @property
    def routine(self) -> Callable[..., Awaitable[T_co]]:
        """The routine that the task runs, as you passed it."""
        return self._routine

    @property
    def args(self) -> tuple[Any, ...]:
        """The routine's positional arguments, as you passed them."""
        return self._args

    @property
    def cancel_scope(self) -> trio.CancelScope | None:
        """The cancel scope around the routine, as you passed it, or None."""
        return self._cancel_scope

    @classmethod
    def capture_start_and_done_results(
        cls,
        run_nursery: NurseryLike,
        routine: Callable[..., Awaitable[T]],
        *args: Any,
        start_nursery: NurseryLike | None = None,
    ) -> tuple[ResultCapture[Any], ResultCapture[T]]:
        """Start a task as ``nursery.start`` does, and capture both its start value and its result.

        The routine runs in the start nursery until it calls ``task_status.started(value)``, and in the run nursery from
        then on. If it raises before that call, or can't be run because the run nursery is closed, both results fail
        with that exception, which propagates into the start nursery. If it returns before that call, the done result
        gets the value, and the start result fails with Trio's `RuntimeError`.

        Args:
            run_nursery: The nursery to run the task in once it has started.
            routine: An async function that takes a keyword argument ``task_status``.
            args: Its positional arguments.
            start_nursery: The nursery to run the task in until it has started; by default, the run nursery.

        Returns:
            The start result, which gets the value passed to ``started``, and the done result, which gets the value
            that the routine returns.

        Raises:
            TypeError: If the routine is a coroutine object or isn't callable, or if ``run_nursery`` or
                ``start_nursery`` isn't a nursery.
            RuntimeError: If the start nursery is closed, or there is no Trio run here.
        """
        call = "ResultCapture.capture_start_and_done_results(run_nursery, {}, *args)"
        if not callable(routine):
            refuse_uncallable(routine, call)
        start_nursery = run_nursery if start_nursery is None else start_nursery
        done_result: ResultCapture[T] = cls(routine, *args)  # type: ignore[arg-type, assignment] # T is the routine's
        for nursery in (run_nursery, start_nursery):
            check_nursery(nursery, call.format("async_fn"))
        current_trio_token()

        def start(*_args: object) -> Awaitable[Any]:
            return run_nursery.start(done_result.run)  # noqa: ASYNC105 # the capture awaits this; a frame of our own would hold a result

        start.__qualname__ = name_of(routine)  # what messages about the start result show
        start_result: ResultCapture[Any] = cls(start, *args)
        start_result._started = True
        start_nursery.start_soon(_settle_both, start_result, done_result, name=task_name(routine))
        return start_result, done_result

    def _work(self) -> str:
        return call_of(self._routine, self._args)

    def _name(self) -> str:
        return name_of(self._routine)

    def _routine_str(self) -> str:
        routine = getattr(self._routine, "__qualname__", None) or shown(self._routine)
        return f"routine={routine}, args={shown(self._args)}, "


_RUN = f"{__name__}.ResultCapture.run"  # the name that Trio and anyio give to a task started with `capture.run`


@enable_ki_protection  # none of the user's code runs in this task
async def _settle_both(start_result: ResultCapture[Any], done_result: ResultCapture[Any]) -> None:
    try:
        await start_result._capture()
    except BaseException as error:
        done_result._started = True  # so that it can't be run later if its task hasn't begun
        done_result._settle_failure(error)
        raise
    finally:
        del start_result, done_result
