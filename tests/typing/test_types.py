"""The types of results, for mypy and pyright to check. When pytest imports this, nothing of it runs.

Each wrong call has the code of the error that it must cause. Both checkers warn about an unnecessary ``type: ignore``,
so a wrong call that either of them accepts is found.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Protocol

    import anyio
    import anyio.abc
    import outcome
    import trio
    from typing_extensions import assert_type

    from triores import (
        Future,
        FutureMap,
        ResultBase,
        ResultCapture,
        ResultStatistics,
        SingleFlight,
        as_completed,
        isfuture,
        results_to_channel,
        wait_all,
        wait_any,
    )


async def fetch(url: str, retries: int) -> bytes:
    return url.encode() * retries


async def count() -> int:
    return 1


def sync_function() -> int:
    return 1


if TYPE_CHECKING:

    def reading(result: ResultBase[int]) -> None:
        assert_type(result.result(), int)
        assert_type(result.unwrap(), int)
        assert_type(result.statistics(), ResultStatistics)
        assert_type(result.exception(), BaseException | None)
        assert_type(result.outcome, outcome.Value[int] | outcome.Error)
        assert_type(result.is_done(), bool)
        assert_type(result.done(), bool)
        assert_type(result.cancelled(), bool)
        assert_type(result.trio_token, trio.lowlevel.TrioToken | None)
        result.set_result(3)  # type: ignore[attr-defined]

    async def awaiting(result: ResultBase[int], future: Future[str], capture: ResultCapture[bytes]) -> None:
        assert_type(await result, int)
        assert_type(await future, str)
        assert_type(await capture, bytes)
        assert_type(await result.wait_done(), None)

    # ---- variance

    def results_are_covariant(
        flag: ResultBase[bool], capture: ResultCapture[bool], number: ResultBase[int], sized: ResultCapture[int]
    ) -> None:
        wider: ResultBase[int] = flag
        wider = capture
        wider_capture: ResultCapture[int] = capture
        narrower: ResultBase[bool] = number  # type: ignore[assignment]
        narrower_capture: ResultCapture[bool] = sized  # type: ignore[assignment]
        del wider, wider_capture, narrower, narrower_capture

    def futures_are_invariant(flag: Future[bool], number: Future[int]) -> None:
        read: ResultBase[int] = flag
        wider: Future[int] = flag  # type: ignore[assignment]
        narrower: Future[bool] = number  # type: ignore[assignment]
        del read, wider, narrower

    # ---- futures

    def settling(future: Future[int]) -> None:
        assert_type(Future[int](), Future[int])
        future.set_result(3)
        future.set_result("3")  # type: ignore[arg-type]
        future.set_exception(ValueError())
        future.set_exception(ValueError)  # type: ignore[arg-type]
        future.set_outcome(outcome.Value(3))
        future.set_outcome(outcome.Error(ValueError()))
        future.set_outcome(3)  # type: ignore[arg-type]
        assert_type(future.cancel("why"), bool)
        future.cancel(3)  # type: ignore[arg-type]

    class Request(Future[bytes]): ...

    def owing(future: Future[int], request: Request) -> None:
        with future.must_set() as same:
            assert_type(same, Future[int])
        with request.must_set() as same_request:
            assert_type(same_request, Request)

    # ---- callbacks

    def calling(future: Future[int], capture: ResultCapture[int]) -> None:
        def takes_future(result: Future[int]) -> str:
            return str(result)

        def takes_any_result(result: ResultBase[object]) -> None: ...

        def takes_nothing() -> None: ...

        future.add_done_callback(takes_future)
        future.add_done_callback(takes_any_result)
        assert_type(future.remove_done_callback(takes_future), int)
        capture.add_done_callback(takes_any_result)
        capture.add_done_callback(takes_future)  # type: ignore[arg-type]
        future.add_done_callback(takes_nothing)  # type: ignore[arg-type]

    # ---- captures

    def starting(nursery: trio.Nursery, group: anyio.abc.TaskGroup) -> None:
        assert_type(ResultCapture.start_soon(nursery, fetch, "url", 3), ResultCapture[bytes])
        assert_type(ResultCapture.start_soon(group, count, name="count", suppress_exception=True), ResultCapture[int])
        scope = trio.move_on_after(5)
        assert_type(ResultCapture.start_soon(nursery, count, cancel_scope=scope).cancel_scope, trio.CancelScope | None)
        ResultCapture.start_soon(nursery, count, suppress_exception=(ValueError, OSError))
        ResultCapture.start_soon(nursery, count, suppress_exception=BaseException)  # type: ignore[arg-type]
        ResultCapture.start_soon(nursery, fetch, "url")  # type: ignore[arg-type]
        ResultCapture.start_soon(nursery, fetch, 3, "url")  # type: ignore[arg-type]
        ResultCapture.start_soon(nursery, count, 3)  # type: ignore[arg-type]
        ResultCapture.start_soon(nursery, count())  # type: ignore[arg-type]
        ResultCapture.start_soon(nursery, sync_function)  # type: ignore[arg-type]
        ResultCapture.start_soon(fetch, nursery)  # type: ignore[arg-type]

    class StubNursery(Protocol):
        """Trio's nursery, as the stub package trio-typing declares it."""

        @property
        def child_tasks(self) -> frozenset[trio.lowlevel.Task]: ...
        @property
        def parent_task(self) -> trio.lowlevel.Task: ...
        def start_soon(self, async_fn: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> None: ...
        async def start(self, async_fn: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> Any: ...

    def starting_in_a_nursery_of_the_stubs(nursery: StubNursery) -> None:
        assert_type(ResultCapture.start_soon(nursery, fetch, "url", 3), ResultCapture[bytes])
        ResultCapture.capture_start_and_done_results(nursery, fetch, "url", 3, start_nursery=nursery)

    async def running(nursery: trio.Nursery) -> None:
        capture = ResultCapture(fetch, "url", 3)
        assert_type(capture, ResultCapture[bytes])
        assert_type(await capture.run(), None)
        assert_type(capture.args, tuple[Any, ...])
        assert_type((await capture.routine()), bytes)
        await nursery.start(capture.run)
        ResultCapture(sync_function)  # type: ignore[arg-type]

    def starting_and_finishing(nursery: trio.Nursery, group: anyio.abc.TaskGroup) -> None:
        assert_type(
            ResultCapture.capture_start_and_done_results(nursery, fetch, "url", 3, start_nursery=group),
            tuple[ResultCapture[Any], ResultCapture[bytes]],
        )

    # ---- waiting

    async def waiting(
        numbers: list[Future[int]],
        texts: set[ResultCapture[str]],
        several: list[Future[int] | ResultCapture[str]],
        nursery: trio.Nursery,
    ) -> None:
        assert_type(await wait_all([*numbers, *texts]), None)
        await wait_all([3])  # type: ignore[list-item]
        await wait_all(numbers[0])  # type: ignore[arg-type]
        assert_type(await wait_any(numbers), Future[int])
        assert_type(await wait_any(texts), ResultCapture[str])
        assert_type((await wait_any(several)).result(), int | str)
        await wait_any([3])  # type: ignore[type-var]
        mixed: list[Future[int] | Future[str]] = [Future[int](), Future[str]()]
        assert_type((await wait_any(mixed)).result(), int | str)
        async for either in as_completed(mixed):
            assert_type(either.result(), int | str)
        first: ResultBase[Any] = await wait_any([Future[int](), Future[str]()])
        async for first in as_completed([Future[int](), Future[str]()]):
            del first
        assert_type(as_completed(numbers), AsyncIterator[Future[int]])
        async for text in as_completed(texts):
            assert_type(text, ResultCapture[str])
            assert_type(text.result(), str)
        as_completed(3)  # type: ignore[call-overload]
        nursery.start_soon(wait_all, numbers)

    async def sending(numbers: list[Future[int]]) -> None:
        send, _ = trio.open_memory_channel[Future[int]](0)
        await results_to_channel(numbers, send)
        wide, _ = trio.open_memory_channel[ResultBase[int]](0)
        await results_to_channel(numbers, wide, close_on_complete=False)
        stream, _ = anyio.create_memory_object_stream[ResultBase[object]](0)
        await results_to_channel(numbers, stream)
        wrong, _ = trio.open_memory_channel[int](0)
        await results_to_channel(numbers, wrong)  # type: ignore[misc]

    def narrowing(something: Future[int] | int, anything: object) -> None:
        if isfuture(something):
            assert_type(something, Future[int])
        else:
            assert_type(something, int)
        if isfuture(anything):
            assert_type(anything, ResultBase[Any])

    # ---- requests in flight, and shared work

    class Download(Future[bytes]):
        progress: list[int]

    def requests_in_flight_are_typed(requests: FutureMap[int, bytes], download: Download) -> None:
        with requests.expect(3) as answer:
            assert_type(answer, Future[bytes])
        with requests.expect(3, download) as mine:
            assert_type(mine, Download)
        assert_type(requests[3], Future[bytes])
        assert_type(requests.set_result(3, b""), bool)
        assert_type(requests.closed, bool)
        requests.expect("3")  # type: ignore[call-overload] # the key has another type
        requests.set_result(3, "")  # type: ignore[arg-type] # and so has the value

    def a_lost_connection_has_an_exception_of_ones_own() -> None:
        def lost(cause: BaseException | None) -> ConnectionError:
            return ConnectionError(cause)

        def not_an_exception(cause: BaseException | None) -> str:
            return str(cause)

        requests: FutureMap[int, bytes] = FutureMap(lost=lost)
        assert_type(requests, FutureMap[int, bytes])
        FutureMap[int, bytes](lost=ConnectionError)
        FutureMap[int, bytes](lost=lambda _: ConnectionError())
        FutureMap[int, bytes](lost=not_an_exception)  # type: ignore[arg-type] # it returns something else

    async def shared_work_is_typed(nursery: trio.Nursery, group: anyio.abc.TaskGroup) -> None:
        flights: SingleFlight[str, bytes] = SingleFlight()
        async with flights as entered:
            assert_type(entered, SingleFlight[str, bytes])
            assert_type(await flights.run("a", fetch, "http://x", 3), bytes)
            await flights.run("a", fetch, "http://x")  # type: ignore[arg-type] # an argument is missing
            await flights.run("a", count)  # type: ignore[arg-type] # the value has another type
            await flights.run(3, fetch, "http://x", 3)  # type: ignore[arg-type] # the key has another type
        SingleFlight[str, bytes](nursery)
        SingleFlight[str, bytes](group)
