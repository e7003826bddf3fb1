"""Crawl a site: a map that grows while it is read, with `open_amap` and `AmapResults.add`.

The program serves a site of a few hundred pages on this machine, with cycles and dead links, and crawls it from its
first page, with a limited number of requests at a time. It adds the links that it finds to the map that is running.

    python docs/examples/crawler.py --pages 300 --limit 20 --trace run.svg

It shows a progress bar, then the upper levels of the site as a tree, and a table. With --trace, it records the run, and
saves it as a timeline (.svg) or for Perfetto (.json). The exit status is 0 if it found every page, and every dead link.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.tree import Tree

from triores import ItemCapture, open_amap
from triores.trace import Recorder

HOST = "127.0.0.1"
SECONDS = 10  # the time limit of a request
LEVELS = 2  # how many levels of the tree to show


class Site:
    """Pages that link to one another. Every page can be reached, some links form cycles, and some are dead.

    Attributes:
        links: For each page, the paths that it links to.
        dead: The paths that lead nowhere.
    """

    def __init__(self, pages: int, seed: int) -> None:
        choose = random.Random(seed)
        paths = [f"/{number}" for number in range(pages)]
        self.links: dict[str, list[str]] = {path: [] for path in paths}
        for number in range(1, pages):
            self.links[paths[(number - 1) // 8]].append(paths[number])
        for path in paths:
            self.links[path] += choose.sample(paths, min(3, pages))
        self.dead = {f"/dead/{number}" for number in range(pages // 20)}
        for path in self.dead:
            self.links[choose.choice(paths)].append(path)

    def response(self, path: str) -> bytes:
        """Return the whole response to a request for a path."""
        if path not in self.links:
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
        page = "".join(f'<a href="{link}">{link}</a>\n' for link in self.links[path])
        return f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n{page}".encode()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request, with just enough HTTP, and close the connection."""
        request = b""
        with suppress(trio.BrokenResourceError):  # the client may have left
            async for data in stream:
                request += data
                if b"\r\n\r\n" in request:
                    await stream.send_all(self.response(request.split(b" ")[1].decode()))
                    break


class Page(NamedTuple):
    """What a crawler sees of a page: the status line's text, and the paths of the links."""

    status: str
    links: list[str]


async def fetch(port: int, path: str) -> Page:
    """Ask for a page, and return its status and its links."""
    response = bytearray()
    with trio.fail_after(SECONDS):
        async with await trio.open_tcp_stream(HOST, port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            async for data in stream:
                response += data
    head, _, body = response.decode().partition("\r\n\r\n")
    return Page(head.partition("\r\n")[0].partition(" ")[2], re.findall(r'href="([^"]*)"', body))


class Crawl:
    """What a crawl has found.

    Attributes:
        pages: The pages that could be read, by path, in the order in which they came.
        problems: The paths that couldn't be read, and why.
        parents: For each path, the page on which it was first found.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.problems: dict[str, str] = {}
        self.parents: dict[str, str | None] = {}

    async def run(self, port: int, start: str, limit: int, progress: Progress) -> None:
        """Crawl all pages that can be reached from one page, and show the progress."""
        bar = progress.add_task("crawled", total=1)
        self.parents[start] = None
        async with open_amap(partial(fetch, port), [start], limit=limit, suppress_exception=True) as results:
            async for capture in results:
                for path in self.take(capture):
                    self.parents[path] = capture.item
                    results.add(path)
                progress.update(bar, advance=1, total=len(self.parents))

    def take(self, capture: ItemCapture[str, Page]) -> list[str]:
        """Record what became of a page, and return its links that are new."""
        error = capture.exception()
        if error is not None:
            self.problems[capture.item] = repr(error)
            return []
        page = capture.result()
        if page.status != "200 OK":
            self.problems[capture.item] = page.status
            return []
        self.pages[capture.item] = page
        return [link for link in dict.fromkeys(page.links) if link not in self.parents]

    def tree(self, levels: int) -> Tree:
        """Return the upper levels of the site, with each page below the one on which it was first found."""
        nodes: dict[str | None, Tree] = {None: Tree("the site")}
        depths: dict[str | None, int] = {None: 0}
        hidden: dict[str | None, int] = {}
        for path, parent in self.parents.items():  # parents come before what was found on them
            depths[path] = depths[parent] + 1
            if depths[path] <= levels:
                nodes[path] = nodes[parent].add(path if path in self.pages else f"{path}: {self.problems[path]}")
            elif depths[path] == levels + 1:
                hidden[parent] = hidden.get(parent, 0) + 1
        for parent, count in hidden.items():
            nodes[parent].add(f"... {count} more")
        return nodes[None]


async def crawl(site: Site, limit: int, console: Console) -> Crawl:
    """Serve a site on a port of this machine, and crawl it."""
    found = Crawl()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, site.serve, 0, host=HOST))
        port = listeners[0].socket.getsockname()[1]
        with Progress(console=console) as progress:
            await found.run(port, "/0", limit, progress)
        nursery.cancel_scope.cancel()
    return found


def report(site: Site, found: Crawl, console: Console) -> bool:
    """Print what was found, and return whether that is everything."""
    console.print(found.tree(LEVELS))
    table = Table("what", "there are", "found", title="The crawl", title_justify="left")
    table.add_row("pages", str(len(site.links)), str(len(found.pages)))
    table.add_row("dead links", str(len(site.dead)), str(len(found.problems)))
    console.print(table)
    return found.pages.keys() == site.links.keys() and found.problems.keys() == site.dead


def main() -> bool:
    """Crawl the site that the arguments ask for."""
    parser = argparse.ArgumentParser(description="Serve a site on this machine, and crawl it.")
    parser.add_argument("--pages", type=int, default=300, help="how many pages the site has")
    parser.add_argument("--limit", type=int, default=20, help="how many requests to make at a time")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the site's random links")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="record the run, and save it as this .svg or .json")
    arguments = parser.parse_args()
    if arguments.pages < 1 or arguments.limit < 1:
        parser.error("--pages and --limit have to be at least 1")
    if arguments.trace is not None and arguments.trace.suffix not in (".svg", ".json"):
        parser.error("--trace takes the name of an .svg or a .json file")
    console, recorder = Console(), Recorder()
    site = Site(arguments.pages, arguments.seed)
    instruments = [] if arguments.trace is None else [recorder]
    found = trio.run(crawl, site, arguments.limit, console, instruments=instruments)
    if arguments.trace is not None:
        recorder.save(arguments.trace)
    return report(site, found, console)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
