"""Every exception of triores.

The first four are raised at whoever made the call, and carry the result as their only argument, ``(result,)``. The
last two are stored inside the future that they tell of. They must not hold that future: it would be a reference cycle.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # Trio itself requires the backport on Python 3.10

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._result import ResultBase


class _AboutResult(Exception):
    """What the four exceptions have in common that carry a result."""

    args: tuple[ResultBase[Any]]

    def __init__(self, result: ResultBase[Any], /) -> None:
        super().__init__(result)


class TaskNotDoneException(_AboutResult):
    """A result was read while it was still pending.

    Wait for it first, with ``await result.wait_done()``, or ask ``result.is_done()``.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    def __str__(self) -> str:
        return f"{self.args[0]!r} was read before it was done; call 'await result.wait_done()' before reading it"


class TaskFailedException(_AboutResult):
    """A result was read whose task failed, or whose future was given an exception.

    Its ``__cause__`` is the original exception.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    def __str__(self) -> str:
        return f"{self.args[0]!r} failed; the exception it failed with is the cause of this one"


class TaskCancelledException(TaskFailedException):
    """A result was read whose task or future was cancelled.

    Its ``__cause__`` is the original exception: a `trio.Cancelled`, a `FutureCancelledException`, or an exception group
    of nothing but those. The message repeats what Trio knows of the cancellation: its source and the reason given.

    Attributes:
        args: The result that was read, as the only item of a tuple.
    """

    def __str__(self) -> str:
        told = "; ".join(dict.fromkeys(str(leaf) for leaf in leaves(self.__cause__)))
        return f"{self.args[0]!r} was cancelled: {told}"


class FutureSetAgainException(_AboutResult):
    """A result was settled a second time, or `ResultCapture.run` was called a second time.

    The first outcome stays. Where several parties may settle one future, ask ``future.is_done()`` first, or use
    `Future.cancel`, which returns False in place of raising.

    Attributes:
        args: The result that was to be settled, as the only item of a tuple.
    """

    def __str__(self) -> str:
        return (
            f"{self.args[0]!r} can be settled only once, and a capture run only once; "
            "ask 'result.is_done()' first where several parties may settle it"
        )


class FutureCancelledException(Exception):
    """What `ResultBase.exception` returns after `Future.cancel`.

    Attributes:
        reason: What was given to `Future.cancel`.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return "the future was cancelled" if self.reason is None else f"the future was cancelled: {self.reason}"


class FutureNeverSetException(Exception):
    """What `ResultBase.exception` returns when the block that had to settle the future ended without doing so.

    Where an exception ended that block, it is the ``__cause__``.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "the block that had to settle this future ended without doing so"


def leaves(exception: BaseException | None) -> Iterator[BaseException]:
    """The exceptions that are no groups themselves, below a group at any depth, or the exception alone."""
    stack: list[BaseException] = [] if exception is None else [exception]
    while stack:  # a loop, since a group may be nested deeper than the interpreter can recurse
        leaf = stack.pop()
        if isinstance(leaf, BaseExceptionGroup):
            stack.extend(reversed(cast("BaseExceptionGroup[BaseException]", leaf).exceptions))
        else:
            yield leaf


def is_cancellation(exception: BaseException) -> bool:
    """Whether this is a cancellation, or an exception group of nothing but cancellations."""
    return all(isinstance(leaf, (trio.Cancelled, FutureCancelledException)) for leaf in leaves(exception))
