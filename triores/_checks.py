"""Checks of arguments, with errors that show the right call, and short texts of values for messages."""

from __future__ import annotations

import contextvars
import functools
import inspect
import reprlib
from collections.abc import Awaitable
from typing import Any, NoReturn

import trio
from outcome import Outcome


class _Short(reprlib.Repr):
    """Shows any value in a bounded number of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 100  # characters; enough for most URLs and paths

    def repr1(self, x: object, level: int) -> str:
        try:
            return super().repr1(x, level)
        except Exception as error:  # noqa: BLE001 # a broken __repr__ must not hide the error whose message needs it
            return f"<{type(x).__name__} whose repr() raised {type(error).__name__}>"

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002 # the signature is reprlib's
        return self._cut(repr(x))

    def repr_bytes(self, x: bytes, level: int) -> str:  # noqa: ARG002 # the same
        return self._cut(repr(x[: self.maxstring]))

    repr_bytearray = repr_bytes

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.maxother else f"{text[: self.maxother - 20]}...{text[-17:]}"


_short = _Short()
_SHOWN = 300  # characters; a few containers inside one another may come to more


def shown(value: object) -> str:
    """Return a short text of a value: its `repr`, cut if it is long, or a stand-in if its ``__repr__`` fails."""
    text = _short.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def name_of(routine: object) -> str:
    """Return the name that a reader knows a function by."""
    while isinstance(routine, functools.partial):
        routine = routine.func
    name = getattr(routine, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else shown(routine)


def call_of(routine: object, args: tuple[object, ...]) -> str:
    """Return the text of a call, such as ``fetch('http://x')``."""
    while isinstance(routine, functools.partial):
        args = routine.args + args
        routine = routine.func
    more = ", ..." if len(args) > 4 else ""
    return f"{name_of(routine)}({', '.join(map(shown, args[:4]))}{more})"


def task_name(name: object) -> str:
    """Return the name that Trio would give a task for this routine; anyio's rules differ."""
    if isinstance(name, functools.partial):
        name = name.func
    if isinstance(name, str):
        return name
    try:
        return f"{name.__module__}.{name.__qualname__}"  # type: ignore[attr-defined] # handled by the except
    except AttributeError:
        return repr(name)


def close_coroutines(*values: object) -> None:
    """Close the coroutines among some values that nobody will await now, so that Python doesn't warn about them."""
    for value in values:
        if inspect.iscoroutine(value):
            value.close()


def refuse_uncallable(routine: object, call: str, right: str = "") -> NoReturn:
    """Raise the `TypeError` for something passed instead of an async function; a coroutine is closed.

    Args:
        routine: What was passed.
        call: The call, with ``{}`` for the function.
        right: What to pass instead; by default the function.
    """
    if inspect.iscoroutine(routine):
        name = routine.__name__
        routine.close()
        raise TypeError(
            f"expected an async function, but got the coroutine that calling {name!r} made; "
            f"not '{call.format(name + '(...)')}' but '{call.format(right or name)}'"
        )
    raise TypeError(
        f"expected an async function, but got {shown(routine)}; the right call is '{call.format(right or 'async_fn')}'"
    )


def check_awaitable(routine: object, returned: object) -> None:
    """Raise the `TypeError` for a routine that returned something that can't be awaited."""
    if isinstance(returned, Awaitable):
        return
    name = name_of(routine)
    if inspect.isasyncgen(returned):
        raise TypeError(
            f"expected an async function, but {name!r} is an async generator; loop over it with 'async for'"
        )
    raise TypeError(
        f"expected an async function, but {name!r} is a synchronous one that returned {shown(returned)}; "
        f"define it with 'async def', or run it in a thread: 'start_soon(nursery, trio.to_thread.run_sync, {name})'"
    )


def check_nursery(nursery: object, call: str) -> None:
    """Raise the `TypeError` for something that isn't a nursery; it shows the right call."""
    if not callable(getattr(nursery, "start_soon", None)):
        raise TypeError(f"expected a nursery, but got {shown(nursery)}; the right call is '{call}'")


def check_cancel_scope(scope: object) -> None:
    """Raise an error for a cancel scope that can't be entered around a task."""
    right = "pass 'cancel_scope=trio.CancelScope()', or a time limit: 'cancel_scope=trio.move_on_after(5)'"
    if not isinstance(scope, trio.CancelScope):
        raise TypeError(f"cancel_scope is a trio.CancelScope, not {shown(scope)}; {right}")
    if scope.is_relative is None:
        raise RuntimeError(f"{scope!r} was entered before, and can't be entered around another task; {right}")


def exception_types(
    given: bool | type[Exception] | tuple[type[Exception], ...], name: str
) -> tuple[type[Exception], ...]:
    """Return the exception types that an argument stands for; True stands for all of them."""
    if isinstance(given, bool):
        return (Exception,) if given else ()
    types = given if isinstance(given, tuple) else (given,)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise TypeError(
                f"{name} is True, False, a subclass of Exception or a tuple of them, not {shown(one)}; "
                "trio.Cancelled, KeyboardInterrupt and SystemExit always go on"
            )
    return types


def check_exception(exception: object) -> None:
    """Raise the `TypeError` for something that isn't an exception object."""
    if not isinstance(exception, BaseException):
        right = f"{exception.__name__}()" if inspect.isclass(exception) else "ValueError('what went wrong')"
        raise TypeError(f"a future is given an exception object, not {shown(exception)}; call 'set_exception({right})'")


def refuse_result(call: str, wrong: object, given: list[Any]) -> NoReturn:
    """Raise the `TypeError` for something among the results given to a call that isn't a result."""
    close_coroutines(*given)
    if inspect.iscoroutine(wrong):
        name = wrong.__name__
        right = f"'ResultCapture.start_soon(nursery, {name}, ...)' starts it and gives a result"
        what = f"the coroutine that calling {name!r} made"
    elif hasattr(wrong, "add_done_callback"):
        right = "'wrap_future(future)' makes a result of it"
        what = shown(wrong)
    elif callable(wrong):
        right = f"'ResultCapture.start_soon(nursery, {name_of(wrong)}, ...)' starts it and gives a result"
        what = shown(wrong)
    else:
        right = f"the right call is '{call}([result, ...])'"
        what = shown(wrong)
    raise TypeError(f"{call} takes results of triores, not {what}; {right}")


def check_callback(fn: object, context: object) -> None:
    """Raise the `TypeError` for something that can't be a callback, or be its context."""
    if not callable(fn) or inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
        raise TypeError(
            f"a done callback is a synchronous function of one argument, not {shown(fn)}; "
            "to run async code when a result is done, start a task that calls 'await result.wait_done()' first"
        )
    if not isinstance(context, contextvars.Context):
        raise TypeError(f"context is a contextvars.Context, not {shown(context)}; pass 'contextvars.copy_context()'")


def check_outcome(outcome: object) -> None:
    """Raise the `TypeError` for something that isn't an outcome."""
    if not isinstance(outcome, Outcome):
        raise TypeError(
            f"an outcome is an outcome.Value or an outcome.Error, not {shown(outcome)}; "
            "call 'set_outcome(outcome.Value(value))', or 'set_result(value)'"
        )


def check_reason(reason: object) -> None:
    """Raise the `TypeError` for something that isn't the reason of a cancellation."""
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"the reason of a cancellation is a string, not {shown(reason)}; call 'future.cancel(\"why\")'")
