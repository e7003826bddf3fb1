"""Scenarios for the cost of `triores.trace.Recorder`: the same work with and without a recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from triores.trace import Recorder

from . import maps, tasks, waits
from .measuring import RECORDED, TRIORES, Clock, Scenario

if TYPE_CHECKING:
    from .measuring import Contender


def recorded(contender: Contender) -> Contender:
    """Return a contender that does the same work, but is recorded."""

    async def record(n: int, clock: Clock) -> None:
        with Recorder():
            await trio.lowlevel.checkpoint()
            await contender(n, clock)

    return record


def with_and_without(scenario: Scenario) -> Scenario:
    """Return a scenario in which triores does the work of another scenario, with and without a recorder."""
    contender = scenario.contenders[TRIORES]
    return Scenario(f"{scenario.name}, recorded", scenario.results, {TRIORES: contender, RECORDED: recorded(contender)})


SCENARIOS = tuple(map(with_and_without, (tasks.CAPTURES, waits.FUTURES, maps.AMAP, maps.OPEN_AMAP)))
