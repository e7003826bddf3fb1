"""Checks the local links in a tree of HTML and Markdown files: serves the tree, and requests the target of each link.

The server runs on this machine, and serves nothing outside the tree, whether through a link or a symbolic link. The
program requests each target once, a few at a time, and each request has a time limit. A link with a fragment is good if
the target has that anchor. Links to other hosts aren't checked.

    python docs/examples/link_checker.py PATH --limit 20 --timeout 5 --trace run.svg

With --trace, it records the run, and saves it as a timeline (.svg) or for Perfetto (.json). The exit status is 1 if any
link is broken.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import posixpath
import re
import sys
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

import trio
from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from triores import ResultCapture, amap, open_amap
from triores.trace import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
HTML = ("text/html", "application/xhtml+xml")
MARKDOWN = "text/markdown"
TYPES = {".html": HTML[0], ".htm": HTML[0], ".xhtml": HTML[1], ".md": MARKDOWN, ".markdown": MARKDOWN}
LONGEST_REQUEST = 65536  # bytes


# ---- what is in a page


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the links and anchors in the attributes of an HTML tag."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value)
            elif (tag, name) == ("base", "href"):
                self.base = value
            elif name in ("href", "src", "poster") or (tag, name) == ("object", "data"):
                self.links.append(value.strip())
            elif name == "srcset":
                self.links += [candidate.split()[0] for candidate in value.split(",") if candidate.strip()]

    def feed_markdown(self, text: str) -> None:
        """Collect the links in Markdown, its headings, which are anchors on most sites, and what is in its HTML."""
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        for before, token in zip([None, *tokens], tokens, strict=False):
            for part in (token, *(token.children or ())):
                if part.type in ("html_block", "html_inline"):
                    self.feed(part.content)
                elif part.type in ("link_open", "image"):
                    self.links.append(str(part.attrs.get("href", part.attrs.get("src"))))
            if before is not None and before.type == "heading_open":
                self.add_heading("".join(part.content for part in token.children or () if part.type != "html_inline"))

    def add_heading(self, heading: str) -> None:
        """Add the anchor of a heading, by GitHub's rules."""
        anchor = slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = 0
        while anchor in self.anchors:
            count += 1
            anchor = f"{slug}-{count}"
        self.anchors.add(anchor)


def parse(kind: str, text: str) -> Page | None:
    """Parse text of this media type as a page. Return None if this type has no anchors to check."""
    page = Page()
    if kind == MARKDOWN:
        page.feed_markdown(text)
    elif kind in HTML:
        page.feed(text)
        page.close()
    else:
        return None
    return page


def type_of(path: Path) -> str:
    """Return the media type of a file, judging by its name."""
    suffix = path.suffix.lower()
    return TYPES.get(suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


# ---- which links there are


class Link(NamedTuple):
    """A link: the page that it is on, its text, and its target."""

    page: str
    written: str
    target: str  # what to request from the server; empty if the link leaves the tree
    fragment: str


def url_of(path: Path, root: Path) -> str:
    """Return the path of a file in the server's URLs."""
    return "/" + quote(os.fsencode(path.relative_to(root).as_posix()))


def local_links(url: str, page: Page) -> list[Link]:
    """Return the links of a page that lead to the same server."""
    base = urljoin(url, page.base)
    folder = posixpath.dirname(unquote(urlsplit(base).path)).lstrip("/")
    found: list[Link] = []
    for written in page.links:
        try:
            target, fragment = urldefrag(urljoin(base, written))
        except ValueError:
            continue  # only a link to another host can be malformed in this way
        if urlsplit(target).scheme or urlsplit(target).netloc:
            continue
        # This can't use `urljoin`, which silently drops superfluous ".."s, as browsers do.
        path = posixpath.normpath(posixpath.join(folder, unquote(urlsplit(written).path)))
        leaves = path.split("/")[0] == ".."
        found.append(Link(url, written, "" if leaves else target, unquote(fragment)))
    return found


async def read_links(root: Path, path: Path) -> list[Link]:
    """Return the local links of a page. If it can't be read, return a link to itself, which the server will refuse."""
    url = url_of(path, root)
    try:
        text = await trio.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [Link(url, "", url, "")]
    page = parse(type_of(path), text)
    assert page is not None
    return local_links(url, page)


def pages_below(root: Path) -> list[Path]:
    """Return the sorted paths of all pages in a tree."""
    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in paths if path.suffix.lower() in TYPES and find(root, url_of(path, root)))


# ---- the server


def find(root: Path, url: str) -> Path | None:
    """Return the file or directory at a URL, or None if it doesn't exist or isn't in the tree."""
    parts = unquote(url, errors="surrogateescape").split("/")
    try:
        path = root.joinpath(*(part for part in parts if part)).resolve(strict=True)
    except (OSError, ValueError):
        return None
    is_there = path.is_dir() or (path.is_file() and not url.endswith("/"))
    return path if is_there and path.is_relative_to(root) else None


def response_to(root: Path, url: str) -> bytes:
    """Return the whole response to a request."""
    asked, mark, query = url.partition("?")
    path = find(root, asked)
    if path is None:
        return response("404 Not Found")
    if path.is_dir():
        if not asked.endswith("/"):
            return response("301 Moved Permanently", f"Location: {asked}/{mark}{query}")
        path = find(root, asked + "index.html")
        if path is None or not path.is_file():
            return response("200 OK", "Content-Type: text/plain", b"a directory")
    try:
        return response("200 OK", f"Content-Type: {type_of(path)}", path.read_bytes())
    except OSError:
        return response("403 Forbidden")


def response(status: str, header: str = "", body: bytes = b"") -> bytes:
    """Return a response that is followed by the end of the connection."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", *([header] if header else []), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def serve(root: Path, stream: trio.abc.Stream) -> None:
    """Answer one request, with just enough HTTP."""
    request = b""
    with suppress(trio.BrokenResourceError):  # the client may have left
        async for data in stream:
            request += data
            if b"\r\n\r\n" in request or len(request) > LONGEST_REQUEST:
                break
        method, _, rest = request.partition(b" ")
        if method == b"GET":
            url = rest.partition(b" ")[0].decode("latin-1")
            await stream.send_all(await trio.to_thread.run_sync(response_to, root, url, abandon_on_cancel=True))


# ---- the checks


class Answer(NamedTuple):
    """The server's answer about a target."""

    problem: str | None
    anchors: set[str] | None = None  # None if this kind of file can't have any


async def fetch(port: int, url: str) -> Answer:
    """Request a target, and find out which anchors it has."""
    answer = bytearray()
    async with await trio.open_tcp_stream(HOST, port) as stream:
        asked = quote(url, safe="/?%=&;:@!$+,()*~'")  # browsers also quote spaces and the like
        await stream.send_all(f"GET {asked} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        async for data in stream:
            answer += data
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    if " 301 " in status:
        return await fetch(port, headers["Location"])
    if " 200 " not in status:
        return Answer(status.partition(" ")[2] or "no answer")
    page = parse(headers["Content-Type"], body.decode("utf-8", "replace"))
    return Answer(None, None if page is None else page.anchors)


async def check(port: int, seconds: float, url: str) -> Answer:
    """Request a target, within a time limit."""
    limit = trio.move_on_after(seconds)  # noqa: ASYNC122 - the capture enters it at once
    fetching = ResultCapture(fetch, port, url, cancel_scope=limit, suppress_exception=True)
    await fetching.run()
    if fetching.cancelled():
        return Answer(f"no answer within {seconds:g} s")
    error = fetching.exception()
    if isinstance(error, (OSError, trio.BrokenResourceError)):
        return Answer(f"the connection failed: {error}")
    return fetching.result()


async def answers_to(targets: list[str], root: Path, limit: int, seconds: float) -> dict[str, Answer]:
    """Serve the tree, request each target, and return the answers."""
    answers: dict[str, Answer] = {}
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(serve, root), 0, host=HOST))
        port = listeners[0].socket.getsockname()[1]
        async with open_amap(partial(check, port, seconds), targets, limit=limit) as results:
            async for capture in results:
                answers[capture.item] = capture.result()
        nursery.cancel_scope.cancel()
    return answers


def problem_of(link: Link, answers: dict[str, Answer]) -> str | None:
    """Return what is wrong with a link, or None."""
    if not link.target:
        return "leaves the tree"
    answer = answers[link.target]
    if answer.problem is not None or answer.anchors is None:
        return answer.problem
    # "#top" is the top of every page, and a fragment that begins with ":~:" is text to look for.
    is_good = link.fragment in ("", "top", *answer.anchors) or link.fragment.startswith(":~:")
    return None if is_good else f"no anchor {link.fragment!r}"


# ---- the report


def table_of(title: str, columns: list[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """Return a table whose cells may contain any characters."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(cell.encode(errors="replace").decode()) for cell in row))
    return table


async def main(root: Path, limit: int, seconds: float) -> bool:
    """Check the links below a resolved path, print the findings, and return whether all links are good."""
    pages = await trio.to_thread.run_sync(pages_below, root)
    links = [link for found in await amap(partial(read_links, root), pages, limit=limit) for link in found]
    targets = sorted({link.target for link in links if link.target})
    answers = await answers_to(targets, root, limit, seconds)
    broken = [(unquote(link.page), link.written, problem) for link in links if (problem := problem_of(link, answers))]
    console = Console()
    if broken:
        console.print(table_of("Broken links", ["page", "link", "problem"], broken))
    counts = {"pages": len(pages), "local links": len(links), "targets": len(targets), "broken links": len(broken)}
    console.print(table_of("All links", ["what", "how many"], [(what, str(n)) for what, n in counts.items()]))
    return not broken


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Check the local links of a tree of HTML and Markdown files.")
    parser.add_argument("path", metavar="PATH", type=Path, help="a directory")
    parser.add_argument("--limit", type=int, default=20, help="how many requests to make at a time")
    parser.add_argument("--timeout", type=float, default=5, help="how many seconds a request may take")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="record the run, and save it as this .svg or .json")
    arguments = parser.parse_args()
    if not arguments.path.is_dir():
        parser.error(f"{str(arguments.path)!r} is not a directory")
    if arguments.limit < 1 or not arguments.timeout > 0:
        parser.error("--limit has to be at least 1, and --timeout more than 0")
    if arguments.trace is not None and arguments.trace.suffix not in (".svg", ".json"):
        parser.error("--trace takes the name of an .svg or a .json file")
    return arguments


def run(wanted: argparse.Namespace) -> bool:
    """Check the links, and save a recording of the run if the user asked for one."""
    recorder = Recorder()
    instruments = [] if wanted.trace is None else [recorder]
    good = trio.run(main, wanted.path.resolve(), wanted.limit, wanted.timeout, instruments=instruments)
    if wanted.trace is not None:
        recorder.save(wanted.trace)
    return good


if __name__ == "__main__":
    sys.exit(0 if run(parse_arguments()) else 1)
