"""Random programs whose tasks wait for one another, which show for which waits the check for cycles raises an error.

Each task uses its own random numbers to decide what to do next, so the same seed gives the same program. The check is
on, but its errors are only noted, not raised, and the program continues as if the check were off. This shows how each
refused wait ends: if it succeeds later, the error would have been a false alarm.
"""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from _helpers import Boom
from trio.testing import MockClock

from triores import (
    Future,
    ResultCapture,
    SingleFlight,
    _cycles,
    amap,
    as_completed,
    first_success,
    gather,
    gather_outcomes,
    race,
    wait_all,
    wait_any,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from triores import ResultBase

# How often tasks choose each step. A plain program consists only of steps that the check understands.
PLAIN = {"pause": 4, "one": 4, "everything": 2, "children": 4, "gathered": 1, "mapped": 1, "fail": 1}
_HOSTILE_STEPS = {
    "future": 1,
    "any_of": 1,
    "next_of": 1,
    "raced": 2,
    "scoped": 2,
    "cancel": 1,
    "cancel_siblings": 1,
    "block": 1,
    "two_nurseries": 2,
    "started": 2,
    "locked": 1,
    "shared": 2,
}
MIXED = {kind: 4 * weight for kind, weight in PLAIN.items()} | _HOSTILE_STEPS
HOSTILE = PLAIN | _HOSTILE_STEPS
# The same, but tasks also cancel nurseries that they have nothing to do with.
OUTSIDERS = HOSTILE | {"cancel_nursery": 2}

_TASKS = 10  # at most; any further tasks do nothing
_NEVER = 1_000_000  # seconds; a task that is still waiting after that hangs


@dataclass
class Findings:
    """How a number of programs ended."""

    ended: int = 0
    hanging: int = 0
    hanging_refused: int = 0  # hanging programs that would have got an error
    hopeless: int = 0  # hanging programs with a cycle that the check would find at the end
    hopeless_refused: int = 0
    false_alarms: list[int] = field(default_factory=list[int])  # seeds
    only_cancelled: int = 0  # refused waits that were ended only by a cancellation, in programs that ended

    def add(self, program: Program) -> None:
        if program.succeeded:
            self.false_alarms.append(program.seed)
        if program.hangs:
            self.hanging += 1
            self.hanging_refused += program.refusals > 0
            self.hopeless += program.ends_hopeless
            self.hopeless_refused += program.ends_hopeless and program.refusals > 0
        else:
            self.ended += 1
            self.only_cancelled += program.refusals - program.succeeded

    def __str__(self) -> str:
        return (
            f"{self.ended} programs ended, {len(self.false_alarms)} of them with a false alarm, and with "
            f"{self.only_cancelled} refused waits that were only cancelled; {self.hanging} hung, "
            f"{_percent(self.hanging_refused, self.hanging)} of them with an error; {self.hopeless} of them in a cycle "
            f"that no scope can end, {_percent(self.hopeless_refused, self.hopeless)} with an error"
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _is_hopeless() -> bool:
    """Return whether any task sleeps in a wait that would get the error if it began now.

    Not every such wait got it, since a cycle can become hopeless after its last wait has begun.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks = [root]
    for task in tasks:  # the list grows during the loop
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return any(_cycles._cycle_of(task) for task in tasks if task.custom_sleep_data is not None)


def run_programs(seeds: range, mix: dict[str, int]) -> Findings:
    """Run a program for each seed."""
    findings = Findings()
    for seed in seeds:
        trio._core._run._r.seed(seed)
        program = Program(seed, mix)
        program.run()
        findings.add(program)
    return findings


class Program:
    """One program: the state shared by its tasks, and the steps they can take."""

    def __init__(self, seed: int, mix: dict[str, int]) -> None:
        self.seed = seed
        self.hangs = False
        self.ends_hopeless = False
        self.refusals = 0
        self.succeeded = 0  # refused waits that succeeded later
        self._kinds, self._weights = list(mix), list(mix.values())
        self._refused: set[trio.lowlevel.Task] = set()
        self._tasks = 0
        self._captures: dict[str, ResultCapture[None]] = {}  # by the path of the task: its parent's path and a number
        self._open_futures: dict[str, Future[None]] = {}
        self._scopes: list[trio.CancelScope] = []
        self._nurseries: list[trio.Nursery] = []

    def run(self) -> None:
        with self._noting_refusals():
            trio.run(self._main, clock=MockClock(autojump_threshold=0))

    @contextmanager
    def _noting_refusals(self) -> Generator[None]:
        original = _cycles._message_of_cycle

        def note(task: trio.lowlevel.Task) -> None:
            if original(task) is not None:
                self._refused.add(task)
                self.refusals += 1

        _cycles._message_of_cycle = note
        try:
            yield
        finally:
            _cycles._message_of_cycle = original

    async def _main(self) -> None:
        self._lock = trio.Lock()
        self._shared_calls = SingleFlight[int, None]()
        with trio.CancelScope() as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_what_hangs, limit)
                with suppress(BaseExceptionGroup):
                    async with self._shared_calls, trio.open_nursery() as inner:
                        inner.start_soon(self.children, random.Random(self.seed), "0")
                nursery.cancel_scope.cancel()

    async def _end_what_hangs(self, limit: trio.CancelScope) -> None:
        await trio.sleep(_NEVER)
        self.hangs = True
        self.ends_hopeless = _is_hopeless()
        for scope in self._scopes:
            scope.shield = False
        limit.cancel()

    async def routine(self, path: str, *_args: object) -> None:
        """Take a few random steps. Every task runs this."""
        self._tasks += 1
        if self._tasks > _TASKS:
            return
        rng = random.Random(f"{self.seed} {path}")
        with Future[None]().must_set() as future:
            self._open_futures[path] = future
            for number in range(rng.randint(1, 4)):
                await self._step(rng, f"{path}.{number}")
            future.set_result(None)

    async def _step(self, rng: random.Random, path: str) -> None:
        (kind,) = rng.choices(self._kinds, self._weights)
        await getattr(self, kind)(rng, path)

    def _some(self, rng: random.Random, path: str) -> list[partial[Coroutine[Any, Any, None]]]:
        return [partial(self.routine, f"{path}.{number}") for number in range(rng.randint(1, 3))]

    def _results(self, rng: random.Random, path: str, most: int, *, futures: bool = False) -> list[ResultBase[None]]:
        """Results to wait for: mostly those of earlier tasks, as in a correct program, but sometimes of any task."""
        known = self._open_futures if futures else self._captures
        paths = [*known]
        if rng.random() < 0.8:
            paths = [other for other in paths if other < path and not f"{path}.".startswith(f"{other}.")]
        return [known[other] for other in rng.sample(paths, min(len(paths), rng.randint(1, most)))]

    async def _wait(self, wait: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Make a wait that may be refused, and note whether it succeeds."""
        task = trio.lowlevel.current_task()
        self._refused.discard(task)
        try:
            await wait(*args)
        except trio.Cancelled:
            self._refused.discard(task)
            raise
        finally:  # even if the shared call has failed
            self.succeeded += task in self._refused and not self.hangs
            self._refused.discard(task)

    # ---- steps of plain programs

    async def pause(self, rng: random.Random, path: str) -> None:
        await trio.sleep(rng.choice((0, 0, 1, 2, 5)))

    async def one(self, rng: random.Random, path: str) -> None:
        if results := self._results(rng, path, 1):
            await self._wait(results[0].wait_done)

    async def everything(self, rng: random.Random, path: str) -> None:
        await self._wait(wait_all, self._results(rng, path, 4))

    async def children(self, rng: random.Random, path: str) -> None:
        async with trio.open_nursery() as nursery:
            self._nurseries.append(nursery)
            self._start(nursery, rng, path)

    def _start(self, nursery: trio.Nursery, rng: random.Random, path: str) -> None:
        for fn in self._some(rng, path):
            scope = trio.CancelScope() if "cancel" in self._kinds and rng.random() < 0.05 else None
            if scope is not None:
                self._scopes.append(scope)
            self._captures[fn.args[0]] = ResultCapture.start_soon(
                nursery, fn, suppress_exception=rng.random() < 0.8, cancel_scope=scope
            )

    async def gathered(self, rng: random.Random, path: str) -> None:
        await rng.choice((gather, gather_outcomes))(*self._some(rng, path))

    async def mapped(self, rng: random.Random, path: str) -> None:
        await amap(lambda fn: fn(), self._some(rng, path), limit=rng.randint(1, 3))

    async def fail(self, rng: random.Random, path: str) -> None:
        if rng.random() < 0.3:
            raise Boom

    # ---- steps of hostile programs

    async def future(self, rng: random.Random, path: str) -> None:
        if results := self._results(rng, path, 1, futures=True):
            await self._wait(results[0].wait_done)

    async def any_of(self, rng: random.Random, path: str) -> None:
        if results := self._results(rng, path, 4):
            await self._wait(wait_any, results)

    async def next_of(self, rng: random.Random, path: str) -> None:
        async for _ in as_completed(self._results(rng, path, 4)):
            if rng.random() < 0.5:
                break

    async def raced(self, rng: random.Random, path: str) -> None:
        if rng.random() < 0.5:
            await race(*self._some(rng, path))
        else:
            await first_success(*self._some(rng, path), stagger=rng.choice((None, 1, 3)))

    async def scoped(self, rng: random.Random, path: str) -> None:
        deadline = rng.choice((1, 4, 20, float("inf")))
        with trio.CancelScope(deadline=trio.current_time() + deadline, shield=rng.random() < 0.3) as scope:
            self._scopes.append(scope)
            await self._step(rng, f"{path}.in")

    async def cancel(self, rng: random.Random, path: str) -> None:
        if self._scopes:
            rng.choice(self._scopes).cancel()

    async def cancel_siblings(self, rng: random.Random, path: str) -> None:
        await trio.sleep(rng.randint(0, 9))
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        nursery.cancel_scope.cancel()

    async def cancel_nursery(self, rng: random.Random, path: str) -> None:
        await trio.sleep(rng.randint(0, 9))
        if self._nurseries:
            rng.choice(self._nurseries).cancel_scope.cancel()

    async def block(self, rng: random.Random, path: str) -> None:
        async with trio.open_nursery() as nursery:
            self._nurseries.append(nursery)
            self._start(nursery, rng, path)
            await self._step(rng, f"{path}.block")

    async def two_nurseries(self, rng: random.Random, path: str) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            self._nurseries += outer, inner
            if rng.random() < 0.2:
                inner.cancel_scope.shield = True
                self._scopes.append(inner.cancel_scope)
            if rng.random() < 0.2:
                outer.cancel_scope.deadline = trio.current_time() + 9
            self._start(inner, rng, f"{path}.inner")
            self._start(outer, rng, f"{path}.outer")
            await self._step(rng, f"{path}.block")

    async def started(self, rng: random.Random, path: str) -> None:
        async with trio.open_nursery() as nursery:
            self._nurseries.append(nursery)
            self._start(nursery, rng, path)
            capture = ResultCapture(self._starting, rng.random(), f"{path}.start", suppress_exception=True)
            self._captures[f"{path}.start"] = capture
            with suppress(RuntimeError):  # if it fails before it has started
                await nursery.start(capture.run)

    async def _starting(self, number: float, path: str, task_status: trio.TaskStatus[None]) -> None:
        rng = random.Random(number)
        await self._step(rng, f"{path}.before")
        task_status.started()
        await self._step(rng, f"{path}.after")

    async def locked(self, rng: random.Random, path: str) -> None:
        async with trio.Lock() if self._lock.statistics().owner is trio.lowlevel.current_task() else self._lock:
            await self._step(rng, f"{path}.in")

    async def shared(self, rng: random.Random, path: str) -> None:
        key = rng.randint(0, 3)
        await self._wait(self._shared_calls.run, key, self.routine, f"{path}.flight")
