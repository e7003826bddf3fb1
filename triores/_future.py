"""A future: a result that is settled by hand."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from outcome import Error, Value
from trio.lowlevel import enable_ki_protection

from ._exceptions import FutureCancelledException, FutureNeverSetException
from ._result import ResultBase, shown

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from outcome import Outcome
    from typing_extensions import Self

T = TypeVar("T")
FutureT = TypeVar("FutureT", bound="Future[Any]")


class Future(ResultBase[T]):
    """A result that is settled by hand, once, by whoever owes it.

    It may be made anywhere, also outside a Trio run. From another thread, settle it with
    ``trio.from_thread.run_sync(future.set_result, value, trio_token=...)``.

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
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        self._settle(result)

    def set_exception(self, exception: BaseException) -> None:
        """Settle the future with an exception, which ``result()`` gives as the cause of a `TaskFailedException`.

        Raises:
            TypeError: If this is not an exception object.
            FutureSetAgainException: If it is settled already.
            RuntimeError: If it belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        check_exception(exception)
        self._settle_error(exception)

    def set_outcome(self, outcome: Outcome[T]) -> None:
        """Settle the future with the value or the exception of an `outcome.Outcome`, which stays as it is.

        Raises:
            TypeError: If this is no outcome.
            FutureSetAgainException: If the future is settled already.
            RuntimeError: If it belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        if isinstance(outcome, Value):
            self.set_result(outcome.value)
        elif isinstance(outcome, Error):
            self.set_exception(outcome.error)
        else:
            raise TypeError(
                f"an outcome is an outcome.Value or an outcome.Error, not {shown(outcome)}; "
                "call 'set_outcome(outcome.Value(value))', or 'set_result(value)'"
            )

    def cancel(self, reason: str | None = None) -> bool:
        """Settle the future with a `FutureCancelledException`, unless it is done.

        This cancels no task: who works on the answer finds out by ``future.cancelled()``, or by a callback.

        Args:
            reason: Why, for the exception's message and its ``reason``.

        Returns:
            Whether this call settled the future, so False where it was done already.

        Raises:
            TypeError: If the reason is no text.
            RuntimeError: If the future belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        if reason is not None and not isinstance(reason, str):
            raise TypeError(
                f"the reason of a cancellation is a text, not {shown(reason)}; call 'future.cancel(\"why\")'"
            )
        if self.is_done():
            return False
        self._settle_error(FutureCancelledException(reason))
        return True

    def must_set(self) -> AbstractContextManager[Self]:
        """Tie the duty to settle this future to a ``with`` block, which yields the future.

        If the block ends while the future is pending, the future gets the exception that ended it, or a
        `FutureNeverSetException` where none did. The exception itself goes on.

        Returns:
            The context manager.

        Example:
            ::

                with future.must_set():
                    future.set_result(await stream.receive_some())
        """
        return _MustSet(self)


class _MustSet(Generic[FutureT]):
    __slots__ = ("_future",)

    def __init__(self, future: FutureT) -> None:
        self._future = future

    def __enter__(self) -> FutureT:
        return self._future

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._future.is_done():
            return
        if error is None:
            self._future._settle_error(FutureNeverSetException())
        else:
            self._future._settle_error(error, going_on=True)


def check_exception(exception: object) -> None:
    """Refuse what is no exception object."""
    if not isinstance(exception, BaseException):
        right = f"{exception.__name__}()" if inspect.isclass(exception) else "ValueError('what went wrong')"
        raise TypeError(f"a future is given an exception object, not {shown(exception)}; call 'set_exception({right})'")
