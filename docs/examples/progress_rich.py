"""Progress bars with rich: the loop over the results advances the bar.

The first example uses `open_amap`, with a second bar that counts the items that fail. The second one uses
`as_completed`, with captures in a nursery.

    python docs/examples/progress_rich.py --items 200
"""

from __future__ import annotations

import argparse
import random

import trio
from rich.console import Console
from rich.progress import Progress

from triores import ResultCapture, as_completed, open_amap

LONGEST = 0.05  # how many seconds an item takes, at most


async def work(item: int) -> int:
    """Stand in for slow work that may fail, such as a download. Every tenth item fails."""
    await trio.sleep(random.uniform(0, LONGEST))
    if item % 10 == 9:
        raise ConnectionError(f"item {item} was lost")
    return item


async def with_open_amap(items: range, progress: Progress) -> int:
    """Work on ten items at a time."""
    total = 0
    done, failed = progress.add_task("open_amap", total=len(items)), progress.add_task("failed", total=len(items))
    async with open_amap(work, items, limit=10, suppress_exception=True) as results:
        async for capture in results:
            progress.advance(done)
            if capture.exception() is None:
                total += capture.result()
            else:
                progress.advance(failed)
    return total


async def with_as_completed(items: range, progress: Progress) -> int:
    """Work on all items at once."""
    total = 0
    done = progress.add_task("as_completed", total=len(items))
    async with trio.open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, work, item, suppress_exception=True) for item in items]
        async for capture in as_completed(captures):
            progress.advance(done)
            total += capture.result() if capture.exception() is None else 0
    return total


async def main(count: int) -> None:
    """Run both, and print the sum of the items that didn't fail."""
    with Progress(console=Console(stderr=True)) as progress:
        totals = [await with_open_amap(range(count), progress), await with_as_completed(range(count), progress)]
    print("open_amap: {}\nas_completed: {}".format(*totals))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the progress of results with rich.")
    parser.add_argument("--items", type=int, default=200, help="how many items to work on")
    trio.run(main, parser.parse_args().items)
