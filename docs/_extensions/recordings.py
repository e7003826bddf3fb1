"""A directive that runs an example with ``--trace`` during the build, and shows the timeline that it draws.

The directive's argument is the name of the example, followed by the program's arguments; the directive's content is the
caption. The program runs in the root of the repository.
"""

from __future__ import annotations

import html
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
SECONDS = 60  # if a program takes longer, we assume that it hangs


class RecordingOfExample(SphinxDirective):
    """Shows the timeline that a program draws."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the program, and include what it draws."""
        name, *arguments = shlex.split(self.arguments[0])
        program = ROOT / "docs" / "examples" / name
        self.env.note_dependency(str(program))
        with TemporaryDirectory() as folder:
            drawn = Path(folder) / "run.svg"
            command = [sys.executable, str(program), *arguments, "--trace", str(drawn)]
            ran = subprocess.run(  # noqa: S603 # the pages say which program
                command, cwd=ROOT, capture_output=True, check=False, timeout=SECONDS
            )
            if ran.returncode:
                raise self.error(f"{name} failed: {(ran.stdout + ran.stderr).decode(errors='replace')}")
            svg = drawn.read_text(encoding="utf-8")
        caption = html.escape(" ".join(self.content))
        figure = f'<figure class="recording">{svg}<figcaption>{caption}</figcaption></figure>'
        return [nodes.raw("", figure, format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("recording", RecordingOfExample)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
