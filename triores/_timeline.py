"""A recording as a picture: an SVG whose rows are tasks and calls, with time from left to right.

It is as wide as the window or column that contains it: positions in time are percentages of the width, and text always
has the same size. The bars have colours that you can tell apart on light and on dark backgrounds. Text and lines take
the colour of the text around the picture; a file on its own sets that colour itself.

If there are too many rows to read, all rows of the same function become a group, which shows how many of them were
active at each moment.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .trace import Recording, Span

ROWS = 40  # if there are more, they are grouped
BINS = 200  # steps in the outline of a group
PITCH = 32  # pixels from one row to the next
LABEL = 32  # characters; a line on a phone has room for more, but the time has to fit, too


class Look(NamedTuple):
    """How the timeline shows work that ended in a certain way."""

    mark: str
    colour: str
    words: str


LOOKS = {
    "value": Look("✓", "#1f8a55", "returned"),
    "failure": Look("✗", "#c94a4a", "failed"),
    "cancelled": Look("⊘", "#7b818b", "cancelled"),
    "": Look("●", "#4a7dc4", "not captured"),
    "running": Look("…", "#9a6fc0", "running"),
}

STYLE = """
.triores { background: #fff; color: #1b1c1f; font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .triores { background: #131416; color: #d6d8dc; } }
.triores text { fill: currentColor; }
.triores .label { font-family: ui-monospace, monospace; }
.triores .lane { stroke: currentColor; opacity: 0.15; }
.triores rect { stroke-width: 1.5px; }
.triores .mark { font-weight: bold; }
"""


def written(recording: Recording) -> str:
    """Return the text of the SVG file."""
    rows = sorted((span for span in recording.spans if span.is_row), key=lambda span: (span.begin, span.track))
    first = rows[0].begin if rows else 0.0
    axis = _Axis(first, max((row.end for row in rows), default=first))
    head = _head(rows, axis, recording.dropped)
    body, height = _body(rows, axis, 18 * len(head) + 14)
    lines = [_text("0", 18 * number + 16, line) for number, line in enumerate(head)]
    summary = escape(f"A timeline: {_counted(rows)} in {_seconds(axis.length)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="triores" width="100%" height="{height}" role="img" '
        f'aria-label="{summary}"><style>{STYLE}</style>'
        f'<svg x="1.5%" width="97%" overflow="visible">\n{"".join([*lines, *body])}</svg></svg>\n'
    )


class _Axis:
    """The time axis, from left to right."""

    def __init__(self, first: float, last: float) -> None:
        self.first = first
        self.length = last - first

    def percent(self, time: float) -> float:
        return 100 * (time - self.first) / self.length if self.length else 0.0

    def marks(self) -> list[float]:
        """Return at most six round numbers of seconds, starting with 0."""
        step = 1e-9
        while self.length > 5 * step:
            step *= 2.5 if f"{step:e}".startswith("2") else 2
        return [step * number for number in range(int(self.length / step) + 1)]


def _head(rows: Sequence[Span], axis: _Axis, dropped: int) -> list[str]:
    ends = Counter(row.ended for row in rows)
    shown = [f"{_mark(look)} {ends[ended]:,} {look.words}" for ended, look in LOOKS.items() if ends[ended]]
    lines = [f"{_counted(rows)} in {_seconds(axis.length)}"]
    lines += [" \u2002".join(shown[start : start + 4]) for start in range(0, len(shown), 4)]
    if dropped:
        lines.append(f"{dropped:,} older spans were dropped")
    return lines


def _counted(rows: Sequence[Span]) -> str:
    return "1 task or call" if len(rows) == 1 else f"{len(rows):,} tasks and calls"


def _body(rows: Sequence[Span], axis: _Axis, top: int) -> tuple[list[str], int]:
    parts: list[str] = []
    y = top
    for name, members in _grouped(rows).items():
        if len(members) == 1:
            parts.append(_row(members[0], axis, y))
            y += PITCH
        else:
            parts.append(_group(name, members, axis, y))
            y += 2 * PITCH
    lines: list[str] = []  # drawn underneath the rows
    for time in axis.marks():
        x = axis.percent(axis.first + time)
        lines.append(f'<line class="lane" x1="{x:.3f}%" x2="{x:.3f}%" y1="{top}" y2="{y}"/>')
        anchor = "start" if x < 5 else "end" if x > 95 else "middle"
        lines.append(_text(f"{x:.3f}%", y + 14, _seconds(time), anchor=anchor))
    return [*lines, *parts], y + 24


def _grouped(rows: Sequence[Span]) -> dict[str, list[Span]]:
    """Return the rows one by one if there is room; otherwise, grouped by function."""
    if len(rows) <= ROWS:
        return {str(number): [row] for number, row in enumerate(rows)}
    groups: dict[str, list[Span]] = {}
    for row in rows:
        groups.setdefault(row.name.partition("(")[0], []).append(row)
    largest = sorted(groups, key=lambda name: -len(groups[name]))[: ROWS - 1]
    shown = {name: group for name, group in groups.items() if name in largest}
    others = [row for name, group in groups.items() if name not in shown for row in group]
    more = len(groups) - len(shown)
    return shown | ({f"{more} other{'s' * (more != 1)}": others} if others else {})


def _row(row: Span, axis: _Axis, y: int) -> str:
    look = LOOKS[row.ended]
    times = f"{_seconds(row.begin - axis.first)} to {_seconds(row.end - axis.first)}"
    lasted = _seconds(row.end - row.begin)
    title = f"{row.name}\n{look.words} {row.detail}\n{times}: took {lasted}, ran for {_seconds(row.ran)}"
    left, width = axis.percent(row.begin), axis.percent(row.end) - axis.percent(row.begin)
    return (
        f"<g><title>{escape(title)}</title>"
        + _text("0", y + 10, escape(_shortened(row.name)), "label")
        + _text("100%", y + 10, f"{_mark(look)} {lasted}", anchor="end")
        + f'<line class="lane" x1="0" x2="100%" y1="{y + 21}" y2="{y + 21}"/>'
        + f'<rect x="{left:.3f}%" y="{y + 16}" width="{width:.3f}%" height="10" rx="2" fill="{look.colour}" '
        f'stroke="{look.colour}"/></g>\n'
    )


def _group(name: str, rows: Sequence[Span], axis: _Axis, y: int) -> str:
    """Draw how many of the rows were active at each moment, coloured by how they ended."""
    peak = _peak(rows)
    ends = Counter(row.ended for row in rows)
    counts = [f"{_mark(look)} {ends[ended]:,}" for ended, look in LOOKS.items() if ends[ended]]
    summary = ", ".join(f"{ends[ended]:,} {look.words}" for ended, look in LOOKS.items() if ends[ended])
    below = [0.0] * BINS
    outlines: list[str] = []
    for ended, look in LOOKS.items():
        if ends[ended]:
            active = _active_per_bin([row for row in rows if row.ended == ended], axis)
            above = [a + b for a, b in zip(below, active, strict=True)]
            outlines.append(f'<path d="{_outline(below, above, peak)}" fill="{look.colour}"/>')
            below = above
    return (
        f"<g><title>{escape(f'{name}: {summary}; at most {peak:,} at once')}</title>"
        + _text("0", y + 10, f"{escape(_shortened(name, LABEL // 2))}, {peak:,} at once", "label")
        + _text("100%", y + 10, "\u2002".join(counts), anchor="end")
        + f'<line class="lane" x1="0" x2="100%" y1="{y + 58}" y2="{y + 58}"/>'
        + f'<svg x="0" y="{y + 16}" width="100%" height="42" viewBox="0 0 {BINS} {peak}" preserveAspectRatio="none">'
        + f"{''.join(outlines)}</svg></g>\n"
    )


def _active_per_bin(rows: Iterable[Span], axis: _Axis) -> list[float]:
    """Return the average number of active rows in each bin."""
    level = [0.0] * (BINS + 2)  # by how much the number rises in each bin
    for row in rows:
        for time, sign in ((row.begin, 1), (row.end, -1)):
            place = axis.percent(time) * BINS / 100
            level[int(place)] += sign * (int(place) + 1 - place)
            level[int(place) + 1] += sign * (place - int(place))
    return list(accumulate(level))[:BINS]


def _outline(below: Sequence[float], above: Sequence[float], peak: int) -> str:
    there = [f"{x},{peak - above[x]:.3f} {x + 1},{peak - above[x]:.3f}" for x in range(BINS)]
    back = [f"{x + 1},{peak - below[x]:.3f} {x},{peak - below[x]:.3f}" for x in reversed(range(BINS))]
    return f"M {' '.join(there)} {' '.join(back)} Z"


def _peak(rows: Iterable[Span]) -> int:
    """Return the greatest number of rows that were active at once."""
    changes = sorted((time, change) for row in rows for time, change in ((row.begin, 1), (row.end, -1)))
    return max(1, *accumulate(change for _, change in changes))


def _text(x: str, y: int, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def _mark(look: Look) -> str:
    # Next to text, a bar's colour would have too little contrast. Viewers that can't mix colours use the text's own.
    return f'<tspan class="mark" fill="color-mix(in srgb, {look.colour} 75%, currentColor)">{look.mark}</tspan>'


def _shortened(name: str, most: int = LABEL) -> str:
    if len(name) <= most:
        return name
    if "(" in name:
        return f"{name[: most - 1]}…"
    end = name[1 - most :]  # drops the module, or the beginning of its name
    return f"…{end.partition('.')[2] or end}"


def _seconds(seconds: float) -> str:
    unit, factor = ("s", 1.0) if seconds >= 1 or not seconds else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    number = seconds * factor
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
