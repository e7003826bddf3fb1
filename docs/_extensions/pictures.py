"""Three directives that draw the documentation's pictures from text, as SVG inside the page.

Since a picture is part of the page, it takes its font from the theme, and its colours, light or dark, from
``_static/triores.css``. Pictures are narrow, so that their text is readable on a phone. The text that a picture is
drawn from is also its description, for people who use a screen reader.

``timeline``: what runs when. Each line is a row, ``name | begin | end | kind | text``, with times in any unit; the kind
is value, error, cancelled or call. A line ``note | time | text`` marks a moment. Pictures can share a scale, so that
readers can compare them: ``:until:`` is the time at the right edge, and ``:letters:`` the length of the longest name.

``travel``: what one party sends to another. The first line names the parties, from left to right; the other lines are
``from -> to: text``, or ``at: text`` for what a party does on its own.

``ownership``: what lives inside what. An indented line is inside the line above it; ``task -> result`` draws the result
outside.
"""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sphinx.application import Sphinx

WIDTH = 380  # all lengths are in units of the viewBox, about one pixel on a phone
LINE = 17  # the distance from one line of text to the next
LETTER = 6.4  # the approximate width of a letter
CODE_LETTER = 7.3
TASKS = 236  # the right edge of the tasks in an ownership picture
RESULTS = 268  # the left edge of the results in it


class Picture(SphinxDirective):
    """What all three directives have in common: a title, text to draw, and a figure around the drawing."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Draw the picture."""
        title = self.arguments[0]
        lines = [line for line in self.content if line.strip()]
        try:
            height, parts = self.draw(lines)
        except (ValueError, KeyError) as error:
            raise self.error(f"this picture can't be drawn: {error!r}") from error
        described = html.escape("\n".join(lines))
        svg = (
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
            f"<desc>{described}</desc>{''.join(parts)}</svg>"
        )
        figure = f'<figure class="picture">{svg}<figcaption>{html.escape(title)}</figcaption></figure>'
        return [nodes.raw("", figure, format="html")]

    def draw(self, lines: Sequence[str]) -> tuple[int, Iterable[str]]:
        """Return the height of the picture, and its SVG elements."""
        raise NotImplementedError


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line through some points."""
    return f'<polyline points="{" ".join(f"{x:g},{y:g}" for x, y in points)}" class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle with round corners."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="{kind}"/>'


def arrowhead(x: float, y: float, direction: int) -> str:
    """Return the head of an arrow that points right (1) or left (-1)."""
    back = x - 8 * direction
    return f'<polygon points="{x:g},{y:g} {back:g},{y - 4:g} {back:g},{y + 4:g}" class="head"/>'


class Timeline(Picture):
    """Shows what runs when."""

    option_spec: ClassVar = {"until": float, "letters": int}

    def draw(self, lines: Sequence[str]) -> tuple[int, Iterable[str]]:
        """Draw rows from top to bottom, with time from left to right."""
        entries = [[part.strip() for part in entry.split("|")] for entry in lines]
        rows = [entry for entry in entries if entry[0] != "note"]
        marks = [entry for entry in entries if entry[0] == "note"]
        last = self.options.get("until", max(float(row[2]) for row in rows))
        names = CODE_LETTER * self.options.get("letters", max(len(row[0]) for row in rows)) + 8
        scale = (WIDTH - names - 12) / last
        bottom = 14 + 34 * len(rows)
        parts: list[str] = []
        for number, (_, when, words) in enumerate(marks):
            x = names + float(when) * scale
            y = bottom + LINE * (number + 1)
            anchor = "end" if x > WIDTH * 0.6 else "start" if x < WIDTH * 0.4 else "middle"
            parts += [line([(x, 4), (x, y - 12)], "mark"), text(x, y + 2, words, "small", anchor)]
        for number, (name, begin, end, kind, words) in enumerate(rows):
            y = 14 + 34 * number
            left, right = names + float(begin) * scale, names + float(end) * scale
            parts += [text(0, y + 14, name, "code"), box(left, y, right - left, 20, f"bar {kind}")]
            parts += self._label(left, right, y + 14, {"error": "✗ ", "value": "✓ "}.get(kind, "") + words)
        return bottom + LINE * len(marks) + 8, parts

    @staticmethod
    def _label(left: float, right: float, y: float, words: str) -> list[str]:
        """Return a label, inside the bar if it fits, otherwise next to it."""
        needed = LETTER * len(words) + 12
        if right - left >= needed:
            return [text(right - 6, y, words, "on", "end")]
        if WIDTH - right >= needed:
            return [text(right + 6, y, words)]
        return [text(left - 6, y, words, "", "end")]


class Travel(Picture):
    """Shows what the parties send to one another."""

    def draw(self, lines: Sequence[str]) -> tuple[int, Iterable[str]]:
        """Draw the parties side by side, with time from top to bottom."""
        parties = [party.strip() for party in lines[0].split("|")]
        step = WIDTH / len(parties)
        centre = {party: step * (number + 0.5) for number, party in enumerate(parties)}
        y = 30.0
        parts: list[str] = []
        for entry in lines[1:]:
            who, _, words = entry.partition(":")
            sender, arrow, receiver = (part.strip() for part in who.partition("->"))
            x, to = centre[sender], centre[receiver] if arrow else centre[sender]
            y += 16
            wrapped = textwrap.wrap(words.strip(), int((abs(to - x) if arrow else step) / LETTER) - 3)
            if not arrow:  # a note, which covers part of the lifeline
                width = LETTER * max(map(len, wrapped)) + 12
                parts.append(box(x - width / 2, y - 12, width, 14 * len(wrapped) + 4, "note"))
            for part in wrapped:
                parts.append(text((x + to) / 2, y, part, "small", "middle"))
                y += 14
            if arrow:
                direction = 1 if to > x else -1
                parts += [line([(x, y - 6), (to - 8 * direction, y - 6)], "arrow"), arrowhead(to, y - 6, direction)]
        height = int(y) + 14
        behind: list[str] = []
        for party, x in centre.items():
            behind += [line([(x, 28), (x, height)], "life"), box(x - step / 2 + 4, 2, step - 8, 26, "party")]
            behind.append(text(x, 19, party, "code", "middle"))
        return height, behind + parts


class Ownership(Picture):
    """Shows what lives inside what."""

    def draw(self, lines: Sequence[str]) -> tuple[int, Iterable[str]]:
        """Draw nested boxes on the left, and the results on the right."""
        parts: list[str] = []
        frames: list[tuple[int, float]] = []  # the depth of each open box, and its top
        indents = [len(entry) - len(entry.lstrip()) for entry in lines]
        y = 2.0

        def close(depth: int) -> None:
            nonlocal y
            while frames and frames[-1][0] >= depth:
                inside, top = frames.pop()
                parts.insert(0, box(2 + 14 * inside, top, TASKS - 28 * inside, y - top, "frame"))
                y += 8

        for number, entry in enumerate(lines):
            depth = indents[number] // 2
            close(depth)
            name, arrow, result = (part.strip() for part in entry.partition("->"))
            if indents[number + 1 : number + 2] > [indents[number]]:
                frames.append((depth, y))
                for words in textwrap.wrap(name, int((TASKS - 28 * depth - 20) / LETTER)):
                    parts.append(text(12 + 14 * depth, y + 18, words, "small"))
                    y += 14
                y += 14
                continue
            right = TASKS - 14 * depth
            parts += [
                box(2 + 14 * depth, y, right - 14 * depth, 24, "party"),
                text(12 + 14 * depth, y + 16, name, "code"),
            ]
            if arrow:
                parts += [line([(right + 2, y + 12), (RESULTS - 8, y + 12)], "arrow"), arrowhead(RESULTS, y + 12, 1)]
                parts += [box(RESULTS, y, WIDTH - RESULTS - 2, 24, "result"), text(RESULTS + 8, y + 16, result, "code")]
            y += 32
        close(0)
        return int(y), parts


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("timeline", Timeline)
    app.add_directive("travel", Travel)
    app.add_directive("ownership", Ownership)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
