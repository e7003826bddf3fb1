"""Tests use only the public API, so that the private parts can change. This file lists the exceptions, with reasons."""

from __future__ import annotations

import re
from pathlib import Path

REASONS = {
    "_programs.py": "random programs have to notice a cycle before they can swallow the error",
    "test_aioresult_compat.py": "base classes that aioresult doesn't have are recognized by their module",
    "test_debug.py": "a dump has to survive parts that fail, and its graph is searched outside any run",
    "test_exceptions.py": "exception groups are nested deeper than any real failure",
    "test_foreign.py": "two objects get the same id, one after the other, only by chance",
    "test_ownership.py": "two threads claim a result at once, and one of them has to be stopped at the lock",
    "test_pytest_plugin.py": "the plugin patches methods while a test runs, and has to restore them",
    "test_threads.py": "a run ends, or a future is cancelled, between two steps of another thread",
    "test_trace.py": "the module that draws timelines must not be imported before it is used",
    "test_wait_cycles.py": "the hooks that the check for cycles reads",
}
PRIVATE = re.compile(
    r"triores\._[a-z]\w+|^    _[a-z]\w+,$"  # a private module
    r"|(?<!self)\.(?:_flights|_futures|_awaited|_registered|_owner|_started|_waiter|_outcome)\b",
    re.MULTILINE,
)


def test_only_the_files_listed_here_use_private_parts_of_the_package() -> None:
    looking: set[str] = set()
    for path in Path(__file__).parent.glob("*.py"):
        text = re.sub(r"^if TYPE_CHECKING:\n(?:    .*\n|\n)*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if path.name != Path(__file__).name and PRIVATE.search(text):
            looking.add(path.name)
    assert looking == REASONS.keys()
