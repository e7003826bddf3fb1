"""What tasks and threads are doing right now: their frames, and what those hold.

We use `gc.get_referents` to find out what a suspended coroutine holds. Its ``f_locals`` contain the same objects, but
before Python 3.13, reading them keeps every local variable alive as long as the frame.
"""

from __future__ import annotations

import concurrent.futures
import gc
import signal
import sys
import threading
from functools import lru_cache
from pathlib import Path
from types import CellType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.lowlevel import Task

_MAX_FRAMES = 1000  # how many coroutines of one task, or frames of one thread, to look at


class Step(NamedTuple):
    """One of the coroutines that a task is inside of."""

    library: str  # whose code it is: "trio", "triores", or "" for the user's
    frame: FrameType
    coroutine: object

    @property
    def held(self) -> list[Any]:
        """Its local variables, and the methods that will end its ``with`` blocks."""
        return held_by(self.coroutine)


def steps_of(task: Task) -> Iterator[Step]:
    """Yield the coroutines and awaited generators that a task is inside of, from the outermost inwards."""
    awaiting: Any = task.coro
    for _ in range(_MAX_FRAMES):
        frame, following = _frame_and_next(awaiting)
        if frame is not None:
            yield Step(library_of(frame.f_code.co_filename), frame, awaiting)
        if following is None:
            return
        awaiting = following


def _frame_and_next(awaiting: Any) -> tuple[FrameType | None, Any]:
    if hasattr(awaiting, "cr_frame"):
        return awaiting.cr_frame, awaiting.cr_await
    if hasattr(awaiting, "gi_frame"):
        return awaiting.gi_frame, awaiting.gi_yieldfrom
    if hasattr(awaiting, "ag_frame"):
        return awaiting.ag_frame, awaiting.ag_await
    # This is a wrapper, such as what a coroutine's `__await__` or an async generator's `asend` returns.
    return None, next((one for one in gc.get_referents(awaiting) if _has_frame(one)), None)


def _has_frame(obj: object) -> bool:
    return any(hasattr(obj, name) for name in ("cr_frame", "gi_frame", "ag_frame"))


def held_by(coroutine: object) -> list[Any]:
    """Return the local variables of a suspended coroutine, and the methods that will end its ``with`` blocks."""
    held: list[Any] = gc.get_referents(coroutine)
    held += gc.get_referents(*[one for one in held if type(one) is FrameType])  # in Python 3.10
    held += gc.get_referents(*[one for one in held if type(one) is CellType])
    return held


@lru_cache(maxsize=10_000)
def library_of(filename: str) -> str:
    """Return which of `_LIBRARIES` a file belongs to, or an empty string."""
    return next((name for name, directory in _LIBRARIES.items() if filename.startswith(directory)), "")


_LIBRARIES = {
    name: str(Path(file).parent / "_").removesuffix("_")
    for name, file in (
        ("triores", __file__),
        ("trio", str(trio.__file__)),
        ("concurrent.futures", concurrent.futures.__file__),
    )
}


def _is_of_python(filename: str) -> bool:
    return filename.startswith(_STANDARD_LIBRARY) and "site-packages" not in filename


_STANDARD_LIBRARY = str(Path(threading.__file__).parent / "_").removesuffix("_")


class Place(NamedTuple):
    """A line of code that something is running or waiting in."""

    file: str
    line: int
    function: str


def place_of(frame: FrameType) -> Place:
    """Return the line that a frame is in."""
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


# ---- threads: nothing here may keep a reference to a frame; one of them is our own, and would keep itself alive


def places_on_stacks() -> dict[int, Place]:
    """Map the id of each frame on a thread's stack to the place in the user's code that the thread has reached."""
    found: dict[int, Place] = {}
    for ident in list(sys._current_frames()):
        ids, places = _ids_and_places(sys._current_frames().get(ident))
        found |= dict.fromkeys(ids, next((place for place in places if not library_of(place.file)), places[0]))
    return found


def _ids_and_places(innermost: FrameType | None) -> tuple[list[int], list[Place]]:
    try:
        stack = [(id(frame), place_of(frame)) for frame in _outwards(innermost)]
        return [one for one, _ in stack], [place for _, place in stack] or [Place("", 0, "")]
    finally:
        del innermost


def place_of_thread(name_end: str) -> str:
    """Describe what the thread whose name ends like this is doing. Return an empty string if there isn't just one."""
    threads = [thread for thread in threading.enumerate() if thread.name.endswith(name_end)]
    if len(threads) != 1:
        return ""
    return _in_words(threads[0].name, sys._current_frames().get(threads[0].ident or 0))


def place_of_call(future: object) -> str:
    """Describe the place that an executor's call has reached, if a thread of this process is running it."""
    for thread in threading.enumerate():
        if _runs(sys._current_frames().get(thread.ident or 0), future):
            return _in_words(thread.name, sys._current_frames().get(thread.ident or 0))
    return ""


def _runs(innermost: FrameType | None, future: object) -> bool:
    """Return whether a thread is running a future's call."""
    try:
        return any(
            # It's fine to read `f_locals` here: the frame belongs to the standard library, and keeps `self` until it
            # ends.
            library_of(frame.f_code.co_filename) == "concurrent.futures"
            and getattr(frame.f_locals.get("self"), "future", None) is future
            for frame in _outwards(innermost)
        )
    finally:
        del innermost


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _in_words(name: str, frame: FrameType | None) -> str:
    if frame is None:
        return f" (thread {name[:100]!r})"
    places = [place_of(one) for one in _outwards(frame)]
    place = next((place for place in places if not _is_of_python(place.file)), places[0])
    return f' (thread {name[:100]!r} is in {place.function}, File "{place.file}", line {place.line})'


# ---- signals


def handles_signals() -> bool:
    """Return whether the program has signal handlers of its own, which may settle any result or set any event."""
    handlers = [signal.getsignal(signum) for signum in signal.valid_signals()]
    return any(
        callable(handler)
        and handler is not signal.default_int_handler
        and not (type(handler) is FunctionType and library_of(handler.__code__.co_filename))
        for handler in handlers
    )
