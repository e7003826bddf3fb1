"""The example programs for requests in flight and shared work."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from _examples import load_example, run_example
from trio.testing import wait_all_tasks_blocked

from triores import ResultCapture

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def figures(table: bytes) -> dict[str, int]:
    """The rows of a printed table with two columns."""
    rows = re.findall(r"^│ (.*?) +│ +([\d,]+) │$", table.decode(), re.MULTILINE)
    return {what: int(figure.replace(",", "")) for what, figure in rows}


reconnecting = load_example("reconnecting_client.py")
proxying = load_example("caching_proxy.py")


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (reconnecting, ["--requests", "0"], "argument --requests: must be at least 1, not 0"),
        (reconnecting, ["--callers", "many"], "argument --callers: invalid count value: 'many'"),
        (reconnecting, ["--cut-every", "-1"], "argument --cut-every: must be at least 1, not -1"),
        (proxying, ["--clients", "0"], "argument --clients: must be at least 1, not 0"),
    ],
)
def test_a_wrong_count_raises_an_error(
    program: Any,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["example", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        program.parse_arguments()
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


# ---- a client that reconnects


def test_every_request_is_accounted_for_even_if_the_server_cuts_the_connection() -> None:
    ran = run_example("reconnecting_client.py", "--requests", "400", "--callers", "20", "--cut-every", "10")
    assert (ran.stderr, ran.returncode) == (b"", 0)
    shown = figures(ran.stdout)
    lost = shown["connection closed"] + shown["connection reset"]
    assert lost > 0
    assert shown["right answer"] > 0
    assert shown["right answer"] + lost == shown["requests"] == 400
    assert shown["wrong answer"] == shown["left hanging"] == shown["not accounted for"] == 0
    assert shown["connections"] > 1
    assert shown["entries left in their maps"] == 0


@pytest.mark.parametrize(
    ("seen", "left", "adds_up"),
    [
        ({"right answer": 3}, 0, True),
        ({"right answer": 1, "connection closed": 1, "connection reset": 1}, 0, True),
        ({"right answer": 3}, 1, False),
        ({"right answer": 2}, 0, False),
        ({"right answer": 2, "wrong answer": 1}, 0, False),
        ({"right answer": 2, "left hanging": 1}, 0, False),
    ],
)
async def test_the_client_succeeds_only_if_the_numbers_add_up(
    seen: dict[str, int], left: int, adds_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = trio.testing.memory_stream_pair()
    connection = reconnecting.Connection(near)

    async def ask_everything(requests: int, callers: int, cut_every: int) -> Any:
        return Counter(seen), [connection]

    monkeypatch.setattr(reconnecting, "ask_everything", ask_everything)
    with contextlib.ExitStack() as requests:
        for number in range(left):
            requests.enter_context(connection.requests.expect(number))
        assert await reconnecting.main(3, 1, 1) is adds_up
    await near.aclose()
    await far.aclose()


def test_messages_are_split_correctly_however_they_arrive() -> None:
    messages = reconnecting.Messages()
    sent = b"".join(reconnecting.MESSAGE.pack(number, number**2) for number in range(3))
    assert [messages.split(piece) for piece in (b"", sent[:7], sent[7:17], sent[17:])] == [
        [],
        [],
        [(0, 0), (1, 1)],
        [(2, 4)],
    ]


@contextlib.asynccontextmanager
async def open_connection() -> AsyncGenerator[tuple[Any, Any, trio.Nursery], None]:
    """A connection with its two tasks running, the stream at its far end, and the nursery."""
    near, far = trio.testing.memory_stream_pair()
    connection = reconnecting.Connection(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.read)
        nursery.start_soon(connection.write)
        yield connection, far, nursery
        nursery.cancel_scope.cancel()


async def test_a_cancelled_caller_leaves_no_entry_and_its_late_answer_is_ignored() -> None:
    async with open_connection() as (connection, far, nursery):
        scope = trio.CancelScope()
        ResultCapture.start_soon(nursery, connection.ask, 3, cancel_scope=scope)
        await wait_all_tasks_blocked()
        assert list(connection.requests) == [0]
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not connection.requests
        assert await far.receive_some() == reconnecting.MESSAGE.pack(0, 3)
        await far.send_all(reconnecting.MESSAGE.pack(0, 9))
        asked = ResultCapture.start_soon(nursery, connection.ask, 4)
        await wait_all_tasks_blocked()
        await far.send_all(reconnecting.MESSAGE.pack(1, 16))
        await asked.wait_done()
        assert asked.result() == 16


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_when_the_connection_ends_each_caller_gets_an_error_that_says_how(how: str) -> None:
    async with open_connection() as (connection, far, nursery):
        asked = [ResultCapture.start_soon(nursery, connection.ask, 3, suppress_exception=True) for _ in range(3)]
        await wait_all_tasks_blocked()
        if how == "reset":

            async def reset() -> None:
                raise trio.BrokenResourceError

            connection._stream.receive_stream.receive_some_hook = reset
            await far.send_all(b"\0")  # this makes the reader call receive_some again
        else:
            await far.aclose()
        await wait_all_tasks_blocked()
        for asking in asked:
            error = asking.exception()
            assert type(error) is reconnecting.ConnectionLostError
            assert reconnecting.how_lost(error) == f"connection {how}"
        with pytest.raises(reconnecting.ConnectionLostError):
            await connection.ask(3)
        assert not connection.requests


async def test_callers_of_a_client_that_has_ended_get_an_error_at_once(autojump_clock: trio.testing.MockClock) -> None:
    client = reconnecting.Client(port=1)
    with trio.move_on_after(0):
        await client.run()
    with trio.fail_after(1), pytest.raises(reconnecting.ConnectionLostError):
        await client.ask(3)


async def test_a_request_with_neither_answer_nor_exception_counts_as_hanging(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Silent:
        async def ask(self, question: int) -> int:
            await trio.sleep_forever()
            return 0

    seen: Counter[str] = Counter()
    await reconnecting.keep_asking(Silent(), iter(range(3)), seen)
    assert seen == {"left hanging": 3}


async def test_a_wrong_answer_is_counted_as_wrong() -> None:
    class Wrong:
        async def ask(self, question: int) -> int:
            return 0

    seen: Counter[str] = Counter()
    await reconnecting.keep_asking(Wrong(), iter(range(3)), seen)
    assert seen == {"right answer": 1, "wrong answer": 2}


# ---- a caching proxy


def test_many_simultaneous_clients_of_a_slow_page_cause_only_one_request_upstream() -> None:
    ran = run_example("caching_proxy.py", "--clients", "50")
    assert (ran.stderr, ran.returncode) == (b"", 0)
    assert figures(ran.stdout) == {
        "clients that got it at the same time": 50,
        "clients that got it later, from the cache": 1,
        "requests upstream": 1,
    }


@pytest.mark.parametrize(
    ("counted", "right"), [((3, 1, 1), True), ((2, 1, 1), False), ((3, 0, 1), False), ((3, 1, 2), False)]
)
async def test_the_proxy_succeeds_only_if_the_counts_are_right(
    counted: tuple[int, int, int], right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_all_at_once(clients: int) -> tuple[int, int, int]:
        return counted

    monkeypatch.setattr(proxying, "ask_all_at_once", ask_all_at_once)
    assert await proxying.main(3) is right


@contextlib.asynccontextmanager
async def open_proxy() -> AsyncGenerator[tuple[Any, Any, int], None]:
    """An origin, a proxy in front of it, and the proxy's port."""
    async with trio.open_nursery() as nursery:
        origin = proxying.Origin()
        proxy = proxying.Proxy(nursery, await proxying.listen(nursery, origin.serve))
        yield origin, proxy, await proxying.listen(nursery, proxy.serve)
        nursery.cancel_scope.cancel()


async def test_a_failure_upstream_reaches_every_client_and_is_not_cached() -> None:
    async with open_proxy() as (origin, _, port):
        for asked in (1, 2):
            status, body = await proxying.get(port, "/nowhere")
            assert (status, body) == ("502 Bad Gateway", b"UpstreamError('404 Not Found')")
            assert origin.requests == asked


async def test_if_a_client_disconnects_the_others_still_get_the_page() -> None:
    async with open_proxy() as (origin, proxy, port), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after, proxy.arrivals, scope)
            await proxying.get(port, proxying.SLOW_PAGE)
        patient = ResultCapture.start_soon(nursery, proxying.get, port, proxying.SLOW_PAGE)
        await proxy.arrivals.acquire()
        origin.ready.set()
        await patient.wait_done()
        assert patient.result() == ("200 OK", proxying.PAGE)
        assert origin.requests == 1


async def cancel_after(arrivals: trio.Semaphore, scope: trio.CancelScope) -> None:
    await arrivals.acquire()
    scope.cancel()


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"GET /a HTTP/1.1\r\nHost: here\r\n\r\n", "/a"),
        (b"POST /a HTTP/1.1\r\n\r\n", ""),
        (b"GET\r\n\r\n", ""),
        (b"GET /a HTTP/1.1\r\n", ""),
        (b"", ""),
    ],
)
async def test_only_a_get_request_has_a_path(sent: bytes, path: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    for byte in sent:
        await far.send_all(bytes([byte]))
    await far.aclose()
    assert await proxying.read_request(near) == path
    await near.aclose()


@pytest.mark.parametrize(
    ("soft", "hard", "asked_for"), [(10, 1000, (100, 1000)), (10, 50, (50, 50)), (100, 100, None), (10, -1, (100, -1))]
)
def test_the_limit_of_open_files_is_raised_as_far_as_needed(
    soft: int, hard: int, asked_for: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    limits_set: list[object] = []

    def get_limits(which: int) -> tuple[int, int]:
        return soft, hard

    def set_limits(which: int, limits: tuple[int, int]) -> None:
        limits_set.append(limits)

    monkeypatch.setattr(resource, "RLIM_INFINITY", -1)
    monkeypatch.setattr(resource, "getrlimit", get_limits)
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    proxying.allow_open_files(100)
    assert limits_set == ([] if asked_for is None else [asked_for])
