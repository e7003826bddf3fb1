"""The example programs for fan-out are run, and their output is checked."""

from __future__ import annotations

import io
import re
import socket
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio
from _examples import load_example, run_example
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from subprocess import CompletedProcess


def rows(printed: str) -> list[tuple[str, ...]]:
    """The rows of the tables in the output."""
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    return [tuple(cell.strip() for cell in line.strip("│").split("│")) for line in lines]


# ---- progress


def test_tqdm_shows_the_progress_of_results() -> None:
    ran = run_example("progress_tqdm.py", "--items", "40")
    assert ran.returncode == 0
    assert ran.stdout.decode().split() == ["open_amap:", "780", "as_completed:", "780"]
    shown = ran.stderr.decode()
    for bar in ("open_amap", "as_completed"):
        assert re.search(rf"\r{bar}: 100%\|.*\| 40/40 \[", shown), shown
        assert f"\r{bar}:   0%|" in shown


def test_rich_shows_the_progress_of_results() -> None:
    ran = run_example("progress_rich.py", "--items", "40")
    assert ran.returncode == 0
    assert ran.stdout.decode().split() == ["open_amap:", "684", "as_completed:", "684"]
    bars = dict(re.findall(r"^(\w+) +[━╸ ]+ +(\d+)% ", ran.stderr.decode(), re.MULTILINE))
    assert bars == {"open_amap": "100", "failed": "10", "as_completed": "100"}


# ---- the crawler

crawler = load_example("crawler.py")


def test_the_crawler_finds_every_page_and_every_dead_link() -> None:
    ran = run_example("crawler.py", "--pages", "120", "--limit", "7")
    assert (ran.returncode, ran.stderr) == (0, b"")
    printed = ran.stdout.decode()
    assert rows(printed) == [("pages", "120", "120"), ("dead links", "6", "6")]
    assert re.search(r"^crawled [━╸ ]+ 100%", printed, re.MULTILINE)
    assert re.search(r"^the site\n└── /0\n    ├── /\d+", printed, re.MULTILINE)


@pytest.mark.parametrize("pages", [1, 2, 50])
def test_the_crawler_requests_each_path_once_and_keeps_to_its_limit(pages: int) -> None:
    site = crawler.Site(pages, seed=3)
    asked: list[str] = []
    serving = most = 0
    serve = site.serve

    async def count(stream: trio.SocketStream) -> None:
        nonlocal serving, most
        serving += 1
        most = max(most, serving)
        try:
            await serve(stream)
        finally:
            serving -= 1

    def note(path: str, response: Callable[[str], bytes] = site.response) -> bytes:
        asked.append(path)
        return response(path)

    site.serve, site.response = count, note
    console = Console(file=io.StringIO())
    found = trio.run(crawler.crawl, site, 4, console)
    assert crawler.report(site, found, console)
    assert sorted(asked) == sorted([*site.links, *site.dead])
    assert most <= 5  # the server may be late to notice that a client has left


def test_the_crawler_reports_pages_it_cannot_read() -> None:
    site = crawler.Site(20, seed=3)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.aclose()

    site.serve = serve
    console = Console(file=io.StringIO())
    found = trio.run(crawler.crawl, site, 4, console)
    assert list(found.problems) == ["/0"]
    assert not crawler.report(site, found, console)


# ---- links

checker = load_example("link_checker.py")


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def counts(pages: int, links: int, targets: int, broken: int) -> list[tuple[str, ...]]:
    names = ["pages", "local links", "targets", "broken links"]
    return [(name, str(count)) for name, count in zip(names, [pages, links, targets, broken], strict=True)]


GOOD = {
    "index.html": """
        <h1 id="intro">Hello</h1> <a name=old></a>
        <a href="docs/guide.md#a-heading">1</a> <a href='docs/'>2</a> <a href=docs>3</a> <a href="#intro">4</a>
        <a href="">5</a> <a href="#top">6</a> <a href="index.html?page=3#old">7</a> <a href="docs/a%20b%23.html">8</a>
        <img src="picture.png#ignored" srcset="picture.png 1x, docs/ü.html 2x"> <a href="docs/ü.html">9</a>
        <a href="/docs/guide.md">10</a> <a href="docs/guide.md#:~:text=found">11</a> <a href="docs?x=1">12</a>
        <a href="https://example.org/nothing">no</a> <a href="mailto:a@example.org">no</a> <a href="//x/y">no</a>
        <a href="https://[wrong">no</a> <!-- <a href="nowhere">no</a> --> <a>no</a> <a href>no</a>
        """,
    "docs/index.html": '<base href="../"><a href="index.html">1</a> <object data="picture.png"></object>',
    "docs/guide.md": """
# A heading

## A heading

[twice](#a-heading-1), [code](#with-code-and-a-link), <a id="by-hand" href="guide.md#by-hand">by hand</a>,
![picture](../picture.png "title"), [with a space](<a b%23.html>), [reference], <https://example.org/>, `[no](nowhere)`

| table |
| --- |
| [cell](../index.html) |

### With `code`, and [a link](#a-heading)

<div><a href="../empty">block</a></div>

[reference]: ../docs/guide.md
""",
    "docs/a b#.html": "",
    "docs/ü.html": "",
    "picture.png": "",
    "empty/file.txt": "[no](nowhere)",
}


BAD = {
    "a.html": """
        <a href="missing.html">1</a> <a href="b.md#missing">2</a> <a href="../secret.html">3</a>
        <a href="%2e%2e/secret.html">4</a> <a href="linked.html">5</a> <a href="b.md/">6</a>
        <a href="[red]not markup[/red]">7</a> <a href="b.md#b">good</a>
        """,
    "deep/er/b.md": "[1](../../../secret.html) [2](../../b.md) [3](#nothing) [4](<mis sing>)",
    "b.md": "# B\n",
}


def check_links(files: dict[str, str], links: dict[str, str]) -> CompletedProcess[bytes]:
    """Run the link checker on a tree of these files and symbolic links, which map each name to a target."""
    with TemporaryDirectory() as folder:
        write_tree(Path(folder), {"secret.html": '<a href="nowhere">outside</a>'})
        root = write_tree(Path(folder) / "tree", files)
        for name, target in links.items():
            (root / name).symlink_to(target)
        return run_example("link_checker.py", root, "--limit", "2")


def test_a_tree_with_only_good_links_passes() -> None:
    ran = check_links(GOOD, {})
    assert (ran.stderr, rows(ran.stdout.decode())) == (b"", counts(5, 26, 10, 0))
    assert ran.returncode == 0
    assert b"Broken" not in ran.stdout


def test_each_broken_link_is_reported_with_its_page() -> None:
    ran = check_links(BAD, {"linked.html": "../secret.html", "dangling.html": "nowhere"})
    assert ran.stderr == b""
    assert rows(ran.stdout.decode()) == [
        ("/a.html", "missing.html", "404 Not Found"),
        ("/a.html", "b.md#missing", "no anchor 'missing'"),
        ("/a.html", "../secret.html", "leaves the tree"),
        ("/a.html", "%2e%2e/secret.html", "leaves the tree"),
        ("/a.html", "linked.html", "404 Not Found"),
        ("/a.html", "b.md/", "404 Not Found"),
        ("/a.html", "[red]not markup[/red]", "404 Not Found"),
        ("/deep/er/b.md", "../../../secret.html", "leaves the tree"),
        ("/deep/er/b.md", "#nothing", "no anchor 'nothing'"),
        ("/deep/er/b.md", "mis%20sing", "404 Not Found"),
        *counts(3, 12, 7, 10),
    ]
    assert ran.returncode == 1


async def test_a_link_whose_request_takes_too_long_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path, {"a.html": '<a href="a.html">1</a>'})
    assert not await checker.main(tmp_path, 20, 1e-9)
    shown = rows(capsys.readouterr().out)
    assert shown == [("/a.html", "a.html", "no answer within 1e-09 s"), *counts(1, 1, 1, 1)]


async def test_a_tree_without_pages_has_no_broken_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await checker.main(tmp_path, 20, 5)
    assert rows(capsys.readouterr().out) == counts(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' is not a directory"),
        ([".", "--limit", "0"], "--limit has to be at least 1, and --timeout more than 0"),
        ([".", "--timeout", "nan"], "--limit has to be at least 1, and --timeout more than 0"),
    ],
)
def test_wrong_arguments_raise_an_error(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["link_checker", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        checker.parse_arguments()
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


@pytest.fixture
async def port(tmp_path: Path, nursery: trio.Nursery) -> int:
    """The port of a server for a tree in the temporary directory."""
    write_tree(tmp_path / "tree", {"a.html": "a", "sub/a.html": "b"})
    (tmp_path / "secret").write_text("secret")
    return await listen(nursery, partial(checker.serve, tmp_path / "tree"))


async def listen(nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[object]]) -> int:
    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    number: int = listeners[0].socket.getsockname()[1]
    return number


async def ask(port: int, request: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        await stream.send_eof()
        return b"".join([data async for data in stream])


@pytest.mark.parametrize(
    ("url", "answered"),
    [
        ("/a.html", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n\r\na"),
        ("/a.html?x=/..", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n\r\na"),
        ("/sub/../a.html", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n\r\na"),
        ("/sub?x=1", b"HTTP/1.1 301 Moved Permanently\r\nConnection: close\r\nLocation: /sub/?x=1\r\n\r\n"),
        ("/sub/", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\na directory"),
        *[
            (url, b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n")
            for url in (
                "/../secret",
                "/%2e%2e/secret",
                "/..%2fsecret",
                "/sub/%2E%2E/../secret",
                "/%00",
                "/a.html/",
                "/%ff",
            )
        ],
    ],
)
async def test_the_server_serves_only_files_inside_the_tree(port: int, url: str, answered: bytes) -> None:
    assert await ask(port, f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == answered


async def test_the_server_does_not_answer_invalid_requests(port: int) -> None:
    assert await ask(port, b"") == b""
    assert await ask(port, b"what?\r\n\r\n") == b""
    assert await checker.check(port, 9, "/a.html") == checker.Answer(None, set())


async def test_a_file_that_cannot_be_read_is_a_broken_link(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError

    async def refuse_asynchronously(*_args: object, **_kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(trio.Path, "read_text", refuse_asynchronously)
    root = tmp_path / "tree"
    [link] = await checker.read_links(root, root / "a.html")
    assert checker.problem_of(link, {"/a.html": await checker.check(port, 9, "/a.html")}) == "403 Forbidden"


async def test_a_server_that_is_gone_or_does_not_answer_is_reported(nursery: trio.Nursery) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = await checker.check(unused.getsockname()[1], 9, "/")
    assert gone.problem.startswith("the connection failed: all attempts to connect to 127.0.0.1")

    async def say_nothing(_stream: object) -> None:
        await trio.lowlevel.checkpoint()

    silent = await checker.check(await listen(nursery, say_nothing), 9, "/")
    assert silent.problem == "no answer" or silent.problem.startswith("the connection failed: ")


# ---- timelines


def timeline_of(path: Path, name: str, *arguments: str | Path) -> str:
    ran = run_example(name, *arguments, "--trace", path)
    assert (ran.returncode, ran.stderr) == (0, b"")
    return path.read_text(encoding="utf-8")


def test_the_crawler_saves_a_timeline(tmp_path: Path) -> None:
    drawn = timeline_of(tmp_path / "run.svg", "crawler.py", "--pages", "9", "--limit", "3")
    assert len(re.findall(r"<title>fetch\(\d+, &#x27;/\d&#x27;\)\nreturned", drawn)) == 9


def test_the_link_checker_saves_a_timeline(tmp_path: Path) -> None:
    drawn = timeline_of(tmp_path / "run.svg", "link_checker.py", Path(__file__).parents[1] / "docs")
    assert re.search(r"<title>read_links: \d+ returned; at most \d+ at once", drawn)


@pytest.mark.parametrize(
    ("parse", "arguments"), [(crawler.main, ["crawler"]), (checker.parse_arguments, ["link_checker", "."])]
)
def test_a_timeline_needs_a_suffix_that_names_its_format(
    parse: Callable[[], object],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--trace", "run.png"])
    with pytest.raises(SystemExit, match=r"^2$"):
        parse()
    assert capsys.readouterr().err.endswith("error: --trace takes the name of an .svg or a .json file\n")
