"""Helpers that several test modules share."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
from trio._core._run import Runner

from triores import ResultStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
    from types import FrameType

    from triores import ResultBase

T = TypeVar("T")
SOAK = "TRIORES_SOAK" in os.environ  # if it is set, the tests may take minutes


class Boom(Exception):
    """The exception that tests raise. Unlike built-in exceptions, it allows weak references."""


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The exceptions in a group, at any depth; or the exception itself, if it isn't a group."""
    parts: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if parts is not None:
        for part in parts:
            yield from leaves(part)
    elif error is not None:
        yield error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exceptions in a group, and the causes of each."""
    for leaf in leaves(error):
        yield leaf
        # Ctrl-C may come while another exception is being raised, and then replaces it.
        came_from = leaf.__context__ if isinstance(leaf, KeyboardInterrupt) else leaf.__cause__
        if came_from is not leaf:
            yield from causes(came_from)


def leaf_types(error: BaseException) -> list[type[BaseException]]:
    """The types of the exceptions in a group, at any depth."""
    return [type(leaf) for leaf in leaves(error)]


@contextmanager
def no_cycles() -> Generator[Callable[[Any], Any]]:
    """Check that reference counting alone frees some objects before the block ends.

    Pass each of them to the yielded function, which returns it. By the end of the block, the test must have dropped all
    of its references to them, so put the code into a function that you call, or run with Trio, inside the block.
    """
    if sys.implementation.name != "cpython":
        pytest.skip("only CPython frees objects by counting references")
    watched: list[weakref.ref[Any]] = []

    def watch(obj: Any) -> Any:
        watched.append(weakref.ref(obj))
        return obj

    gc.disable()
    try:
        yield watch
        assert watched, "nothing was watched"
        alive = [obj for ref in watched if (obj := ref()) is not None]
        assert not alive
    finally:
        gc.enable()


_reschedule = Runner.reschedule  # Trio's own method


@contextmanager
def no_task_rescheduled_twice() -> Generator[None]:
    """Fail if Trio refuses to reschedule a task in the block, even if something hides Trio's `AssertionError`."""
    refused: list[AssertionError] = []

    def reschedule(runner: Runner, *args: Any) -> None:
        try:
            _reschedule(runner, *args)
        except AssertionError as error:
            refused.append(error)
            raise

    before = Runner.reschedule
    Runner.reschedule = reschedule  # type: ignore[method-assign, assignment] # restored below
    try:
        yield
    finally:
        Runner.reschedule = before  # type: ignore[method-assign] # restores Trio's own method
    assert not refused, "a task that wasn't asleep was rescheduled"


def is_free(result: ResultBase[Any]) -> bool:
    """Whether a result has neither waiters nor callbacks."""
    return result.statistics() == ResultStatistics(waiters=0, callbacks=0)


async def in_foreign_thread(fn: Callable[[], T]) -> T:
    """Call a function in a thread outside the Trio run."""
    return await trio.to_thread.run_sync(fn)


async def in_foreign_run(async_fn: Callable[[], Awaitable[T]]) -> T:
    """Run an async function in another Trio run, in another thread."""
    return await trio.to_thread.run_sync(trio.run, async_fn)


@contextmanager
def traced_by(trace: Callable[[FrameType, str, Any], Any]) -> Generator[None]:
    """Trace this thread inside the block; afterwards, restore the previous trace function, such as coverage's."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def seed_scheduler(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the order in which Trio runs the tasks of a tick depend only on the seed."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio._core._run._r.seed(seed)
