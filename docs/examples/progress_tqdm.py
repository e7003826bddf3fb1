"""Progress bars with tqdm, which you can wrap around any async iterator of results.

The first example uses `open_amap`, which has a limit. The second one uses `as_completed`, with captures in a nursery.

    python docs/examples/progress_tqdm.py --items 200
"""

from __future__ import annotations

import argparse
import random

import trio
from tqdm.asyncio import tqdm

from triores import ResultCapture, as_completed, open_amap

LONGEST = 0.05  # how many seconds an item takes, at most


async def work(item: int) -> int:
    """Stand in for slow work, such as a download."""
    await trio.sleep(random.uniform(0, LONGEST))
    return item


async def with_open_amap(items: range) -> int:
    """Work on ten items at a time."""
    total = 0
    async with open_amap(work, items, limit=10) as results:
        async for capture in tqdm(results, total=len(items), desc="open_amap"):
            total += capture.result()
    return total


async def with_as_completed(items: range) -> int:
    """Work on all items at once."""
    total = 0
    async with trio.open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, work, item) for item in items]
        async for capture in tqdm(as_completed(captures), total=len(items), desc="as_completed"):
            total += capture.result()
    return total


async def main(count: int) -> None:
    """Run both, and print the sums."""
    print("open_amap:", await with_open_amap(range(count)))
    print("as_completed:", await with_as_completed(range(count)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the progress of results with tqdm.")
    parser.add_argument("--items", type=int, default=200, help="how many items to work on")
    trio.run(main, parser.parse_args().items)
