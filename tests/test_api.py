"""The public API, as text, beside the snapshot in ``api.txt``: what users rely on changes on purpose only.

After such a change, write the snapshot anew with ``python tests/test_api.py``, and its line in the changelog.
"""

from __future__ import annotations

import inspect
import pathlib
from typing import TYPE_CHECKING

import triores
import triores.trace

if TYPE_CHECKING:
    from collections.abc import Callable

SNAPSHOT = pathlib.Path(__file__).with_name("api.txt")


def described() -> list[str]:
    """A line for each public name, and for each public member that triores itself defines for it."""
    lines: list[str] = []
    names = {name: getattr(triores, name) for name in triores.__all__} | {"trace.Recorder": triores.trace.Recorder}
    for name, public in sorted(names.items()):
        if not inspect.isclass(public):
            lines.append(signed(name, public))
            continue
        bases = ", ".join(base.__name__ for base in public.__mro__[1:] if base.__name__ in triores.__all__)
        lines.append(f"class {name}({bases})" if bases else f"class {name}")
        lines.extend(f"{name}.{line}" for line in members(public))
    return lines


def members(public: type[object]) -> list[str]:
    lines: list[str] = []
    for name, member in sorted(vars(public).items()):
        if name.startswith("_") and name not in {
            "__init__",
            "__await__",
            "__enter__",
            "__exit__",
            "__aenter__",
            "__aexit__",
        }:
            continue
        if isinstance(member, (classmethod, staticmethod)):
            lines.append(signed(name, getattr(public, name)))
        elif inspect.isfunction(member):
            lines.append(signed(name, member))
        else:
            lines.append(name)
    return lines


def signed(name: str, function: Callable[..., object]) -> str:
    return f"{name}{' async' if inspect.iscoroutinefunction(function) else ''} {inspect.signature(function)}"


def test_the_public_api_is_that_of_the_snapshot() -> None:
    assert described() == SNAPSHOT.read_text().splitlines(), (
        "the public API has changed; if that is meant, write the snapshot anew with 'python tests/test_api.py', and a "
        "line about it in CHANGELOG.md"
    )


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in described()))
