"""Waiting for several results at once."""

from __future__ import annotations

import concurrent.futures
import gc
import math
import random
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from _helpers import SOAK, Boom, in_foreign_run, is_free, seed_scheduler
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triores import (
    Future,
    ResultBase,
    ResultCapture,
    as_completed,
    results_to_channel,
    wait_all,
    wait_any,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator


def done(value: int = 3) -> Future[int]:
    future = Future[int]()
    future.set_result(value)
    return future


def failed() -> Future[int]:
    future = Future[int]()
    future.set_exception(Boom())
    return future


def pending(count: int) -> list[Future[int]]:
    return [Future[int]() for _ in range(count)]


async def set_all(futures: Iterable[Future[int]]) -> None:
    await wait_all_tasks_blocked()
    for future in futures:
        future.set_result(3)


async def iterate(results: Iterable[Future[int]]) -> list[Future[int]]:
    iterated: list[Future[int]] = []
    async for result in as_completed(
        results
    ):  # up to Python 3.11, the frame of a comprehension would keep the iterator alive
        iterated.append(result)
    return iterated


async def sent(results: Iterable[Future[int]]) -> list[Future[int]]:
    """What `results_to_channel` sends."""
    send, receive = trio.open_memory_channel[Future[int]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(results_to_channel, results, send)
        return [result async for result in receive]


async def to_channel(results: Iterable[Future[int]]) -> None:
    send, _receive = trio.open_memory_channel[Future[int]](math.inf)
    await results_to_channel(results, send)


WAITS: dict[str, Callable[[Iterable[Future[int]]], Awaitable[object]]] = {
    "wait_all": wait_all,
    "wait_any": wait_any,
    "as_completed": iterate,
    "results_to_channel": to_channel,
}
each_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


# ---- what they all have in common


@each_wait
async def test_a_wait_ends_when_the_results_are_settled(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]], nursery: trio.Nursery
) -> None:
    futures = pending(3)
    nursery.start_soon(set_all, futures)
    with assert_checkpoints():
        await wait(futures)
    assert all(map(is_free, futures))


@each_wait
async def test_a_wait_reads_any_iterable_once(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]], nursery: trio.Nursery
) -> None:
    futures = pending(3)
    asked: list[int] = []

    def generate() -> Iterator[Future[int]]:
        asked.append(1)
        yield from futures

    nursery.start_soon(set_all, futures)
    await wait(generate())
    assert asked == [1]
    for results in (set(futures), dict.fromkeys(futures), tuple(futures), iter(futures)):
        await wait(results)


@each_wait
async def test_waiting_for_done_results_is_a_checkpoint(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    for results in ([done()], [done(), failed(), done()]):
        with assert_checkpoints():
            await wait(results)
        with trio.CancelScope() as scope:
            scope.cancel()
            await wait(results)
            pytest.fail("not reached")


@pytest.mark.parametrize("name", [name for name in WAITS if name != "wait_any"])
async def test_waiting_for_no_results_is_a_checkpoint(name: str) -> None:
    with assert_checkpoints():
        await WAITS[name]([])
    with trio.CancelScope() as scope:
        scope.cancel()
        await WAITS[name]([])
        pytest.fail("not reached")
    assert scope.cancelled_caught


async def test_wait_any_without_results_raises_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"^wait_any got no results"):
        await wait_any([])


@each_wait
async def test_a_wait_never_raises_the_exception_of_a_result(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]], nursery: trio.Nursery
) -> None:
    capture = ResultCapture.start_soon(nursery, fail, suppress_exception=True)
    await wait([capture])  # type: ignore[list-item]  # only the annotation in this test is so narrow
    assert isinstance(capture.exception(), Boom)


async def fail() -> int:
    await wait_all_tasks_blocked()
    raise Boom


async def plain_cancelled(wait: Callable[[], Awaitable[object]]) -> None:
    """Check that a wait ends with a `trio.Cancelled` and nothing else."""
    try:
        await wait()
    except BaseException as error:
        assert type(error) is trio.Cancelled
        raise
    pytest.fail("not reached")


@each_wait
async def test_a_cancelled_wait_raises_a_plain_cancelled_and_leaves_nothing_registered(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    futures = pending(5)
    futures[2].add_done_callback(id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plain_cancelled, partial(wait, futures))
        nursery.start_soon(plain_cancelled, partial(wait, futures * 2))
        await wait_all_tasks_blocked()
        assert not any(map(is_free, futures))
        assert trio.lowlevel.current_statistics().tasks_living < 10  # so no wait has started a task
        nursery.cancel_scope.cancel()
    assert [is_free(future) for future in futures] == [True, True, False, True, True]
    futures[2].remove_done_callback(id)
    assert is_free(futures[2])
    assert not any(future.is_done() for future in futures)


@each_wait
async def test_a_hundred_cancelled_waits_leave_nothing_registered(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    futures = pending(3)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(wait, futures)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert all(map(is_free, futures))


@each_wait
async def test_a_wait_kept_alive_by_its_exception_leaves_nothing_registered(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    """The capture keeps the exception, whose traceback keeps the frames of the wait."""
    future = Future[int]()
    async with trio.open_nursery() as nursery:
        capture = ResultCapture.start_soon(nursery, wait, [future])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert capture.cancelled()
    assert is_free(future)


async def first_of(results: Iterable[Future[int]]) -> Future[int]:
    return await anext(as_completed(results))


@pytest.mark.parametrize("wait", [*WAITS.values(), first_of])
async def test_a_wait_settled_and_cancelled_in_the_same_tick_ends_with_whichever_came_first(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    for settle_first in (True, False):
        future = Future[int]()
        async with trio.open_nursery() as nursery:
            waiting = ResultCapture.start_soon(nursery, wait, [future], cancel_scope=trio.CancelScope())
            await wait_all_tasks_blocked()
            assert waiting.cancel_scope is not None
            if settle_first:
                future.set_result(3)
            waiting.cancel_scope.cancel()
            if not settle_first:
                future.set_result(3)
        has_another_checkpoint = wait in (iterate, to_channel)  # and so is cancelled there
        assert waiting.cancelled() is (not settle_first or has_another_checkpoint)
        assert waiting.cancelled() or waiting.exception() is None
        assert is_free(future)


async def fetch(url: str) -> int:
    return len(url)


@each_wait
async def test_passing_anything_but_a_result_raises_an_error_that_shows_the_right_call(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    future = Future[int]()
    wrong: Any
    cases: list[tuple[Any, str]] = [
        ([future, 3], r"not 3; call '(\w+)\(\[result, \.\.\.\]\)'"),
        (
            [future, fetch],
            r"not <function fetch>; to start it .* 'ResultCapture\.start_soon\(nursery, fetch, ",
        ),
        (
            [future, fetch("x"), fetch("y")],
            r"not the coroutine that 'fetch' returned; to start it and get a result, call 'ResultCapture\.start_soon",
        ),
        (
            fetch("x"),
            r"not the coroutine that 'fetch' returned; to start it .* 'ResultCapture\.start_soon\(nursery, fetch, ",
        ),
        (
            [future, concurrent.futures.Future()],
            r"not <Future at .*; to turn it into a result, call 'wrap_future\(future\)'",
        ),
        (concurrent.futures.Future(), r"not <Future at .*; to turn it into a result, call 'wrap_future\(future\)'"),
        (3, r"not 3; call '(\w+)\(\[result, \.\.\.\]\)'"),
    ]
    for wrong, message in cases:
        with pytest.raises(TypeError, match=rf"^\w+ takes triores results, {message}"):
            await wait(wrong)
    wrong = future
    with pytest.raises(TypeError, match=r"not a single Future\(.*\); call '\w+\(\[result\]\)'$"):
        await wait(wrong)
    assert is_free(future)
    gc.collect()  # so that Python warns now about any coroutine that wasn't closed


@each_wait
async def test_an_exception_raised_by_the_iterable_is_passed_on(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    def generate() -> Iterator[Future[int]]:
        yield future
        raise TypeError("of the generator")

    future = Future[int]()
    with pytest.raises(TypeError, match=r"^of the generator$"):
        await wait(generate())
    assert is_free(future)


class Same(Future[int]):
    """Futures that are all equal, and can't be hashed."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment] # that is the point


class Incomparable(Future[int]):
    def __eq__(self, other: object) -> bool:
        raise Boom

    def __hash__(self) -> int:
        raise Boom


@each_wait
@pytest.mark.parametrize("kind", [Same, Incomparable])
async def test_results_are_compared_by_identity(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]], kind: type[Future[int]], nursery: trio.Nursery
) -> None:
    results = [kind() for _ in range(3)]
    waiting = ResultCapture.start_soon(nursery, wait, [*results, results[0]])
    await wait_all_tasks_blocked()
    for result in results:
        assert result.statistics().waiters == 1
    for result in reversed(results):
        assert waiting.is_done() is (wait is wait_any and result is not results[2])
        result.set_result(3)
        await wait_all_tasks_blocked()
    assert waiting.is_done()
    if wait is iterate:
        assert list(map(id, await iterate(results))) == list(map(id, results))
    assert all(map(is_free, results))


@each_wait
async def test_a_result_of_another_run_raises_an_error_and_nothing_is_registered(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    mine = Future[int]()

    async def wait_in_another_run() -> None:
        before, after = pending(2)
        with pytest.raises(RuntimeError, match=r"belongs to another Trio run") as caught:
            await wait([before, mine, after])
        assert is_free(before)
        assert is_free(after)
        del caught  # until now, its traceback kept the frames of the wait

    await in_foreign_run(wait_in_another_run)
    mine.set_result(3)


@each_wait
async def test_a_refused_wait_removes_only_its_own_registrations(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    foreign = Future[int]()

    async def wait_in_another_run() -> None:
        others = pending(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_all, others)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match=r"belongs to another Trio run"):
                await wait([foreign, *others])
            others[0].set_result(3)

    await in_foreign_run(wait_in_another_run)
    foreign.set_result(3)


@each_wait
def test_outside_a_trio_run_a_wait_says_that_it_needs_trio(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    for results in ([Future[int]()], [done()]):
        waiting: Any = wait(results)
        with pytest.raises(RuntimeError, match="triores needs Trio"):
            waiting.send(None)


@each_wait
async def test_the_cost_of_a_wait_is_linear(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]], nursery: trio.Nursery
) -> None:
    calls = 0

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    counts: list[int] = []
    for size in (50, 200):
        futures = pending(size)
        nursery.start_soon(set_all, reversed(futures))
        calls = 0
        sys.setprofile(count_calls)
        try:
            await wait(futures)
        finally:
            sys.setprofile(None)
        counts.append(calls)
    assert counts[1] < 4.5 * counts[0]


# ---- wait_all and wait_any


async def test_wait_all_waits_for_the_last_result(nursery: trio.Nursery) -> None:
    futures = pending(3)
    capture = ResultCapture.start_soon(nursery, wait_all, [done(), *futures, futures[1]])
    for future in futures:
        await wait_all_tasks_blocked()
        assert not capture.is_done()
        future.set_result(3)
    await wait_all_tasks_blocked()
    assert capture.is_done()


async def test_wait_any_returns_the_result_that_was_settled_first(nursery: trio.Nursery) -> None:
    futures = pending(5)
    capture = ResultCapture.start_soon(nursery, wait_any, [*futures, futures[3]])
    await wait_all_tasks_blocked()
    for number in (3, 0, 4):
        futures[number].set_result(number)
    await capture.wait_done()
    assert capture.result() is futures[3]
    assert all(map(is_free, futures))


async def test_wait_any_prefers_done_results_in_the_order_given() -> None:
    early, late = Future[int](), Future[int]()
    late.set_result(1)
    early.set_result(2)
    for results in ([Future[int](), early, late], [Future[int](), late, early]):
        assert await wait_any(results) is results[1]
        assert is_free(results[0])


async def test_a_result_passed_twice_counts_once(nursery: trio.Nursery) -> None:
    one, other = pending(2)
    waiting = ResultCapture.start_soon(nursery, wait_all, [one, other, one])
    iterator = as_completed([one, other, one])
    assert repr(iterator) == "<as_completed: 2 left, 0 of them done>"
    await wait_all_tasks_blocked()
    assert one.statistics().waiters == 2
    nursery.start_soon(set_all, [other, one])
    assert [await anext(iterator), await anext(iterator)] == [other, one]
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    await waiting.wait_done()
    assert await iterate([one, other, one]) == [one, other]  # they are done before the wait begins
    assert await sent([one, other, one]) == [one, other]
    await wait_all([one, one])
    assert await wait_any([one, one]) is one


# ---- the order is exact


def random_rounds(seed: int) -> list[list[int]]:
    """The results to settle in each round. Those of the first round are done before the waits begin."""
    chance = random.Random(seed)
    numbers = list(range(chance.randint(1, 12)))
    chance.shuffle(numbers)
    rounds: list[list[int]] = [[]]
    for number in numbers:
        if chance.random() < 0.5:
            rounds.append([])
        rounds[-1].append(number)
    return rounds


async def watch_the_order(seed: int) -> None:
    """Settle results by hand and by tasks, and compare each wait with the order in which callbacks ran."""
    first, *rounds = random_rounds(seed)
    chance = random.Random(seed)
    count = len(first) + sum(map(len, rounds))
    settled: list[ResultBase[int]] = []
    results: list[ResultBase[int]] = []
    gates = [trio.Event() for _ in rounds]
    in_round = {number: index for index, numbers in enumerate(rounds) for number in numbers}

    async def work(number: int, fails: bool) -> int:
        if number in in_round:
            await gates[in_round[number]].wait()
        if fails:
            raise Boom
        return number

    async with trio.open_nursery() as nursery:
        for number in range(count):
            if chance.random() < 0.5:
                results.append(Future[int]())
            else:
                fails = chance.random() < 0.3
                results.append(ResultCapture.start_soon(nursery, work, number, fails, suppress_exception=True))
        settle_by_hand(results, first)
        await wait_all_tasks_blocked()
        for result in results:
            if not result.is_done():
                result.add_done_callback(settled.append)
        expected = [result for result in results if result.is_done()]  # in the order given

        iterated = ResultCapture.start_soon(nursery, listed, as_completed(results))
        nursery.start_soon(results_to_channel, results, send := Sink())
        any_of = ResultCapture.start_soon(nursery, wait_any, results)
        all_of = ResultCapture.start_soon(nursery, wait_all, results)
        pulled = ResultCapture.start_soon(nursery, pull, list(results))
        await wait_all_tasks_blocked()
        for gate, numbers in zip(gates, rounds, strict=True):
            if chance.random() < 0.5:
                gate.set()
                settle_by_hand(results, numbers)
            else:
                settle_by_hand(results, numbers)
                gate.set()
            for _ in range(chance.randint(0, 3)):
                await trio.lowlevel.checkpoint()
    expected += settled
    assert len(expected) == count
    assert iterated.result() == expected
    assert send.results == expected
    assert any_of.result() is expected[0]
    assert all_of.is_done()
    assert sorted(map(id, pulled.result())) == sorted(map(id, expected))


def settle_by_hand(results: list[ResultBase[int]], numbers: list[int]) -> None:
    for number in numbers:
        result = results[number]
        if isinstance(result, Future):
            result.set_result(number)


async def listed(iterator: AsyncIterator[ResultBase[int]]) -> list[ResultBase[int]]:
    return [result async for result in iterator]


async def pull(results: list[ResultBase[int]]) -> list[ResultBase[int]]:
    """Wait for one result after another, while others may be settled too."""
    pulled: list[ResultBase[int]] = []
    while results:
        pulled.append(await wait_any(results))
        results.remove(pulled[-1])
    return pulled


class Sink:
    """A channel that keeps the results sent to it."""

    def __init__(self) -> None:
        self.results: list[ResultBase[int]] = []

    async def send(self, value: ResultBase[int], /) -> None:
        await trio.lowlevel.checkpoint()
        self.results.append(value)

    def close(self) -> None: ...


@pytest.mark.leaves_results
def test_the_order_is_exact_in_random_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5000 if SOAK else 200):
        seed_scheduler(seed, monkeypatch)
        trio.run(watch_the_order, seed)


# ---- as_completed


async def test_the_wait_begins_when_as_completed_is_called() -> None:
    futures = pending(3)
    futures[2].set_result(1)
    iterator = as_completed(futures)
    futures[1].set_result(2)
    futures[0].set_result(3)
    assert [result async for result in iterator] == [futures[2], futures[1], futures[0]]
    with assert_checkpoints(), pytest.raises(StopAsyncIteration):
        await anext(iterator)
    assert aiter(iterator) is iterator


async def test_each_step_of_as_completed_is_a_checkpoint(nursery: trio.Nursery) -> None:
    future = Future[int]()
    iterator = as_completed([done(), future, done()])
    nursery.start_soon(set_all, [future])
    for _ in range(3):
        with assert_checkpoints():
            await anext(iterator)
    for _ in range(2):
        with assert_checkpoints(), pytest.raises(StopAsyncIteration):
            await anext(iterator)


async def test_no_result_is_lost_if_a_step_is_cancelled() -> None:
    futures = [done(), *pending(1)]
    iterator = as_completed(futures)
    for future in futures:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(iterator)
        assert scope.cancelled_caught
        if not future.is_done():
            future.set_result(3)
        assert await anext(iterator) is future


async def test_several_tasks_can_share_one_iterator() -> None:
    futures = pending(6)
    iterator = as_completed(futures)
    got: list[Future[int]] = []

    async def take() -> None:
        async for result in iterator:
            got.append(result)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take)
        for together in (futures[:1], futures[1:4], futures[4:]):
            await wait_all_tasks_blocked()
            for future in together:
                future.set_result(3)
    assert sorted(map(id, got)) == sorted(map(id, futures))


async def test_a_cancelled_task_whose_result_another_task_took_does_not_take_the_next_one() -> None:
    futures = pending(2)
    iterator = as_completed(futures)
    got: list[Future[int]] = []

    async def take() -> None:
        got.append(await anext(iterator))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
            await wait_all_tasks_blocked()
            futures[0].set_result(3)  # wakes both tasks: one takes it, and the other would find the other future
            scope.cancel()
            futures[1].cancel()
    assert scope.cancelled_caught
    assert got == futures[:1]
    assert await anext(iterator) is futures[1]


async def test_leaving_as_completed_early_leaves_nothing_registered() -> None:
    for _ in range(300):
        futures = [done(), *pending(2)]
        async for result in as_completed(futures):
            assert result is futures[0]
            break
        assert all(map(is_free, futures))
    futures = pending(2)
    with trio.move_on_after(0):
        async for _ in as_completed(futures):
            pytest.fail("not reached")
    assert all(map(is_free, futures))
    with pytest.raises(Boom):
        async for _ in as_completed([done(), *futures]):
            raise Boom
    assert all(map(is_free, futures))


async def test_as_completed_does_not_keep_results_that_were_taken() -> None:
    futures = pending(2)
    completed = as_completed(futures)
    taken = weakref.ref(futures[0])
    futures.pop(0).set_result(0)
    assert await anext(completed) is taken()
    gc.collect()
    assert taken() is None
    futures[0].set_result(1)
    assert await anext(completed) is futures[0]


@pytest.mark.parametrize("ready", [True, False])
async def test_a_cancelled_step_of_as_completed_keeps_no_result_alive(ready: bool) -> None:
    futures = pending(1)
    completed = as_completed(futures)
    if ready:
        futures[0].set_result(0)
    errors: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await anext(completed)
        except trio.Cancelled as error:
            errors.append(error)
            raise
    if not ready:
        futures[0].set_result(0)
    kept = weakref.ref(futures.pop())
    del completed
    gc.collect()
    assert errors
    assert kept() is None


@each_wait
async def test_a_cancelled_wait_keeps_no_done_result_alive(
    wait: Callable[[Iterable[Future[int]]], Awaitable[object]],
) -> None:
    futures = pending(1)
    futures[0].set_result(0)
    errors: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await wait(futures)
        except trio.Cancelled as error:
            errors.append(error)
            raise
    kept = weakref.ref(futures.pop())
    gc.collect()
    assert errors
    assert kept() is None


async def test_leaving_one_as_completed_early_does_not_disturb_other_waits(nursery: trio.Nursery) -> None:
    futures = [done(), *pending(2)]
    other = as_completed(futures)
    async for _ in as_completed(futures):
        break
    capture = ResultCapture.start_soon(nursery, wait_all, futures)
    nursery.start_soon(set_all, futures[1:])
    assert [result async for result in other] == futures
    await capture.wait_done()


async def drop_elsewhere(iterators: list[object], drop: Callable[[], object]) -> None:
    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert not iterators


async def test_an_iterator_dropped_by_another_thread_is_unregistered_in_its_own_run() -> None:
    futures = pending(2)
    iterators: list[object] = [as_completed(futures)]
    await drop_elsewhere(iterators, iterators.clear)
    assert not any(map(is_free, futures))  # another thread must not unregister them
    await wait_all_tasks_blocked()
    assert all(map(is_free, futures))


async def test_an_iterator_dropped_by_another_run_is_unregistered_in_its_own_run() -> None:
    futures = pending(2)
    iterators: list[object] = [as_completed(futures)]

    async def clear() -> None:
        iterators.clear()

    await drop_elsewhere(iterators, partial(trio.run, clear))
    assert not any(map(is_free, futures))
    await wait_all_tasks_blocked()
    assert all(map(is_free, futures))


def test_an_iterator_that_outlives_its_run_is_unregistered_too() -> None:
    futures = pending(2)

    async def main() -> AsyncIterator[Future[int]]:
        return as_completed(futures)

    iterator = trio.run(main)
    assert not any(map(is_free, futures))
    del iterator
    gc.collect()
    assert all(map(is_free, futures))
    futures[0].set_result(3)


async def test_using_an_iterator_in_another_run_raises_an_error() -> None:
    futures = pending(1)
    iterator = as_completed(futures)
    with pytest.raises(RuntimeError, match=r"^this iterator belongs to another Trio run"):
        await in_foreign_run(partial(anext, iterator))
    futures[0].set_result(3)
    assert await anext(iterator) is futures[0]


# ---- results_to_channel


async def test_results_are_sent_as_they_are_settled_and_the_channel_is_closed() -> None:
    futures = pending(3)
    futures[1].set_result(3)
    send, receive = trio.open_memory_channel[Future[int]](3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(results_to_channel, futures, send)
        await wait_all_tasks_blocked()
        assert receive.receive_nowait() is futures[1]
        for number in (2, 0):
            futures[number].set_result(3)
            await wait_all_tasks_blocked()
            assert receive.receive_nowait() is futures[number]
        with pytest.raises(trio.EndOfChannel):
            await receive.receive()


async def test_with_close_on_complete_false_the_channel_stays_open() -> None:
    send, receive = trio.open_memory_channel[Future[int]](2)
    await results_to_channel([done()], send, close_on_complete=False)
    await results_to_channel([done(4)], send, False)
    assert [receive.receive_nowait().result() for _ in range(2)] == [3, 4]
    send.send_nowait(done())


async def test_the_channel_is_closed_when_the_wait_is_cancelled() -> None:
    send, receive = trio.open_memory_channel[Future[int]](2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await results_to_channel([Future[int]()], send)
    with pytest.raises(trio.EndOfChannel):
        await receive.receive()


async def test_sending_ends_quietly_when_the_receiver_is_closed() -> None:
    futures = [done(), *pending(1)]
    send, receive = trio.open_memory_channel[Future[int]](2)
    receive.close()
    with assert_checkpoints():
        await results_to_channel(futures, send)
    assert all(map(is_free, futures))

    send, receive = trio.open_memory_channel[Future[int]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(results_to_channel, futures, send)
        await receive.receive()
        await wait_all_tasks_blocked()
        futures[1].set_result(3)
        await wait_all_tasks_blocked()  # the task is busy sending
        receive.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # anyio warns about streams that were left open
async def test_results_can_be_sent_to_an_anyio_stream() -> None:
    futures = [done(), *pending(1)]
    send, receive = anyio.create_memory_object_stream[Future[int]](2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(results_to_channel, futures, send)
        nursery.start_soon(set_all, futures[1:])
        assert [result async for result in receive] == futures
    receive.close()

    send, receive = anyio.create_memory_object_stream[Future[int]](2)
    receive.close()
    with assert_checkpoints():
        await results_to_channel(futures, send)


async def test_sending_fails_if_somebody_else_closed_the_channel() -> None:
    future = Future[int]()
    send, _receive = trio.open_memory_channel[Future[int]](2)
    send.close()
    with pytest.raises(trio.ClosedResourceError) as caught:
        await results_to_channel([done(), future], send)
    assert is_free(future)  # even though the exception's traceback is still alive
    stream, other_end = anyio.create_memory_object_stream[Future[int]](2)
    stream.close()
    with pytest.raises(anyio.ClosedResourceError):
        await results_to_channel([done(), future], stream)
    other_end.close()
    del caught


async def test_a_closed_receiver_is_recognized_without_anyio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anyio")
    send, receive = trio.open_memory_channel[Future[int]](2)
    receive.close()
    await results_to_channel([done()], send)
    send.close()
    with pytest.raises(trio.ClosedResourceError):
        await results_to_channel([done()], send)
