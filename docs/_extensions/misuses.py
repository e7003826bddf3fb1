"""A directive that shows the mistakes in one topic of ``tests/misuse.py``, with their errors and what to do instead.

The tests try each of these mistakes and compare its message, so the page shows exactly what users get. Mistakes that
differ only in the call share an entry.
"""

from __future__ import annotations

import builtins
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import triores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sphinx.application import Sphinx

TABLE = Path(__file__).parents[2] / "tests" / "misuse.py"
PLACES = {
    "here": "",
    "in a thread": "In another thread:",
    "in another run": "In another Trio run:",
    "outside of Trio": "Outside a Trio run:",
}


class Misuses(SphinxDirective):
    """Shows the mistakes in one topic."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Make an entry for each error."""
        self.env.note_dependency(str(TABLE))
        misuses = [misuse for misuse in runpy.run_path(str(TABLE))["MISUSES"] if misuse.topic == self.arguments[0]]
        if not misuses:
            raise self.error(f"tests/misuse.py has no mistakes with the topic {self.arguments[0]!r}")
        groups: dict[object, list[Any]] = {}
        for misuse in misuses:
            alike = misuse.where, misuse.error, misuse.message, misuse.in_group, misuse.instead
            groups.setdefault(alike, []).append(misuse)
        return [self._entry(group) for group in groups.values()]

    def _entry(self, misuses: Sequence[Any]) -> nodes.Node:
        first = misuses[0]
        place = [nodes.paragraph(text=PLACES[first.where])] if PLACES[first.where] else []
        codes = [misuse.code for misuse in misuses]
        code = ("\n\n" if any("\n" in code for code in codes) else "\n").join(codes)
        error = link_to(first.error) + (", in an exception group" if first.in_group else "")
        message = self.parse_text_to_nodes(f"{error}: ``{first.message}``" if first.message else error)
        instead = self.parse_text_to_nodes(first.instead)
        return nodes.container(
            "",
            *place,
            nodes.literal_block(code, code, language="py"),  # "py", since blocks of "python" have a copy button
            nodes.container("", *message, classes=["misuse-error"]),
            nodes.container("", *instead, classes=["misuse-instead"]),
            classes=["misuse"],
        )


def link_to(name: str) -> str:
    """Return the name of an exception, as a link if it is documented anywhere."""
    if name in triores.__all__:
        return f"{{py:exc}}`~triores.{name}`"
    if hasattr(trio, name):
        return f"{{py:exc}}`trio.{name}`"
    if hasattr(builtins, name):
        return f"{{py:exc}}`{name}`"
    return f"`{name}`"


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("misuses", Misuses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
