"""Many requests in flight on one connection, answered out of order: what `FutureMap` is for.

A client and a server talk over TCP on this machine, in JSON lines. Many callers share one connection, and each waits
for a future of its own; the task that reads the connection settles the future that each answer belongs to. Then the
server cuts a second connection while callers are waiting, and each caller must get an exception.

    python docs/examples/multiplexed_rpc.py --requests 20000 --callers 200

The exit status is 0 if every request got the right answer and every caller got an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import trio
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from triores import FutureMap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

Message = dict[str, int]

HOST = "127.0.0.1"
LONGEST_WORK = 0.002  # how many seconds the server spends on a request, at most
PATIENCE = 10  # seconds after the cut until a waiting caller counts as hanging


class ConnectionLostError(Exception):
    """The connection ended before the answer came."""


class JsonLines(trio.abc.Channel[Message]):
    """The framing: one JSON object per line. One task may send at a time, and one may receive."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._rest = b""

    async def send(self, value: Message) -> None:
        """Send one message. If this is cancelled, half of it may have been sent."""
        await self._stream.send_all(json.dumps(value).encode() + b"\n")

    async def receive(self) -> Message:
        """Receive one message; raises `trio.EndOfChannel` if the other side has closed the connection."""
        if self._lines:
            await trio.lowlevel.checkpoint()  # or a full buffer would keep the other tasks from running
        while not self._lines:
            received = await self._stream.receive_some()
            if not received:
                raise trio.EndOfChannel
            *lines, self._rest = (self._rest + received).split(b"\n")
            self._lines.extend(lines)
        message: Message = json.loads(self._lines.popleft())
        return message

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class Client:
    """The client's end of a connection. Any number of tasks may `call` at a time, while one task is in `run`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._connection = JsonLines(stream)
        self._requests, self._unsent = trio.open_memory_channel[Message](0)
        self._ids = itertools.count()
        self._in_flight = FutureMap[int, int](lost=ConnectionLostError)
        self._newest_answered = -1
        self.out_of_order = 0  # how many answers came after the answer to a later request

    async def call(self, number: int) -> int:
        """Have the server square a number.

        Raises:
            ConnectionLostError: If the connection ended before the answer came, or had ended already.
        """
        request_id = next(self._ids)
        with self._in_flight.expect(request_id) as answer:
            with suppress(trio.BrokenResourceError):  # the connection has ended, so the future raises
                await self._requests.send({"id": request_id, "number": number})
            return await answer

    async def run(self) -> None:
        """Send requests and settle their futures, until the connection ends."""
        async with self._connection, trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read()
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        # The callers don't send for themselves: one that was cancelled could leave half a line behind.
        with suppress(trio.BrokenResourceError):  # the reader notices the end of the connection, too
            async with self._unsent:
                async for request in self._unsent:
                    await self._connection.send(request)

    async def _read(self) -> None:
        # The connection may also end with a reset. However the inner block ends, every caller gets an error.
        with suppress(trio.BrokenResourceError), self._in_flight:
            async for answer in self._connection:
                self._settle(answer["id"], answer["square"])

    def _settle(self, request_id: int, square: int) -> None:
        if request_id < self._newest_answered:
            self.out_of_order += 1
        self._newest_answered = max(self._newest_answered, request_id)
        self._in_flight.set_result(request_id, square)  # changes nothing if the caller was cancelled


async def serve(stream: trio.abc.Stream, cut_after: int | None = None) -> None:
    """Answer each request in a task of its own, so that none has to wait for earlier ones.

    Args:
        stream: The connection.
        cut_after: Close the connection after this many requests, even though some of them are unanswered.
    """
    connection = JsonLines(stream)
    sending = trio.Lock()  # this needs no writer task: senders are only cancelled when the connection is closed

    async def answer(request: Message) -> None:
        await trio.sleep(random.uniform(0, LONGEST_WORK))
        async with sending:
            await connection.send({"id": request["id"], "square": request["number"] ** 2})

    async with connection, trio.open_nursery() as nursery:
        received = 0
        async for request in connection:
            nursery.start_soon(answer, request)
            received += 1
            if received == cut_after:
                nursery.cancel_scope.cancel()
                break


@asynccontextmanager
async def connected_to(server: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncGenerator[Client, None]:
    """Start a server on a port that the system chooses, and connect a client to it."""
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, server, 0, host=HOST))
        port: int = listeners[0].socket.getsockname()[1]
        client = Client(await trio.open_tcp_stream(HOST, port))
        nursery.start_soon(client.run)
        yield client
        nursery.cancel_scope.cancel()


class Answered(NamedTuple):
    """How the answered requests went."""

    seconds: float
    latencies: list[float]  # seconds, one for each request
    right: int
    out_of_order: int


class Cut(NamedTuple):
    """What happened to the callers whose connection was cut."""

    seen: Counter[str]  # the exceptions, by type
    hanging: int


async def make_requests(requests: int, callers: int) -> Answered:
    """Divide the requests among the callers."""
    latencies: list[float] = []
    right = 0

    async def keep_calling(client: Client, numbers: Iterator[int]) -> None:
        nonlocal right
        for number in numbers:
            began = perf_counter()
            square = await client.call(number)
            latencies.append(perf_counter() - began)
            right += square == number**2
            progress.update()

    async with connected_to(serve) as client:
        began = perf_counter()
        with tqdm(total=requests, unit=" requests", disable=None) as progress:  # None: only in a terminal
            async with trio.open_nursery() as nursery:
                numbers = iter(range(requests))
                for _ in range(callers):
                    nursery.start_soon(keep_calling, client, numbers)
        return Answered(perf_counter() - began, latencies, right, client.out_of_order)


async def cut_connection(callers: int) -> Cut:
    """Have callers make endless requests, and the server cut the connection."""
    seen: Counter[str] = Counter()

    async def call_until_cut(client: Client) -> None:
        try:
            while True:
                await client.call(7)
        except ConnectionLostError as error:
            seen[type(error).__name__] += 1

    async def serve_until_cut(stream: trio.SocketStream) -> None:
        await serve(stream, cut_after=2 * callers)
        waiting.deadline = trio.current_time() + PATIENCE

    async with connected_to(serve_until_cut) as client:
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(call_until_cut, client)
        return Cut(seen, callers - seen.total())


def report(answered: Answered, cut: Cut) -> Table:
    """Return the figures as a table."""
    requests = len(answered.latencies)
    # A single latency has no quantiles, but two equal ones do.
    percentiles = statistics.quantiles(answered.latencies * 2, n=100, method="inclusive")
    table = Table("What", "Figure", title="Many requests in flight on one connection")
    table.columns[1].justify = "right"
    table.add_row("requests", f"{requests:,}")
    table.add_row("correct answers", f"{answered.right:,}")
    table.add_row("requests per second", f"{requests / answered.seconds:,.0f}")
    table.add_row("latency, median", f"{1000 * percentiles[49]:.2f} ms")
    table.add_row("latency, 99th percentile", f"{1000 * percentiles[98]:.2f} ms")
    table.add_row("answers out of order", f"{answered.out_of_order:,}", end_section=True)
    for kind, callers in cut.seen.most_common():
        table.add_row(f"after the cut: {kind}", f"{callers:,}")
    table.add_row("after the cut: left hanging", f"{cut.hanging:,}")
    return table


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
        return number

    parser = argparse.ArgumentParser(description="Send many requests over one connection, and cut another one.")
    parser.add_argument("--requests", type=count, default=20_000, help="how many requests (default: %(default)s)")
    parser.add_argument("--callers", type=count, default=200, help="how many callers at a time (default: %(default)s)")
    return parser.parse_args()


async def main(requests: int, callers: int) -> bool:
    """Make the requests, cut the connection, and return whether the numbers add up."""
    answered = await make_requests(requests, callers)
    cut = await cut_connection(callers)
    Console().print(report(answered, cut))
    return answered.right == len(answered.latencies) == requests and cut.seen.total() == callers


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(0 if trio.run(main, arguments.requests, arguments.callers) else 1)
