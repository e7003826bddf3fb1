"""A proxy that fetches a page only once if many clients want it at the same time: what `SingleFlight` is for.

A web server on this machine takes a long time to make a page. Meanwhile, many clients ask a proxy for that page. The
proxy makes one request for all of them, and keeps the page for later clients.

    python docs/examples/caching_proxy.py --clients 1000

The exit status is 0 if every client got the page and the server was only asked for it once.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.table import Table

from triores import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
SLOW_PAGE = "/slow"
PAGE = b"<p>worth the wait</p>"
PATIENCE = 60  # seconds for the whole program


# ---- just enough HTTP: each connection carries one GET request, and ends after the response


async def read_request(stream: trio.abc.ReceiveStream) -> str:
    """Return the requested path; empty if this isn't a GET request, or if the client leaves before it has sent one."""
    received = b""
    async for data in stream:
        received += data
        if b"\r\n\r\n" in received:
            words = received.partition(b"\r\n")[0].decode("latin-1").split(" ")
            return words[1] if len(words) == 3 and words[0] == "GET" else ""
    return ""


async def respond(stream: trio.abc.SendStream, status: str, body: bytes = b"") -> None:
    """Send a response."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    await stream.send_all(head.encode("latin-1") + body)


async def get(port: int, path: str) -> tuple[str, bytes]:
    """Request a path, and return the status and the body."""
    response = b""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        async for data in stream:
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode("latin-1").partition(" ")[2], body


# ---- the two servers


class Origin:
    """A web server with one page, which isn't ready until somebody sets `ready`."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.requests = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the request of one connection."""
        async with stream:
            path = await read_request(stream)
            self.requests += 1
            if path == SLOW_PAGE:
                await self.ready.wait()
                await respond(stream, "200 OK", PAGE)
            else:
                await respond(stream, "404 Not Found")


class UpstreamError(Exception):
    """The origin didn't return the page. The argument is the status of its response."""


class Proxy:
    """Serves the origin's pages.

    A page that is in the cache costs nothing. Any other page is fetched by one task, for all clients that ask for it
    while that task is running. The task belongs to the nursery and not to the first client, so it goes on if that
    client leaves.
    """

    def __init__(self, nursery: trio.Nursery, origin_port: int) -> None:
        self.arrivals = trio.Semaphore(0)  # released once for each client that has asked for a page
        self._origin_port = origin_port
        self._cache: dict[str, bytes] = {}
        self._flights = SingleFlight[str, bytes](nursery)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the request of one connection."""
        with suppress(trio.BrokenResourceError):  # the client has left, which is fine
            async with stream:
                path = await read_request(stream)
                self.arrivals.release()
                try:
                    page = await self._page(path)
                except (UpstreamError, OSError, trio.BrokenResourceError) as error:
                    await respond(stream, "502 Bad Gateway", repr(error).encode())
                else:
                    await respond(stream, "200 OK", page)

    async def _page(self, path: str) -> bytes:
        if path in self._cache:
            await trio.lowlevel.checkpoint()  # so that this method always is a checkpoint
            return self._cache[path]
        return await self._flights.run(path, self._fetch, path)

    async def _fetch(self, path: str) -> bytes:
        status, page = await get(self._origin_port, path)
        if status != "200 OK":
            raise UpstreamError(status)
        # This is here and not in `_page`, so that the page is in the cache before the next client can start a new task.
        self._cache[path] = page
        return page


# ---- the clients


async def listen(nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[object]]) -> int:
    """Start a server on a port that the system chooses, and return the port."""
    listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host=HOST))
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def ask_all_at_once(clients: int) -> tuple[int, int, int]:
    """Have clients ask for the page, which isn't ready until all of them are waiting, and have one more ask afterwards.

    Returns:
        How many of the first clients got the page, how many of the later ones, and how many times the origin was asked
        for it.
    """

    async def client(port: int, got: list[bool]) -> None:
        got.append(await get(port, SLOW_PAGE) == ("200 OK", PAGE))

    at_once: list[bool] = []
    later: list[bool] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            origin = Origin()
            proxy = Proxy(nursery, await listen(nursery, origin.serve))
            port = await listen(nursery, proxy.serve)
            async with trio.open_nursery() as crowd:
                for _ in range(clients):
                    crowd.start_soon(client, port, at_once)
                for _ in range(clients):
                    await proxy.arrivals.acquire()
                origin.ready.set()
            await client(port, later)
            nursery.cancel_scope.cancel()
    return sum(at_once), sum(later), origin.requests


def allow_open_files(number: int) -> None:
    """Ask the system to allow this many open files, if it has a limit."""
    with suppress(ImportError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != soft < number:
            most = number if hard == resource.RLIM_INFINITY else min(number, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def report(at_once: int, later: int, upstream: int) -> Table:
    """Return the counts as a table."""
    table = Table("What", "Number", title="One slow page")
    table.columns[1].justify = "right"
    table.add_row("clients that got it at the same time", f"{at_once:,}")
    table.add_row("clients that got it later, from the cache", f"{later:,}")
    table.add_row("requests upstream", f"{upstream:,}")
    return table


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
        return number

    parser = argparse.ArgumentParser(description="Have many clients ask a proxy for one slow page at the same time.")
    parser.add_argument("--clients", type=count, default=1000, help="how many clients (default: %(default)s)")
    return parser.parse_args()


async def main(clients: int) -> bool:
    """Have the clients ask, print the counts, and return whether they are right."""
    allow_open_files(2 * clients + 100)  # a connection takes two, since both of its ends are in this process
    at_once, later, upstream = await ask_all_at_once(clients)
    Console().print(report(at_once, later, upstream))
    return (at_once, later, upstream) == (clients, 1, 1)


if __name__ == "__main__":
    sys.exit(0 if trio.run(main, parse_arguments().clients) else 1)
