"""Mutation testing: each mutant of the package, one after another, has to be noticed by a test.

The mutants are those of mutmut's operators. mutmut itself leaves out every function that has a decorator, which here
are the most important ones, and puts frames of its own around the others, which the tests of reference cycles and of
Ctrl-C notice. So the mutants are made here as whole files, in a copy of the package.

First the tests run once, to see how long each takes and which lines it runs. Then, for each mutant, the tests of its
line run until one fails: the few quickest in one process, and all the others in another, both forked from one that has
imported the tests' libraries.
"""

# mutmut is installed in the session of this program only:
# mypy: disable-error-code="misc,no-any-return"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "triores"
# What runs programs in other processes, or looks at text only, tells nothing of a mutant.
LEFT_OUT = ("test_docs.py", "test_examples", "test_package.py", "test_cluster.py", "test_api.py", "test_docstrings.py")
FEW = 40  # tests, which most mutants do not outlive
GRACE = 5.0  # seconds that a test may take beyond 10 times what it took; then it hangs, and has noticed


class Mutant(NamedTuple):
    module: str
    name: str  # of the function
    line: int
    lines: range  # of the statement that it is in
    function: range  # the lines of the function that it is in
    before: str
    after: str
    source: Callable[[], str]  # of the whole module, made when it is wanted, since that takes long

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.name}: {self.before}  ->  {self.after}"


class EveryFunction(MutationVisitor):
    """mutmut's visitor, but for its rule that leaves out what has a decorator."""

    METADATA_DEPENDENCIES = (*MutationVisitor.METADATA_DEPENDENCIES, ParentNodeProvider)

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return "overload" in {cst.Module([]).code_for_node(one.decorator) for one in node.decorators}
        return bool(super()._skip_node_and_children(node))


def mutants_of(path: Path) -> Iterator[Mutant]:
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    visitor = EveryFunction(mutation_operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)
    parents = wrapper.resolve(ParentNodeProvider)
    for mutation in visitor.mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, cst.FunctionDef):
            continue
        before, after = map(module.code_for_node, (mutation.original_node, mutation.mutated_node))
        if before == after:
            continue
        statement: cst.CSTNode = mutation.original_node
        while not isinstance(statement, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            statement = parents[statement]
        where = positions[statement]
        last = (
            where.end.line
            if isinstance(statement, cst.SimpleStatementLine)
            else positions[mutation.original_node].end.line
        )
        yield Mutant(
            path.name,
            function.name.value,
            positions.get(mutation.original_node, where).start.line,
            range(where.start.line, last + 1),
            range(positions[function].start.line, positions[function].end.line + 1),
            before,
            after,
            partial(source_with, module, mutation),
        )


def source_with(module: cst.Module, mutation: Mutation) -> str:
    mutated = deep_replace(module, mutation.original_node, mutation.mutated_node)
    assert isinstance(mutated, cst.Module)
    return mutated.code


class Recorder:
    """A plugin of pytest: how long each test takes, and which lines of the package it runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        measuring = coverage.Coverage.current()
        assert measuring is not None
        measuring.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - began
        return result


def record(folder: Path) -> None:
    """Run the tests once. This is called in a process of its own, which coverage measures."""
    recorder = Recorder()
    ignored = [f"--ignore-glob=*{name}*" for name in LEFT_OUT]
    if pytest.main(["-q", "-p", "no:cacheprovider", *ignored], plugins=[recorder]) != 0:
        sys.exit("the tests fail without any mutant")
    (folder / "recorded.json").write_text(json.dumps(recorder.seconds), encoding="utf-8")


class Recorded:
    """What `record` has seen."""

    def __init__(self, folder: Path) -> None:
        self.seconds = json.loads((folder / "recorded.json").read_text(encoding="utf-8"))
        data = coverage.CoverageData(str(folder / "coverage"))
        data.read()
        self._tests = {Path(name).name: data.contexts_by_lineno(name) for name in data.measured_files()}

    def tests_of(self, mutant: Mutant) -> tuple[list[str], list[str]]:
        """The first few, which notice most mutants in less time than it takes to collect all the others; and those."""
        by_line = self._tests[mutant.module]
        covering: set[str] = set()
        for lines in (mutant.lines, mutant.function):  # a default value is made by no test, but by the import
            covering = covering or {test for line in lines for test in by_line.get(line, ()) if test in self.seconds}
        quick_first = sorted(covering, key=lambda test: self.seconds[test])
        return quick_first[:FEW], quick_first[FEW:]


class Watchdog:
    """A plugin of pytest: ends the process where a test hangs."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
        signal.setitimer(signal.ITIMER_REAL, GRACE + 10 * self._seconds.get(item.nodeid, 1.0))
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def is_noticed(mutant: Mutant, recorded: Recorded) -> bool:
    """Run the tests of a mutant on a copy of the package that has it, in processes forked from this one."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder, "triores"))
        Path(folder, "triores", mutant.module).write_text(mutant.source(), encoding="utf-8")
        return any(tests and is_failing(tests, folder, recorded) for tests in recorded.tests_of(mutant))


def is_failing(tests: list[str], folder: str, recorded: Recorded) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os._exit(run(tests, folder, recorded.seconds))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return status != 0


def run(tests: list[str], folder: str, seconds: dict[str, float]) -> int:
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    del sys.modules["__main__"].__file__  # or the processes that tests start would import it
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    order = {test: place for place, test in enumerate(tests)}

    class InOrder:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            items.sort(key=lambda item: order.get(item.nodeid, len(order)))

    options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no", "--no-header"]
    return int(pytest.main([*options, *tests], plugins=[InOrder(), Watchdog(seconds)]))


def judge(
    mutants: list[Mutant],
    recorded: Recorded,
    results: multiprocessing.Queue[tuple[int, bool | None]],
    part: int,
    parts: int,
) -> None:
    importlib.import_module("trio.testing")  # here, and then in none of the processes that are forked
    unchanged = mutants[0]._replace(source=partial((PACKAGE / mutants[0].module).read_text, encoding="utf-8"))
    if is_noticed(unchanged, recorded):
        results.put((0, None))  # the tests fail without any mutant, so what follows would say nothing
        return
    for number in range(part, len(mutants), parts):
        results.put((number, is_noticed(mutants[number], recorded)))


def main() -> None:
    parser = argparse.ArgumentParser(description="See that the tests notice each mutant of the package.")
    parser.add_argument("--record", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes judge mutants")
    parser.add_argument("--only", default="", help="only mutants of modules with this in their name")
    parser.add_argument("--sample", type=int, help="only so many mutants, chosen at random")
    parser.add_argument("--least", type=float, default=95.0, help="the percentage of noticed mutants to be reached")
    asked = parser.parse_args()
    if asked.record:
        record(asked.record)
        return
    mutants = [
        mutant for path in sorted(PACKAGE.glob("*.py")) if asked.only in path.name for mutant in mutants_of(path)
    ]
    random.Random(0).shuffle(mutants)  # so that the jobs have equal parts
    mutants = mutants[: asked.sample]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "coverage", "run", f"--data-file={folder}/coverage"),
                *(__file__, "--record", folder),
            ],
            cwd=ROOT,
            # Bytecode, since otherwise the processes below would compile the tests again for each mutant.
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""},
            check=True,
        )
        recorded = Recorded(Path(folder))
    os.chdir(ROOT)
    fork = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, bool | None]] = fork.Queue()
    jobs = [
        fork.Process(target=judge, args=(mutants, recorded, results, part, asked.jobs)) for part in range(asked.jobs)
    ]
    for job in jobs:
        job.start()
    survivors: list[Mutant] = []
    for done in range(1, len(mutants) + 1):
        number, noticed = results.get()
        if noticed is None:
            sys.exit("the tests fail without any mutant")
        if not noticed:
            survivors.append(mutants[number])
            print("not noticed:", mutants[number], flush=True)
        if done % 100 == 0:
            print(f"{done} of {len(mutants)} mutants, {len(survivors)} not noticed", flush=True)
    report(mutants, survivors, asked.least)


def report(mutants: list[Mutant], survivors: list[Mutant], least: float) -> None:
    made, left = Counter(mutant.module for mutant in mutants), Counter(mutant.module for mutant in survivors)
    for module in sorted(made):
        print(f"{module:20} {made[module]:5} mutants, {left[module]:3} not noticed")
    percentage = 100 * (1 - len(survivors) / len(mutants))
    print(f"{percentage:.1f} % of {len(mutants)} mutants are noticed")
    if percentage < least:
        sys.exit(f"fewer than {least} % are noticed")


if __name__ == "__main__":
    main()
