"""The files that a recorder saves are compared with those in ``snapshots``, so that they change only on purpose.

After such a change, update them with ``python tests/test_snapshots.py``, and look at them in a browser and in Perfetto.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from _helpers import Boom, seed_scheduler
from trio.testing import MockClock

from triores import Future, ResultCapture, wait_all
from triores.trace import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SNAPSHOTS = Path(__file__).with_name("snapshots")


async def work(seconds: float, text: str = "") -> None:
    await trio.sleep(seconds)
    if text == "bad":
        raise Boom(text)


async def few(clock: MockClock) -> None:
    """A row for each way to end, an arrow, long names, and times in all units."""
    future = Future[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        nursery.start_soon(wait_all, [future], name="the name of a task that is longer than its row")
        await trio.sleep(0.0002)
        future.set_result(1)
        for seconds, text in [(0.125, "<&>"), (1, "bad"), (99.5, "a text that is longer than its row")]:
            ResultCapture.start_soon(nursery, work, seconds, text, suppress_exception=True)
        scope = trio.CancelScope()
        ResultCapture.start_soon(nursery, trio.sleep, 3000, cancel_scope=scope)
        await trio.sleep(1500)
        clock.jump(250)
        scope.cancel(reason="enough")


async def many(clock: MockClock) -> None:
    """More tasks than there is room for rows, so each function has a group."""
    async with trio.open_nursery() as nursery:
        for n in range(50):
            text = "bad" if n % 7 == 0 else ""
            ResultCapture.start_soon(nursery, work, n % 3 + 0.5, text, suppress_exception=True)
            nursery.start_soon(trio.sleep, 1, name="the name of a task that is longer than its group")
            await trio.sleep(0.125)


RUNS = [(few, "few.svg", 55), (few, "few.json", 55), (many, "many.svg", 10_000)]


def saved(main: Callable[[MockClock], Awaitable[None]], path: Path, limit: int) -> str:
    recorder, clock = Recorder(limit), MockClock(autojump_threshold=0)
    trio.run(main, clock, clock=clock, instruments=[recorder])
    recorder.save(path)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("main", "name", "limit"), RUNS)
def test_a_saved_file_looks_like_its_snapshot(
    main: Callable[[MockClock], Awaitable[None]],
    name: str,
    limit: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed_scheduler(1, monkeypatch)
    assert saved(main, tmp_path / name, limit) == (SNAPSHOTS / name).read_text(encoding="utf-8"), (
        f"{name} has changed; if that is intended, run 'python tests/test_snapshots.py', and look at the file"
    )


if __name__ == "__main__":
    import test_snapshots  # under its own name, since the files show the names of its functions

    with pytest.MonkeyPatch.context() as patch:
        for main, name, limit in test_snapshots.RUNS:
            seed_scheduler(1, patch)
            saved(main, SNAPSHOTS / name, limit)
