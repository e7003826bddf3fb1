"""The documentation: each code block runs and prints what the page says, and each link has a target.

The Python blocks of a page run in order and share a namespace, so a page may build up a program piece by piece. A block
that awaits outside a function runs as it would in ``python -m trio``. An ``output`` block is the expected output of the
Python block before it, or of each block in the set of tabs before it. Without one, nothing may be printed.
Trio runs with a mock clock, so sleeping takes no time. If a block prints its own line numbers, as a dump does, they
are shown as if the block were a file ``app.py``.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from _examples import run_example

import triores
from triores import debug

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
EXAMPLES = {path.relative_to(ROOT).as_posix() for path in DOCS.glob("examples/*.py")}

# Shell lines aren't run here. Only these are allowed: other tests run them, or they need a published package.
SHELL = re.compile(
    r"pip install (\.|triores|tqdm rich)"
    r"|python -m trio"
    r"|pytest -p triores\.pytest_plugin"
    r"|python -m triores 12345"
    r"|python3 -m venv \.venv && \.venv/bin/pip install -q nox && \.venv/bin/nox -s (demo|tests)"
    rf"|python (?P<program>{'|'.join(map(re.escape, sorted(EXAMPLES)))}).*"
)


class Block(NamedTuple):
    language: str
    source: str
    line: int  # the number of its first line, from 1
    output: str = ""


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(page: Path) -> list[tuple[str, str, int, bool]]:
    """The fenced blocks of a page: language, source, first line, and whether it is in a set of tabs."""
    found: list[tuple[str, str, int, bool]] = []
    in_tabs = False
    inside: tuple[str, str, int] | None = None  # the backticks of the fence, the language, and the first line
    source: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"^(`{3,})([^`]*)$", line)
        if inside is None:
            if fence:
                inside, source = (fence[1], fence[2].strip(), number + 1), []
            elif line.startswith("::::"):
                in_tabs = line.startswith("::::{tab-set}")
        elif fence and fence[1] == inside[0] and not fence[2]:
            found.append((inside[1], "\n".join(source) + "\n", inside[2], in_tabs))
            inside = None
        else:
            source.append(line)
    assert inside is None, f"{page_id(page)}:{inside[2]}: this block is not closed"
    return found


def blocks(page: Path) -> list[Block]:
    """The blocks to run, each with its expected output."""
    found: list[Block] = []
    group: list[int] = []  # the latest block, or all blocks of the latest set of tabs
    were_in_tabs = False
    for language, source, line, in_tabs in fences(page):
        if language == "output":
            assert group, f"{page_id(page)}:{line}: no block before it could print this"
            for index in group:
                found[index] = found[index]._replace(output=source)
            group = []
        elif language in ("python", "sh"):
            if not (in_tabs and were_in_tabs):
                group = []
            group.append(len(found))
            found.append(Block(language, source, line))
        else:
            assert language.startswith("{"), f"{page_id(page)}:{line}: blocks of {language!r} are never run"
        were_in_tabs = in_tabs
    return found


def run(source: str, name: str, line: int, namespace: dict[str, Any]) -> str:
    """Run a block, and return its output."""
    padded = "\n" * (line - 1) + source
    code = compile(padded, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        awaiting = eval(code, namespace)
        if inspect.iscoroutine(awaiting):
            trio.run(lambda: awaiting)
    return re.sub(
        rf'File "{re.escape(name)}", line (\d+)',
        lambda place: f'File "app.py", line {int(place[1]) - line + 1}',
        printed.getvalue(),
    )


@pytest.fixture
def mock_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time jump ahead whenever nothing happens for a thousandth of a second."""
    really_run = trio.run

    def run_with_mock_clock(*args: Any, clock: trio.abc.Clock | None = None, **kwargs: Any) -> Any:
        return really_run(*args, clock=clock or trio.testing.MockClock(autojump_threshold=0.001), **kwargs)

    monkeypatch.setattr(trio, "run", run_with_mock_clock)


def new_namespace() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if sys.version_info < (3, 11):
        import exceptiongroup

        namespace |= {name: getattr(exceptiongroup, name) for name in ("ExceptionGroup", "BaseExceptionGroup")}
    return namespace


def is_too_new(block: Block) -> bool:
    """Whether a block needs Python 3.11, because it uses ``except*`` or notes on exceptions."""
    return sys.version_info < (3, 11) and ("except*" in block.source or "__notes__" in block.source)


@pytest.mark.usefixtures("mock_time")
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_code_block_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some blocks save files
    if any(map(is_too_new, blocks(page))):
        pytest.skip("the page needs Python 3.11")
    namespace = new_namespace()
    for block in blocks(page):
        where = f"{page_id(page)}:{block.line}"
        if block.language == "sh":
            for command in block.source.splitlines():
                assert SHELL.fullmatch(command), f"{where}: no test runs {command!r}"
        else:
            printed = run(block.source, str(page), block.line, namespace)
            assert printed == block.output, f"{where} printed something else"


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_to_a_file_leads_to_an_existing_file(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose)]
    files = [target for target in targets if target and not re.match(r"https?:|mailto:", target)]
    missing = [target for target in files if not (page.parent / target).exists()]
    assert not missing, f"{page_id(page)} links to files that do not exist: {missing}"


def test_the_readme_links_to_each_part_of_the_documentation() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((docs/[\w/-]+\.md)\)", readme))
    assert {f"docs/{part}/index.md" for part in ("tutorial", "how-to", "reference", "explanation")} <= linked


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_program_mentioned_on_a_page_exists(page: Path) -> None:
    named = set(re.findall(r"docs/examples/\w+\.py", page.read_text(encoding="utf-8")))
    assert named <= EXAMPLES


# ---- pages that have to be complete, or to match a program


def test_every_example_program_has_a_section_on_the_page_of_examples() -> None:
    page = (DOCS / "how-to" / "examples.md").read_text(encoding="utf-8")
    run = re.findall(r"^python (docs/examples/\w+\.py)", page, re.MULTILINE)
    shown = re.findall(r"^```\{literalinclude\} \.\./(examples/\w+\.py)", page, re.MULTILINE)
    assert run == [f"docs/{path}" for path in shown]
    assert sorted(run) == sorted(EXAMPLES)


def test_the_page_about_asyncio_compares_every_member_of_its_futures() -> None:
    import asyncio

    page = (DOCS / "how-to" / "from-asyncio.md").read_text(encoding="utf-8")
    methods = {f"Future.{name}" for name in dir(asyncio.Future) if not name.startswith("_")}
    wanted = methods | {"isfuture", "ensure_future", "wrap_future", "class Future"}
    shown = dict(re.findall(r"^### `([\w. ]+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    assert set(shown) == wanted
    for name, section in shown.items():
        assert section.count("```python") == 2, name
        assert section.count("```output") == 1, name


def test_each_public_name_is_in_the_reference() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: (\w+)", pages, re.MULTILINE))
    assert documented == {*triores.__all__, *debug.__all__, "Recorder"}


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("from-*.md")), ids=page_id)
def test_the_tabs_of_the_migration_pages_open_on_triores(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count(":::{tab-item} triores\n:sync: triores\n:selected:\n") == text.count("::::{tab-set}\n") > 0


def test_each_public_name_is_in_the_table_at_the_top_of_the_packages_help() -> None:
    assert triores.__doc__ is not None
    assert set(re.findall(r"\w+", triores.__doc__)) >= set(triores.__all__) - {"ResultStatistics"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the program needs asyncio.TaskGroup")
def test_the_comparison_page_shows_what_the_program_prints() -> None:
    ran = run_example("compare_peers.py")
    page = (DOCS / "explanation" / "comparison.md").read_text(encoding="utf-8")
    assert (ran.stderr, ran.returncode) == (b"", 0)
    printed = ran.stdout.decode()
    assert printed in page, f"copy what compare_peers.py prints into comparison.md:\n{printed}"


def luminance(colour: str) -> float:
    """How bright a colour such as ``#1f8a55`` is, from 0 to 1: WCAG 2.2, "relative luminance"."""
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("page", ["#ffffff", "#131416"], ids=["light", "dark"])
@pytest.mark.parametrize("plot", sorted(DOCS.glob("plots/*.svg")), ids=page_id)
def test_every_line_of_a_plot_stands_out_from_the_page(plot: Path, page: str) -> None:
    colours = set(re.findall(r"stroke: (#[0-9a-f]{6})", plot.read_text(encoding="utf-8")))
    assert colours
    for colour in colours:
        darker, lighter = sorted((luminance(colour), luminance(page)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, colour  # what WCAG asks for graphics
