"""Something goes wrong at every moment of every public async call: see `_faults` and `_scenarios`."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from _faults import try_each_moment
from _helpers import SOAK, Boom
from _scenarios import SCENARIOS

import triores
from triores import Future

if TYPE_CHECKING:
    from _faults import Scenario, Trial

SEEDS = range(100 if SOAK else 3)


@pytest.mark.parametrize("fault", ["cancel", "fail", "ctrl-c"])
@pytest.mark.parametrize("scenario", [pytest.param(fn, id=fn.__name__) for fn in SCENARIOS])
def test_a_fault_at_any_moment_loses_nothing_and_leaves_nothing_behind(
    scenario: Scenario, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in SEEDS:
        try_each_moment(scenario, fault, seed, monkeypatch)


def test_each_public_call_has_a_scenario() -> None:
    covered = set(re.findall(r"\w+", " ".join(SCENARIOS.values())))
    passive = {"ResultBase", "ResultStatistics", "isfuture"}
    exceptions = {name for name in triores.__all__ if name.endswith(("Exception", "Error"))}
    assert covered >= {*triores.__all__} - passive - exceptions


# ---- does the engine notice mistakes?


async def leaves_a_waiter(trial: Trial) -> None:
    trial.watch(Future[None]()).add_done_callback(lambda _: None)
    await trial.step()


async def leaves_a_task(trial: Trial) -> None:
    trio.lowlevel.spawn_system_task(trio.sleep_forever)
    await trial.step()


async def leaves_an_entry(trial: Trial) -> None:
    requests = triores.FutureMap[int, int]()
    trial.tables.append(requests)
    requests.expect(1).__enter__()
    await trial.step()


async def leaves_a_future_pending(trial: Trial) -> None:
    trial.owe(Future[None]())
    await trial.step()


async def loses_a_value(trial: Trial) -> None:
    await trial.connect()


async def swallows_a_cancellation(trial: Trial) -> None:
    with trio.CancelScope(shield=True):
        await trial.value(None, 2, 1)


async def hangs(trial: Trial) -> None:
    try:
        await trial.step()
    except Boom:
        await trio.sleep_forever()


async def raises_something_else(trial: Trial) -> None:
    try:
        await trial.step()
    except Boom:
        raise ValueError from None


async def cancels_in_a_group(trial: Trial) -> None:
    async def group() -> None:
        async with trio.open_nursery():
            await trial.step()

    await trial.call(group())


async def swallows_everything(trial: Trial) -> None:
    with suppress(Boom, KeyboardInterrupt):
        await trial.step()


@pytest.mark.parametrize(
    ("scenario", "fault", "message"),
    [
        (leaves_a_waiter, "cancel", "something was left registered"),
        (leaves_a_task, "cancel", "a task was left behind"),
        (leaves_an_entry, "cancel", "something was left in flight"),
        (leaves_a_future_pending, "cancel", "a future was left pending"),
        (loses_a_value, "cancel", "a value was lost"),
        (swallows_a_cancellation, "cancel", "the cancellation was swallowed"),
        (hangs, "fail", "the scenario hangs"),
        (raises_something_else, "fail", "an unexpected exception: ValueError"),
        (cancels_in_a_group, "cancel", "cancelled by"),
        (swallows_everything, "fail", "a failure was lost"),
        (swallows_everything, "ctrl-c", "Ctrl-C was swallowed"),
    ],
)
def test_the_engine_notices_each_mistake(
    scenario: Scenario, fault: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=message):
        try_each_moment(scenario, fault, 0, monkeypatch)
