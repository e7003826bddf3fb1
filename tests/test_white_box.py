"""The tests use the public face of the package, so that its inside can change under them. The exceptions are listed."""

from __future__ import annotations

import re
from pathlib import Path

REASONS = {
    "_programs.py": "random programs hear of a circle before the error can be swallowed by what they do",
    "test_aioresult_compat.py": "the name of the module of the bases that aioresult does not have",
    "test_debug.py": "the parts of a dump that fail must not stop it, and its graph is searched apart from any run",
    "test_exceptions.py": "how deep groups are taken apart is tested at depths that no real failure has",
    "test_foreign.py": "two objects with one id, one after the other, come about by chance only",
    "test_ownership.py": "two threads that claim a result at once: the lock is where one of them can be held up",
    "test_pytest_plugin.py": "the plugin replaces a method while a test runs, and has to put it back",
    "test_threads.py": "a run that ends, or a future that is cancelled, between two steps of another thread",
    "test_trace.py": "the drawing of a timeline must not be imported before it is used",
    "test_wait_cycles.py": "the hooks that the check for cycles reads",
}
PRIVATE = re.compile(
    r"triores\._[a-z]\w+|^    _[a-z]\w+,$"  # a private module
    r"|(?<!self)\.(?:_flights|_futures|_awaited|_registered|_owner|_started|_waiter|_outcome)\b",
    re.MULTILINE,
)


def test_no_test_looks_inside_the_package_without_a_reason_here() -> None:
    looking: set[str] = set()
    for path in Path(__file__).parent.glob("*.py"):
        text = re.sub(r"^if TYPE_CHECKING:\n(?:    .*\n|\n)*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if path.name != Path(__file__).name and PRIVATE.search(text):
            looking.add(path.name)
    assert looking == REASONS.keys()
