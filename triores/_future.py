"""Futures: results that you settle by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from outcome import Error, Value
from trio.lowlevel import enable_ki_protection

from ._checks import check_exception, check_outcome, check_reason
from ._exceptions import FutureCancelledException, FutureNeverSetException
from ._result import ResultBase

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from outcome import Outcome
    from typing_extensions import Self

T = TypeVar("T")
FutureT = TypeVar("FutureT", bound="Future[Any]")


class Future(ResultBase[T]):
    """A result that you settle by hand, and only once.

    Like every result, it belongs to the Trio run it was made in; see `ResultBase`. From another thread, settle it with
    ``trio.from_thread.run_sync(future.set_result, value, trio_token=future.trio_token)``.

    Example:
        One task sends a request and waits; the task that reads the connection settles the future::

            future = Future[bytes]()
            requests[number] = future
            await stream.send_all(request)
            response = await future
    """

    __slots__ = ()

    def set_result(self, result: T) -> None:
        """Settle the future with a value.

        Raises:
            FutureSetAgainException: If it is already settled.
            RuntimeError: If it belongs to another Trio run.
        """
        self._settle(Value(result))

    def set_exception(self, exception: BaseException) -> None:
        """Settle the future with an exception, which ``await future`` raises.

        Raises:
            TypeError: If this isn't an exception object.
            FutureSetAgainException: If the future is already settled.
            RuntimeError: If it belongs to another Trio run.
        """
        check_exception(exception)
        self._settle(Error(exception))

    def set_outcome(self, outcome: Outcome[T]) -> None:
        """Settle the future with the value or exception of an `outcome.Outcome`.

        You can still unwrap that outcome later.

        Raises:
            TypeError: If this isn't an outcome.
            FutureSetAgainException: If the future is already settled.
            RuntimeError: If it belongs to another Trio run.
        """
        check_outcome(outcome)
        self._settle(outcome)

    def cancel(self, reason: str | None = None) -> bool:
        """Settle the future with a `FutureCancelledException`, unless it is already done.

        This doesn't cancel any task. A task that is working on the result can check ``future.cancelled()``, or add a
        callback.

        Args:
            reason: Why you're cancelling the future. This becomes the exception's ``reason``, and part of its message.

        Returns:
            True if this call settled the future; False if it was already done.

        Raises:
            TypeError: If the reason is neither a string nor None.
            RuntimeError: If the future is pending and belongs to another Trio run.
        """
        check_reason(reason)
        return self._settle_if_pending(Error(FutureCancelledException(reason)))

    def must_set(self) -> AbstractContextManager[Self]:
        """Make sure that this future is settled by the end of a ``with`` block.

        If the future is still pending when the block ends, it gets the exception that ended the block, or a
        `FutureNeverSetException` if there was none. The block's own exception propagates as usual.

        Returns:
            A context manager. Entering it gives you the future.

        Example:
            ::

                with future.must_set():
                    future.set_result(await stream.receive_some())
        """
        return _MustSet(self)

    def _is_cancellation(self, error: BaseException) -> bool:
        return isinstance(error, FutureCancelledException) or super()._is_cancellation(error)


class _MustSet(Generic[FutureT]):
    # Not a generator: Ctrl-C could hit contextlib's code, which isn't protected from it, and leave the future pending.

    __slots__ = ("_future",)

    def __init__(self, future: FutureT) -> None:
        self._future = future

    def __enter__(self) -> FutureT:
        return self._future

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._future.is_done():
            self._future._settle_if_pending(Error(FutureNeverSetException() if error is None else error))


def copied(error: BaseException | None, value: Any) -> Future[Any]:
    """Return a done future with this exception or value. Copying or unpickling a result calls this."""
    future = Future[Any]()
    future._settle(Value(value) if error is None else Error(error))
    return future
