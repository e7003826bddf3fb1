"""A fan-out on a cluster: one Trio program has the workers of a Dask cluster count primes.

``amap`` limits how many items are in progress, and ``run_in_executor`` hands each of them to Dask's own scheduler. The
program counts three times: once normally; once with an item that fails, which ends the map; and once with a worker that
is killed while it is working, so that Dask gives its items to another worker. The results must equal those of a plain
loop.

    python docs/examples/cluster.py --blocks 60

By default, the cluster consists of two worker processes on this machine, which only listen on the loopback interface.
With ``--scheduler tcp://HOST:8786``, the same program runs on a real cluster, and doesn't kill a worker there. The exit
status is 0 if everything went as expected.
"""

# Dask is only installed for this program, and most of it has no types.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from distributed import Client, LocalCluster, get_worker

from triores import amap, run_in_executor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

WORKERS = 2
BLOCK = 1000  # how many numbers an item has
LIMIT = 16  # how many items are in progress at once; there are fewer workers, so none of them has to wait for work
PATIENCE = 60  # the time limit of each of the three rounds, in seconds


def count_primes(start: int) -> int:
    """Count the primes in the block that begins with this number. This is what a worker does for each item."""
    if start < 0:
        raise ValueError(f"there are no primes below 0, and so none from {start} on")
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in block_from(start))


def block_from(start: int) -> range:
    """Return the numbers of a block, from 2 on."""
    return range(max(start, 2), start + BLOCK)


def count_primes_or_die(victim: str, start: int) -> int:
    """Do the same, but first kill the worker with this address, as the system does when memory is short."""
    if get_worker().address == victim:
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    return count_primes(start)


async def on_cluster(executor: Executor, fn: Callable[[int], int], starts: list[int]) -> list[int]:
    """Return the function's result for each block, in order. The first exception cancels the rest."""

    async def one(start: int) -> int:
        return await run_in_executor(executor, fn, start)

    with trio.fail_after(PATIENCE):
        return await amap(one, starts, limit=LIMIT)


async def counts_like_a_plain_loop(executor: Executor, fn: Callable[[int], int], starts: list[int]) -> bool:
    """Return whether the cluster counts the same as a plain loop in this process."""
    return await on_cluster(executor, fn, starts) == [count_primes(start) for start in starts]


async def raises_what_the_failing_item_raised(executor: Executor, starts: list[int]) -> bool:
    """Return whether the map raises the exception of the item that fails, and nothing else."""
    starts = [*starts, -BLOCK, *starts]
    try:
        await on_cluster(executor, count_primes, starts)
    except ExceptionGroup as group:
        failures = [str(error) for error in group.exceptions if isinstance(error, ValueError)]
        return len(group.exceptions) == 1 and failures == [f"there are no primes below 0, and so none from {-BLOCK} on"]
    return False


def report(what: str, went_well: bool) -> bool:
    """Print how something went, and return whether it went well."""
    print(f"{'ok   ' if went_well else 'WRONG'}  {what}")
    return went_well


def run_on(client: Any, starts: list[int], *, kill_a_worker: bool) -> bool:
    """Run all rounds on one cluster, and return whether each went as expected."""
    # With pure=True, the default, Dask would reuse what it has computed for the same arguments before, and cancelling a
    # call would cancel every other call with the same arguments.
    executor = client.get_executor(pure=False)
    same = trio.run(counts_like_a_plain_loop, executor, count_primes, starts)
    all_well = report(f"{len(starts)} blocks give the same counts as a plain loop", same)
    raised = trio.run(raises_what_the_failing_item_raised, executor, starts)
    all_well &= report("an item that fails ends the map with its exception", raised)
    if kill_a_worker:
        victim = min(client.nthreads())
        same = trio.run(counts_like_a_plain_loop, executor, partial(count_primes_or_die, victim), starts)
        killed = victim not in client.nthreads()
        all_well &= report("a worker is killed while working, and all the blocks are still counted", same and killed)
    return all_well


def local_cluster() -> LocalCluster:
    """Start two worker processes on this machine that nobody else can reach, without the dashboard."""
    return LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # Dask listens there even without a dashboard; the default port may be taken
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,  # otherwise Dask would warn that a worker was killed, which is on purpose here
    )


def main() -> bool:
    """Run on a cluster on this machine, or on the given one. Return whether everything went as expected."""
    parser = argparse.ArgumentParser(description="Count primes on a Dask cluster.")
    parser.add_argument("--blocks", type=int, default=60, help=f"how many blocks of {BLOCK:,} numbers (default: 60)")
    parser.add_argument("--scheduler", help="the address of a scheduler (default: two workers on this machine)")
    options = parser.parse_args()
    starts = [BLOCK * number for number in range(options.blocks)]
    if options.scheduler:
        with Client(options.scheduler) as client:
            return run_on(client, starts, kill_a_worker=False)
    with local_cluster() as cluster, Client(cluster) as client:
        return run_on(client, starts, kill_a_worker=True)


if __name__ == "__main__":
    sys.exit(not main())
