"""The plots, as SVG files without a background, in colours that are readable on light and dark pages."""

# matplotlib's type hints leave keyword arguments open:
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .goals import SCENARIOS, Measured
from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, CONTENDERS, TRIO_UTIL, TRIORES

if TYPE_CHECKING:
    from pathlib import Path

GREY = "#7a7a7a"
COLOURS = {
    TRIORES: "#e0662f",
    BY_HAND: GREY,
    AIORESULT: "#3d8fd1",
    ANYIO: "#9b6ad6",
    TRIO_UTIL: "#2fa36b",
    ASYNCIO: "#a87f25",
}
MARKERS = {TRIORES: "o", BY_HAND: "|", AIORESULT: "s", ANYIO: "D", TRIO_UTIL: "^", ASYNCIO: "x"}

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "triores",  # otherwise the same shapes would get new names each time
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


WIDTH = 5.2  # inches; at this width, the text is large enough to read on a phone


def draw(measured: Measured, measured_on: dict[str, str], folder: Path) -> None:
    """Write all plots into a folder. Each of them says what it was measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(STYLE)
    note = (
        f"CPython {measured_on['python_version'].partition(' ')[0]}, Trio {measured_on['trio']}, "
        f"{measured_on['cpu_model_name']}, {measured_on['date'][:10]}"
    )
    _draw_peers(measured, note, folder / "cost-compared-with-peers.svg")
    _draw_growth(measured, note, folder / "cost-by-number.svg")


def _draw_peers(measured: Measured, note: str, path: Path) -> None:
    """Draw a row for each scenario that compares triores with others, with a marker for each contender."""
    rows = [
        one for one in SCENARIOS if measured.at_its_size(one, TRIORES) and not one.contenders.keys() - set(CONTENDERS)
    ]
    figure = Figure(figsize=(WIDTH, 0.5 * len(rows) + 1.6), layout="constrained")
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
    for row, scenario in enumerate(rows):  # above the row, since labels on the left would leave no room on a phone
        axes.text(
            0, row - 0.25, f" {scenario.name} ({scenario.results:,})", transform=axes.get_yaxis_transform(), fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlabel("microseconds per result, median; less is better")
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    axes.set_ylim(len(rows) - 0.5, -0.8)
    axes.grid(visible=True, axis="both")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.legend(loc="outside upper center", ncols=3)
    _save(figure, note, path)


def _draw_growth(measured: Measured, note: str, path: Path) -> None:
    """Draw a small plot for each scenario, with a line for each contender."""
    shown = [one for one in SCENARIOS if len(measured.growth(one.name, TRIORES)) > 1]
    figure = Figure(figsize=(WIDTH, 2.2 * len(shown) + 1), layout="constrained")
    grid: Any = figure.subplots(len(shown), 1, squeeze=False)
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
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.minorticks_off()
        axes.grid(visible=True)
    figure.supxlabel("number of results")
    figure.supylabel("milliseconds, median")
    names = [name for name in CONTENDERS if name in labelled]
    figure.legend([labelled[name] for name in names], names, loc="outside upper center", ncols=3)
    _save(figure, note, path)


def _save(figure: Figure, note: str, path: Path) -> None:
    figure.text(0, 0, note, fontsize=7, verticalalignment="top")
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
