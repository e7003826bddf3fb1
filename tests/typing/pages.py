"""Write the code of the documentation's pages into a folder, as modules for type checkers: nox -s types.

    python tests/typing/pages.py FOLDER

A module has its code on the same lines as its page. The blocks of a page form one program, in which each new `main`
replaces the one before, so the mains are numbered here. Two kinds of pages are left out: those about migrating, which
show pairs of programs, and the README, whose code has no types, to be short.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def code_of(page: str) -> str:
    """The Python lines of a page. All other lines are emptied."""
    lines: list[str] = []
    blocks = 0
    in_block = False
    for line in page.splitlines():
        if line == "```python":
            in_block, blocks = True, blocks + 1
            lines.append("")
        else:
            in_block = in_block and line != "```"
            lines.append(re.sub(r"\bmain\b", f"main{blocks}", line) if in_block else "")
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    for module in folder.glob("*.py"):
        module.unlink()  # its page may no longer exist
    for page in DOCS.rglob("*.md"):
        code = code_of(page.read_text(encoding="utf-8"))
        if code.strip() and not page.name.startswith("from-"):
            name = "_".join(page.relative_to(DOCS).with_suffix("").parts).replace("-", "_")
            (folder / f"{name}.py").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
