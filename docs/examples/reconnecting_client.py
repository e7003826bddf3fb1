"""A client that outlives its connections: what `FutureMap` is for.

A server on this machine cuts the connection at random, and the client reconnects. Each connection has a `FutureMap` of
its own, since its requests end when it does: callers that are waiting for an answer when the connection is cut get an
exception. Nobody hangs, and nothing is left in a map; to prove this, the program accounts for every request.

    python docs/examples/reconnecting_client.py --requests 10000 --callers 100

The exit status is 0 if every request got the right answer or an exception, and no map holds an entry at the end.
"""

from __future__ import annotations

import argparse
import itertools
import random
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.table import Table

from triores import Future, FutureMap

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
MESSAGE = struct.Struct("!II")  # the number of a request, and the question or the answer
RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # for SO_LINGER
PATIENCE = 10  # seconds until a request that hasn't ended counts as hanging


class ConnectionLostError(Exception):
    """The connection ended before the answer came. Its argument is what ended it, or None if the server closed it."""


class Messages:
    """The framing: turns chunks of any length into whole messages."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, received: bytes | bytearray) -> list[tuple[int, int]]:
        """Return the messages that are complete now, and keep the rest for the next call."""
        received = self._rest + received
        complete = len(received) // MESSAGE.size * MESSAGE.size
        self._rest = received[complete:]
        return [*MESSAGE.iter_unpack(received[:complete])]


class Connection:
    """One of the client's connections. Any number of tasks may `ask` while one is in `read` and another in `write`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.requests = FutureMap[int, int](lost=ConnectionLostError)
        self._stream = stream
        self._numbers = itertools.count()
        self._outbox, self._unsent = trio.open_memory_channel[bytes](0)

    async def ask(self, question: int) -> int:
        """Have the server square a number.

        Raises:
            ConnectionLostError: If the connection ended before the answer came, or had ended already.
        """
        number = next(self._numbers)
        with self.requests.expect(number) as answer:
            with suppress(trio.BrokenResourceError):  # the connection has ended, so the future raises
                await self._outbox.send(MESSAGE.pack(number, question))
            return await answer

    async def read(self) -> None:
        """Settle the futures of the requests that are answered, until the connection ends."""
        messages = Messages()
        # However the inner block ends, each request in flight fails, and so does each later one.
        with suppress(trio.BrokenResourceError), self.requests:
            async for received in self._stream:
                for number, answer in messages.split(received):
                    self.requests.set_result(number, answer)  # returns False if the caller has left, which is fine

    async def write(self) -> None:
        """Send the requests. If the callers did this themselves, one that was cancelled could leave half a message."""
        with suppress(trio.BrokenResourceError):  # the reader notices the end of the connection, too
            async with self._unsent:
                async for message in self._unsent:
                    await self._stream.send_all(message)


class Client:
    """Reconnects whenever the connection ends. Any number of tasks may `ask`, while one task is in `run`."""

    def __init__(self, port: int) -> None:
        self.connections: list[Connection] = []  # the last one is in use; the others are kept for the statistics
        self._port = port
        self._next_connection: Future[Connection] = Future()

    async def ask(self, question: int) -> int:
        """Have the server square a number, once there is a connection.

        Raises:
            ConnectionLostError: If the connection ended before the answer came, or the client has ended. The caller has
                to decide whether to ask again, since the server may have done the work anyway.
        """
        connection = self.connections[-1] if self.connections else await self._next_connection
        if connection.requests.closed:
            connection = await self._next_connection
        return await connection.ask(question)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        try:
            while True:
                async with await trio.open_tcp_stream(HOST, self._port) as stream, trio.open_nursery() as nursery:
                    connection = Connection(stream)
                    nursery.start_soon(connection.write)
                    self.connections.append(connection)
                    self._next_connection.set_result(connection)
                    self._next_connection = Future()
                    await connection.read()
                    nursery.cancel_scope.cancel()
        finally:
            self._next_connection.set_exception(ConnectionLostError(None))  # nobody will make another one


async def serve(stream: trio.SocketStream, cut_every: int) -> None:
    """Answer requests out of order, and cut the connection at random, even if some of them are unanswered."""
    messages = Messages()
    with suppress(trio.BrokenResourceError):
        async with stream:
            async for received in stream:
                requests = messages.split(received)
                random.shuffle(requests)
                for number, question in requests:
                    if not random.randrange(cut_every):
                        if random.random() < 0.5:
                            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                        return
                    await stream.send_all(MESSAGE.pack(number, question**2 % 2**32))


def how_lost(error: ConnectionLostError) -> str:
    """Return how the connection ended: without an exception, or with one, in which case it was reset."""
    return "connection closed" if error.args[0] is None else "connection reset"


async def keep_asking(client: Client, questions: Iterator[int], seen: Counter[str]) -> None:
    """Ask one question after another, and count how they end."""
    for question in questions:
        with trio.move_on_after(PATIENCE) as scope:
            try:
                answer = await client.ask(question)
            except ConnectionLostError as error:
                seen[how_lost(error)] += 1
            else:
                seen["right answer" if answer == question**2 % 2**32 else "wrong answer"] += 1
        if scope.cancelled_caught:
            seen["left hanging"] += 1


async def ask_everything(requests: int, callers: int, cut_every: int) -> tuple[Counter[str], list[Connection]]:
    """Divide the requests among the callers. Return how they ended, and the connections that were used."""
    seen: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        server = partial(serve, cut_every=cut_every)
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, server, 0, host=HOST))
        client = Client(listeners[0].socket.getsockname()[1])
        nursery.start_soon(client.run)
        async with trio.open_nursery() as asking:
            questions = iter(range(requests))
            for _ in range(callers):
                asking.start_soon(keep_asking, client, questions, seen)
        nursery.cancel_scope.cancel()
    return seen, client.connections


def report(requests: int, seen: Counter[str], connections: int, left: int) -> Table:
    """Return the statistics as a table."""
    table = Table("What", "Number", title="Requests to a server that cuts the connection")
    table.columns[1].justify = "right"
    table.add_row("requests", f"{requests:,}", end_section=True)
    for what in ("right answer", "wrong answer", "connection closed", "connection reset", "left hanging"):
        table.add_row(what, f"{seen[what]:,}")
    table.add_row("not accounted for", f"{requests - seen.total():,}", end_section=True)
    table.add_row("connections", f"{connections:,}")
    table.add_row("entries left in their maps", f"{left:,}")
    return table


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
        return number

    parser = argparse.ArgumentParser(description="Send requests to a server that cuts the connection at random.")
    parser.add_argument("--requests", type=count, default=10_000, help="how many requests (default: %(default)s)")
    parser.add_argument("--callers", type=count, default=100, help="how many callers at a time (default: %(default)s)")
    parser.add_argument(
        "--cut-every",
        type=count,
        default=500,
        help="after how many requests to cut a connection, on average (default: %(default)s)",
    )
    return parser.parse_args()


async def main(requests: int, callers: int, cut_every: int) -> bool:
    """Make the requests, print the statistics, and return whether they add up."""
    seen, connections = await ask_everything(requests, callers, cut_every)
    left = sum(len(connection.requests) for connection in connections)
    Console().print(report(requests, seen, len(connections), left))
    lost = seen["connection closed"] + seen["connection reset"]
    return seen["right answer"] + lost == requests and not left


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(0 if trio.run(main, arguments.requests, arguments.callers, arguments.cut_every) else 1)
