"""Checks of arguments, with errors that show the right call, and short descriptions of values for messages."""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
import operator
import reprlib
import sys
from typing import Any, NoReturn, SupportsFloat, SupportsIndex

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
        except Exception as error:  # noqa: BLE001 # a broken __repr__ must not hide the error that the message is about
            return f"<{type(x).__name__} whose repr() raised {type(error).__name__}>"

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002 # the signature is reprlib's
        return self._cut(repr(x))

    def repr_function(self, x: object, level: int) -> str:  # noqa: ARG002 # the same
        return f"<function {name_of(x)}>"

    def repr_bytes(self, x: bytes, level: int) -> str:  # noqa: ARG002 # the same
        return self._cut(repr(x[: self.maxstring]))

    repr_bytearray = repr_bytes

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.maxother else f"{text[: self.maxother - 20]}...{text[-17:]}"


_short = _Short()
_MAX_SHOWN = 300  # characters in all; without this limit, the repr of nested containers could be longer


def shown(value: object) -> str:
    """Return a value's `repr`, shortened if it's long, or a placeholder if its ``__repr__`` fails."""
    text = _short.repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def on_one_line(text: str) -> str:
    """Replace each character that isn't printable, such as a line break, with a space."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def name_of(routine: object) -> str:
    """Return a function's name as its author would write it."""
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
    """Return the name that Trio would give to a task that runs this routine. anyio would choose another one."""
    if isinstance(name, functools.partial):
        name = name.func
    if isinstance(name, str):
        return name
    try:
        return f"{name.__module__}.{name.__qualname__}"  # type: ignore[attr-defined] # handled by the except
    except AttributeError:
        return repr(name)


def close_coroutines(*values: object) -> None:
    """Close any coroutines among these values: they won't be awaited now, and Python would warn about that."""
    for value in values:
        if inspect.iscoroutine(value):
            value.close()


def refuse_uncallable(routine: object, call: str, right: str = "") -> NoReturn:
    """Raise the `TypeError` for something that was passed instead of an async function. If it's a coroutine, close it.

    Args:
        routine: What was passed.
        call: The call, with ``{}`` in place of the function.
        right: The function to show in the right call; by default, the one that made the coroutine.
    """
    if inspect.iscoroutine(routine):
        name = routine.__name__
        routine.close()
        raise TypeError(
            f"expected an async function, but got the coroutine that {name!r} returned; "
            f"call '{call.format(right or name)}', not '{call.format(name + '(...)')}'"
        )
    raise TypeError(f"expected an async function, but got {shown(routine)}; call '{call.format(right or 'async_fn')}'")


def refuse_unawaitable(routine: object, returned: object) -> NoReturn:
    """Raise the `TypeError` for a routine that returned something that can't be awaited."""
    name = name_of(routine)
    if inspect.isasyncgen(returned):
        raise TypeError(
            f"expected an async function, but {name!r} is an async generator; iterate over it with 'async for'"
        )
    raise TypeError(
        f"expected an async function, but {name!r} is synchronous, and returned {shown(returned)}; "
        f"define it with 'async def', or run it in a thread: 'start_soon(nursery, trio.to_thread.run_sync, {name})'"
    )


def check_nursery(nursery: object, call: str) -> None:
    """Raise a `TypeError` that shows the right call, if this isn't a nursery."""
    if not callable(getattr(nursery, "start_soon", None)):
        raise TypeError(f"expected a nursery, but got {shown(nursery)}; call '{call}'")


def check_cancel_scope(scope: object) -> None:
    """Raise an error if this isn't a cancel scope, or is one that has been entered before."""
    right = "pass 'cancel_scope=trio.CancelScope()', or a time limit: 'cancel_scope=trio.move_on_after(5)'"
    if not isinstance(scope, trio.CancelScope):
        raise TypeError(f"cancel_scope must be a trio.CancelScope, not {shown(scope)}; {right}")
    if scope.is_relative is None:
        raise RuntimeError(f"{scope!r} has been entered before, and can't be used again for another task; {right}")


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
                f"{name} must be True, False, a subclass of Exception or a tuple of those, not {shown(one)}; "
                "trio.Cancelled, KeyboardInterrupt and SystemExit are never suppressed"
            )
    return types


def checked_limit(limit: object, name: str, allowed: str, meaning: str) -> int:
    """Return a limit as an int, or raise an error if it isn't an integer, or is less than 1."""
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise TypeError(f"{name} must be {allowed}, not {shown(limit)}; it is {meaning}")
    checked = operator.index(limit)
    if checked < 1:
        raise ValueError(f"{name} must be at least 1, not {shown(limit)}; it is {meaning}")
    return min(checked, sys.maxsize)  # the most that a deque can hold


def check_exception(exception: object) -> None:
    """Raise a `TypeError` if this isn't an exception object."""
    if not isinstance(exception, BaseException):
        right = f"{exception.__name__}()" if inspect.isclass(exception) else "ValueError('what went wrong')"
        raise TypeError(
            f"set_exception takes an exception object, not {shown(exception)}; call 'set_exception({right})'"
        )


def refuse_result(call: str, wrong: object, given: list[Any]) -> NoReturn:
    """Raise the `TypeError` for an argument that isn't an iterable of results."""
    close_coroutines(*given)
    if inspect.iscoroutine(wrong):
        name = wrong.__name__
        right = f"to start it and get a result, call 'ResultCapture.start_soon(nursery, {name}, ...)'"
        what = f"the coroutine that {name!r} returned"
    elif hasattr(wrong, "add_done_callback"):
        right = "to turn it into a result, call 'wrap_future(future)'"
        what = shown(wrong)
    elif callable(wrong):
        right = f"to start it and get a result, call 'ResultCapture.start_soon(nursery, {name_of(wrong)}, ...)'"
        what = shown(wrong)
    else:
        right = f"call '{call}([result, ...])'"
        what = shown(wrong)
    raise TypeError(f"{call} takes triores results, not {what}; {right}")


def checked_seconds(given: object, message: str) -> float:
    """Return a number of seconds as a float, which is infinite if the number is too large for one.

    Args:
        given: What was passed.
        message: The message of the error.

    Raises:
        TypeError: If it isn't a number.
        ValueError: If it is negative or NaN.
    """
    if isinstance(given, bool) or not isinstance(given, SupportsFloat):
        raise TypeError(message)
    try:
        seconds = float(given)
    except OverflowError:
        seconds = math.inf if given > 0 else -math.inf  # type: ignore[operator] # only numbers can be too large
    except ValueError:  # a Decimal that is a signaling NaN
        seconds = math.nan
    if not seconds >= 0:  # true for NaN, too
        raise ValueError(message)
    return seconds


def check_callback(fn: object, context: object) -> None:
    """Raise a `TypeError` if ``fn`` can't be a callback, or ``context`` isn't a context."""
    if not callable(fn) or inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
        raise TypeError(
            f"a done callback must be a synchronous function that takes one argument, not {shown(fn)}; "
            "to run async code when a result is done, start a task that calls 'await result.wait_done()' first"
        )
    if not isinstance(context, contextvars.Context):
        raise TypeError(
            f"context must be a contextvars.Context, not {shown(context)}; pass 'contextvars.copy_context()'"
        )


def check_outcome(outcome: object) -> None:
    """Raise a `TypeError` if this isn't an outcome."""
    if not isinstance(outcome, Outcome):
        raise TypeError(
            f"set_outcome takes an outcome.Value or an outcome.Error, not {shown(outcome)}; "
            "call 'set_outcome(outcome.Value(value))', or 'set_result(value)'"
        )


def check_reason(reason: object) -> None:
    """Raise a `TypeError` if this can't be the reason for a cancellation."""
    if reason is not None and not isinstance(reason, str):
        raise TypeError(
            f"the reason for a cancellation must be a string, not {shown(reason)}; call 'future.cancel(\"why\")'"
        )
