"""The programs in docs/examples are run as separate processes, and their output is checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from _examples import EXAMPLES, load_example, run_example

from triores import ResultCapture, TaskFailedException

TESTS = Path(__file__).parent
SHORT = 5  # seconds by the mock clock, which pass at once if nothing else can happen


def test_each_program_is_named_in_exactly_one_test_file() -> None:
    tests = {path.name: path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py")}
    for program in sorted(EXAMPLES.glob("*.py")):
        name = re.compile(rf"(?<!\w){re.escape(program.name)}")
        naming = [test for test, text in tests.items() if name.search(text)]
        assert len(naming) == 1, f"exactly one test file has to name and run {program.name}, not {naming}"


# ---- concurrent requests on one connection

rpc = load_example("multiplexed_rpc.py")


def figures(table: bytes) -> dict[str, str]:
    """The rows of a printed table with two columns."""
    rows = re.findall(r"^│ (.*?) +│ +(.*?) │$", table.decode(), re.MULTILINE)
    return {what: figure.replace(",", "") for what, figure in rows}


def test_every_request_is_answered_and_every_caller_gets_an_error_when_the_connection_is_cut() -> None:
    ran = run_example("multiplexed_rpc.py", "--requests", "600", "--callers", "20")
    assert (ran.stderr, ran.returncode) == (b"", 0)
    shown = figures(ran.stdout)
    assert shown["requests"] == shown["correct answers"] == "600"
    assert float(shown["requests per second"]) > 0
    median, worst = (float(shown[f"latency, {which}"].removesuffix(" ms")) for which in ("median", "99th percentile"))
    assert 0 < median <= worst
    assert 0 < int(shown["answers out of order"]) < 600
    assert shown["after the cut: ConnectionLostError"] == "20"
    assert shown["after the cut: left hanging"] == "0"


async def test_the_report_works_for_a_single_request() -> None:
    answered = await rpc.make_requests(1, 1)
    assert (answered.right, len(answered.latencies), answered.out_of_order) == (1, 1, 0)
    assert rpc.report(answered, rpc.Cut(Counter(), 0)).row_count == 7


@pytest.mark.parametrize(("right", "hanging", "adds_up"), [(2, 0, True), (1, 0, False), (2, 1, False)])
async def test_the_program_succeeds_only_if_the_numbers_add_up(
    right: int, hanging: int, adds_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_requests(requests: int, callers: int) -> Any:
        return rpc.Answered(1.0, [0.1] * requests, right, 0)

    async def cut_connection(callers: int) -> Any:
        return rpc.Cut(Counter(Lost=callers - hanging), hanging)

    monkeypatch.setattr(rpc, "make_requests", make_requests)
    monkeypatch.setattr(rpc, "cut_connection", cut_connection)
    assert await rpc.main(2, 3) is adds_up


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests", "0"], "argument --requests: must be at least 1, not 0"),
        (["--callers", "-1"], "argument --callers: must be at least 1, not -1"),
        (["--callers", "many"], "argument --callers: invalid count value: 'many'"),
    ],
)
def test_a_wrong_count_raises_an_error(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rpc", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        rpc.parse_arguments()
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


async def test_an_answer_that_arrives_in_pieces_reaches_its_caller(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    client = rpc.Client(near)
    answers: list[int] = []

    async def call() -> None:
        with trio.fail_after(SHORT):
            answers.append(await client.call(3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(call)
        for piece in (b'{"id": 0, "squ', b'are": 9}', b"\n"):
            await trio.testing.wait_all_tasks_blocked()
            assert not answers
            await far.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [9]
        await far.aclose()


async def test_a_cancelled_caller_leaves_no_entry_and_its_late_answer_is_ignored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    client = rpc.Client(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        async with trio.open_nursery() as callers:
            callers.start_soon(client.call, 3)
            await trio.testing.wait_all_tasks_blocked()
            assert list(client._in_flight) == [0]
            callers.cancel_scope.cancel()
        assert not client._in_flight
        with trio.fail_after(SHORT):
            assert json.loads(await far.receive_some()) == {"id": 0, "number": 3}
        await far.send_all(b'{"id": 0, "square": 9}\n')
        await far.aclose()


async def test_a_caller_cancelled_while_it_is_sending_still_sends_its_whole_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    client = rpc.Client(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        async with trio.open_nursery() as callers:
            callers.start_soon(client.call, 3)
            await trio.testing.wait_all_tasks_blocked()
            head = await far.receive_some(5)
            callers.cancel_scope.cancel()
        with trio.fail_after(SHORT):
            assert json.loads(head + await far.receive_some()) == {"id": 0, "number": 3}
        await far.aclose()


@pytest.mark.parametrize(
    ("sent", "raised"),
    [
        (b"", []),
        (b'{"id": 0, "squ', []),
        (b"what?\n", [json.JSONDecodeError]),
        (b'{"id": 0}\n', [KeyError]),
    ],
)
async def test_however_the_connection_ends_every_caller_gets_an_exception(
    sent: bytes, raised: list[type[Exception]], autojump_clock: trio.testing.MockClock
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    client = rpc.Client(near)
    async with trio.open_nursery() as nursery:
        running = ResultCapture.start_soon(nursery, client.run, suppress_exception=True)
        for _ in range(3):
            nursery.start_soon(call_and_lose_connection, client)
        await trio.testing.wait_all_tasks_blocked()
        await far.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        # Now the first caller is waiting for its answer, the second is sending, and the third is waiting to send.
        if sent:
            await far.send_all(sent)
        await far.aclose()
    error = running.exception()
    assert [type(leaf) for leaf in getattr(error, "exceptions", ())] == raised
    assert not client._in_flight
    await call_and_lose_connection(client)


async def test_cancelling_the_client_fails_its_callers(autojump_clock: trio.testing.MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    client = rpc.Client(near)
    async with trio.open_nursery() as nursery:
        running = ResultCapture.start_soon(nursery, client.run, cancel_scope=trio.CancelScope())
        nursery.start_soon(call_and_lose_connection, client)
        await trio.testing.wait_all_tasks_blocked()
        assert running.cancel_scope is not None
        running.cancel_scope.cancel()


async def test_if_the_connection_is_reset_only_its_callers_fail(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _far = trio.testing.memory_stream_pair()

    async def reset() -> None:
        raise trio.BrokenResourceError

    async def reset_later() -> None:
        await trio.sleep(1)
        raise trio.BrokenResourceError

    near.send_stream.send_all_hook = reset
    near.receive_stream.receive_some_hook = reset_later
    client = rpc.Client(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(call_and_lose_connection, client)
        nursery.start_soon(call_and_lose_connection, client)


async def call_and_lose_connection(client: Any) -> None:
    with trio.fail_after(SHORT), pytest.raises(rpc.ConnectionLostError):
        await client.call(3)


# ---- checksums of files

checksums = load_example("checksums.py")


def digest_of(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def test_the_checksums_of_all_files_below_a_path_are_printed_in_order(tmp_path: Path) -> None:
    large = bytes(range(256)) * 8192
    contents = {"a": b"first", "sub/b": b"", "sub/deep/a": large, "z": b"last"}
    for name, content in reversed(contents.items()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    ended = run_example("checksums.py", tmp_path)
    assert ended.stdout.decode().splitlines() == [f"{digest_of(contents[n])}  {tmp_path / n}" for n in contents]
    assert (ended.stderr, ended.returncode) == (b"", 0)


def test_each_unreadable_file_is_reported_and_special_files_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "others").symlink_to(EXAMPLES)
    (tmp_path / "readable").write_bytes(b"x")
    (tmp_path / "two\nlines").write_bytes(b"y")
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff")).write_bytes(b"z")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        ended = run_example("checksums.py", tmp_path)
    folder = bytes(tmp_path)
    assert ended.stdout.splitlines() == [
        digest_of(b"x").encode() + b"  " + folder + b"/readable",
        b"\\" + digest_of(b"y").encode() + b"  " + folder + b"/two\\nlines",
        digest_of(b"z").encode() + b"  " + folder + b"/\xff",
    ]
    assert ended.stderr.decode().splitlines() == [
        f"checksums: '{tmp_path}/gone': {os.strerror(errno.ENOENT)}",
        f"checksums: '{tmp_path}/loop': {os.strerror(errno.ELOOP)}",
    ]
    assert ended.returncode == 1


async def test_a_missing_path_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not await checksums.main(tmp_path / "missing")
    assert capsys.readouterr() == ("", f"checksums: '{tmp_path}/missing': {os.strerror(errno.ENOENT)}\n")


async def test_the_path_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert await checksums.main(tmp_path / "file")
    assert capsys.readouterr() == (f"{digest_of(b'x')}  {tmp_path}/file\n", "")


async def test_a_directory_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    scandir = os.scandir

    def scandir_if_open(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_if_open)
    assert not await checksums.main(tmp_path)
    assert capsys.readouterr() == (
        f"{digest_of(b'x')}  {tmp_path}/file\n",
        f"checksums: '{tmp_path}/closed': Permission denied\n",
    )


async def test_a_file_that_vanishes_after_the_listing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_bytes(b"x")

    def files_below(root: Path) -> tuple[list[Path], list[OSError]]:
        return [root / "gone", root / "kept"], []

    monkeypatch.setattr(checksums, "files_below", files_below)
    assert not await checksums.main(tmp_path)
    printed = capsys.readouterr()
    assert printed.out == f"{digest_of(b'x')}  {tmp_path}/kept\n"
    assert printed.err == f"checksums: '{tmp_path}/gone': {os.strerror(errno.ENOENT)}\n"


async def test_a_bug_in_reading_is_not_reported_as_an_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_checksum(path: Path) -> str:
        raise ZeroDivisionError

    (tmp_path / "file").touch()
    monkeypatch.setattr(checksums, "read_checksum", read_checksum)
    with pytest.RaisesGroup(TaskFailedException):
        await checksums.main(tmp_path)
