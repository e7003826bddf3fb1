"""Whatever the items, limits, delays and failures, the maps do what a plain loop does, only faster."""

from __future__ import annotations

import heapq
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from _helpers import SOAK, Boom, leaf_types
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from triores import AmapResults, ResultCapture, amap, open_amap

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

quickly = settings(max_examples=1000 if SOAK else 25, deadline=None, derandomize=not SOAK, database=None)
delays = st.integers(0, 3)


class Item(NamedTuple):
    """How many seconds an item takes to arrive, to be processed and to be consumed, and whether its call fails."""

    number: int
    coming: int
    working: int
    consuming: int
    fails: bool


class Plan(NamedTuple):
    items: list[Item]
    limit: int
    is_async: bool
    source_fails: bool

    def fails(self) -> bool:
        return self.source_fails or any(item.fails for item in self.items)

    def outcomes(self) -> list[int | None]:
        """What a plain loop would get for each item: a value, or None if the call fails."""
        return [None if item.fails else item.number**2 for item in self.items]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    failing = st.integers(0, 5).map(lambda n: n == 0)
    rows = draw(st.lists(st.tuples(delays, delays, delays, failing), max_size=12))
    items = [Item(number, *row) for number, row in enumerate(rows)]
    source_fails = draw(st.integers(0, 5)) == 0
    return Plan(items, draw(st.integers(1, 5)), draw(st.booleans()), source_fails)


class Run:
    """One run of a plan: the source and the function, which check that the limit is kept."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.taken = 0
        self.running = 0
        self.consumed = 0  # how many items no longer count towards the limit

    def source(self) -> Any:
        return self.take_asynchronously() if self.plan.is_async else self.take()

    def take(self) -> Iterator[Item]:
        for item in self.plan.items:
            self.taken += 1
            self.check()
            yield item
        if self.plan.source_fails:
            raise Boom

    async def take_asynchronously(self) -> AsyncGenerator[Item, None]:
        for item in self.take():
            await trio.sleep(item.coming)
            yield item

    async def work(self, item: Item) -> int:
        self.running += 1
        self.check()
        try:
            await trio.sleep(item.working)
        finally:
            self.running -= 1
        if item.fails:
            raise Boom
        return item.number**2

    def check(self) -> None:
        assert self.taken - self.consumed <= self.plan.limit
        assert self.running <= self.plan.limit


def run(main: Callable[[], Awaitable[None]]) -> float:
    """Run ``main``, and return how many seconds it took by its mock clock."""
    clock = MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)
    return clock.current_time()


def time_of_pool(plan: Plan) -> float:
    """How many seconds a pool takes if no worker is ever idle while there are items."""
    read = 0.0
    busy_until: list[float] = []
    for item in plan.items:
        begin = heapq.heappop(busy_until) if len(busy_until) == plan.limit else 0.0
        read = max(read, begin) + (item.coming if plan.is_async else 0)
        heapq.heappush(busy_until, read + item.working)
    return max(busy_until, default=0.0)


@quickly
@given(plans())
def test_amap_does_what_a_plain_loop_does(plan: Plan) -> None:
    the_run = Run(plan)

    async def work(item: Item) -> int:
        try:
            return await the_run.work(item)
        finally:
            the_run.consumed += 1

    async def main() -> None:
        if not plan.fails():
            assert await amap(work, the_run.source(), limit=plan.limit) == plan.outcomes()
            return
        with pytest.raises(ExceptionGroup) as caught:
            await amap(work, the_run.source(), limit=plan.limit)
        assert set(leaf_types(caught.value)) == {Boom}

    took = run(main)
    assert took == time_of_pool(plan) or plan.fails()


@quickly
@given(plans(), st.booleans(), st.integers(1, 3))
def test_open_amap_does_what_a_plain_loop_does(plan: Plan, ordered: bool, consumers: int) -> None:
    the_run = Run(plan)
    found: list[Item] = []

    async def consume(results: AsyncIterator[ResultCapture[int]]) -> None:
        async for capture in results:
            the_run.consumed += 1
            item = capture.args[0]
            assert capture.result() == item.number**2
            found.append(item)
            await trio.sleep(item.consuming)

    async def main() -> None:
        async with (
            open_amap(the_run.work, the_run.source(), limit=plan.limit, ordered=ordered) as results,
            trio.open_nursery() as nursery,
        ):
            for _ in range(consumers):
                nursery.start_soon(consume, results)

    async def fail() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await main()
        assert set(leaf_types(caught.value)) == {Boom}

    run(fail if plan.fails() else main)
    assert len(found) == len(set(found))
    if ordered:
        assert found == plan.items[: len(found)]
    if not plan.fails():
        assert set(found) == set(plan.items)


@quickly
@given(plans(), st.booleans(), st.integers(0, 12))
def test_open_amap_does_what_a_plain_loop_does_even_if_its_block_is_left_early(
    plan: Plan, ordered: bool, count: int
) -> None:
    plan = plan._replace(source_fails=False)
    the_run = Run(plan)
    found: dict[int, int | None] = {}

    async def main() -> None:
        async with open_amap(
            the_run.work, the_run.source(), limit=plan.limit, ordered=ordered, suppress_exception=True
        ) as results:
            async for capture in results:
                the_run.consumed += 1
                item = capture.args[0]
                found[item.number] = capture.result() if capture.exception() is None else None
                if len(found) == count:
                    break
                await trio.sleep(item.consuming)

    run(main)
    outcomes = plan.outcomes()
    assert len(found) == (min(count, len(outcomes)) or len(outcomes))
    assert found.items() <= dict(enumerate(outcomes)).items()
    if ordered:
        assert list(found) == list(range(len(found)))


class Node(NamedTuple):
    """An item that leads to others, added by its call or by the loop."""

    working: int
    consuming: int
    added_by_call: list[Node]
    added_by_loop: list[Node]

    def size(self) -> int:
        return 1 + sum(node.size() for node in (*self.added_by_call, *self.added_by_loop))


leaves = st.builds(Node, delays, delays, st.just([]), st.just([]))
nodes = st.recursive(
    leaves,
    lambda nodes: st.builds(Node, delays, delays, st.lists(nodes, max_size=3), st.lists(nodes, max_size=3)),
    max_leaves=12,
)


@quickly
@given(
    st.lists(nodes, max_size=4),
    st.sampled_from([1, 2, 3, None]),
    st.booleans(),
    st.sampled_from(["list", "generator", "async"]),
)
def test_items_added_while_open_amap_runs_are_processed_once(
    roots: list[Node], limit: int | None, ordered: bool, kind: str
) -> None:
    begun: list[int] = []
    found: list[int] = []
    running = 0
    results: AmapResults[Node, int]

    async def work(node: Node) -> int:
        nonlocal running
        begun.append(id(node))
        running += 1
        assert limit is None or running <= limit
        for added in node.added_by_call:
            results.add(added)
        await trio.sleep(node.working)
        running -= 1
        return id(node)

    async def one_by_one() -> AsyncGenerator[Node, None]:
        for node in roots:
            await trio.sleep(1)
            yield node

    async def main() -> None:
        nonlocal results
        items: Any = {"list": roots, "generator": (node for node in roots), "async": one_by_one()}[kind]
        async with open_amap(work, items, limit=limit, ordered=ordered) as results:
            async for capture in results:
                found.append(capture.result())
                for added in capture.item.added_by_loop:
                    results.add(added)
                await trio.sleep(capture.item.consuming)

    run(main)
    assert len(found) == sum(root.size() for root in roots)
    assert sorted(found) == sorted(begun)
    assert found == begun or not ordered
