"""At each moment of each public async call, one thing goes wrong: see `_faults` and `_scenarios`.

With ``TRIORES_SOAK`` in the environment (``nox -s soak``) these are all moments, under many seeds of Trio's scheduler;
without it, some of them.
"""

from __future__ import annotations

import contextlib
import platform
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from _faults import (
    SOAK,
    Cancelling,
    Failing,
    InterruptingPlaces,
    InterruptingSteps,
    Place,
    order_by_seed,
    run_trials,
)
from _helpers import Boom
from _scenarios import SCENARIOS

from triores import Future

if TYPE_CHECKING:
    from _faults import Scenario, Watch

SEEDS = range(100 if SOAK else 3)
each_scenario = pytest.mark.parametrize("scenario", [pytest.param(fn, id=fn.__name__) for fn in SCENARIOS])


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    order_by_seed(monkeypatch)


@each_scenario
def test_cancelled_before_any_step_it_leaves_nothing_behind(scenario: Scenario) -> None:
    run_trials(scenario, Cancelling, SEEDS)


@each_scenario
def test_failing_at_any_checkpoint_it_leaves_nothing_behind_and_loses_no_exception(scenario: Scenario) -> None:
    run_trials(scenario, Failing, SEEDS)


@each_scenario
def test_interrupted_before_any_step_it_leaves_nothing_behind(scenario: Scenario) -> None:
    one_in = 1 if SOAK else 4
    run_trials(scenario, lambda moment: InterruptingSteps(moment * one_in), SEEDS)


_done: set[Place] = set()


@pytest.mark.skipif(platform.python_implementation() != "CPython", reason="it knows where CPython looks for signals")
@pytest.mark.skipif(
    (3, 11) <= sys.version_info < (3, 13),
    reason="where each instruction is traced, CPython 3.11 mixes up the calls of a signal handler, and 3.12 may crash",
)
@each_scenario
def test_interrupted_at_any_place_in_the_code_it_leaves_nothing_behind(scenario: Scenario) -> None:
    # Between the call that makes a coroutine and its first step, Ctrl-C leaves it unawaited, as it may anywhere.
    tolerated = "was never awaited"
    done = set[Place]() if SOAK else _done
    run_trials(scenario, lambda _: InterruptingPlaces(done, 1 if SOAK else 5), range(1), tolerated)


# ---- does the engine notice?


async def leaves_a_waiter(watch: Watch) -> None:
    future = watch.free(Future[None]())
    future._register(Lasting(), trio.lowlevel.current_trio_token())
    await watch.checkpoint()


class Lasting:
    def settled(self, result: object, /) -> None:
        pass


async def leaves_a_task(watch: Watch) -> None:
    trio.lowlevel.spawn_system_task(trio.sleep_forever)
    await watch.checkpoint()


async def leaves_an_entry(watch: Watch) -> None:
    entries = {1}
    watch.empty(entries)
    await watch.checkpoint()
    entries.clear()


async def leaves_an_obligation(watch: Watch) -> None:
    future = watch.owed(Future[None]())
    await watch.checkpoint()
    future.set_result(None)


async def swallows_a_cancellation(watch: Watch) -> None:
    try:
        await watch.checkpoint()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise


async def hangs(watch: Watch) -> None:
    try:
        await watch.checkpoint()
    except Boom:
        await trio.sleep_forever()


async def raises_something_else(watch: Watch) -> None:
    try:
        await watch.checkpoint()
    except BaseException:
        raise ValueError from None


async def cancels_in_a_group(watch: Watch) -> None:
    with watch.call():
        async with trio.open_nursery():
            await watch.checkpoint()


async def swallows_everything(watch: Watch) -> None:
    with contextlib.suppress(Boom, KeyboardInterrupt):
        await watch.checkpoint()


async def never_awaits(watch: Watch) -> None:
    coroutine = watch.checkpoint()
    await watch.checkpoint()
    await coroutine


@pytest.mark.parametrize(
    ("scenario", "faults", "told"),
    [
        (leaves_a_waiter, Cancelling, "something is registered on"),
        (leaves_a_task, Cancelling, "tasks are left"),
        (leaves_an_entry, Cancelling, "is not empty"),
        (leaves_an_obligation, Cancelling, "was never settled"),
        (swallows_a_cancellation, Cancelling, "the cancellation was swallowed"),
        (hangs, Failing, "it hangs"),
        (raises_something_else, Failing, "a wrong exception"),
        (cancels_in_a_group, Cancelling, "cancelled by"),
        (swallows_everything, Failing, "was lost"),
        (swallows_everything, InterruptingSteps, "swallowed"),
        (never_awaits, Cancelling, "was never awaited"),
    ],
)
def test_the_engine_notices_what(scenario: Scenario, faults: type, told: str) -> None:
    with pytest.raises(AssertionError) as caught:
        run_trials(scenario, faults, range(1))
    error: BaseException | None = caught.value
    texts: list[str] = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    assert any(told in text for text in texts), texts
