"""Scenarios, their contenders, and how they are timed.

- A contender is an async function of the number of results and of a `Clock`. Whatever is not part of the work, such as
  making the futures that a wait is for, it does outside the clock's ``with`` block; and there it checks what came out.
- The contenders of a scenario run in turn in one process: A, B, C, then B, C, A, and so on, with a garbage collection
  between two of them. A machine that is busy for a while slows all of them alike, so the median of the ratios of one
  round says more than a ratio of medians.
- The garbage collector stays on while a contender runs: what it costs is part of what the contender's objects cost.
- Each timing is a new Trio run, or asyncio run.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from pyperf import perf_counter  # type: ignore[import-untyped]  # pyperf has no type hints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

TRIORES = "triores"
BY_HAND = "by hand"
AIORESULT = "aioresult"
ANYIO = "anyio"
TRIO_UTIL = "trio_util"
ASYNCIO = "asyncio"
UNCHECKED = "triores without the check for cycles"
RECORDED = "triores, recorded"

CONTENDERS = (TRIORES, BY_HAND, AIORESULT, ANYIO, TRIO_UTIL, ASYNCIO)


class Clock:
    """Times what is inside its ``with`` block, and nothing else."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began: float = perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        self.seconds += perf_counter() - self._began


if TYPE_CHECKING:
    Contender = Callable[[int, Clock], Awaitable[None]]


@dataclass(frozen=True, eq=False)
class Scenario:
    """One piece of work, and those who do it.

    Attributes:
        name: What the work is, for tables and plots.
        results: How many results it is about.
        contenders: Who does it, by name. All run on Trio, but the one named asyncio.
        growth: Whether it is timed with other numbers of results too, to see how its cost grows.
        large: Who is timed with up to a million results then. Where a peer starts a task for each, that would take
            minutes and gigabytes.
    """

    name: str
    results: int
    contenders: Mapping[str, Contender]
    growth: bool = False
    large: Sequence[str] = (TRIORES, BY_HAND)


@dataclass(frozen=True)
class Series:
    """What was measured in one thing, round by round.

    Attributes:
        scenario: The scenario's name, or what else was measured.
        contender: Who did it.
        results: How many results it was about.
        values: Seconds for each result, or bytes.
        unit: ``second`` or ``byte``.
    """

    scenario: str
    contender: str
    results: int
    values: Sequence[float]
    unit: str = "second"

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)


def time_in_turn(scenario: Scenario, results: int, rounds: int) -> list[Series]:
    """Time the contenders of a scenario in turn, after a round that warms up."""
    for name in scenario.contenders:
        time_once(scenario, name, results)
    return _time_each([(scenario, name, results) for name in scenario.contenders], rounds)


def time_growth(scenario: Scenario, sizes: Sequence[int], sizes_of_others: Sequence[int], rounds: int) -> list[Series]:
    """Time the contenders of a scenario in turn with each number of results; all but triores with fewer of these."""
    timings = [
        (scenario, name, results)
        for results in sizes
        for name in scenario.contenders
        if name == TRIORES or results in sizes_of_others
    ]
    return _time_each(timings, rounds)


def time_large(scenario: Scenario, sizes: Sequence[int]) -> list[Series]:
    """Time once those contenders that can take it."""
    return _time_each([(scenario, name, results) for results in sizes for name in scenario.large], rounds=1)


def _time_each(timings: list[tuple[Scenario, str, int]], rounds: int) -> list[Series]:
    values: dict[tuple[Scenario, str, int], list[float]] = {timing: [] for timing in timings}
    for turn in range(rounds):
        first = turn % len(timings)
        for scenario, name, results in timings[first:] + timings[:first]:
            values[scenario, name, results].append(time_once(scenario, name, results) / results)
    return [
        Series(scenario.name, name, results, values[scenario, name, results]) for scenario, name, results in timings
    ]


def time_once(scenario: Scenario, name: str, results: int) -> float:
    """Let a contender do its work once, and return the seconds that it took."""
    clock = Clock()

    async def main() -> None:
        await scenario.contenders[name](results, clock)

    gc.collect()
    if name == ASYNCIO:
        asyncio.run(main())
    else:
        trio.run(main)
    return clock.seconds
