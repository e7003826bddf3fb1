"""Requests in flight on one connection, by key.

The rules that this file owns:

- A caller must remove its entry from the map, and if other tasks are waiting for its future, it must not leave them
  waiting forever. The block of `FutureMap.expect` takes care of both: however it ends, the entry is removed and the
  future is done.
- The task that reads the responses must not leave any caller waiting forever. The map's own block takes care of that:
  when it ends, each future that is still pending fails, and so does each later `FutureMap.expect`. No caller ever waits
  for a reader that is gone.
- Each of these futures gets an exception of its own. An exception object collects tracebacks, context and notes
  wherever it is raised. If callers shared one, each would see the others' frames, and keep everything in them alive.

For later callers, the map keeps the exception that ended the reader's block, and with it the frames of its traceback.
So a frame of this file that an exception passes through must not go on holding the map or a future. (If one of the
reader's own frames holds the map, that is a reference cycle, which we can't prevent.)
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from outcome import Error, Value
from trio.lowlevel import enable_ki_protection

from ._checks import check_exception, check_outcome, shown
from ._exceptions import FutureNeverSetException
from ._future import Future
from ._result import current_trio_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from outcome import Outcome
    from trio.lowlevel import TrioToken
    from typing_extensions import Self

K = TypeVar("K")
T = TypeVar("T")
FutureT = TypeVar("FutureT", bound=Future[Any])

_logger = logging.getLogger("triores")


class FutureMap(Mapping[K, Future[T]]):
    """The requests in flight on one connection: the futures of their responses, by key.

    Each caller registers its request with `expect`. One task reads the responses and settles the futures, inside ``with
    requests:``. When that block ends, however it ends, the connection is gone as far as callers are concerned: each
    request that is still pending fails, and each later one fails immediately. Both raise the same kind of exception, so
    one ``except`` around the caller's ``with`` line and its wait handles both.

    A map serves one connection: entering its block a second time raises a `RuntimeError`, as does entering it outside
    of a Trio run. Requests may be registered before the block begins.

    It is a read-only mapping from keys to futures, in the order of registration. Keys can be anything hashable. Since a
    map has state of its own, it only equals itself.

    Args:
        lost: A function that returns the exception for a request that is lost with the connection. It is called as
            ``lost(cause)``, with the exception that ended the reader's block, or None if the block ended normally. It
            is called once for each request, and has to return a new exception each time. If it raises an exception
            instead, the request gets that one. By default, requests fail with a `FutureNeverSetException` whose
            ``__cause__`` is the cause.

    Raises:
        TypeError: If ``lost`` isn't a synchronous function.

    Example:
        ::

            requests: FutureMap[int, bytes] = FutureMap(lost=ConnectionError)

            async def read_responses(stream: trio.abc.Stream) -> None:
                with requests:
                    async for number, answer in responses(stream):
                        requests.set_result(number, answer)

            async def call(number: int, question: bytes) -> bytes:
                with requests.expect(number) as answer:  # this may raise a ConnectionError
                    await send(number, question)
                    return await answer  # and so may this
    """

    __slots__ = ("__weakref__", "_cause", "_closed", "_futures", "_lost", "_token", "_traceback")

    def __init__(self, lost: Callable[[BaseException | None], BaseException] | None = None) -> None:
        if lost is not None and (not callable(lost) or inspect.iscoroutinefunction(lost)):
            raise TypeError(
                f"lost must be a synchronous function that returns an exception, not {shown(lost)}; "
                "call 'FutureMap(lost=lambda cause: ConnectionLost(...))'"
            )
        self._lost = lost
        self._futures: dict[K, Future[T]] = {}
        self._token: TrioToken | None = None  # the reader's run, once its block is entered
        self._closed = False
        self._cause: BaseException | None = None  # the exception that ended the reader's block, if any
        self._traceback: TracebackType | None = None  # the traceback of that exception, as it was then

    # ---- the callers' side

    @overload
    def expect(self, key: K) -> AbstractContextManager[Future[T]]: ...
    @overload
    def expect(self, key: K, future: FutureT) -> AbstractContextManager[FutureT]: ...
    def expect(self, key: K, future: Future[Any] | None = None) -> AbstractContextManager[Future[Any]]:
        """Register a request for the duration of a ``with`` block.

        When the block ends, however it ends, the entry is removed. If the future is still pending then, it gets a
        `FutureNeverSetException`, so other tasks that wait for it don't hang.

        Args:
            key: The key with which the reader will settle the request.
            future: The future to register, for example one of a subclass with more attributes; by default, a new one.

        Returns:
            A context manager. Entering it registers the future, and gives it to you.

        Raises:
            TypeError: On entering, if ``future`` isn't a `Future`, or the key isn't hashable.
            ValueError: On entering, if a pending future is registered under this key. A done one is replaced.
            RuntimeError: On entering, if the reader or the future belongs to another Trio run, or if you passed a
                pending future and there is no Trio run here.
            BaseException: On entering, if the reader's block has ended: the exception that ``lost`` returns.
        """
        expected: _Expected[K, Any] = _Expected()  # no `__init__`: calling it would be a large part of the cost
        expected._map = self
        expected._key = key
        expected._given = future
        return expected

    @property
    def closed(self) -> bool:
        """Whether the reader's block has ended. After that, you can't make any more requests."""
        return self._closed

    # ---- the reader's side

    def set_result(self, key: K, result: T) -> bool:
        """Settle a request with a value.

        Returns:
            True if this settled a request. If no request with this key is in flight, or its future is already done,
            this returns False and changes nothing: a late, repeated or unsolicited response isn't the reader's mistake.

        Raises:
            TypeError: If the key isn't hashable.
            RuntimeError: If the future belongs to another Trio run.
        """
        try:
            return self._settle(key, Value(result))
        finally:
            del self

    def set_exception(self, key: K, exception: BaseException) -> bool:
        """Settle a request with an exception, which its caller's ``await future`` raises.

        Returns:
            Whether a request was settled; see `set_result`.

        Raises:
            TypeError: If this isn't an exception object, or the key isn't hashable.
            RuntimeError: If the future belongs to another Trio run.
        """
        try:
            check_exception(exception)
            return self._settle(key, Error(exception))
        finally:
            del self

    def set_outcome(self, key: K, outcome: Outcome[T]) -> bool:
        """Settle a request with the value or exception of an `outcome.Outcome`.

        You can still unwrap that outcome later.

        Returns:
            Whether a request was settled; see `set_result`.

        Raises:
            TypeError: If this isn't an outcome, or the key isn't hashable.
            RuntimeError: If the future belongs to another Trio run.
        """
        try:
            check_outcome(outcome)
            return self._settle(key, outcome)
        finally:
            del self

    def _settle(self, key: K, outcome: Outcome[T]) -> bool:
        future = None
        try:
            future = self._futures.get(key)
            if future is None or future._outcome is not None:
                return False
            future._settle(outcome)
            return True
        finally:
            del self, future

    @enable_ki_protection
    def __enter__(self) -> Self:
        try:
            token = current_trio_token()
            if self._token is not None:
                raise RuntimeError(
                    f"the reader's block of {self!r} has already been entered, and a map serves only one connection; "
                    "make a new FutureMap() for the next connection"
                )
            if any(not future.is_done() and future.trio_token not in (None, token) for future in self.values()):
                self._refuse_elsewhere("be entered")
            self._token = token
            return self
        finally:
            del self

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._cause = error
        self._traceback = traceback
        to_raise: list[BaseException] = []
        future = None
        try:
            for future in list(self._futures.values()):  # a copy, since a callback may end an `expect` block
                try:
                    self._fail_if_pending(future)
                except BaseException as failure:  # noqa: ASYNC103, BLE001 # a SystemExit from a callback, for example; raised below
                    to_raise.append(failure)
            for more in to_raise[1:]:
                _logger.error("a callback of a lost request raised an exception", exc_info=more)
            if to_raise:
                raise to_raise[0]
        finally:
            to_raise.clear()  # the traceback of each of them holds this frame
            del self, error, traceback, future

    def _fail_if_pending(self, future: Future[T]) -> None:
        try:
            if not future.is_done():
                future._settle_if_pending(Error(self._lost_error("before the response to this request came")))
        finally:
            del self, future

    def _lost_error(self, when: str) -> BaseException:
        error: BaseException | None = None
        try:
            if self._lost is None:
                error = FutureNeverSetException(f"the block that reads the responses ended {when}")
                error.__cause__ = self._cause
                return error
            error = _exception_from(self._lost, self._cause)
            if error is self._cause:
                error.__traceback__ = self._traceback  # otherwise it would grow each time a caller raises it
            return error
        finally:
            del self, error  # if `lost` raised it, its traceback keeps this frame alive

    def _refuse_late(self) -> NoReturn:
        lost = Future[NoReturn]()
        try:
            lost._settle(Error(self._lost_error("before this request was made")))
            lost.unwrap()
        finally:
            del self, lost

    def _refuse_elsewhere(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{self!r} belongs to another Trio run, and can't {what} here; nothing was changed. "
            "Make a new FutureMap() in this run instead"
        )

    # ---- the mapping

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __getitem__(self, key: K) -> Future[T]:
        return self._futures[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._futures)

    def __len__(self) -> int:
        return len(self._futures)

    def __repr__(self) -> str:
        reader = "ended" if self._closed else "not started" if self._token is None else "reading"
        return f"{type(self).__name__}(in_flight={len(self._futures)}, reader={reader!r})"


def _exception_from(lost: Callable[[BaseException | None], object], cause: BaseException | None) -> BaseException:
    try:
        error = lost(cause)
    except BaseException as raised:  # noqa: ASYNC103, BLE001 # the request's caller gets it, whatever it is
        return raised  # noqa: ASYNC104 # the request is settled with it, or `expect` raises it
    finally:
        del lost, cause  # the exception's traceback keeps this frame alive, and everything it refers to
    if isinstance(error, BaseException):
        return error
    return TypeError(
        f"lost(cause) must return an exception object, not {shown(error)}; "
        "call 'FutureMap(lost=lambda cause: ConnectionLost(...))'"
    )


class _Expected(Generic[K, T]):
    """The block of `FutureMap.expect`. With `contextlib.contextmanager`, it would take three times as long."""

    __slots__ = ("_future", "_given", "_key", "_map")

    _map: FutureMap[K, Any]
    _key: K
    _given: Any  # a future, or None; checked on entering
    _future: Future[T]

    @enable_ki_protection
    def __enter__(self) -> Future[T]:
        try:
            if self._map._closed:
                self._map._refuse_late()
            future: Future[T] = Future() if self._given is None else self._checked(self._given)
            token = self._map._token
            if token is not None and future._token is not token and future._outcome is None:
                self._map._refuse_elsewhere("take a request")
            futures = self._map._futures
            held = futures.get(self._key)
            if held is not None:
                if not held.is_done():
                    held = None  # the traceback keeps this frame alive
                    raise ValueError(
                        f"a request with the key {shown(self._key)} is already in flight; give each request its own "
                        "key, or wait until the first one is done"
                    )
                del futures[self._key]  # so that the new one comes last
            futures[self._key] = self._future = future
            return future
        finally:
            del self

    def _checked(self, given: object) -> Future[T]:
        future: Any = given
        try:
            if not isinstance(given, Future):
                raise TypeError(
                    f"the future of a request must be a Future, not {shown(given)}; call 'requests.expect(key)', which "
                    "makes one for you"
                )
            if not future.is_done():
                future._claim(current_trio_token(), "registered")
            return future  # type: ignore[no-any-return] # it may be any subclass of Future
        finally:
            del self, given, future

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        futures, future = self._map._futures, self._future
        if futures.get(self._key) is future:
            del futures[self._key]
        if future._outcome is None:
            never_set = FutureNeverSetException("the block that expected this response ended before it came")
            future._settle_if_pending(Error(never_set))

    def __await__(self) -> NoReturn:
        self._refuse("await")

    def __aenter__(self) -> NoReturn:
        self._refuse("async with")

    __aexit__ = __aenter__  # Python wants it to exist, but never calls it

    def _refuse(self, how: str) -> NoReturn:
        raise TypeError(
            f"use 'expect' with 'with', not with '{how}': 'with requests.expect(key) as future:', and in the block, "
            "'await future'"
        )
