"""The engine of the fault tests: it runs a scenario over and over, with a fault that happens a moment later each time.

A scenario is an async function that gets its routines from a `Trial`. The trial keeps track of everything that has to
be in order when the scenario has ended, however it ended. It checks each time that

- no task is left behind, and nothing hangs;
- nothing is still registered on a result or in flight, and every future that had to be settled is done;
- a cancellation takes no time, and each call raises it as a plain `trio.Cancelled`; Ctrl-C is not swallowed;
- no exception is lost: the scenario raised it or added it to `reported`, or a result holds it; no other is raised;
- no value is lost: everything that was opened has been closed.

In all tests, `conftest` checks that no task is woken twice, and pytest checks that no coroutine is left unawaited.
"""

from __future__ import annotations

import itertools
import signal
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import outcome
import trio
from _helpers import Boom, causes, is_free, leaves, seed_scheduler
from trio.testing import MockClock

from triores import FutureNeverSetException, TaskFailedException, isfuture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

Scenario: TypeAlias = "Callable[[Trial], Awaitable[None]]"
T = TypeVar("T")
EXPECTED = (Boom, TaskFailedException, FutureNeverSetException, KeyboardInterrupt)


class Trial(trio.abc.Instrument):
    """One run of a scenario. One thing goes wrong, either before a step of a task or at a checkpoint of a routine."""

    def __init__(self, fault: str, moment: int) -> None:
        self.fault, self.left, self.fired = fault, moment, False
        self.scope = trio.CancelScope()
        self.stopped_at: float | None = None  # when the scope was cancelled
        self.ended_at = 0.0
        self.watched: list[Any] = []  # results that may be left pending
        self.owed: list[Any] = []  # results and concurrent futures that must end up done
        self.tables: list[object] = []  # their reprs show what is in flight
        self.raised: list[Boom] = []
        self.reported: list[BaseException | None] = []
        self.open: list[object] = []

    def is_now(self, fault: str) -> bool:
        self.left -= fault == self.fault
        self.fired |= self.left < 0
        return fault == self.fault and self.left == -1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.is_now("cancel"):
            self.stopped_at = trio.current_time()
            self.scope.cancel(reason="a fault test")
        elif self.is_now("ctrl-c"):
            signal.raise_signal(signal.SIGINT)

    def boom(self) -> Boom:
        self.raised.append(Boom(f"number {len(self.raised)}"))
        return self.raised[-1]

    async def step(self, seconds: float = 0) -> None:
        if self.is_now("fail"):
            raise self.boom()
        await trio.sleep(seconds)

    async def value(self, value: T, steps: int = 1, seconds: float = 0) -> T:
        for _ in range(steps):
            await self.step(seconds)
        return value

    async def fail_in_cleanup(self, value: T) -> T:
        """A routine whose clean-up raises an exception when it is cancelled."""
        try:
            return await self.value(value, 3)
        except trio.Cancelled:
            raise self.boom() from None

    async def connect(self, steps: int = 1, seconds: float = 0) -> object:
        """Open a connection, which the scenario has to remove from `open`."""
        connection = await self.value(object(), steps, seconds)
        await trio.lowlevel.cancel_shielded_checkpoint()  # so that two connections can succeed in one tick
        self.open.append(connection)
        return connection

    async def call(self, awaitable: Awaitable[T]) -> T:
        """Make one public call. If it raises nothing but a cancellation, the cancellation must not be in a group."""
        try:
            return await awaitable
        except BaseException as error:
            if all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
                assert type(error) is trio.Cancelled, f"cancelled by {error!r}"
            raise

    def watch(self, result: T) -> T:
        self.watched.append(result)
        return result

    def owe(self, result: T) -> T:
        self.owed.append(result)
        return result

    def check(self, error: BaseException | None) -> None:
        for leaf in leaves(error):
            if not isinstance(leaf, EXPECTED):  # it may be a failed assertion of the scenario
                raise AssertionError(f"an unexpected exception: {leaf!r}") from leaf
        assert all(map(is_free, filter(isfuture, [*self.watched, *self.owed]))), "something was left registered"
        assert all(result.done() for result in self.owed), "a future was left pending"
        assert all("in_flight=0" in repr(table) for table in self.tables), "something was left in flight"
        assert self.stopped_at in (None, self.ended_at), "the cancellation was swallowed"
        reported = [error, *self.reported, *(result.exception() for result in self.owed if not result.cancelled())]
        arrived = {id(cause) for error in reported for cause in causes(error)}
        assert all(id(boom) in arrived for boom in self.raised), "a failure was lost"
        interrupted = self.fired and self.fault == "ctrl-c"
        assert error is None or self.raised or interrupted, "the scenario failed although nothing went wrong"
        assert not interrupted or any(type(leaf) is KeyboardInterrupt for leaf in leaves(error)), "Ctrl-C was swallowed"


def system_tasks() -> set[str]:
    """The names of the run's outermost tasks, except the one that tells triores that the run has ended."""
    root: Any = trio.lowlevel.current_root_task()
    return {task.name for nursery in root.child_nurseries for task in nursery.child_tasks} - {"<triores: end of run>"}


def try_once(scenario: Scenario, fault: str, moment: int) -> bool:
    """Run the scenario once, and return whether the fault happened."""
    trial = Trial(fault, moment)

    async def main() -> None:
        before = system_tasks()
        trio.lowlevel.add_instrument(trial)
        with trio.move_on_after(86_400) as limit:  # by the mock clock; what has waited for a day would wait forever
            try:
                with trial.scope:
                    await scenario(trial)
            finally:
                trial.ended_at = trio.current_time()
                trio.lowlevel.remove_instrument(trial)
                assert not limit.cancel_called, "the scenario hangs"
                assert system_tasks() == before, "a task was left behind"
                assert not trial.open, "a value was lost, or a source was left open"

    ended = outcome.capture(lambda: trio.run(main, clock=MockClock(autojump_threshold=0)))
    trial.check(getattr(ended, "error", None))
    return trial.fired


def try_each_moment(scenario: Scenario, fault: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the scenario once for each moment at which the fault can happen, and once without it."""
    for moment in itertools.count():
        print(f"seed {seed}, {fault} at moment {moment}")  # noqa: T201 # pytest shows it if the test fails
        seed_scheduler(seed, monkeypatch)
        if not try_once(scenario, fault, moment):
            assert moment, "the fault never happened"
            return
