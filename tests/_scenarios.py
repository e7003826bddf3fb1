"""What the fault tests put to the test: every public async call, and calls that work together.

Each scenario is small, since it is run once for each of its steps. It checks what it gets where nothing goes wrong, and
leaves to the `Watch` what has to hold in every case.
"""

from __future__ import annotations

import concurrent.futures
import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from _helpers import Boom

from triores import (
    Future,
    FutureMap,
    FutureNeverSetException,
    ResultCapture,
    SingleFlight,
    TaskCancelledException,
    TaskFailedException,
    amap,
    as_completed,
    ensure_future,
    first_success,
    gather,
    gather_outcomes,
    open_amap,
    race,
    results_to_channel,
    run_in_executor,
    start_from_thread,
    to_concurrent_future,
    wait_all,
    wait_any,
    wrap_future,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from _faults import Scenario, Watch

SCENARIOS: list[Scenario] = []


def scenario(fn: Scenario) -> Scenario:
    SCENARIOS.append(fn)
    return fn


# ---- one result


@scenario
async def wait_done(watch: Watch) -> None:
    future = watch.free(Future[int]())

    async def wait() -> None:
        with watch.call():
            await future.wait_done()
        assert future.result() == 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await watch.checkpoint()
        future.set_result(1)
    with watch.call():
        await future.wait_done()


@scenario
async def await_a_future(watch: Watch) -> None:
    value, failure = watch.free(Future[int]()), watch.free(Future[int]())

    async def wait() -> None:
        with watch.call():
            assert await value == 1
        try:
            with watch.call():
                await failure
        except Boom as error:
            assert error is failure.exception()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await watch.checkpoint()
        value.set_result(1)
        await watch.checkpoint()
        failure.set_exception(Boom())


@scenario
async def must_set(watch: Watch) -> None:
    first, second = watch.free(Future[int]()), watch.free(Future[int]())

    async def fulfil() -> None:
        with first.must_set(), second.must_set():
            watch.owed(first)
            watch.owed(second)
            await watch.checkpoint()
            first.set_result(1)
            await watch.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fulfil)
        with watch.call():
            assert await first == 1
        with watch.call():
            await second.wait_done()
        assert str(second.exception()).startswith("the block")


@scenario
async def callbacks(watch: Watch) -> None:
    futures = [watch.free(Future[int]()) for _ in range(3)]
    called: list[int] = []

    def settle_next(future: Future[int]) -> None:
        called.append(future.result())
        futures[1].remove_done_callback(never)
        futures[1].set_result(2)
        futures[2].cancel("the first is done")

    def never(_: Future[int]) -> None:
        raise AssertionError

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(futures[2].wait_done)
            futures[0].add_done_callback(settle_next)
            futures[1].add_done_callback(never)
            await watch.checkpoint()
            futures[0].set_result(1)
            await watch.checkpoint()
    finally:
        futures[0].remove_done_callback(settle_next)
        futures[1].remove_done_callback(never)
    assert called == [1]
    assert futures[2].cancelled()
    for future in futures:
        future.add_done_callback(lambda future: called.append(future.is_done()))
    assert called == [1, True, True, True]


# ---- several results


def mixed(watch: Watch, nursery: trio.Nursery) -> list[Any]:
    """Two captures and two futures, one of these done, and who settles the other."""
    done, pending = watch.free(Future[int]()), watch.free(Future[int]())
    done.set_result(0)
    results = [watch.owed(ResultCapture.start_soon(nursery, partial(watch.value, n, steps=n))) for n in (1, 2)]

    async def settle() -> None:
        with pending.must_set():
            watch.owed(pending)
            await watch.checkpoint()
            pending.set_result(3)

    nursery.start_soon(settle)
    return [pending, *results, done]


@scenario
async def waiting_for_all(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        results = mixed(watch, nursery)
        with watch.call():
            await wait_all([*results, *results])
        assert all(result.is_done() for result in results)
        with watch.call():
            await wait_all(results)
        with watch.call():
            await wait_all([])


@scenario
async def waiting_for_any(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        results = mixed(watch, nursery)
        with watch.call():
            assert (await wait_any(results)).result() == 0
        with watch.call():
            first = await wait_any(results[:3])
        assert first.is_done()


@scenario
async def completed(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        found: list[int] = []
        with watch.call():
            async for result in as_completed(mixed(watch, nursery)):
                found.append(result.result())
    assert sorted(found) == [0, 1, 2, 3]


@scenario
async def completed_shared_by_two(watch: Watch) -> None:
    found: list[int] = []

    async def take(results: AsyncIterator[Any]) -> None:
        try:
            with watch.call():
                async for result in results:
                    found.append(result.result())
        finally:
            del results

    async with trio.open_nursery() as nursery:
        results = as_completed(mixed(watch, nursery))
        try:
            nursery.start_soon(take, results)
            nursery.start_soon(take, results)
        finally:
            del results
    assert sorted(found) == [0, 1, 2, 3]


@scenario
async def completed_left_early(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        results = mixed(watch, nursery)
        with watch.call():
            async for result in as_completed(results):
                if result is not results[-1]:
                    break


@scenario
async def sent_to_a_channel(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Any](1)

        async def produce() -> None:
            with watch.call():
                await results_to_channel(mixed(watch, nursery), send)

        nursery.start_soon(produce)
        assert sorted([result.result() async for result in receive]) == [0, 1, 2, 3]


@scenario
async def sent_to_a_channel_that_is_closed(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Any](0)

        async def produce() -> None:
            with send, watch.call():
                await results_to_channel(mixed(watch, nursery), send, close_on_complete=False)

        nursery.start_soon(produce)
        with receive:
            try:
                assert (await receive.receive()).result() == 0
            except trio.EndOfChannel:
                assert watch.is_faulty
            await watch.checkpoint()


# ---- captures


@scenario
async def captures_of_a_nursery(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        plain = watch.owed(ResultCapture.start_soon(nursery, partial(watch.value, 1, steps=2)))
        suppressed = watch.owed(
            ResultCapture.start_soon(nursery, partial(watch.value, 2, steps=2), suppress_exception=True)
        )
        scope = trio.CancelScope()
        stopped = watch.owed(ResultCapture.start_soon(nursery, partial(watch.value, 3, steps=9), cancel_scope=scope))
        with watch.call():
            await plain.wait_done()
        scope.cancel(reason="it takes too long")
    assert plain.result() == 1
    assert suppressed.exception() is watch.boom
    assert stopped.cancelled()


@scenario
async def captures_that_are_run(watch: Watch) -> None:
    async def routine(*, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> int:
        await watch.checkpoint()
        task_status.started(1)
        await watch.checkpoint()
        return 2

    async with trio.open_nursery() as nursery:
        capture = ResultCapture(routine, cancel_scope=trio.CancelScope())
        watch.owed(capture)
        assert await nursery.start(capture.run) == 1
        here = watch.owed(ResultCapture(watch.value, 3))
        with watch.call():
            await here.run()
        assert here.result() == 3
    assert capture.result() == 2


@scenario
async def start_and_done_results(watch: Watch) -> None:
    async def routine(value: int, *, task_status: trio.TaskStatus[int]) -> int:
        await watch.checkpoint()
        task_status.started(value)
        await watch.checkpoint()
        return value + 1

    async with trio.open_nursery() as run_nursery, trio.open_nursery() as start_nursery:
        start, done = ResultCapture.capture_start_and_done_results(run_nursery, routine, 1, start_nursery=start_nursery)
        watch.owed(start)
        watch.owed(done)
        with watch.call():
            assert await start == 1
        with watch.call():
            assert await done == 2


@scenario
async def callbacks_of_a_capture(watch: Watch) -> None:
    done = watch.free(Future[None]())

    async with trio.open_nursery() as nursery:
        capture = watch.owed(ResultCapture.start_soon(nursery, partial(watch.value, 1, steps=2)))
        capture.add_done_callback(lambda _: done.set_result(None))
        with watch.call():
            await done


# ---- fan-out


@scenario
async def gathering(watch: Watch) -> None:
    with watch.call():
        assert await gather(
            partial(watch.value, 1),
            lambda: gather(partial(watch.value, 2, steps=2), partial(watch.value, 3)),
            partial(watch.value, 4, steps=3),
        ) == (1, (2, 3), 4)
    with watch.call():
        assert await gather() == ()


@scenario
async def gathering_outcomes(watch: Watch) -> None:
    with watch.call():
        outcomes = await gather_outcomes(partial(watch.value, 1), partial(watch.value, 2, steps=3))
    for n, got in enumerate(outcomes, 1):
        try:
            assert got.unwrap() == n
        except Boom as error:
            watch.tell(error)


@scenario
async def racing(watch: Watch) -> None:
    with watch.call():
        assert await race(partial(watch.value, 1, steps=2), partial(watch.value, 2, steps=5)) in (1, 2)


@scenario
async def first_to_succeed(watch: Watch) -> None:
    watch.drops_failures = True
    with watch.call():
        assert await first_success(partial(watch.value, 1, steps=2), partial(watch.value, 2, steps=5)) in (1, 2)


@scenario
async def first_to_succeed_staggered(watch: Watch) -> None:
    watch.drops_failures = True

    async def slow(value: int) -> int:
        await watch.sleep(5)
        return value

    with watch.call():
        assert await first_success(*[partial(slow, n) for n in range(3)], stagger=2) in range(3)


@scenario
async def mapping(watch: Watch) -> None:
    with watch.call():
        assert await amap(partial(double, watch), range(4), limit=2) == [0, 2, 4, 6]
    with watch.call():
        assert await amap(partial(double, watch), []) == []


@scenario
async def mapping_an_async_source(watch: Watch) -> None:
    source = Source(watch)
    with watch.call():
        assert await amap(partial(double, watch), source.items(4), limit=2) == [0, 2, 4, 6]
    assert source.closed


async def double(watch: Watch, n: int) -> int:
    for _ in range(1 + n % 2):
        await watch.checkpoint()
    return 2 * n


class Source:
    """An async generator that knows whether it is closed. Trio would complain of one that is left open."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.closed = False

    async def items(self, count: float) -> AsyncIterator[int]:
        n = 0
        try:
            while n < count:
                await self.watch.checkpoint()
                yield n
                n += 1
        finally:
            self.closed = True


@scenario
async def streaming(watch: Watch) -> None:
    found: list[int] = []
    with watch.call():
        async with open_amap(partial(double, watch), range(5), limit=2) as results:
            async for capture in results:
                watch.owed(capture)
                found.append(capture.result())
    assert sorted(found) == [0, 2, 4, 6, 8]


@scenario
async def streaming_in_order_from_an_async_source(watch: Watch) -> None:
    source = Source(watch)
    found: list[int] = []
    with watch.call():
        async with open_amap(partial(double, watch), source.items(4), limit=2, ordered=True) as results:
            async for capture in results:
                found.append(watch.owed(capture).result())
    assert found == [0, 2, 4, 6]
    assert source.closed


@scenario
async def streaming_suppressed_and_left_early(watch: Watch) -> None:
    source = Source(watch)
    with watch.call():
        async with open_amap(
            partial(double, watch), source.items(math.inf), limit=3, suppress_exception=True
        ) as results:
            async for capture in results:
                watch.owed(capture)
                if capture.args[0] == 2:
                    break
    watch.drops_failures = True  # those of the captures that were not given out
    assert source.closed


@scenario
async def streaming_to_two_consumers(watch: Watch) -> None:
    found: list[int] = []

    async def consume(results: AsyncIterator[ResultCapture[int]]) -> None:
        with watch.call():
            async for capture in results:
                found.append(watch.owed(capture).result())

    with watch.call():
        async with open_amap(partial(double, watch), range(4), limit=2) as results:
            await gather(partial(consume, results), partial(consume, results))
    assert sorted(found) == [0, 2, 4, 6]


# ---- requests in flight, shared work


async def answer(watch: Watch, requests: FutureMap[int, int], count: int) -> None:
    """A reader that answers the first requests, each in turn, and then ends."""
    with requests:
        for n in range(count):
            for _ in range(9):
                if n not in requests:
                    await watch.checkpoint()
            requests.set_result(n, 10 * n)
            await watch.checkpoint()


async def ask(watch: Watch, requests: FutureMap[int, int], n: int) -> int:
    with requests.expect(n) as future:
        watch.free(future)
        await watch.checkpoint()
        with watch.call():
            return await future


@scenario
async def requests_in_flight(watch: Watch) -> None:
    requests = FutureMap[int, int]()
    watch.empty(requests)

    async def call(n: int) -> None:
        try:
            got = await ask(watch, requests, n)
        except (Boom, FutureNeverSetException, TaskCancelledException) as error:
            watch.tell(error)
            assert n == 2 or watch.is_faulty
        else:
            assert got == 10 * n

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(call, n)
        nursery.start_soon(answer, watch, requests, 2)


@scenario
async def a_request_that_others_wait_for(watch: Watch) -> None:
    requests = FutureMap[int, int]()
    watch.empty(requests)

    async with trio.open_nursery() as nursery:
        with requests.expect(0) as future, future.must_set():
            watch.owed(future)
            nursery.start_soon(future.wait_done)
            nursery.start_soon(answer, watch, requests, 1)
            with watch.call():
                assert await future == 0


@scenario
async def shared_work(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, int](nursery)
        watch.empty(flights._flights)

        async def call(patience: float) -> None:
            with trio.move_on_after(patience), watch.call():
                try:
                    assert await flights.run("a", watch.value, 1) == 1
                except TaskFailedException as error:
                    watch.tell(error)

        async with trio.open_nursery() as callers:
            for patience in (math.inf, 0, math.inf):
                callers.start_soon(call, patience)


@scenario
async def shared_work_that_all_leave(watch: Watch) -> None:
    watch.drops_failures = True
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[str, int](nursery)
        watch.empty(flights._flights)

        async def routine() -> int:
            await watch.sleep(5)
            return 1

        async def call(patience: float) -> None:
            with trio.move_on_after(patience), watch.call():
                try:
                    await flights.run("a", routine)
                except TaskFailedException as error:
                    watch.tell(error)

        async with trio.open_nursery() as callers:
            for patience in (2, 3):
                callers.start_soon(call, patience)


# ---- bridges


class ByHand(concurrent.futures.Executor):
    """An executor without threads: a task of the scenario runs what was submitted."""

    def __init__(self) -> None:
        self.calls: list[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.calls.append((future, partial(fn, *args, **kwargs)))
        return future

    async def work(self) -> None:
        """Run one call, whatever happens meanwhile: a thread would."""
        with trio.CancelScope(shield=True):
            while not self.calls:
                await trio.lowlevel.checkpoint()
            future, call = self.calls.pop()
            await trio.lowlevel.checkpoint()
            if not future.set_running_or_notify_cancel():
                return
            await trio.lowlevel.checkpoint()
            try:
                future.set_result(call())
            except Boom as error:
                future.set_exception(error)


async def in_executor(watch: Watch, *, abandon: bool) -> None:
    executor = ByHand()

    async def call() -> None:
        with watch.call():
            assert await run_in_executor(executor, pow, 3, 2, abandon_on_cancel=abandon) == 9

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        while not executor.calls:
            await watch.checkpoint()
        nursery.start_soon(executor.work)
        await watch.checkpoint()
        await watch.checkpoint()


@scenario
async def running_in_an_executor(watch: Watch) -> None:
    await in_executor(watch, abandon=False)


@scenario
async def running_in_an_executor_abandoned(watch: Watch) -> None:
    await in_executor(watch, abandon=True)


@scenario
async def wrapping_a_concurrent_future(watch: Watch) -> None:
    ours: list[concurrent.futures.Future[int]] = [concurrent.futures.Future() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        wrappers = [watch.free(wrap_future(future)) for future in ours]
        try:
            nursery.start_soon(watch.value, 0)
            ours[0].set_result(0)
            wrappers[1].cancel()
            assert ours[1].cancelled()
            ours[2].cancel()
            for wrapper in wrappers:
                with watch.call():
                    await wrapper.wait_done()
            assert wrappers[0].result() == 0
            assert wrappers[2].cancelled()
        finally:
            for wrapper in wrappers:
                wrapper.cancel()
    assert all(future.done() for future in ours)


@scenario
async def handing_out_results(watch: Watch) -> None:
    future = watch.free(Future[int]())
    handed: list[concurrent.futures.Future[int]] = []
    try:
        async with trio.open_nursery() as nursery:
            capture = watch.owed(
                ResultCapture.start_soon(nursery, partial(watch.value, 1, steps=3), cancel_scope=trio.CancelScope())
            )
            handed += [watch.handed_out(to_concurrent_future(future)), watch.handed_out(to_concurrent_future(capture))]
            await watch.checkpoint()
            future.set_result(2)
            with watch.call():
                assert await capture == 1
            assert [concurrent.result(0) for concurrent in handed] == [2, 1]
    finally:
        future.cancel()
        for concurrent in handed:
            if concurrent.done() and not concurrent.cancelled() and (error := concurrent.exception(0)) is not None:
                watch.tell(error)


@scenario
async def starting_from_a_thread(watch: Watch) -> None:
    handed: list[concurrent.futures.Future[int]] = []
    try:
        async with trio.open_nursery() as nursery:
            for n in (1, 8):
                handed.append(watch.handed_out(start_from_thread(nursery, partial(watch.value, n, steps=n))))
            wrapper = watch.free(wrap_future(handed[0]))
            try:
                with watch.call():
                    await wrapper.wait_done()
                handed[1].cancel()
            finally:
                wrapper.cancel()
    finally:
        for concurrent in handed:
            if concurrent.done() and not concurrent.cancelled() and (error := concurrent.exception(0)) is not None:
                watch.tell(error)


@scenario
async def ensuring_a_future(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        coroutine = watch.value(1, steps=2)
        capture = watch.owed(ensure_future(coroutine, nursery))
        with watch.call():
            assert await ensure_future(capture, nursery) == 1


# ---- together


@scenario
async def a_capture_in_a_gather_in_a_stream(watch: Watch) -> None:
    async def work(n: int) -> int:
        async with trio.open_nursery() as nursery:
            capture = watch.owed(ResultCapture.start_soon(nursery, partial(watch.value, n)))
            with watch.call():
                left, right = await gather(partial(awaiting, capture), partial(watch.value, n))
            return left + right

    async def awaiting(capture: ResultCapture[int]) -> int:
        return await capture

    found: list[int] = []
    with watch.call():
        async with open_amap(work, range(3), limit=2, ordered=True) as results:
            async for capture in results:
                found.append(watch.owed(capture).result())
    assert found == [0, 2, 4]


@scenario
async def callers_of_one_map_in_a_gather(watch: Watch) -> None:
    requests = FutureMap[int, int]()
    watch.empty(requests)
    with watch.call():
        await gather(partial(answer, watch, requests, 3), *[partial(ask, watch, requests, n) for n in range(3)])


@scenario
async def callers_of_one_flight_in_a_map(watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[int, int](nursery)
        watch.empty(flights._flights)

        async def call(n: int) -> int:
            return await flights.run(n // 2, watch.value, n // 2)

        with watch.call():
            assert await amap(call, range(4)) == [0, 0, 1, 1]


@scenario
async def a_race_of_requests_and_flights(watch: Watch) -> None:
    watch.drops_failures = True
    requests = FutureMap[int, int]()
    watch.empty(requests)
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[int, int](nursery)
        watch.empty(flights._flights)
        nursery.start_soon(answer, watch, requests, 1)

        async def fly() -> int:
            return await flights.run(0, partial(watch.value, 0))

        with watch.call():
            try:
                await first_success(
                    partial(ask, watch, requests, 0),
                    fly,
                    partial(race, fly, partial(watch.value, 0, steps=2)),
                )
            except ExceptionGroup as group:
                watch.tell(group)


# ---- routines that fail as they are cancelled


async def sour(watch: Watch, value: int) -> int:
    """A routine that fails to clean up: where it is cancelled, it raises something else."""
    try:
        return await watch.value(value, steps=3)
    except trio.Cancelled:
        error = Boom("cleaning up")
        watch.sour.append(error)
        raise error from None


@scenario
async def gathering_what_fails_as_it_is_cancelled(watch: Watch) -> None:
    await gather(partial(sour, watch, 1), partial(sour, watch, 2), partial(watch.value, 3))


@scenario
async def racing_what_fails_as_it_is_cancelled(watch: Watch) -> None:
    await race(partial(sour, watch, 1), partial(sour, watch, 2))


@scenario
async def mapping_what_fails_as_it_is_cancelled(watch: Watch) -> None:
    await amap(partial(sour, watch), range(3), limit=2)


@scenario
async def streaming_what_fails_as_it_is_cancelled(watch: Watch) -> None:
    async with open_amap(partial(sour, watch), range(3), limit=2) as results:
        async for _ in results:
            break


@scenario
async def sharing_what_fails_as_it_is_cancelled(watch: Watch) -> None:
    watch.drops_failures = True  # where all callers have left
    async with trio.open_nursery() as nursery:
        flights = SingleFlight[int, int](nursery)
        watch.empty(flights._flights)

        async def call() -> None:
            try:
                await flights.run(0, sour, watch, 1)
            except TaskFailedException as error:
                watch.tell(error)

        async with trio.open_nursery() as callers:
            callers.start_soon(call)
            callers.start_soon(call)
