"""Requests in flight on one connection, by key.

Two duties meet here, and each has a block of its own:

- A caller owes the map the removal of its entry. `FutureMap.expect` is that duty's block: the entry lives as long as
  the block does, however it ends, so the map holds only requests that somebody still waits for.
- The reader of the responses owes every caller an end. The map itself is that duty's block: when it ends, each future
  that is still pending fails, and so does each later `FutureMap.expect`. No caller waits for a reader that is gone.

What ended the reader's block is shared: it is the cause of each failure. The `FutureNeverSetException` between the two
is made anew for each future. Whoever raises an exception object adds to its traceback, its context and its notes; if
one object served all callers, each would see the frames of the others, and keep all that they hold alive.

The map keeps the exception that ended its reader's block, for callers that come later, and with it the frames in that
exception's traceback. So nothing that the reader calls here leaves the map in its frame when it raises. (A frame of the
reader's own that holds the map makes a reference cycle of the two.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from outcome import Value
from trio.lowlevel import enable_ki_protection

from ._checks import shown
from ._exceptions import FutureNeverSetException, FutureSetAgainException
from ._future import Future

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # Trio itself requires the backport on Python 3.10

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from outcome import Outcome
    from typing_extensions import Self

K = TypeVar("K")
T = TypeVar("T")


class FutureMap(Mapping[K, Future[T]]):
    """The requests in flight on one connection: futures that wait for their responses, by key.

    Each caller registers its request with `expect`. The one task that reads the responses settles them, and does so
    inside ``with requests:``, so that no caller hangs when the connection is gone: when that block ends, in whatever
    way, each request still pending fails, and each later one fails at once. Both fail alike: with a
    `TaskFailedException`, whose cause is a `FutureNeverSetException`, whose cause is the exception that ended the block
    (none where it just came to its end). Where the reader was cancelled, that is its `trio.Cancelled`; the requests
    were not cancelled, they failed.

    A map serves one connection: its block can be entered once. Requests may be registered before it is entered.

    It is a read-only mapping of the keys to their futures, in the order of registration. A key is anything hashable.

    Example:
        ::

            async def read_responses(self) -> None:
                with self.requests:
                    async for number, answer in responses(self.stream):
                        self.requests.set_result(number, answer)

            async def call(self, question: bytes) -> bytes:
                number = next(self.numbers)
                with self.requests.expect(number) as answer:
                    await self.send(number, question)
                    return await answer
    """

    __slots__ = ("__weakref__", "_begun", "_cause", "_ended", "_futures")

    def __init__(self) -> None:
        self._futures: dict[K, Future[T]] = {}
        self._begun = False
        self._ended = False
        self._cause: BaseException | None = None

    # ---- the callers' side

    def expect(self, key: K) -> AbstractContextManager[Future[T]]:
        """Register a request for the length of a ``with`` block, which yields its future.

        The entry is removed when the block ends, in whatever way. The future is left as it is. Where other tasks wait
        for it too, let the block settle it: ``with requests.expect(key) as future, future.must_set():``.

        Args:
            key: What the response will be known by.

        Returns:
            The context manager. Entering it makes the future and registers it.

        Raises:
            ValueError: On entering, if a request with this key is in flight already.
            TypeError: On entering, if the key is not hashable.
            TaskFailedException: On entering, if the reader's block has ended; as if the future were read then.
        """
        # Without an `__init__` to call, a request costs 10 % less.
        expected: _Expected[K, T] = _Expected()
        expected._map = self
        expected._key = key
        return expected

    # ---- the reader's side

    def set_result(self, key: K, result: T) -> bool:
        """Settle a request with a value.

        Returns:
            Whether a request was settled. False, with nothing changed, where the key is not in flight or its future is
            done: a late, repeated or unsolicited response is no mistake of the reader's.

        Raises:
            RuntimeError: If the future belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        try:
            future = self._futures.get(key)
            if future is None:
                return False
            future._settle(Value(result))
        except FutureSetAgainException:  # from `_settle` alone, since what callbacks raise comes in a group
            return False
        finally:
            del self
        return True

    def set_exception(self, key: K, exception: BaseException) -> bool:
        """Settle a request with an exception, which its reader gets as the cause of a `TaskFailedException`.

        Returns:
            Whether a request was settled, as `set_result` does.

        Raises:
            TypeError: If this is not an exception object.
            RuntimeError: If the future belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        try:
            future = self._pending(key)
            # The argument is checked, also where nobody waits.
            (Future[T]() if future is None else future).set_exception(exception)
            return future is not None
        finally:
            del self

    def set_outcome(self, key: K, outcome: Outcome[T]) -> bool:
        """Settle a request with the value or the exception of an `outcome.Outcome`, which stays as it is.

        Returns:
            Whether a request was settled, as `set_result` does.

        Raises:
            TypeError: If this is no outcome.
            RuntimeError: If the future belongs to another Trio run.
            BaseExceptionGroup: Of what its callbacks raised; the future is settled all the same.
        """
        try:
            future = self._pending(key)
            # The argument is checked, also where nobody waits.
            (Future[T]() if future is None else future).set_outcome(outcome)
            return future is not None
        finally:
            del self

    def _pending(self, key: K) -> Future[T] | None:
        try:
            future = self._futures.get(key)
            return None if future is None or future.is_done() else future
        finally:
            del self

    @enable_ki_protection
    def __enter__(self) -> Self:
        try:
            if self._begun:
                raise RuntimeError(
                    f"the reader's block of {self!r} was entered already, and a map serves one connection; "
                    "make a new FutureMap() for the next connection"
                )
            self._begun = True
            return self
        finally:
            del self

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        self._cause = error
        failures: list[BaseException] = []
        try:
            # A list, since a callback may end an `expect` block, and so take out its entry.
            for future in list(self._futures.values()):
                try:
                    if not future.is_done():
                        future.set_exception(self._never_set("before the response to this request came"))
                except BaseException as failure:  # noqa: ASYNC103, BLE001 - raised below with the others
                    failures.append(failure)
            if failures:
                told = "callbacks failed as requests were given up"
                raise BaseExceptionGroup(told, failures if error is None else [error, *failures])
        finally:
            del failures  # their tracebacks hold this frame

    def _never_set(self, when: str) -> FutureNeverSetException:
        never_set = FutureNeverSetException(f"the block that reads the responses ended {when}")
        never_set.__cause__ = self._cause
        return never_set

    def _refuse_late(self) -> None:
        future = Future[T]()
        future.set_exception(self._never_set("before this request was made"))
        future.result()

    # ---- the mapping

    def __getitem__(self, key: K) -> Future[T]:
        return self._futures[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._futures)

    def __len__(self) -> int:
        return len(self._futures)

    def __repr__(self) -> str:
        reader = "ended" if self._ended else "reading" if self._begun else "not begun"
        return f"{type(self).__name__}(in_flight={len(self._futures)}, reader={reader!r})"


class _Expected(Generic[K, T]):
    """The block of `FutureMap.expect`. With `contextlib.contextmanager` it would cost three times as much."""

    __slots__ = ("_future", "_key", "_map")

    _future: Future[T]
    _key: K
    _map: FutureMap[K, T]

    @enable_ki_protection
    def __enter__(self) -> Future[T]:
        if self._map._ended:
            self._map._refuse_late()
        future: Future[T] = Future()
        if self._map._futures.setdefault(self._key, future) is not future:
            raise ValueError(
                f"a request with the key {shown(self._key)} is in flight already; give each request a key of its own, "
                "or wait until the block of the first one has ended"
            )
        self._future = future
        return future

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        futures = self._map._futures
        if futures.get(self._key) is self._future:
            del futures[self._key]
