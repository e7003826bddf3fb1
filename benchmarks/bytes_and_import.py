"""Measurements that aren't scenarios: the size of futures, the peak memory of a map, and the time of the import."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from typing import TYPE_CHECKING, Any

import aioresult
import anyio
import trio

import triores

from .measuring import AIORESULT, ANYIO, ASYNCIO, BY_HAND, TRIORES, Series
from .slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

PENDING = "bytes of a pending future"
DONE = "bytes of a done future"
PEAK = "peak bytes of open_amap, limit 100"
IMPORT = "import after trio"

IMPORTS = {TRIORES: "triores", AIORESULT: "aioresult", ANYIO: "anyio", ASYNCIO: "asyncio"}


def measure_futures(futures: int) -> list[Series]:
    measured: list[Series] = []

    async def measure(name: str, make: Callable[[], Any], settle: Callable[[Any], object]) -> None:
        pending, done = _bytes_of(make, settle, futures)
        measured.append(Series(PENDING, name, 1, [pending], "byte"))
        measured.append(Series(DONE, name, 1, [done], "byte"))

    async def measure_on_asyncio() -> None:
        await measure(ASYNCIO, asyncio.get_running_loop().create_future, _set_result)

    trio.run(measure, TRIORES, triores.Future, _set_result)
    trio.run(measure, BY_HAND, Slot, _put)
    trio.run(measure, AIORESULT, aioresult.Future, _set_result)
    trio.run(measure, ANYIO, anyio.Future, _set_return_value)
    asyncio.run(measure_on_asyncio())
    return measured


def _set_result(future: Any) -> None:
    future.set_result(None)


def _set_return_value(future: Any) -> None:
    future.return_value = None


def _put(slot: Slot) -> None:
    slot.put(1)


def _bytes_of(make: Callable[[], Any], settle: Callable[[Any], object], n: int) -> tuple[float, float]:
    """Return the bytes that a pending and a done future take, without the list that holds them."""
    settle(make())  # so that whatever is only made once is already there
    held: list[Any] = [None] * n
    gc.collect()
    tracemalloc.start()
    try:
        for index in range(n):
            held[index] = make()
        pending = tracemalloc.get_traced_memory()[0]
        for future in held:
            settle(future)
        done = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return pending / n, done / n


def measure_peak(items: int) -> Series:
    """Measure the peak number of bytes in use while the items of a generator go through open_amap."""

    async def main() -> None:
        async def work(item: int) -> int:
            await trio.lowlevel.checkpoint()
            return item

        total = 0
        async with triores.open_amap(work, (item for item in range(items)), limit=100) as captures:
            async for capture in captures:
                total += capture.result()
        assert total == items * (items - 1) // 2

    gc.collect()
    tracemalloc.start()
    try:
        trio.run(main)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Series(PEAK, TRIORES, items, [peak], "byte")


def measure_import(rounds: int) -> list[Series]:
    """Measure how many seconds an import takes after Trio has been imported, each time in a new process."""
    values: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as compiled:
        for turn in range(rounds + 1):
            for name, module in IMPORTS.items():
                seconds = _import_once(module, compiled)
                if turn:  # the first turn compiles the modules
                    values[name].append(seconds)
    return [Series(IMPORT, name, 1, measured) for name, measured in values.items()]


def _import_once(module: str, compiled: str) -> float:
    program = f"import trio, time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True)  # noqa: S603 - a program of our own
    return float(ran.stdout)
