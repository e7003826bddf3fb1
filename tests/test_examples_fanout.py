"""The example programs of fan-out: progress bars and a link checker."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from test_examples_inflight import figures, load_example, run_example

if TYPE_CHECKING:
    from collections.abc import Callable
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

links = load_example("link_checker.py")

GOOD = {
    "index.html": '<a href="sub/page.md#part">1</a> <img src="/my%20picture.png?size=1"> <a href="sub">2</a>'
    ' <a href="#part">-</a> <a href="?query">-</a> <a href="">-</a> <a name="x" href>-</a>'
    ' <a href="https://example.org/no">-</a> <a href="//example.org/no">-</a> <a href="mailto:a@example.org">-</a>'
    ' <a href="//[">-</a>',
    "my picture.png": "",
    "sub/page.md": "[1](../index.html) ![2](../my%20picture.png) [3](<../my picture.png>) [4][there] <a href='./'>5</a>"
    " `[6](code.html)` <https://example.org>\n\n[there]: /sub/caf%C3%A9.html",
    "sub/café.html": "<a href=../index.html>1</a>",
    "sub/ignored.txt": '<a href="nowhere.html">',
}


def write_tree(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


async def test_a_tree_without_broken_links_passes(tmp_path: Path) -> None:
    write_tree(tmp_path, GOOD)
    ended = await run_example("link_checker.py", str(tmp_path))
    assert (ended.stderr, ended.returncode) == (b"", 0)
    assert b"links to" not in ended.stdout
    assert figures(ended.stdout) == {
        "pages": 3,
        "requests": 6,
        "links: 200 OK": 9,
    }


async def test_each_broken_link_gets_a_line_and_the_program_fails(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "outside.html": "",
            "tree/a.html": '<a href="gone.html#x">, <a href="b.md">, <a href="../outside.html">, <a href="b.md/">',
            "tree/b.md": "[1](/gone.html) [2](/../outside.html) [3](%2e%2e/outside.html) [4](link.html) [5](a%00b)",
        },
    )
    (tmp_path / "tree/link.html").symlink_to("../outside.html")
    ended = await run_example("link_checker.py", str(tmp_path / "tree"), "--limit", "2")
    assert (ended.stderr, ended.returncode) == (b"", 1)
    lines = ended.stdout.decode().splitlines()
    assert sorted(line for line in lines if "links to" in line) == [
        "'a.html' links to '../outside.html': 404 Not Found",
        "'a.html' links to 'b.md/': 404 Not Found",
        "'a.html' links to 'gone.html#x': 404 Not Found",
        "'b.md' links to '%2e%2e/outside.html': 404 Not Found",
        "'b.md' links to '/../outside.html': 404 Not Found",
        "'b.md' links to '/gone.html': 404 Not Found",
        "'b.md' links to 'a%00b': 404 Not Found",
        "'b.md' links to 'link.html': 404 Not Found",
    ]
    shown = figures(ended.stdout)
    assert (shown["requests"], shown["links: 200 OK"], shown["links: 404 Not Found"]) == (6, 1, 8)


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("sub/a.html", "b.html", "sub/b.html"),
        ("sub/a.html", "/b.html?q#f", "b.html"),
        ("sub/a.html", "../b/", "b/"),
        ("sub/a.html", "../../b.html", "../b.html"),
        ("sub/a.html", "/../b.html", "../b.html"),
        ("a.html", "b%20c", "b c"),
        ("a.html", "b%FF", "b\udcff"),
        ("a.html", ".", "."),
        ("a.html", "javascript:void(0)", None),
        ("a.html", "#f", None),
        ("a.html", "http://[", None),
    ],
)
def test_a_link_leads_to_one_path_and_may_leave_the_tree(page: str, link: str, target: str | None) -> None:
    assert links.target_of(page, link) == target


async def test_the_server_answers_for_files_and_directories_of_its_tree_and_for_nothing_else(tmp_path: Path) -> None:
    write_tree(tmp_path, {"outside.html": "", "tree/sub/a.html": ""})
    root = tmp_path / "tree"
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(links.serve, root), 0, host=links.HOST))
        port = listeners[0].socket.getsockname()[1]
        for target in ("", "sub", "sub/", "sub/a.html", "sub/../sub/a.html"):
            assert await links.check(port, 30, target) == "200 OK", target
        for target in (
            "b",
            "loop",
            "pipe",
            "sub/a.html/",
            "../outside.html",
            str(tmp_path),
            "b" * 2000,
            "\0",
            "\udcff",
        ):
            assert await links.check(port, 30, target) == "404 Not Found", target
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_late_is_given_up_alone(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch_status(port: int, target: str) -> str:
        await trio.sleep(8 if target == "slow" else 6)
        return "200 OK"

    monkeypatch.setattr(links, "fetch_status", fetch_status)
    start = trio.current_time()
    assert await links.check(0, 7, "slow") == "no answer in time"
    assert trio.current_time() - start == pytest.approx(7)
    assert await links.check(0, 7, "quick") == "200 OK"


async def test_a_late_answer_makes_the_check_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fetch_status(port: int, target: str) -> str:
        await trio.sleep_forever()
        return "200 OK"

    write_tree(tmp_path, {"a.md": "[1](slow)"})
    monkeypatch.setattr(links, "fetch_status", fetch_status)
    assert not await links.main(tmp_path, 1, 0.001)
    assert capsys.readouterr().out.startswith("'a.md' links to 'slow': no answer in time\n")


async def test_a_page_that_can_not_be_read_costs_a_line_and_makes_the_check_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path, {"a.html": "", "b.html": "<a href=a.html>"})
    links_in: Callable[[Path], list[str]] = links.links_in

    def links_if_open(page: Path) -> list[str]:
        if page.name == "a.html":
            raise PermissionError("closed")
        return links_in(page)

    monkeypatch.setattr(links, "links_in", links_if_open)
    assert not await links.main(tmp_path, 1, 30)
    printed = capsys.readouterr().out
    assert printed.startswith("'a.html' can't be read: closed\n")
    assert figures(printed.encode())["links: 200 OK"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{here}/missing"], "not a directory: '{here}/missing'"),
        (["{here}", "--limit", "0"], "the limit must be at least 1, and the time more than 0"),
        (["{here}", "--timeout", "nan"], "the limit must be at least 1, and the time more than 0"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["links", *(argument.format(here=tmp_path) for argument in arguments)])
    with pytest.raises(SystemExit, match=r"^2$"):
        links.parse_arguments()
    assert capsys.readouterr().err.endswith(f"error: {told.format(here=tmp_path)}\n")
