"""Each program runs under many seeds: its results don't depend on the order in which Trio runs the tasks of a tick."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import SOAK, seed_scheduler
from trio.lowlevel import checkpoint
from trio.testing import MockClock

from triores import (
    Future,
    FutureMap,
    FutureNeverSetException,
    ResultCapture,
    SingleFlight,
    amap,
    as_completed,
    first_success,
    gather,
    open_amap,
    race,
    results_to_channel,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SEEDS = range(5000 if SOAK else 200)


def under_each_seed(program: Callable[[random.Random], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a program once for each seed, which determines Trio's scheduling and the program's own choices."""

    async def main() -> None:
        for seed in SEEDS:
            seed_scheduler(seed, monkeypatch)
            try:
                await program(random.Random(seed))
            except BaseException as error:
                raise AssertionError(f"under seed {seed}") from error

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def steps(count: int) -> None:
    for _ in range(count):
        await checkpoint()


class SettledByTasks:
    """Futures, each settled by its own task after a few steps, and the order in which they were settled."""

    def __init__(self, nursery: trio.Nursery, choose: random.Random, count: int = 6) -> None:
        self.order: list[Future[int]] = []
        self.futures = [Future[int]() for _ in range(count)]
        for future in self.futures:
            nursery.start_soon(self.settle, future, choose.randrange(4))

    async def settle(self, future: Future[int], count: int) -> None:
        await steps(count)
        future.set_result(count)
        self.order.append(future)


def test_tasks_that_share_as_completed_take_the_results_in_the_order_they_were_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(choose: random.Random) -> None:
        taken: list[Future[int]] = []

        async def take(results: AsyncIterator[Future[int]]) -> None:
            async for result in results:
                taken.append(result)
                await steps(choose.randrange(3))

        async with trio.open_nursery() as nursery:
            settled = SettledByTasks(nursery, choose)
            results = as_completed(settled.futures)
            for _ in range(3):
                nursery.start_soon(take, results)
        assert taken == settled.order

    under_each_seed(program, monkeypatch)


def test_a_channel_gets_the_results_in_the_order_they_were_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(choose: random.Random) -> None:
        async with trio.open_nursery() as nursery:
            settled = SettledByTasks(nursery, choose)
            send, receive = trio.open_memory_channel[Future[int]](choose.randrange(3))
            received: list[Future[int]] = []

            async def take() -> None:
                async for future in receive:
                    received.append(future)
                    await steps(choose.randrange(3))

            nursery.start_soon(take)
            await results_to_channel(settled.futures, send)
        assert received == settled.order

    under_each_seed(program, monkeypatch)


@pytest.mark.parametrize("call", [race, first_success])
def test_the_first_to_finish_wins(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(choose: random.Random) -> None:
        finished: list[int] = []

        async def run(n: int, count: int) -> int:
            await steps(count)
            finished.append(n)
            return n

        assert await call(*[partial(run, n, choose.randrange(4)) for n in range(5)]) == finished[0]

    under_each_seed(program, monkeypatch)


def test_gather_and_amap_return_values_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(choose: random.Random) -> None:
        async def run(n: int) -> int:
            await steps(choose.randrange(4))
            return n

        assert await gather(*[partial(run, n) for n in range(5)]) == tuple(range(5))
        assert await amap(run, range(7), limit=choose.choice([1, 2, 3, None])) == list(range(7))

    under_each_seed(program, monkeypatch)


@pytest.mark.parametrize("ordered", [False, True])
def test_open_amap_gives_each_result_to_one_consumer_in_the_promised_order(
    ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(choose: random.Random) -> None:
        limit = choose.randrange(1, 5)
        finished: list[int] = []
        given: list[int] = []
        taken = 0  # from the source, and not handed out yet
        most = 0

        def items() -> Any:
            nonlocal taken, most
            for n in range(8):
                taken += 1
                most = max(most, taken)
                yield n

        async def run(n: int) -> int:
            await steps(choose.randrange(4))
            finished.append(n)
            return n

        async def consume(results: AsyncIterator[ResultCapture[int]]) -> None:
            nonlocal taken
            async for capture in results:
                taken -= 1
                given.append(capture.result())
                await steps(choose.randrange(2))

        async with open_amap(run, items(), limit=limit, ordered=ordered) as results:
            await gather(*[partial(consume, results)] * choose.randrange(1, 4))
        assert given == (list(range(8)) if ordered else finished)
        assert most <= limit

    under_each_seed(program, monkeypatch)


def test_each_request_gets_its_own_answer_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(choose: random.Random) -> None:
        requests = FutureMap[int, int]()
        asked: list[int] = []
        ended: Counter[str] = Counter()

        async def ask(key: int) -> None:
            await steps(choose.randrange(3))
            with trio.move_on_after(choose.choice([0, 1, 1])) as scope:
                try:
                    with requests.expect(key) as future:
                        asked.append(key)
                        assert await future == -key
                        ended["answered"] += 1
                except FutureNeverSetException:
                    ended["failed"] += 1
            ended["cancelled"] += scope.cancelled_caught

        async def read() -> None:
            with requests:
                for _ in range(5):
                    await checkpoint()
                    for key in choose.sample(asked, len(asked) // 2):
                        requests.set_result(key, -key)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for key in range(6):
                nursery.start_soon(ask, key)
        assert sum(ended.values()) == 6
        assert not requests

    under_each_seed(program, monkeypatch)


def test_callers_of_a_key_share_one_flight_and_only_the_last_to_leave_cancels_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(choose: random.Random) -> None:
        callers: Counter[int] = Counter()  # how many callers each flight had
        joinable: dict[str, int] = {}  # the flights that can be joined, by key
        flights = 0
        seen: list[int] = []

        async def work(key: str) -> int:
            nonlocal flights
            number = flights = flights + 1
            joinable[key] = number
            try:
                await trio.sleep(choose.choice([0, 0.2, 0.5]))
            except trio.Cancelled:
                assert number not in seen
                raise
            finally:
                if joinable[key] == number:
                    del joinable[key]
            return number

        async def call(key: str) -> None:
            await trio.sleep(choose.choice([0, 0.1, 0.3]))
            joined = joinable.get(key)
            with trio.move_on_after(choose.choice([0.1, 0.4, 1])):
                number = await shared.run(key, work, key)
                assert joined is None or number >= joined
                seen.append(number)
                callers[number] += 1

        async with trio.open_nursery() as nursery:
            shared = SingleFlight[str, int](nursery)
            async with trio.open_nursery() as outer:
                for key in "aaaabb":
                    outer.start_soon(call, key)
        assert repr(shared) == "SingleFlight(in_flight=0)"
        assert not joinable
        assert sum(callers.values()) == len(seen)

    under_each_seed(program, monkeypatch)
