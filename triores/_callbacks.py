"""The callbacks of results: their order, their contexts, and what happens if one of them raises an exception.

They run after all other waiters of their result have been notified, in order of registration. Only the outermost call
that settles a result runs them: if a callback settles another result, that result's callbacks run right after it,
before the ones that are still queued. So a chain of futures, each settled by a callback of the one before, doesn't make
the stack deeper, and no context is entered twice.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ._checks import name_of

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Sequence

_logger = logging.getLogger("triores")


class Callback:
    """A waiter that queues a function call."""

    __slots__ = ("context", "fn", "result")

    def __init__(self, fn: Callable[[Any], object], context: contextvars.Context) -> None:
        self.result: object = None  # set once the result is done; earlier, it would make a reference cycle
        self.fn = fn
        self.context = context

    def settled(self, result: object, /) -> None:
        """Queue the call for the next time that `calls` runs."""
        self.result = result
        calls.new.append(self)

    def call(self, logged: type[BaseException]) -> None:
        """Call the function in its context, and log any exceptions of this type."""
        try:
            self.context.run(nothing)
        except RuntimeError:  # the code that settles the result is running in this context, so we can't enter it again
            self.context = self.context.copy()
        try:
            self.context.run(self.fn, self.result)
        except logged:
            _logger.exception("callback %s of %s failed", name_of(self.fn), repr(self.result))


class _Calls(threading.local):
    """The callbacks that this thread still has to call."""

    def __init__(self) -> None:
        self._running = False
        self._queue: deque[Callback] = deque()
        self.new: list[Callback] = []  # to be called right after the current callback

    def waiting(self) -> Sequence[Callback]:
        """Return all of these callbacks, in order."""
        return *self._queue, *self.new

    def run(self) -> None:
        """Call them all, unless this was called by one of them."""
        if self._running:
            return
        self._running = True
        to_raise: BaseException | None = None
        try:
            while self._queue or self.new:
                while self.new:  # one at a time, since a finalizer may add more at any time
                    self._queue.appendleft(self.new.pop())
                callback = self._queue.popleft()
                try:
                    callback.call(logged=Exception if to_raise is None else BaseException)
                except BaseException as error:  # noqa: ASYNC103, BLE001 # raised once all callbacks have run
                    if to_raise is None:
                        to_raise = error  # only the first: if logging fails, it may fail for each callback
                del callback  # a traceback keeps this frame alive
            if to_raise is not None:
                raise to_raise
        finally:
            self._running = False
            del to_raise


def nothing(*_args: object) -> None:
    """Do nothing."""


calls = _Calls()
