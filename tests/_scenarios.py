"""The scenarios of the fault tests. `SCENARIOS`, at the end, lists the public calls that each of them covers."""

from __future__ import annotations

import concurrent.futures
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import trio
from _helpers import Boom

import triores
from triores import Future, FutureMap, ResultCapture, SingleFlight, gather, gather_outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from _faults import Scenario, Trial

start_soon = ResultCapture.start_soon


async def one_future(trial: Trial) -> None:
    future, broken, late = trial.watch(Future[int]()), trial.watch(Future[int]()), trial.owe(Future[int]())
    called: list[Future[int]] = []

    async def settle() -> None:
        with late.must_set():
            await trial.step()
            future.set_result(1)
            await trial.step()
            broken.set_exception(KeyError())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        nursery.start_soon(trial.call, future.wait_done())
        future.add_done_callback(called.append)
        late.add_done_callback(called.append)
        assert late.remove_done_callback(called.append) == 1
        try:
            assert await trial.call(future) == 1
        finally:
            future.remove_done_callback(called.append)
        assert called == [future]
        with suppress(KeyError):
            await trial.call(broken)
        await trial.call(late.wait_done())


def several(trial: Trial, nursery: trio.Nursery) -> list[Any]:
    """Two captures and two futures, one of which is done."""
    done, pending = trial.watch(Future[int]()), trial.watch(Future[int]())
    done.set_result(0)

    async def settle() -> None:
        pending.set_result(await trial.value(3))

    nursery.start_soon(settle)
    return [pending, *(trial.owe(start_soon(nursery, trial.value, n, n)) for n in (1, 2)), done]


async def waits(trial: Trial) -> None:
    async def values(results: list[Any]) -> list[int]:
        found: list[int] = []
        async for result in triores.as_completed(results):
            found.append(result.result())
        return sorted(found)

    async with trio.open_nursery() as nursery:
        results = several(trial, nursery)
        assert (await trial.call(triores.wait_any(results))).result() == 0
        assert (await trial.call(triores.wait_any(results[:3]))).is_done()
        await trial.call(triores.wait_all([*results, *results]))
        assert all(result.is_done() for result in results)
        assert await trial.call(values(several(trial, nursery))) == [0, 1, 2, 3]


async def channels(trial: Trial) -> None:
    for close in (True, False):
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[Any](0)
            results = several(trial, nursery)
            nursery.start_soon(trial.call, triores.results_to_channel(results, send, close_on_complete=close))
            async with receive:
                assert (await receive.receive()).result() == 0
                if close:
                    assert sorted([result.result() async for result in receive]) == [1, 2, 3]


async def captures(trial: Trial) -> None:
    async def routine(value: int, *, task_status: trio.TaskStatus[int]) -> int:
        await trial.step()
        task_status.started(value)
        return await trial.value(value + 1)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        stopped = trial.owe(start_soon(nursery, trial.value, 1, 9, cancel_scope=scope))
        tolerant = trial.owe(start_soon(nursery, trial.value, 2, suppress_exception=True))
        for result in ResultCapture.capture_start_and_done_results(nursery, routine, 3):
            assert await trial.call(trial.owe(result)) in (3, 4)
        await trial.call(trial.owe(ResultCapture(trial.value, 5)).run())
        scope.cancel()
    assert stopped.cancelled()
    assert tolerant.exception() in (None, *trial.raised)


async def gathers(trial: Trial) -> None:
    inner: Any = partial(gather, partial(trial.value, 2, 2), partial(trial.value, 3))
    assert await trial.call(gather(partial(trial.value, 1), inner)) == (1, (2, 3))
    outcomes = await trial.call(gather_outcomes(partial(trial.value, 1), partial(trial.value, 1, 3)))
    trial.reported += [getattr(outcome, "error", None) for outcome in outcomes]


async def races(trial: Trial) -> None:
    """The winner is the attempt that the call is waiting for, one of several in the same tick, or a later attempt."""
    hedged: Any = partial(triores.first_success, stagger=2)
    plans: Any = [(triores.race, 1, 1, 2), (triores.first_success, 1, 1, 1), *((hedged, n, 1, n) for n in (1, 3, 5))]
    for call, *waits in plans:
        attempts = [partial(trial.connect, 1, wait) for wait in waits]
        winner = await trial.call(call(*attempts, discard=trial.open.remove))
        trial.reported += trial.raised  # a success drops the failures of other attempts
        trial.open.remove(winner)


async def source(trial: Trial) -> AsyncGenerator[int, None]:
    trial.open.append("the source")
    try:
        for n in range(4):
            yield await trial.value(n)
    finally:
        trial.open.remove("the source")


async def maps(trial: Trial) -> None:
    async def run(enough: int, **options: Any) -> None:
        found: list[int] = []
        async with triores.open_amap(trial.value, source(trial), limit=2, **options) as results:
            async for capture in results:
                found.append(trial.owe(capture).item)
                if capture.item == 0:
                    results.add(7)
                if len(found) == enough:
                    break
        trial.reported += trial.raised * (enough < 9)  # including captures that aren't handed out
        assert len(found) == enough or sorted(found) == [0, 1, 2, 3, 7]

    assert await trial.call(triores.amap(trial.value, range(4), limit=2)) == [0, 1, 2, 3]
    assert await trial.call(triores.amap(trial.value, source(trial))) == [0, 1, 2, 3]
    await trial.call(run(9))
    await trial.call(run(9, ordered=True))
    await trial.call(run(2, suppress_exception=True))


async def answer(trial: Trial, requests: FutureMap[int, int], count: int) -> None:
    with requests:
        while count:
            await trial.step()
            for key in [*requests][:count]:
                count -= requests.set_result(key, 10 * key)


async def ask(trial: Trial, requests: FutureMap[int, int], n: int) -> int:
    await trial.step()
    with requests.expect(n) as future:
        return await trial.call(trial.owe(future))


async def requests_in_flight(trial: Trial) -> None:
    requests = FutureMap[int, int](lost=lambda _: Boom("lost"))
    trial.tables.append(requests)
    calls = [partial(ask, trial, requests, n) for n in range(3)]
    outcomes = await trial.call(gather_outcomes(partial(answer, trial, requests, 2), *calls))
    errors = [getattr(outcome, "error", None) for outcome in outcomes]
    trial.reported += errors
    assert trial.fired or errors.count(None) == 3, "one request was lost"


async def flights(trial: Trial) -> None:
    async with SingleFlight[str, int]() as shared:

        async def call(patience: float, steps: int, seconds: float = 0) -> None:
            with trio.move_on_after(patience):
                assert await trial.call(shared.run("a", trial.value, 1, steps, seconds)) == 1

        trial.tables.append(shared)
        await gather(partial(call, 9, 3), partial(call, 0, 3), partial(call, 9, 3))
        await gather(partial(call, 2, 1, 5), partial(call, 3, 1, 5))  # all callers leave
        trial.reported += trial.raised  # no caller is left to receive them


async def executors(trial: Trial) -> None:
    for abandon in (False, True):
        future = concurrent.futures.Future[int]()
        executor = Mock(submit=Mock(return_value=future))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trial.call, triores.run_in_executor(executor, pow, 3, 2, abandon_on_cancel=abandon))
            await trial.step()
            assert future.set_running_or_notify_cancel()
            try:
                await trial.step()
            finally:
                future.set_result(9)


async def bridges(trial: Trial) -> None:
    future = trial.owe(Future[int]())
    async with trio.open_nursery() as nursery:
        capture = trial.owe(start_soon(nursery, trial.value, 1, 3))
        threads = [trial.owe(triores.start_from_thread(nursery, trial.value, n, n)) for n in (2, 9)]
        trial.owed += map(triores.to_concurrent_future, (future, capture))
        try:
            assert await trial.call(triores.ensure_future(triores.wrap_future(threads[0]), nursery)) == 2
            assert await trial.call(triores.ensure_future(trial.value(3), nursery)) == 3
            threads[1].cancel()
        finally:
            future.cancel()


async def bad_cleanups(trial: Trial) -> None:
    calls = [partial(trial.fail_in_cleanup, 1), partial(trial.fail_in_cleanup, 2), partial(trial.value, 3)]
    mapped = partial(triores.amap, trial.fail_in_cleanup, range(3))
    for call in (partial(gather, *calls), partial(triores.race, *calls), mapped):
        try:
            await trial.call(call())
        except Exception as error:
            trial.reported.append(error)


async def together(trial: Trial) -> None:
    requests = FutureMap[int, int]()

    async def work(n: int) -> int:
        async with trio.open_nursery() as nursery:
            capture = trial.owe(start_soon(nursery, ask, trial, requests, n))
            share: Any = partial(shared.run, 0, partial(trial.value, 1))
            await gather(capture.wait_done, partial(triores.race, share, share))
        return capture.unwrap()

    async with SingleFlight[int, int]() as shared:
        trial.tables += [requests, shared]
        both = gather(partial(triores.amap, work, range(2)), partial(answer, trial, requests, 2))
        assert await trial.call(both) == ([0, 10], None)


SCENARIOS: dict[Scenario, str] = {
    one_future: "Future, wait_done, await, must_set, add_done_callback, remove_done_callback",
    waits: "wait_any, wait_all, as_completed",
    channels: "results_to_channel",
    captures: "ResultCapture, start_soon, run, cancel_scope, suppress_exception, capture_start_and_done_results",
    gathers: "gather, gather_outcomes",
    races: "race, first_success, stagger, discard",
    maps: "amap, open_amap, AmapResults, add, ItemCapture, ordered, suppress_exception",
    requests_in_flight: "FutureMap, expect, lost",
    flights: "SingleFlight, run",
    executors: "run_in_executor, abandon_on_cancel",
    bridges: "start_from_thread, to_concurrent_future, wrap_future, ensure_future",
    bad_cleanups: "gather, race, amap",
    together: "FutureMap, SingleFlight, ResultCapture, gather, race, amap",
}
