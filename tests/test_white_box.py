"""Tests use only the public API, so that the private parts can change. This file lists the exceptions, with reasons."""

from __future__ import annotations

import re
from pathlib import Path

REASONS = {
    "_programs.py": "random programs have to notice a cycle without getting the error",
    "test_aioresult_compat.py": "base classes that aioresult doesn't have are recognized by their module",
    "test_amap.py": "Ctrl-C comes between the start of a task and the first line of its function only by chance",
    "test_debug.py": "a dump has to survive parts that fail, and its graph is searched outside any run",
    "test_exceptions.py": "exception groups are nested deeper than any real failure",
    "test_foreign.py": "two objects get the same id, one after the other, only by chance",
    "test_misuse.py": "whether a capture has been started can't be seen from outside before it ends",
    "test_ownership.py": "two threads claim a result at once, and one of them has to be stopped at the lock",
    "test_pytest_plugin.py": "the plugin patches methods while a test runs, and has to restore them",
    "test_threads.py": "a run ends, or a future is cancelled, between two steps of another thread",
    "test_trace.py": "spans have no public face, and the module that draws timelines must not be imported early",
    "test_wait_cycles.py": "the check for cycles depends on private hooks of results and tasks",
}
PRIVATE = re.compile(
    r"triores\._[a-z]\w+|^    _[a-z]\w+,$"  # a private module
    r'|, "_[a-z]\w+"'  # a private name passed to getattr or setattr
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
