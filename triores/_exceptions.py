"""The exceptions that triores raises.

The first four are raised by calls that read or settle a result, and their only argument is that result: ``(result,)``.
The next two are stored inside a future. They must not refer to that future, since that would be a reference cycle. The
last one is about several tasks, and holds only its message.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._result import ResultBase

    Reduced = tuple[Callable[..., Exception], tuple[object, ...], dict[str, object]]


# What the exceptions that carry a result share. A private base class would show up in `help(triores)`.


def _repr(self: Exception) -> str:
    return f"{type(self).__name__}({self.args[0]._name()})"


def _reduce(self: Exception) -> Reduced:
    state: dict[str, object] = {**self.__dict__, "_message": str(self)}
    if self.__cause__ is not None:
        state["__cause__"] = self.__cause__
    result = self.args[0] if self.args[0].is_done() else None
    return _copied, (type(self), result), state


def _copied(exception_type: Callable[[ResultBase[Any]], Exception], result: ResultBase[Any] | None) -> Exception:
    from ._future import Future  # an import at the top would be circular

    return exception_type(Future[Any]() if result is None else result)


def _message(self: Exception, what_happened: str) -> str:
    """Return the message. A copy keeps the original's message, because a copied result doesn't know its routine."""
    copied: str | None = self.__dict__.get("_message")
    return f"{self.args[0]._work()} {what_happened}" if copied is None else copied


class TaskNotDoneException(Exception):
    """You read a result while it was still pending.

    Call ``await result.wait_done()`` first, or check ``result.is_done()``.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    args: tuple[ResultBase[Any]]

    def __init__(self, result: ResultBase[Any], /) -> None:
        super().__init__(result)

    __repr__ = _repr

    def __reduce__(self) -> Reduced:
        return _reduce(self)

    def __str__(self) -> str:
        return _message(self, "was read before it was done; call 'await result.wait_done()' first")


class TaskFailedException(Exception):
    """The result that you read has failed: its task raised an exception, or its future was given one.

    The original exception is the ``__cause__``. A copy of this exception, such as one that comes from a worker process,
    carries a `Future` with the same outcome instead of the result.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    args: tuple[ResultBase[Any]]

    def __init__(self, result: ResultBase[Any], /) -> None:
        super().__init__(result)

    __repr__ = _repr

    def __reduce__(self) -> Reduced:
        return _reduce(self)

    def __str__(self) -> str:
        return _message(self, f"failed: {self.args[0]._shown_outcome()}")


class TaskCancelledException(TaskFailedException):
    """The result that you read was cancelled.

    The original exception is the ``__cause__``: a `trio.Cancelled`, a `FutureCancelledException`, or an exception group
    that contains only `trio.Cancelled`. The message says what is known about the cancellation, such as its source and
    reason.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    def __str__(self) -> str:
        return _message(self, f"was cancelled{why_cancelled(self.args[0].exception())}")


def why_cancelled(exception: BaseException | None) -> str:
    """Return what is known about a cancellation, such as its reason, as the end of a sentence; it may be empty."""
    whys = list(dict.fromkeys(_why(leaf) for leaf in leaves(exception)))
    more = f"; and {len(whys) - 3} more" if len(whys) > 3 else ""  # three fit on a line
    return f"{'; also'.join(whys[:3])}{more}"


def _why(cancellation: BaseException) -> str:
    source, reason = getattr(cancellation, "source", None), getattr(cancellation, "reason", None)
    return ("" if source is None else f" (source: {source})") + (
        "" if reason is None else f", reason: {reason[:200]!r}"
    )


class FutureSetAgainException(Exception):
    """You settled a result that was already settled, or ran a capture that was already started.

    The first outcome is kept. If several tasks may settle the same future, check ``future.is_done()`` first, or use
    `Future.cancel`, which returns False instead of raising.

    Attributes:
        args: The result, as the only item of a tuple.
    """

    args: tuple[ResultBase[Any]]

    def __init__(self, result: ResultBase[Any], /) -> None:
        super().__init__(result)

    __repr__ = _repr

    def __reduce__(self) -> Reduced:
        return _reduce(self)

    def __str__(self) -> str:
        return _message(self, self.args[0]._AGAIN)


class FutureCancelledException(Exception):
    """What `ResultBase.exception` returns after `Future.cancel`.

    Attributes:
        reason: The reason that was passed to `Future.cancel`, or None.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return "the future was cancelled" if self.reason is None else f"the future was cancelled: {self.reason}"


class FutureNeverSetException(Exception):
    """What `ResultBase.exception` returns if the block that had to settle the future ended without doing so.

    If an exception ended the block, that exception is the ``__cause__``.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "the block that had to settle this future ended without doing so"


class WaitCycleError(RuntimeError):
    """A wait that could never end, because what the task waits for can't happen until the task goes on.

    For example, a task awaits its own result, or two tasks await each other's: a deadlock, which would hang without
    this error. It is raised by the wait that closes the cycle, and the message shows all the waits in the cycle. If a
    time limit or another cancel scope could end one of the waits without the others, there is no error.

    Set the environment variable ``TRIORES_WAIT_CYCLES`` to ``0`` to turn the check off.
    """


def parts(exception: BaseException) -> list[BaseException]:
    """Return the exceptions in a group, or a list of the exception alone if it isn't a group."""
    if isinstance(exception, BaseExceptionGroup):
        return [*cast("BaseExceptionGroup[BaseException]", exception).exceptions]
    return [exception]


def leaves(exception: BaseException | None) -> Iterator[BaseException]:
    """Yield the exceptions inside a group that aren't groups themselves, at any depth; or the exception alone."""
    stack: list[BaseException] = [] if exception is None else [exception]
    while stack:  # not recursive, since groups may be nested deeper than Python can recurse
        leaf = stack.pop()
        if isinstance(leaf, BaseExceptionGroup):
            stack.extend(reversed(cast("BaseExceptionGroup[BaseException]", leaf).exceptions))
        else:
            yield leaf


def comes_from_cancellation(exception: BaseException) -> bool:
    """Return whether a `trio.Cancelled` is in the context chain of an exception, or of any exception in its group."""
    stack, seen = [exception], set[int]()
    while stack:
        for leaf in leaves(stack.pop()):
            if isinstance(leaf, trio.Cancelled):
                return True
            if leaf.__context__ is not None and id(leaf) not in seen:
                stack.append(leaf.__context__)
            seen.add(id(leaf))
    return False


def unmatched(exception: BaseException, types: tuple[type[Exception], ...]) -> BaseException | None:
    """Return the part of an exception that isn't of these types.

    For a group, that is nothing if everything in it matches; only the cancellations if everything else matches; and
    otherwise the whole group.
    """
    if not isinstance(exception, BaseExceptionGroup):
        return None if isinstance(exception, types) else exception
    rest = cast("BaseExceptionGroup[BaseException]", exception).split(types)[1]
    if rest is None or is_cancellation(rest):
        return rest
    return cast("BaseException", exception)


def is_cancellation(exception: BaseException) -> bool:
    """Return whether this is a `trio.Cancelled`, or an exception group that contains nothing else."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(exception))
