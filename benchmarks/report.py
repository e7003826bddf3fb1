"""The tables, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .goals import GOALS, SCENARIOS, Measured
from .measuring import CONTENDERS

if TYPE_CHECKING:
    from collections.abc import Iterator


def tables(measured: Measured, measured_on: dict[str, str]) -> str:
    """Return all tables, one after another."""
    parts = [_versions(measured_on), _goals(measured), _costs(measured), _growth(measured)]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _versions(measured_on: dict[str, str]) -> Iterator[str]:
    for name, text in measured_on.items():
        yield f"- {name}: {text}"


def _goals(measured: Measured) -> Iterator[str]:
    yield "Medians, with quartiles, of the ratios of times in the same round:"
    yield ""
    yield "| scenario | figure | quartiles | goal | met |"
    yield "| --- | ---: | --- | ---: | --- |"
    for goal in GOALS:
        figure = goal.figure(measured)
        if figure is None:
            continue
        wanted, met = "", ""
        if goal.most is not None:
            wanted, met = f"≤ {goal.most:g}", "yes" if figure.value <= goal.most else "NO"
        elif goal.least is not None:
            wanted, met = f"≥ {goal.least:g}", "yes" if figure.value >= goal.least else "NO"
        yield f"| {goal.name} | {figure.value:.3g} | {figure.low:.3g} to {figure.high:.3g} | {wanted} | {met} |"


def _costs(measured: Measured) -> Iterator[str]:
    yield "Microseconds per result, medians:"
    yield ""
    yield f"| scenario | {' | '.join(CONTENDERS)} |"
    yield f"| --- |{' ---: |' * len(CONTENDERS)}"
    for scenario in SCENARIOS:
        found = [measured.at_its_size(scenario, contender) for contender in CONTENDERS]
        if any(found):
            cells = ["" if one is None else f"{one.median * 1e6:.3g}" for one in found]
            yield f"| {scenario.name}, {scenario.results:,} | {' | '.join(cells)} |"


def _growth(measured: Measured) -> Iterator[str]:
    scenarios = list(dict.fromkeys(one.scenario for one in measured.series))
    grown = [
        series
        for scenario in scenarios
        for contender in CONTENDERS
        if len(series := measured.growth(scenario, contender)) > 1
    ]
    sizes = sorted({one.results for series in grown for one in series})
    yield "Microseconds per result, or bytes, by the number of results, medians:"
    yield ""
    yield f"| scenario | contender | {' | '.join(f'{size:,}' for size in sizes)} |"
    yield f"| --- | --- |{' ---: |' * len(sizes)}"
    for series in grown:
        by_size = {one.results: _shown(one.median, one.unit) for one in series}
        cells = [by_size.get(size, "") for size in sizes]
        yield f"| {series[0].scenario} | {series[0].contender} | {' | '.join(cells)} |"


def _shown(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "byte" else f"{value * 1e6:.3g}"
