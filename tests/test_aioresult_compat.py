"""A program written for aioresult runs unchanged if it imports triores instead.

Each program here runs with both modules, in a Trio nursery and in an anyio task group, and has to observe the same.
"""

from __future__ import annotations

import inspect
import sys
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import aioresult
import anyio
import pytest
import trio
from _helpers import leaves
from trio.testing import wait_all_tasks_blocked

import triores

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The modules and the nurseries have no common type, so they are typed as Any.
Library = Any
OpenNursery = Any


@pytest.mark.parametrize("name", aioresult.__all__)
def test_every_public_name_exists(name: str) -> None:
    theirs, ours = getattr(aioresult, name), getattr(triores, name)
    assert name in triores.__all__
    assert inspect.isclass(theirs) == inspect.isclass(ours)
    assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)
    if inspect.isclass(theirs):
        assert [base.__name__ for base in ours.__mro__ if hasattr(aioresult, base.__name__)] == [
            base.__name__ for base in theirs.__mro__ if hasattr(aioresult, base.__name__)
        ]
        assert issubclass(ours, Exception) == issubclass(theirs, Exception)


def public_callables() -> list[str]:
    names: list[str] = []
    for name in aioresult.__all__:
        public = getattr(aioresult, name)
        if not inspect.isclass(public):
            names.append(name)
        elif not issubclass(public, Exception):
            names += [name, *(f"{name}.{member}" for member in dir(public) if not member.startswith("_"))]
    return names


def found(library: Library, dotted: str) -> Any:
    for name in dotted.split("."):
        library = getattr(library, name)
    return library


@pytest.mark.parametrize("dotted", public_callables())
def test_the_signatures_are_the_same_except_for_additional_keywords(dotted: str) -> None:
    theirs, ours = found(aioresult, dotted), found(triores, dotted)
    assert isinstance(theirs, property) == isinstance(ours, property)
    if isinstance(theirs, property):
        return
    expected, parameters = inspect.signature(theirs).parameters, dict(inspect.signature(ours).parameters)
    for name in [*parameters]:
        if name not in expected:
            added = parameters.pop(name)
            assert added.kind is inspect.Parameter.KEYWORD_ONLY
            assert added.default is not inspect.Parameter.empty
    assert [*parameters] == [*expected]
    for name, parameter in parameters.items():
        assert (parameter.kind, parameter.default) == (expected[name].kind, expected[name].default)


# ---- programs


def seen(call: Callable[[], object]) -> object:
    """The return value of a call as text; or the base types, arguments and cause of the exception it raises."""
    try:
        return repr(call())
    except Exception as error:
        return raised(error)


def raised(error: BaseException | None) -> object:
    if error is None:
        return None
    bases = [base.__name__ for base in type(error).__mro__ if base.__module__ != "triores._exceptions"]
    about_a_result = bases[0].startswith(("Task", "FutureSetAgain"))
    return bases, about_a_result or repr(error), list(map(text, error.args)), repr(error.__cause__)


def text(result: Any) -> str:
    """The repr of a result without the quotes around strings, which aioresult leaves out."""
    return repr(result).replace("'", "")


def state(result: Any) -> list[object]:
    """Everything that can be read from a result."""
    return [
        result.is_done(),
        seen(result.result),
        seen(result.exception),
        text(result),
        str(result).replace("'", ""),
        f"{result}".replace("'", ""),
        f"{result:#}".replace("'", ""),
        seen(lambda: format(result, ">")).__class__,
    ]


async def in_nursery(open_nursery: OpenNursery, use: Callable[[Any], Awaitable[object]]) -> list[object]:
    """Use a nursery, and return the exceptions that it raised."""
    try:
        async with open_nursery() as nursery:
            await use(nursery)
    except BaseExceptionGroup as error:
        return [raised(leaf) for leaf in leaves(error)]
    return []


async def echo(value: Any, other: Any = None) -> Any:
    await trio.lowlevel.checkpoint()
    if isinstance(value, BaseException):
        raise value
    return value


async def futures(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []
    for value in (3, "text", None, [1, "two"]):
        future = lib.Future()
        observed += state(future)
        future.set_result(value)
        observed += state(future)
        assert future.result() is value
        observed.append(seen(partial(future.set_result, 4)))
        observed.append(seen(partial(future.set_exception, ValueError())))
        observed += state(future)
    for error in (KeyError(3), ValueError("text"), KeyboardInterrupt()):
        future = lib.Future[int]()
        future.set_exception(exception=error)
        assert future.exception() is error
        observed += state(future)
        observed.append(seen(partial(future.set_result, result=4)))
        observed += state(future)
    return observed


async def waiting_for_one(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []

    async def wait(future: Any) -> None:
        observed.append(await future.wait_done())
        observed.append(seen(future.result))

    async def use(nursery: Any) -> None:
        for settle in (methodcaller("set_result", 3), methodcaller("set_exception", KeyError(3))):
            future = lib.Future()
            nursery.start_soon(wait, future)
            nursery.start_soon(wait, future)
            await wait_all_tasks_blocked()
            settle(future)
            await wait_all_tasks_blocked()
            await wait(future)

    observed += await in_nursery(open_nursery, use)
    return observed


async def captures(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []
    made: list[Any] = []
    ends = (3, "text", None, KeyError(3), ValueError("text"), KeyboardInterrupt(), SystemExit(2))
    for end in ends:
        for suppress in (False, True):

            async def use(nursery: Any, end: object = end, suppress: bool = suppress) -> None:
                made.append(lib.ResultCapture.start_soon(nursery, echo, end, "other", suppress_exception=suppress))
                observed.extend(state(made[-1]))
                made.append(lib.ResultCapture(echo, end, suppress_exception=suppress))
                observed.extend(state(made[-1]))

            observed += await in_nursery(open_nursery, use)
    for capture in made:
        observed += state(capture)
        observed += [capture.routine is echo, capture.args]
    return observed


async def running_by_hand(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []

    async def add(number: int, *, other: int = 0) -> int:
        return number + other

    async def fail(capture: Any) -> None:
        try:
            observed.append(await capture.run())
        except Exception as error:
            observed.append(raised(error))

    capture = lib.ResultCapture(add, 3)
    observed += state(capture)
    await fail(capture)
    observed += state(capture)
    await fail(capture)
    observed += state(capture)
    capture = lib.ResultCapture(add, 3)
    observed.append(await capture.run(other=4))
    observed += state(capture)
    for suppress in (False, True):
        capture = lib.ResultCapture(echo, KeyError(3), suppress_exception=suppress)
        await fail(capture)
        observed += state(capture)

    async def use(nursery: Any) -> None:
        capture = lib.ResultCapture(add, 3)
        nursery.start_soon(capture.run)
        await capture.wait_done()
        observed.append(capture.result())

    return observed + await in_nursery(open_nursery, use)


async def cancelling(lib: Library, open_nursery: OpenNursery) -> list[object]:
    made: list[Any] = []

    async def use(nursery: Any) -> None:
        made.append(lib.ResultCapture.start_soon(nursery, trio.sleep_forever))
        made.append(lib.ResultCapture.start_soon(nursery, trio.sleep_forever, suppress_exception=True))
        made.append(lib.ResultCapture.start_soon(nursery, lib.Future().wait_done))
        made.append(lib.ResultCapture.start_soon(nursery, lib.wait_all, [lib.Future()]))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    observed = await in_nursery(open_nursery, use)
    for capture in made:
        observed += [capture.is_done(), type(capture.exception())]
        try:
            capture.result()
        except lib.TaskFailedException as error:
            observed += [error.args == (capture,), error.__cause__ is capture.exception()]
    return observed


async def starting(lib: Library, open_nursery: OpenNursery) -> list[object]:
    async def serve(address: str, *, task_status: Any) -> str:
        task_status.started(80)
        await wait_all_tasks_blocked()
        return address

    observed: list[object] = []

    async def use(nursery: Any) -> None:
        capture = lib.ResultCapture(serve, "here")
        observed.append(await nursery.start(capture.run))
        observed.append(capture.is_done())
        await capture.wait_done()
        observed.extend(state(capture))

    return observed + await in_nursery(open_nursery, use)


async def starting_and_finishing(lib: Library, open_nursery: OpenNursery) -> list[object]:
    async def serve(started: bool, end: Any, *, task_status: Any) -> object:
        await trio.lowlevel.checkpoint()
        if started:
            task_status.started(80)
            await wait_all_tasks_blocked()
        if isinstance(end, BaseException):
            raise end
        return end

    observed: list[object] = []
    for started in (True, False):
        for end in (3, KeyError(3), SystemExit(2)):
            for apart in (True, False):
                both: list[Any] = []
                outer: list[object] = []

                async def use(
                    run: Any,
                    started: bool = started,
                    end: object = end,
                    apart: bool = apart,
                    both: list[Any] = both,
                    outer: list[object] = outer,
                ) -> None:
                    async def use_start(start: Any) -> None:
                        both.extend(
                            lib.ResultCapture.capture_start_and_done_results(
                                run, serve, started, end, start_nursery=start if apart else None
                            )
                        )

                    outer.append(("start nursery", await in_nursery(open_nursery, use_start)))

                observed.append(("run nursery", await in_nursery(open_nursery, use)))
                observed += outer
                start_result, done_result = both
                observed += [start_result.is_done(), seen(start_result.result), repr(start_result.exception())]
                observed += state(done_result)
                observed += [done_result.args]
    return observed


async def waiting_for_several(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []

    async def use(nursery: Any) -> None:
        results = [lib.ResultCapture.start_soon(nursery, echo, number) for number in range(3)]
        results.append(lib.ResultCapture.start_soon(nursery, echo, KeyError(3), suppress_exception=True))
        observed.append(await lib.wait_all(results))
        observed.append(results)
        observed.append(await lib.wait_all(iter([*results, *results])))
        observed.append(await lib.wait_all([]))
        pending = lib.Future()
        observed.append(results.index(await lib.wait_any([pending, results[2], results[2]])))
        nursery.start_soon(set_soon, pending)
        observed.append(await lib.wait_any(iter([lib.Future(), pending, pending])) is pending)
        observed.append(repr(results[-1].exception()))

    async def set_soon(future: Any) -> None:
        await wait_all_tasks_blocked()
        future.set_result(3)

    observed += await in_nursery(open_nursery, use)
    try:
        await lib.wait_any([])
    except RuntimeError as error:
        observed.append(type(error))
    return observed


async def sending(lib: Library, open_nursery: OpenNursery) -> list[object]:
    observed: list[object] = []
    for open_channel in (trio.open_memory_channel[Any], anyio.create_memory_object_stream[Any]):
        for close in (True, False):
            send, receive = open_channel(10)

            async def use(nursery: Any, send: Any = send, receive: Any = receive, close: bool = close) -> None:
                futures = [lib.Future() for _ in range(3)]
                results = [*futures, lib.ResultCapture(echo, 3)]
                nursery.start_soon(lib.results_to_channel, iter(results), send, close)
                for result in (futures[2], futures[0], results[3], futures[1]):
                    await wait_all_tasks_blocked()
                    await (result.run() if result is results[3] else set_result(result))
                await wait_all_tasks_blocked()
                observed.append([results.index(receive.receive_nowait()) for _ in results])
                if close:
                    observed.append([result async for result in receive])
                else:
                    send.close()

            async def set_result(future: Any) -> None:
                future.set_result(3)

            observed += await in_nursery(open_nursery, use)
            receive.close()
    send, receive = trio.open_memory_channel[Any](1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await lib.results_to_channel(results=[lib.Future()], channel=send, close_on_complete=True)
    observed.append([result async for result in receive])
    return observed


@pytest.mark.parametrize("open_nursery", [trio.open_nursery, anyio.create_task_group])
@pytest.mark.parametrize(
    "program",
    [
        futures,
        waiting_for_one,
        captures,
        running_by_hand,
        cancelling,
        starting,
        starting_and_finishing,
        waiting_for_several,
        sending,
    ],
)
async def test_a_program_observes_the_same_with_either_module(
    program: Callable[[Library, OpenNursery], Awaitable[list[object]]], open_nursery: OpenNursery
) -> None:
    theirs = await program(aioresult, open_nursery)
    ours = await program(triores, open_nursery)
    assert list(map(repr, ours)) == list(map(repr, theirs))
    assert len(ours) > 2
