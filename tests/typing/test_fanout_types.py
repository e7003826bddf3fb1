"""The types of the fan-out calls, for mypy and pyright to check; nothing here runs.

Each suppressed error has to be an error for both checkers.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from triores import AmapResults, ItemCapture, amap, first_success, gather, gather_outcomes, open_amap, race

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from outcome import Error, Value  # noqa: TC004 - the same
    from typing_extensions import assert_type  # noqa: TC004 - the same


async def get_int() -> int:
    return 1


async def get_str() -> str:
    return "a"


async def get_bytes() -> bytes:
    return b"a"


async def get_float() -> float:
    return 1.5


async def get_none() -> None:
    return None


async def get_list() -> list[int]:
    return [1]


async def get_tuple() -> tuple[int, str]:
    return 1, "a"


async def get_set() -> set[str]:
    return {"a"}


async def length(item: str) -> int:
    return len(item)


async def read(path: str, size: int) -> bytes:
    return path[:size].encode()


def synchronous() -> int:
    return 1


async def numbers() -> AsyncIterator[int]:
    yield 1


async def gathered() -> None:
    assert_type(await gather(), tuple[()])
    assert_type(await gather(get_int), tuple[int])
    assert_type(await gather(get_int, get_str), tuple[int, str])
    assert_type(await gather(get_int, get_str, get_bytes), tuple[int, str, bytes])
    assert_type(await gather(get_int, get_str, get_bytes, get_float), tuple[int, str, bytes, float])
    assert_type(
        await gather(get_int, get_str, get_bytes, get_float, get_none),
        tuple[int, str, bytes, float, None],
    )
    assert_type(
        await gather(get_int, get_str, get_bytes, get_float, get_none, get_list),
        tuple[int, str, bytes, float, None, list[int]],
    )
    assert_type(
        await gather(get_int, get_str, get_bytes, get_float, get_none, get_list, get_tuple),
        tuple[int, str, bytes, float, None, list[int], tuple[int, str]],
    )
    assert_type(
        await gather(get_int, get_str, get_bytes, get_float, get_none, get_list, get_tuple, get_set),
        tuple[int, str, bytes, float, None, list[int], tuple[int, str], set[str]],
    )


async def gathered_beyond_eight(fns: list[Callable[[], Awaitable[int]]]) -> None:
    assert_type(
        await gather(get_int, get_int, get_int, get_int, get_int, get_int, get_int, get_int, get_int),
        tuple[int, ...],
    )
    assert_type(await gather(*fns), tuple[int, ...])
    assert_type(await gather_outcomes(*fns), tuple[Value[int] | Error, ...])


async def gathered_partials_and_lambdas() -> None:
    assert_type(await gather(partial(read, "a", 3), partial(length, "a")), tuple[bytes, int])
    assert_type(await gather(lambda: length("a"), get_str), tuple[int, str])
    user, orders = await gather(get_str, get_list)
    assert_type(user, str)
    assert_type(orders, list[int])


async def gathered_outcomes() -> None:
    assert_type(await gather_outcomes(), tuple[()])
    assert_type(await gather_outcomes(get_int), tuple[Value[int] | Error])
    assert_type(await gather_outcomes(get_int, get_str), tuple[Value[int] | Error, Value[str] | Error])
    a, b, c, d, e, f, g, h = await gather_outcomes(
        get_int, get_str, get_bytes, get_float, get_none, get_list, get_tuple, get_set
    )
    assert_type(a, Value[int] | Error)
    assert_type(b, Value[str] | Error)
    assert_type(c, Value[bytes] | Error)
    assert_type(d, Value[float] | Error)
    assert_type(e, Value[None] | Error)
    assert_type(f, Value[list[int]] | Error)
    assert_type(g, Value[tuple[int, str]] | Error)
    assert_type(h, Value[set[str]] | Error)
    assert_type(a.unwrap(), int)
    three = await gather_outcomes(get_int, get_str, get_bytes)
    assert_type(three, tuple[Value[int] | Error, Value[str] | Error, Value[bytes] | Error])
    four = await gather_outcomes(get_int, get_str, get_bytes, get_float)
    assert_type(four[3], Value[float] | Error)
    five = await gather_outcomes(get_int, get_str, get_bytes, get_float, get_none)
    assert_type(five[4], Value[None] | Error)
    six = await gather_outcomes(get_int, get_str, get_bytes, get_float, get_none, get_list)
    assert_type(six[5], Value[list[int]] | Error)
    seven = await gather_outcomes(get_int, get_str, get_bytes, get_float, get_none, get_list, get_tuple)
    assert_type(seven[6], Value[tuple[int, str]] | Error)
    nine = await gather_outcomes(get_int, get_int, get_int, get_int, get_int, get_int, get_int, get_int, get_int)
    assert_type(nine, tuple[Value[int] | Error, ...])


async def the_first_of_several() -> None:
    assert_type(await race(get_int, get_int), int)
    assert_type(await first_success(get_int, get_int), int)
    assert_type(await first_success(partial(length, "a"), get_int, stagger=0.25), int)
    either: int | str = await race(get_int, get_str)
    first: int | str = await first_success(get_int, get_str, stagger=None)
    assert either == first


async def mapped() -> None:
    assert_type(await amap(length, ["a"]), list[int])
    assert_type(await amap(length, (name for name in ["a"]), limit=3), list[int])
    assert_type(await amap(partial(read, size=3), {"a": 1}, limit=None), list[bytes])

    async def double(number: int) -> float:
        return number * 2

    assert_type(await amap(double, numbers()), list[float])
    send, receive = trio.open_memory_channel[int](0)
    assert_type(await amap(double, receive), list[float])
    await send.aclose()


async def streamed() -> None:
    async with open_amap(length, ["a"], limit=3) as results:
        assert_type(results, AmapResults[str, int])
        async for capture in results:
            assert_type(capture, ItemCapture[str, int])
            assert_type(capture.item, str)
            results.add("b")
            results.add(3)  # type: ignore[arg-type]  # not what it takes
            assert_type(capture.result(), int)
    async with open_amap(length) as results:
        assert_type(results, AmapResults[str, int])
    async with open_amap(length, ["a"], limit=None, ordered=True, suppress_exception=True) as results:
        assert_type([capture.result() async for capture in results], list[int])
    open_amap(length, suppress_exception=(ValueError, OSError))
    open_amap(length, suppress_exception=BaseException)  # type: ignore[arg-type]  # Ctrl-C is never suppressed


async def raced() -> None:
    def close(value: int | str) -> None: ...

    assert_type(await race(get_int, get_str), int | str)
    assert_type(await race(get_int, get_str, discard=close), int | str)
    assert_type(await first_success(get_int, get_str, stagger=1, catch=(OSError, ValueError)), int | str)
    assert_type(await first_success(*[get_int] * 20), int)
    await race(get_int, discard=3)  # type: ignore[call-overload]  # not a function
    await first_success(get_int, catch=ValueError())  # type: ignore[call-overload]  # not a type


async def mistakes() -> None:
    await gather(get_int())  # type: ignore[call-overload]  # a coroutine
    await gather(synchronous)  # type: ignore[arg-type]  # not async
    await gather(length)  # type: ignore[arg-type]  # needs an argument
    await gather([get_int, get_str])  # type: ignore[call-overload]  # a list
    await gather_outcomes(get_int())  # type: ignore[call-overload]  # a coroutine
    await race(get_int())  # type: ignore[call-overload]  # a coroutine
    await first_success(get_int())  # type: ignore[call-overload]  # a coroutine
    await first_success(get_int, stagger="3")  # type: ignore[call-overload]  # not a number
    await first_success(get_int, 0.25)  # type: ignore[call-overload]  # by name only
    await amap(length, [1])  # type: ignore[arg-type]  # not what it takes
    await amap(length, 3)  # type: ignore[arg-type]  # not iterable
    await amap(length("a"), ["a"])  # type: ignore[arg-type]  # a coroutine
    await amap(length, ["a"], 3)  # type: ignore[call-arg]  # by name only
    await amap(length, ["a"], limit="3")  # type: ignore[arg-type]  # not an integer
    await open_amap(length, ["a"])  # type: ignore[misc]  # not awaitable
    async for _ in open_amap(length, ["a"], limit=3):  # type: ignore[attr-defined]  # not entered
        pass
    with open_amap(length, ["a"], limit=3):  # type: ignore[attr-defined]  # not async
        pass
