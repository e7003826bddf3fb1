"""A directive that shows a plot from ``docs/plots``, with the directive's content as the caption.

The benchmarks draw the plots. The SVG becomes part of the page, so its text takes the page's colour, light or dark. If
a plot hasn't been drawn yet, the page can still be built, and says so.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLOTS = Path(__file__).parents[1] / "plots"


class Plot(SphinxDirective):
    """Shows the plot with this name."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Include the plot."""
        path = PLOTS / f"{self.arguments[0]}.svg"
        self.env.note_dependency(str(path))
        caption = html.escape(" ".join(self.content))
        if not path.exists():
            return [nodes.paragraph(text=f"{caption}: this plot hasn't been drawn yet.")]
        drawn = path.read_text(encoding="utf-8")
        drawn = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{path.stem}-", drawn)  # an ID occurs only once in a page
        svg = drawn[drawn.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
        figure = f'<figure class="plot"><div>{svg}</div><figcaption>{caption}</figcaption></figure>'
        return [nodes.raw("", figure, format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("plot", Plot)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
