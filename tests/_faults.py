"""The engine of the fault tests: a scenario is run again and again, and at each moment in turn one thing goes wrong.

A scenario is an async function that uses the package. It says, through the `Watch` that it is given, what has to hold
when it has ended, in whatever way: which results must be done, that nothing stays registered on them, which tables must
be empty. The engine checks the rest: that no task is left, nothing hangs, no cancellation is swallowed, and that what
was injected arrives somewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import gc
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import trio
from _helpers import Boom, is_free
from trio.testing import MockClock

import triores

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sized
    from types import CodeType, FrameType

    import pytest

R = TypeVar("R", bound=triores.ResultBase[Any])
T = TypeVar("T")

Scenario: TypeAlias = "Callable[[Watch], Awaitable[None]]"
Place: TypeAlias = "tuple[CodeType, str, int]"

PACKAGE = str(Path(triores.__file__).parent)
TRIO = str(Path(trio.__file__).parent)
SOAK = "TRIORES_SOAK" in os.environ
A_DAY = 86_400  # seconds of a mock clock: whoever still waits then would wait for ever

injected: Counter[str] = Counter()  # how many faults of each kind there were, in this process


class Fault:
    """What goes wrong in one run."""

    kind: str
    fired = False

    def install(self, watch: Watch) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


class Nothing(Fault):
    kind = "none"


class CountingSteps(Fault, trio.abc.Instrument):
    """Something that goes wrong just before the k-th step of any task of the scenario."""

    def __init__(self, k: int) -> None:
        self.left = k

    @contextlib.contextmanager
    def install(self, watch: Watch) -> Generator[None]:
        self.watch = watch
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            with contextlib.suppress(KeyError):
                trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == -1:
            self.fired = True
            self.fire()

    def fire(self) -> None:
        raise NotImplementedError


class Cancelling(CountingSteps):
    """The scope around the scenario is cancelled."""

    kind = "cancelled at a step"

    def fire(self) -> None:
        self.watch.stopped_at = trio.current_time()
        self.watch.scope.cancel(reason="a fault test")


class InterruptingSteps(CountingSteps):
    """Ctrl-C is pressed between two steps."""

    kind = "Ctrl-C at a step"

    def fire(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Failing(Fault):
    """A routine of the scenario raises in place of its k-th checkpoint."""

    kind = "exception at a checkpoint"

    def __init__(self, k: int) -> None:
        self.left = k

    def install(self, watch: Watch) -> contextlib.AbstractContextManager[object]:
        watch.failing = self
        return contextlib.nullcontext()

    def checkpoint(self, watch: Watch) -> None:
        self.left -= 1
        if self.left == -1:
            self.fired = True
            watch.boom = Boom("injected")
            raise watch.boom


_press = ctypes.pythonapi.PyErr_SetInterrupt
_press.argtypes = [ctypes.py_object]  # which it ignores
_press.restype = None


class Keyboard:
    """Reading an attribute is how Ctrl-C is pressed: at that, unlike at a call, the interpreter looks for no signals.

    So it finds this one where it looks next by itself, in the code under test.
    """

    ctrl_c = property(_press)


class InterruptingPlaces(Fault):
    """Ctrl-C is pressed at a place in the package's code at which it was not pressed before.

    The interpreter looks for signals as a function begins, as a call of a C function returns, and as a loop turns back.
    It is pressed before each instruction that does any of these.
    """

    kind = "Ctrl-C at a place in the code"

    def __init__(self, done: set[Place], one_in: int = 1) -> None:
        self.done = done
        self.one_in = one_in
        self.keyboard = Keyboard()
        self.place: Place | None = None

    @contextlib.contextmanager
    def install(self, watch: Watch) -> Generator[None]:
        tracing, self.handler = sys.gettrace(), signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self.handle)
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(tracing)
            signal.signal(signal.SIGINT, self.handler)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Trio's handler, but where the signal is found in the scenario's own code, it waits for the next checkpoint.

        As an ``async with`` block of a user's ends, Ctrl-C may come between the call of ``__aexit__`` and its first
        step. Then Trio loses the nursery, and nobody can do anything about that.
        """
        assert callable(self.handler)
        ours = frame is not None and frame.f_code.co_filename.startswith((PACKAGE, TRIO))
        self.handler(signum, frame if ours else None)

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return None
        if event == "call":
            frame.f_trace_opcodes = True
        elif event != "opcode" or frame.f_lasti not in places_of(code):
            return self.trace
        place = (code, event, frame.f_lasti)
        if place not in self.done and (frame.f_lasti // 2 + code.co_firstlineno) % self.one_in == 0:
            self.done.add(place)
            self.place = place
            self.fired = True
            sys.settrace(None)  # or the next call of this function would be where the interpreter looks for signals
            self.keyboard.ctrl_c
        return self.trace

    def __repr__(self) -> str:
        if self.place is None:
            return "no place"
        code, event, offset = self.place
        lines = [line for start, end, line in code.co_lines() if start <= offset < end]
        return f"{code.co_name}, line {lines}, {event} at {offset}"


_places: dict[CodeType, set[int]] = {}


def places_of(code: CodeType) -> set[int]:
    """The instructions at which the interpreter looks for signals."""
    if code not in _places:
        _places[code] = {
            instruction.offset
            for instruction in dis.get_instructions(code)
            if instruction.opname.startswith(("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE"))
            and not instruction.opname.startswith(("CALL_INTRINSIC", "JUMP_BACKWARD_NO_INTERRUPT"))
        }
    return _places[code]


class Watch:
    """What a scenario has to be looked at for, in one run of it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.failing: Failing | None = None
        self.boom: Boom | None = None  # what was injected
        self.sour: list[Boom] = []  # what routines raised as they were cancelled
        self.drops_failures = False  # by design, so that an exception need not arrive anywhere
        self.stopped_at: float | None = None  # when the scope was cancelled
        self.may_take_time = False  # after it was cancelled
        self.completed = False
        self.is_faulty = False  # whether anything is to go wrong in this run
        self._checkpoints = 0
        self._owed: list[triores.ResultBase[Any]] = []
        self._free: list[triores.ResultBase[Any]] = []
        self._tables: list[Sized] = []
        self._told: list[BaseException] = []
        self._handed_out: list[concurrent.futures.Future[Any]] = []

    def free(self, result: R) -> R:
        """At the end nothing may be registered on this result."""
        self._free.append(result)
        return result

    def owed(self, result: R) -> R:
        """The same, and it has to be done."""
        self._owed.append(result)
        return self.free(result)

    def empty(self, table: Sized) -> None:
        self._tables.append(table)

    def handed_out(self, future: concurrent.futures.Future[T]) -> concurrent.futures.Future[T]:
        """Once the run is over, this has to be done."""
        self._handed_out.append(future)
        return future

    def tell(self, error: BaseException) -> None:
        """Somebody has been told of this exception, so it is not lost."""
        self._told.append(error)

    async def checkpoint(self) -> None:
        """The checkpoint of a routine, at which it may be made to fail."""
        self._checkpoints += 1
        assert self._checkpoints < 1000, "it goes round in circles"
        if self.failing is not None:
            self.failing.checkpoint(self)
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        if self.failing is not None:
            self.failing.checkpoint(self)
        await trio.sleep(seconds)

    async def value(self, value: T, *, steps: int = 1) -> T:
        """A routine, of a few steps."""
        for _ in range(steps):
            await self.checkpoint()
        return value

    @contextlib.contextmanager
    def call(self) -> Generator[None]:
        """Around one public call: where it is cancelled, and nothing else goes wrong, that is what leaves it."""
        try:
            yield
        except BaseException as error:
            if all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
                assert type(error) is trio.Cancelled, f"cancelled by {error!r}"
            raise

    def check_after_the_run(self) -> None:
        assert all(future.done() for future in self._handed_out), "a thread would wait for a run that has ended"

    def check(self, raised: BaseException | None) -> None:
        for leaf in leaves(raised):
            if isinstance(leaf, AssertionError):
                raise leaf  # the scenario's own
        forget_traced_variables(raised)
        for result in self._owed:
            assert result.is_done() or never_begun(result, raised), f"{result!r} was never settled"
        for result in self._free:
            assert is_free(result) or never_begun(result, raised), f"something is registered on {result!r} still"
        for table in self._tables:
            assert not len(table), f"{table!r} is not empty"
        if self.stopped_at is not None and not self.may_take_time:
            assert trio.current_time() == self.stopped_at, "the cancellation was swallowed: something waited on"
        for leaf in leaves(raised):
            if not isinstance(
                leaf, (Boom, triores.TaskFailedException, triores.FutureNeverSetException, KeyboardInterrupt)
            ):
                raise AssertionError("a wrong exception") from raised
        self._check_that_nothing_is_lost([*causes(raised)])

    def _check_that_nothing_is_lost(self, arrived: list[BaseException]) -> None:
        if self.drops_failures:
            return
        for result in self._free:
            if result.is_done():
                arrived += causes(result.exception())
        for told in self._told:
            arrived += causes(told)
        for boom in [*self.sour, *([] if self.boom is None else [self.boom])]:
            assert any(error is boom for error in arrived), f"{boom!r} was lost"


def forget_traced_variables(error: BaseException | None) -> None:
    """Before Python 3.13, tracing copies the variables of a frame, and what is deleted lives on in the copy.

    Looking at the copy brings it up to date.
    """
    seen: set[int] = set()
    stack = [error]
    while stack:
        if (error := stack.pop()) is None or id(error) in seen:
            continue
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            stack += [value for value in frame.f_locals.values() if isinstance(value, BaseException)]
        stack += [error.__context__, error.__cause__, *getattr(error, "exceptions", ())]


def never_begun(result: triores.ResultBase[Any], raised: BaseException | None) -> bool:
    """Whether Ctrl-C ended the task of a capture before its first line, as it may end any task."""
    if not isinstance(result, triores.ResultCapture):
        return False
    for leaf in leaves(raised):
        if isinstance(leaf, KeyboardInterrupt):
            ours = [
                (frame.f_code, line)
                for frame, line in traceback.walk_tb(leaf.__traceback__)
                if frame.f_code.co_filename.startswith(PACKAGE)
            ]
            if ours in ([(code, code.co_firstlineno)] for code in BEGINNINGS):
                return True
    return not result._started


_capture: Any = triores.ResultCapture
BEGINNINGS = [_capture._capture.__code__]


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The exceptions in a group, at any depth, or the one exception."""
    parts: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if parts is not None:
        for part in parts:
            yield from leaves(part)
    elif error is not None:
        yield error


def causes(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    """The exceptions in a group, at any depth, and those that they come from."""
    for leaf in leaves(error):
        if id(leaf) in seen:  # an interrupt that Trio raised again may be its own context
            continue
        yield leaf
        # Ctrl-C may come while another exception is on its way, and takes its place.
        came_from = leaf.__context__ if isinstance(leaf, KeyboardInterrupt) else leaf.__cause__
        yield from causes(came_from, seen | {id(leaf)})


def tasks() -> Counter[str]:
    """The names of all tasks of this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: Counter[str] = Counter()
    stack = [root]
    while stack:
        task = stack.pop()
        found[task.name] += 1
        stack.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


async def run_once(scenario: Scenario, fault: Fault, watch: Watch) -> BaseException | None:
    """One run, inside Trio's. Returns what it raised."""
    watch.is_faulty = not isinstance(fault, Nothing)
    before = tasks()
    raised: BaseException | None = None
    limit = trio.move_on_after(A_DAY)
    try:
        with limit, fault.install(watch), watch.scope:
            await scenario(watch)
            watch.completed = True
    except BaseException as error:
        raised = error
    assert not limit.cancelled_caught, "it hangs"
    after = tasks()
    after.pop("triores: end of run", None)  # a run's own, made by the first to need it
    before.pop("triores: end of run", None)
    assert after == before, f"tasks are left: {after - before}"
    assert watch.completed or raised is not None or watch.scope.cancelled_caught
    watch.check(raised)
    injected[fault.kind] += fault.fired
    if not fault.fired or isinstance(fault, Cancelling):
        assert raised is None or watch.sour, raised
    return raised


@contextlib.contextmanager
def nothing_unraisable(tolerated: str | None) -> Generator[None]:
    """Fail where Python could only print something, such as that a coroutine was never awaited."""
    seen: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda info: seen.append(f"{info.exc_value!r} in {info.object!r}")
    try:
        yield
    finally:
        sys.unraisablehook = before
    seen = [text for text in seen if tolerated is None or tolerated not in text]
    assert not seen, seen


def run_trial(scenario: Scenario, fault: Fault, seed: int, tolerated: str | None = None) -> bool:
    """One run under one seed of Trio's scheduler. Returns whether the fault came about."""
    trio._core._run._r.seed(seed)
    interrupted = isinstance(fault, (InterruptingSteps, InterruptingPlaces))
    raised: list[BaseException] = []
    watch = Watch()

    async def main() -> None:
        if (error := await run_once(scenario, fault, watch)) is not None:
            raised.append(error)

    try:
        with nothing_unraisable(tolerated):
            try:
                trio.run(main, clock=MockClock(autojump_threshold=0))
            except KeyboardInterrupt as error:  # Trio's own, where it came too late for the scenario
                raised.append(error)
        watch.check_after_the_run()
        if interrupted and fault.fired:
            assert any(isinstance(leaf, KeyboardInterrupt) for error in raised for leaf in leaves(error)), "swallowed"
        return fault.fired
    except BaseException as error:
        told = f"{scenario} under seed {seed}: {fault.kind}, {fault!r}"
        raise AssertionError(told) from error
    finally:
        raised.clear()


def run_trials(
    scenario: Scenario, make_fault: Callable[[int], Fault], seeds: range, tolerated: str | None = None
) -> None:
    """A run for each moment at which something may go wrong, under each of the seeds."""
    for seed in seeds:
        run_trial(scenario, Nothing(), seed, tolerated)
        moment = 0
        while run_trial(scenario, make_fault(moment), seed, tolerated):
            moment += 1
    if tolerated is not None:
        with nothing_unraisable(tolerated):
            gc.collect()


def order_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the seed decide in which order Trio runs the tasks of a tick."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
