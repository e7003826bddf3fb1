"""docs/examples/cluster.py on a local Dask cluster; skipped if Dask is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from triores import amap, run_in_executor, wrap_future

if TYPE_CHECKING:
    from collections.abc import Iterator

distributed: Any = pytest.importorskip("distributed", reason="Dask is a dependency of the group 'cluster' alone")

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "cluster.py"
TIME_LIMIT = 120  # seconds; if the program takes longer, it hangs


def test_the_example_gets_the_same_counts_as_a_plain_loop() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, "--blocks", "40"],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "ok     40 blocks give the same counts as a plain loop",
        "ok     an item that fails ends the map with its exception",
        "ok     a worker is killed while working, and all the blocks are still counted",
    ]
    assert not ran.stderr


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("example_cluster", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def client(example: Any) -> Iterator[Any]:
    with example.local_cluster() as cluster, distributed.Client(cluster) as client:
        yield client


def test_the_example_says_which_round_went_wrong(
    example: Any, client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def gives_nothing(*_: object) -> list[int]:
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(example, "on_cluster", gives_nothing)
    assert not example.run_on(client, [0, 1000], kill_a_worker=True)
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == ["WRONG"] * 3


def test_the_cluster_listens_only_on_the_loopback_interface(client: Any) -> None:
    psutil: Any = importlib.import_module("psutil")  # Dask depends on it
    this = psutil.Process()
    addresses = {
        connection.laddr.ip
        for process in [this, *this.children(recursive=True)]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


async def test_a_future_of_the_cluster_can_be_wrapped(client: Any) -> None:
    assert await wrap_future(client.get_executor(pure=False).submit(pow, 2, 5)) == 32


async def test_a_call_that_kills_every_worker_fails_with_dasks_own_exception(client: Any) -> None:
    executor = client.get_executor(pure=False)
    with pytest.raises(distributed.KilledWorker, match="all those workers died while running it"):
        await run_in_executor(executor, os._exit, 1)

    async def square(number: int) -> int:
        return await run_in_executor(executor, pow, number, 2)

    assert await amap(square, range(10), limit=4) == [number**2 for number in range(10)]


async def test_a_call_on_an_executor_that_was_shut_down_raises_its_own_exception(client: Any) -> None:
    executor = client.get_executor(pure=False)
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        await run_in_executor(executor, pow, 2, 5)
