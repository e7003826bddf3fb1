"""The goals, and how each figure is calculated from the series that were measured."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import bridges, bytes_and_import, cycles, maps, recorder, requests, tasks, waits
from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, RECORDED, TRIORES, UNCHECKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .measuring import Scenario, Series

SCENARIOS = (
    *tasks.SCENARIOS,
    *waits.SCENARIOS,
    *cycles.SCENARIOS,
    *maps.SCENARIOS,
    *requests.SCENARIOS,
    *bridges.SCENARIOS,
)

SLOPE_SIZES = (2_000, 4_000, 8_000, 16_000, 32_000, 64_000)


class Measured:
    """All the series of one session, by scenario, contender and number of results.

    Args:
        series: The measurements.
        divisor: What the numbers of results were divided by, to make the session quicker.
    """

    def __init__(self, series: Iterable[Series], divisor: int = 1) -> None:
        self.series = list(series)
        self.divisor = divisor
        self._by_key = {(one.scenario, one.contender, one.results): one for one in self.series}

    def find(self, scenario: str, contender: str, results: int) -> Series | None:
        """Return one series, or None if it wasn't measured."""
        return self._by_key.get((scenario, contender, results))

    def at_its_size(self, scenario: Scenario, contender: str) -> Series | None:
        """Return the series of a scenario for the number of results that its goals refer to, or None."""
        return self.find(scenario.name, contender, scenario.results // self.divisor)

    def growth(self, scenario: str, contender: str) -> list[Series]:
        """Return the series that show how a contender's cost grows, from few results to many."""
        own_sizes = {(one.name, one.results // self.divisor) for one in SCENARIOS}
        found = [
            one
            for one in self.series
            if (one.scenario, one.contender) == (scenario, contender) and (scenario, one.results) not in own_sizes
        ]
        return sorted(found, key=lambda one: one.results)


@dataclass(frozen=True)
class Figure:
    """A number that a goal refers to: the median of the rounds, with their quartiles."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """The median, over all rounds, of the ratio of two contenders' times in the same round."""

    scenario: Scenario
    over: str
    under: str
    most: float | None = None
    least: float | None = None

    @property
    def name(self) -> str:
        """The text in the table."""
        return f"{self.scenario.name}, {self.scenario.results:,}: {self.over} / {self.under}"

    def figure(self, measured: Measured) -> Figure | None:
        """The figure, or None if it wasn't measured."""
        over = measured.at_its_size(self.scenario, self.over)
        under = measured.at_its_size(self.scenario, self.under)
        if over is None or under is None:
            return None
        return _median_of([a / b for a, b in zip(over.values, under.values, strict=True)])


@dataclass(frozen=True)
class Slope:
    """The slope of the total cost over the number of results, on logarithmic scales: 1 is linear."""

    scenario: Scenario
    most: float | None = None
    least: float | None = None

    @property
    def name(self) -> str:
        """The text in the table."""
        return f"{self.scenario.name}: log-log slope, {SLOPE_SIZES[0]:,} to {SLOPE_SIZES[-1]:,}"

    def figure(self, measured: Measured) -> Figure | None:
        """The figure, or None if it wasn't measured."""
        found = [measured.find(self.scenario.name, TRIORES, size // measured.divisor) for size in SLOPE_SIZES]
        series = [one for one in found if one is not None]
        if not series:
            return None
        sizes = [math.log(one.results) for one in series]
        slopes = [
            statistics.linear_regression(
                sizes, [math.log(one.results * value) for one, value in zip(series, values, strict=True)]
            ).slope
            for values in zip(*[one.values for one in series], strict=True)
        ]
        return _median_of(slopes)


@dataclass(frozen=True)
class Value:
    """The median of the measurements themselves, in bytes or milliseconds."""

    scenario: str
    unit: str
    scale: float = 1
    most: float | None = None
    least: float | None = None

    @property
    def name(self) -> str:
        """The text in the table."""
        return f"{self.scenario}, {self.unit}"

    def figure(self, measured: Measured) -> Figure | None:
        """The figure, or None if it wasn't measured."""
        series = measured.find(self.scenario, TRIORES, 1)
        return None if series is None else _median_of([value * self.scale for value in series.values])


@dataclass(frozen=True)
class Flatness:
    """The ratio of the measurement for the most results to the one for the fewest."""

    scenario: str
    most: float | None = None
    least: float | None = None

    @property
    def name(self) -> str:
        """The text in the table."""
        return f"{self.scenario}: most items / fewest items"

    def figure(self, measured: Measured) -> Figure | None:
        """The figure, or None if it wasn't measured."""
        series = measured.growth(self.scenario, TRIORES)
        return _median_of([series[-1].median / series[0].median]) if len(series) > 1 else None


def _median_of(values: Sequence[float]) -> Figure:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Figure(middle, low, high)


GOALS: tuple[Ratio | Slope | Value | Flatness, ...] = (
    Ratio(tasks.CAPTURES, TRIORES, BY_HAND, most=1.2),
    Ratio(tasks.CAPTURES, AIORESULT, TRIORES, least=0.97),
    Ratio(tasks.CAPTURES, ANYIO, TRIORES, least=2.0),
    Ratio(waits.FUTURES, TRIORES, BY_HAND, most=1.2),
    Ratio(waits.FUTURES, AIORESULT, TRIORES, least=0.97),
    Ratio(waits.AWAITED_FUTURES, TRIORES, BY_HAND, most=1.3),
    Ratio(waits.WAIT_ANY, AIORESULT, TRIORES, least=50),
    Ratio(waits.WAIT_ALL_DONE, AIORESULT, TRIORES, least=5),
    Ratio(waits.WAIT_ALL, AIORESULT, TRIORES, least=4),
    Ratio(waits.CHANNEL, AIORESULT, TRIORES, least=1.8),
    Ratio(tasks.AS_COMPLETED, ANYIO, TRIORES, least=2.0),
    Ratio(tasks.GATHER, TRIORES, BY_HAND, most=1.15),
    Ratio(maps.AMAP, TRIORES, BY_HAND, most=1.4),
    Ratio(maps.AMAP, ANYIO, TRIORES, least=7),
    Ratio(maps.AMAP_AT_ONCE, TRIORES, BY_HAND),
    Ratio(maps.OPEN_AMAP, TRIORES, BY_HAND, most=1.4),
    Ratio(maps.OPEN_AMAP_OF_A_GENERATOR, TRIORES, BY_HAND, most=1.4),
    *[Value(name, "milliseconds", scale=1e3, most=10) for name in maps.TURNS],
    Flatness(bytes_and_import.PEAK, most=1.1),
    Ratio(requests.ENTRIES, TRIORES, BY_HAND, most=1.4),
    Ratio(requests.ANSWERS, TRIORES, BY_HAND, most=1.5),
    Ratio(bridges.EXECUTOR, TRIORES, BY_HAND),
    Ratio(bridges.WRAP_FUTURE, TRIORES, ASYNCIO),
    Ratio(bridges.WRAP_SETTLED_HERE, TRIORES, ASYNCIO),
    Ratio(bridges.WRAP_AGAIN, TRIORES, ASYNCIO),
    Ratio(cycles.CAPTURES, TRIORES, UNCHECKED, most=1.02),
    Ratio(cycles.PENDING, TRIORES, UNCHECKED, most=1.05),
    Ratio(cycles.WAIT_ALL, TRIORES, UNCHECKED, most=1.05),
    Ratio(cycles.CHAIN, TRIORES, UNCHECKED),
    *[Ratio(scenario, RECORDED, TRIORES) for scenario in recorder.SCENARIOS],
    Value(bytes_and_import.PENDING, "bytes", most=80),
    Value(bytes_and_import.DONE, "bytes", most=144),
    *[Slope(scenario, most=1.1) for scenario in SCENARIOS if scenario.growth],
    Value(bytes_and_import.IMPORT, "milliseconds", scale=1e3, most=10),
)
