"""A directive that shows every plot in ``docs/plots``, in the order of the files' names, where there are any.

The benchmarks write the plots. Each is an SVG, whose ``<title>`` is its caption here.
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


class Plots(SphinxDirective):
    """All plots there are, inside the page, so that they take its colours."""

    def run(self) -> list[nodes.Node]:
        """Include them."""
        self.env.note_dependency(str(PLOTS))
        shown: list[nodes.Node] = []
        for path in sorted(PLOTS.glob("*.svg")):
            svg = path.read_text(encoding="utf-8")
            svg = svg[svg.index("<svg") :]
            title = re.search(r"<title>(.*?)</title>", svg, re.DOTALL)
            caption = html.escape(path.stem.replace("_", " ").replace("-", " ")) if title is None else title[1]
            figure = f'<figure class="plot">{svg}<figcaption>{caption}</figcaption></figure>'
            shown.append(nodes.raw("", figure, format="html"))
        return shown or [nodes.paragraph(text="The plots are drawn by “nox -s bench”, and have not been drawn yet.")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("plots", Plots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
