"""Are the local links of a tree of HTML and Markdown files good? A web server over the tree is asked for each target.

The server runs on this machine and serves the tree, and nothing that a link or a symbolic link reaches outside it. Each
target is asked for once, a few at a time, and each request has a time limit. A link with a fragment is good if the
target has that anchor. Links to other hosts are left alone.

    python docs/examples/link_checker.py PATH --limit 20 --timeout 5

The exit status is 1 if any link is broken.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import posixpath
import re
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

import trio
from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from triores import ResultCapture, amap, open_amap

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
        """Note what the attributes of an HTML tag refer to."""
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
        """Note the links of Markdown, its headings, which are anchors on most sites, and the HTML in it."""
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
        """Add the anchor of a heading, made by GitHub's rule."""
        anchor = slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = 0
        while anchor in self.anchors:
            count += 1
            anchor = f"{slug}-{count}"
        self.anchors.add(anchor)


def parse(kind: str, text: str) -> Page | None:
    """The page in a text of this type, or None if it is of a type that has no anchors to check."""
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
    """The media type of a file, by its name."""
    suffix = path.suffix.lower()
    return TYPES.get(suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


# ---- which links there are


class Link(NamedTuple):
    """A link in a page: where it stands, as it is written, and what it leads to."""

    page: str
    written: str
    target: str  # what to ask the server for; nothing where the link leaves the tree
    fragment: str


def url_of(path: Path, root: Path) -> str:
    """The path of a file in the server's URLs."""
    return "/" + quote(os.fsencode(path.relative_to(root).as_posix()))


def local_links(url: str, page: Page) -> list[Link]:
    """The links of a page that lead to the same server."""
    found: list[Link] = []
    for written in page.links:
        try:
            in_base = urljoin(page.base, written)
            split = urlsplit(in_base)
        except ValueError:
            found.append(Link(url, written, "", ""))
            continue
        if split.scheme or split.netloc:
            continue
        # A browser would take out a ".." too many in silence.
        path = posixpath.normpath(posixpath.join(posixpath.dirname(url[1:]), unquote(split.path)))
        leaves = not split.path.startswith("/") and path.split("/")[0] == ".."
        target, fragment = urldefrag(urljoin(url, in_base))
        found.append(Link(url, written, "" if leaves else target, unquote(fragment)))
    return found


async def read_links(root: Path, path: Path) -> list[Link]:
    """The local links of a file."""
    text = await trio.Path(path).read_text(encoding="utf-8", errors="replace")
    page = parse(type_of(path), text)
    assert page is not None
    return local_links(url_of(path, root), page)


def pages_below(root: Path) -> list[Path]:
    """All pages of a tree, sorted."""
    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in paths if path.suffix.lower() in TYPES and path.is_file())


# ---- the server


def find(root: Path, url: str) -> Path | None:
    """The file or directory at a URL; None if there is none, or if it is not in the tree."""
    parts = unquote(url.partition("?")[0], errors="surrogateescape").split("/")
    try:
        path = root.joinpath(*(part for part in parts if part)).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return path if path.is_relative_to(root) and (path.is_file() or path.is_dir()) else None


def response_to(root: Path, url: str) -> bytes:
    """The whole response to a request."""
    path = find(root, url)
    if path is None:
        return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
    if path.is_dir():
        if not url.partition("?")[0].endswith("/"):
            location = url.replace("?", "/?", 1) if "?" in url else url + "/"
            return f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\nConnection: close\r\n\r\n".encode("latin-1")
        index = find(root, url_of(path / "index.html", root))
        if index is None or not index.is_file():
            return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\na directory"
        path = index
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type_of(path)}\r\nConnection: close\r\n\r\n"
    return head.encode("latin-1") + path.read_bytes()


async def serve(root: Path, stream: trio.SocketStream) -> None:
    """Answer one request: as little of HTTP as it takes."""
    request = b""
    async for data in stream:
        request += data
        if b"\r\n\r\n" in request or len(request) > LONGEST_REQUEST:
            break
    method, _, rest = request.partition(b" ")
    if method == b"GET":
        url = rest.partition(b" ")[0].decode("latin-1")
        await stream.send_all(await trio.to_thread.run_sync(response_to, root, url))


# ---- the checks


class Answer(NamedTuple):
    """What the server said about a target."""

    problem: str | None
    anchors: set[str] | None = None  # None where there is nothing that could have any


async def fetch(port: int, url: str) -> Answer:
    """Ask for a target, and see which anchors it has."""
    response = bytearray()
    stream = await trio.open_tcp_stream(HOST, port)
    async with stream:
        request = f"GET {quote(url, safe='/?%=&;:@!$+,()*~')} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        await stream.send_all(request.encode("latin-1"))
        async for data in stream:
            response += data
    head, _, body = bytes(response).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if " 301 " in status:
        return await fetch(port, headers["location"])
    if " 200 " not in status:
        return Answer(status.partition(" ")[2] or "no response")
    page = parse(headers["content-type"], body.decode("utf-8", "replace"))
    return Answer(None, None if page is None else page.anchors)


async def check(port: int, timeout: float, url: str) -> Answer:  # noqa: ASYNC109 - it is what the user asked for
    """Ask for a target, within a time limit."""
    fetching = ResultCapture(
        fetch, port, url, cancel_scope=trio.move_on_after(timeout), suppress_exception=True
    )
    await fetching.run()
    if fetching.cancelled():
        return Answer(f"no answer within {timeout:g} s")
    error = fetching.exception()
    return Answer(f"{error}") if isinstance(error, OSError) else fetching.result()
