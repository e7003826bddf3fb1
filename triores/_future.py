"""A future: a result that is settled by hand."""

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
    """A result that is settled by hand, once.

    Like every result, it belongs to the Trio run that it was made in; see `ResultBase`. From another thread, settle it
    with ``trio.from_thread.run_sync(future.set_result, value, trio_token=future.trio_token)``.

    Example:
        A task that reads a connection settles what another task waits for::

            future = Future[bytes]()
            requests[number] = future
            await stream.send_all(request)
            response = await future
    """

    __slots__ = ()

    def set_result(self, result: T) -> None:
        """Settle the future with a value.

        Raises:
            FutureSetAgainException: If it is settled already.
            RuntimeError: If it belongs to another Trio run.
        """
        self._settle(Value(result))

    def set_exception(self, exception: BaseException) -> None:
        """Settle the future with an exception, which ``await future`` raises.

        Raises:
            TypeError: If this isn't an exception object.
            FutureSetAgainException: If the future is settled already.
            RuntimeError: If it belongs to another Trio run.
        """
        check_exception(exception)
        self._settle(Error(exception))

    def set_outcome(self, outcome: Outcome[T]) -> None:
        """Settle the future with the value or the exception of an `outcome.Outcome`, which stays as it is.

        Raises:
            TypeError: If this isn't an outcome.
            FutureSetAgainException: If the future is settled already.
            RuntimeError: If it belongs to another Trio run.
        """
        check_outcome(outcome)
        self._settle(outcome)

    def cancel(self, reason: str | None = None) -> bool:
        """Settle the future with a `FutureCancelledException`, unless it is done.

        This cancels no task: a task that works on the answer can check ``future.cancelled()`` or add a callback.

        Args:
            reason: Why, for the exception's message and its ``reason``.

        Returns:
            Whether this call settled the future, so False if it was already done.

        Raises:
            TypeError: If the reason isn't a string.
            RuntimeError: If the future is pending and belongs to another Trio run.
        """
        check_reason(reason)
        if self.is_done():
            return False
        self._settle(Error(FutureCancelledException(reason)))
        return True

    def must_set(self) -> AbstractContextManager[Self]:
        """Tie the duty to settle this future to a ``with`` block, which yields the future.

        If the block ends while the future is pending, the future gets the exception that ended the block, or a
        `FutureNeverSetException` if none did. The exception itself goes on.

        Returns:
            The context manager.

        Example:
            ::

                with future.must_set():
                    future.set_result(await stream.receive_some())
        """
        return _MustSet(self)

    def _is_cancellation(self, error: BaseException) -> bool:
        return isinstance(error, FutureCancelledException) or super()._is_cancellation(error)


class _MustSet(Generic[FutureT]):
    # Not a generator: Ctrl-C could come in contextlib's code, which isn't protected, and leave the future pending.

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
            self._future._settle(Error(FutureNeverSetException() if error is None else error))


def copied(error: BaseException | None, value: Any) -> Future[Any]:
    """Return a done future: what a copy of a result is made with."""
    future = Future[Any]()
    future._settle(Value(value) if error is None else Error(error))
    return future
