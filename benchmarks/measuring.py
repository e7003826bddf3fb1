"""Scenarios, their contenders, and how they are timed.

- A contender is an async function that takes the number of results and a `Clock`. It does whatever isn't part of the
  work outside the clock's ``with`` block, such as making the futures to wait for, or checking the outcome.
- The contenders of a scenario take turns in one process: A, B, C, then B, C, A, and so on, with a garbage collection
  before each of them. If the machine is busy for a while, all of them slow down alike, so the median of the ratios
  within a round says more than the ratio of the medians.
- The garbage collector stays on while a contender runs: what it costs is part of what the contender's objects cost.
- Each timing has a Trio run, or an asyncio run, of its own.
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
    """Times only what is inside its ``with`` block."""

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
    """A piece of work, and the contenders that do it.

    Attributes:
        name: What the work is, for tables and plots.
        results: The number of results.
        contenders: The contenders, by name. All of them run on Trio, except the one named asyncio.
        growth: Whether to time it with other numbers of results too, to see how the cost grows.
        large: The contenders to time with up to a million results in that case. With a peer that starts a task for each
            result, this would take minutes and gigabytes.
    """

    name: str
    results: int
    contenders: Mapping[str, Contender]
    growth: bool = False
    large: Sequence[str] = (TRIORES, BY_HAND)


@dataclass(frozen=True)
class Series:
    """The measurements of one thing, round by round.

    Attributes:
        scenario: The name of the scenario, or of whatever else was measured.
        contender: The contender's name.
        results: The number of results.
        values: Seconds per result, or bytes.
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
    """Time the contenders of a scenario in turn, after a warm-up round."""
    for name in scenario.contenders:
        time_once(scenario, name, results)
    return _time_each([(scenario, name, results) for name in scenario.contenders], rounds)


def time_growth(scenario: Scenario, sizes: Sequence[int], sizes_of_others: Sequence[int], rounds: int) -> list[Series]:
    """Time the contenders of a scenario in turn, with several numbers of results; fewer for the peers."""
    timings = [
        (scenario, name, results)
        for results in sizes
        for name in scenario.contenders
        if name == TRIORES or results in sizes_of_others
    ]
    return _time_each(timings, rounds)


def time_large(scenario: Scenario, sizes: Sequence[int]) -> list[Series]:
    """Time each contender that can handle it, once for each number of results."""
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
    """Let a contender do its work once, and return how many seconds it took."""
    clock = Clock()

    async def main() -> None:
        await scenario.contenders[name](results, clock)

    gc.collect()
    if name == ASYNCIO:
        asyncio.run(main())
    else:
        trio.run(main)
    return clock.seconds
