"""The example programs of fan-out: progress bars and a link checker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from test_examples_inflight import run_example

if TYPE_CHECKING:
    from pathlib import Path


# ---- progress bars


async def test_tqdm_draws_a_bar_that_gets_to_the_end_for_each_way() -> None:
    ended = await run_example("progress_tqdm.py", "--items", "31")
    assert (ended.stdout, ended.returncode) == (b"open_amap: 465\nas_completed: 465\n", 0)
    bars = re.findall(r"(\w+): +(\d+)%\|.*?\| (\d+)/(\d+) \[", ended.stderr.decode())
    assert bars[0] == ("open_amap", "0", "0", "31")
    assert bars[-1] == ("as_completed", "100", "31", "31")
    assert ("open_amap", "100", "31", "31") in bars


async def test_rich_draws_bars_of_what_is_done_and_what_has_failed() -> None:
    ended = await run_example("progress_rich.py", "--items", "31")
    # Of the numbers below 31, but for 9, 19 and 29, which fail.
    assert (ended.stdout, ended.returncode) == (b"open_amap: 408\nas_completed: 408\n", 0)
    bars = re.findall(r"^(\w+) +\S+ +(\d+)% .*$", ended.stderr.decode(), re.MULTILINE)
    assert bars == [("open_amap", "100"), ("failed", "10"), ("as_completed", "100")]


# ---- a link checker

GOOD = {
    "index.html": '<a href="sub/page.md">1</a> <img src="/my%20picture.png?size=1"> <a href="sub">2</a>'
    ' <a href="https://example.org/no">-</a> <a href="//example.org/no">-</a> <a href="mailto:a@example.org">-</a>',
    "my picture.png": "",
    "sub/page.md": "[1](../index.html) ![2](../my%20picture.png) [3](<../my picture.png>) [4][there]"
    " `[5](code.html)` <https://example.org>\n\n[there]: /sub/caf%C3%A9.html",
    "sub/café.html": "<a href=../index.html>1</a>",
    "sub/ignored.txt": '<a href="nowhere.html">',
}
BAD = {
    "outside.html": "",
    "tree/a.html": '<a href="gone1.html#x">, <a href="b.md">, <a href="../outside.html">',
    "tree/b.md": "[1](/gone2.html) [2](%2e%2e/outside.html) [3](link.html)",
}


def write_tree(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


async def test_a_tree_without_broken_links_passes(tmp_path: Path) -> None:
    write_tree(tmp_path, GOOD)
    ended = await run_example("link_checker.py", str(tmp_path))
    assert (ended.stderr, ended.returncode) == (b"", 0)
    assert b"gone" not in ended.stdout


async def test_each_broken_link_is_named_and_the_program_fails(tmp_path: Path) -> None:
    write_tree(tmp_path, BAD)
    (tmp_path / "tree/link.html").symlink_to("../outside.html")
    ended = await run_example("link_checker.py", str(tmp_path / "tree"), "--limit", "2")
    assert (ended.stderr, ended.returncode) == (b"", 1)
    shown = ended.stdout.decode()
    for link in ("gone1.html", "gone2.html", "../outside.html", "%2e%2e/outside.html", "link.html"):
        assert link in shown


@pytest.mark.parametrize("arguments", [["missing"], [".", "--limit", "0"], [".", "--timeout", "nan"]])
async def test_wrong_arguments_are_refused(arguments: list[str], tmp_path: Path) -> None:
    ended = await run_example("link_checker.py", str(tmp_path / arguments[0]), *arguments[1:])
    assert (ended.stdout, ended.returncode) == (b"", 2)
    assert b"error: " in ended.stderr
