"""The public names, what importing the package loads, and how much memory a future takes."""

from __future__ import annotations

import ast
import gc
import inspect
import pickle
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import triores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(triores.__file__).parent


@pytest.mark.parametrize("name", triores.__all__)
def test_every_public_name_has_a_docstring_and_belongs_to_the_package(name: str) -> None:
    public = getattr(triores, name)
    assert public.__module__ == "triores"
    assert public.__qualname__ == name
    assert inspect.getdoc(public)
    if inspect.isclass(public):
        for member, value in inspect.getmembers(public):
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member} has no docstring"


def test_only_the_names_in_all_are_public() -> None:
    assert triores.__all__ == sorted(triores.__all__)
    public = {name for name in vars(triores) if not name.startswith("_")}
    modules = {path.stem for path in PACKAGE.glob("[a-z]*.py")}  # users import them by their own names
    assert public - modules - {"annotations"} == set(triores.__all__)


@pytest.mark.parametrize("name", [name for name in triores.__all__ if inspect.isclass(getattr(triores, name))])
def test_a_public_class_can_be_pickled_by_its_name(name: str) -> None:
    public = getattr(triores, name)
    pickled = pickle.dumps(public)
    assert pickle.loads(pickled) is public
    assert b"triores\n" in pickle.dumps(public, protocol=0)
    assert b"triores._" not in pickled


IMPORTS = """
import sys, trio, outcome
before = set(sys.modules)
import triores
print(*sys.modules)
print(*set(sys.modules) - before)
"""


def printed_by(program: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    return ran.stdout


def test_importing_the_package_loads_no_other_event_loop_and_no_thread_pool() -> None:
    ran = printed_by(IMPORTS)
    everything, added = (line.split() for line in ran.splitlines())
    assert "triores" in added
    assert not {"asyncio", "concurrent.futures", "anyio"} & {*everything}
    third_party = {name.partition(".")[0] for name in added} - sys.stdlib_module_names
    assert third_party == {"triores"}


def test_the_package_is_marked_as_typed_and_its_version_has_three_parts() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert triores.__version__.count(".") == 2


def test_results_have_no_dict() -> None:
    for result in (triores.Future[int](), triores.ResultCapture(trio.sleep, 1), triores.ResultBase[int]()):
        assert not hasattr(result, "__dict__")


def bytes_each(make: Callable[[], object]) -> float:
    """How many bytes one object takes, together with everything that only it keeps alive."""
    count = 20_000  # enough that other allocations don't matter
    kept = [make() for _ in range(count)]
    kept.clear()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [object()] * count
        before, _ = tracemalloc.get_traced_memory()
        for index in range(count):
            kept[index] = make()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / count


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info[:2] not in {(3, 11), (3, 13)},
    reason="the figures are for CPython 3.11 and 3.13; objects have other sizes in other versions",
)
@pytest.mark.leaves_results  # what the plugin notes about results would take memory too
def test_a_future_takes_little_memory() -> None:
    def make_done() -> triores.Future[object]:
        future = triores.Future[object]()
        future.set_result(None)
        return future

    def make_failed() -> triores.Future[object]:
        future = triores.Future[object]()
        future.set_exception(error)
        return future

    error = ValueError()
    assert bytes_each(triores.Future) <= 81  # including its share of the list
    assert bytes_each(make_done) <= 146
    assert bytes_each(make_failed) <= 146


def imported_modules() -> set[str]:
    """The top-level modules that the package imports at run time on some version of Python."""
    names: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        for node in walk_runtime(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.partition(".")[0])
    return names


def walk_runtime(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that are only for type checkers."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_runtime(child)


def test_every_imported_third_party_module_is_a_declared_dependency() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r"^dependencies = \[(.*)\]$", pyproject, re.MULTILINE)
    assert declared is not None
    names = set(re.findall(r'"([a-z]+)', declared[1]))
    imported = imported_modules() - sys.stdlib_module_names - {"pytest"}  # only the pytest plugin imports it
    assert imported == names == {"exceptiongroup", "outcome", "trio"}
