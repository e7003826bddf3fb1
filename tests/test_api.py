"""The public API is compared with the snapshot in ``api.txt``, so that it changes only on purpose.

After such a change, update the snapshot with ``python tests/test_api.py``, and add a line to the changelog.
"""

from __future__ import annotations

import inspect
import pathlib
from typing import TYPE_CHECKING

import triores
import triores.debug
import triores.trace

if TYPE_CHECKING:
    from collections.abc import Callable

SNAPSHOT = pathlib.Path(__file__).with_name("api.txt")


def described() -> list[str]:
    """One line for each public name, and one for each of its public members that triores defines."""
    lines: list[str] = []
    names = {name: getattr(triores, name) for name in triores.__all__} | {"trace.Recorder": triores.trace.Recorder}
    names |= {f"debug.{name}": getattr(triores.debug, name) for name in triores.debug.__all__ if name.islower()}
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


def test_the_public_api_matches_the_snapshot() -> None:
    assert described() == SNAPSHOT.read_text().splitlines(), (
        "the public API has changed; if that is intended, update the snapshot with 'python tests/test_api.py', and add "
        "a line about it to CHANGELOG.md"
    )


def test_public_classes_have_no_private_bases_that_help_would_show() -> None:
    public = {getattr(triores, name) for name in triores.__all__}
    bases = {base for one in public if inspect.isclass(one) for base in one.__mro__}
    assert not {base for base in bases - public if base.__module__.startswith("triores")}


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in described()))
