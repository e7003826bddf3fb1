"""The plots, as SVG without a background and in colours that can be read on light and on dark pages."""

# matplotlib's hints leave keyword arguments open:
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .goals import SCENARIOS, Measured
from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, CONTENDERS, TRIO_UTIL, TRIORES, UNCHECKED

if TYPE_CHECKING:
    from pathlib import Path

GREY = "#7a7a7a"
COLOURS = {
    TRIORES: "#e0662f",
    BY_HAND: GREY,
    AIORESULT: "#3d8fd1",
    ANYIO: "#9b6ad6",
    TRIO_UTIL: "#2fa36b",
    ASYNCIO: "#c2973a",
}
MARKERS = {TRIORES: "o", BY_HAND: "|", AIORESULT: "s", ANYIO: "D", TRIO_UTIL: "^", ASYNCIO: "x"}

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "triores",  # or each run would give other names to the same shapes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.titlecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(measured: Measured, folder: Path) -> None:
    """Write all plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(STYLE)
    _draw_peers(measured, folder / "cost-beside-peers.svg")
    _draw_growth(measured, folder / "cost-by-number.svg")


def _draw_peers(measured: Measured, path: Path) -> None:
    """A row for each scenario, a mark for each contender."""
    rows = [one for one in SCENARIOS if measured.at_its_size(one, TRIORES) and UNCHECKED not in one.contenders]
    figure = Figure(figsize=(8, 0.36 * len(rows) + 1.4), layout="constrained")
    axes: Any = figure.subplots()
    for contender in CONTENDERS:
        found = [(measured.at_its_size(scenario, contender), row) for row, scenario in enumerate(rows)]
        points = [(one.median * 1e6, row) for one, row in found if one is not None]
        axes.scatter(
            [cost for cost, _ in points],
            [row for _, row in points],
            label=contender,
            color=COLOURS[contender],
            marker=MARKERS[contender],
            s=90 if contender == BY_HAND else 40,
            zorder=3 if contender == TRIORES else 2,
        )
    axes.set_xscale("log")
    axes.set_xlabel("microseconds a result, median; less is better")
    axes.set_yticks(range(len(rows)), [f"{scenario.name} ({scenario.results:,})" for scenario in rows])
    axes.invert_yaxis()
    axes.grid(visible=True, axis="both")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.legend(loc="outside upper center", ncols=len(CONTENDERS))
    _save(figure, path)


def _draw_growth(measured: Measured, path: Path) -> None:
    """A small plot for each scenario, a line for each contender."""
    shown = [one for one in SCENARIOS if len(measured.growth(one.name, TRIORES)) > 1]
    columns = 2
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(8, 2.4 * lines + 0.6), layout="constrained")
    grid: Any = figure.subplots(lines, columns, sharex=True, squeeze=False)
    labelled: dict[str, Any] = {}
    for axes, scenario in zip(grid.flat, shown, strict=False):
        for contender in CONTENDERS:
            series = measured.growth(scenario.name, contender)
            if len(series) > 1:
                (labelled[contender],) = axes.plot(
                    [one.results for one in series],
                    [one.results * one.median * 1e3 for one in series],
                    color=COLOURS[contender],
                    marker=MARKERS[contender],
                    markersize=4,
                    linewidth=1.5,
                    zorder=3 if contender == TRIORES else 2,
                )
        axes.set_title(scenario.name, fontsize=10)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.grid(visible=True)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("number of results")
    figure.supylabel("milliseconds, median")
    names = [name for name in CONTENDERS if name in labelled]
    figure.legend([labelled[name] for name in names], names, loc="outside upper center", ncols=len(names))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
